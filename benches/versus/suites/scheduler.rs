//! Compares the scheduler with others: the cost of an empty task, the length of schedules, and
//! empty commands and sleeps beside ninja and make.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenwave_benches::{Page, Row, is_measuring};
use greenwave_scheduler::{Executor, Graph, GraphBuilder, Job, Limits, Needs, Resources, Stage, Step};
use greenwave_versus::scheduler::{Case, DURATIONS, FAMILIES, ranks};
use tokio::runtime::Runtime;

const ABOUT: &str = "
*Empty tasks*: eight chains, on a runtime of two threads. Times are per task and do not include
building the graph.

- *inline*: all stages in one task of the runtime (`run_inline`). *spawned*: each stage in its own
  task (`run_job`), called from a task of the runtime. Both have a limit of eight workers, and
  report progress, statistics and outcomes.
- *bare spawn and join*: spawns every task at once into a `JoinSet`, without a graph or a limit.
  *counters*: each task spawns the next of its chain when it ends, without a limit or outcomes.
- async_dag and dagrs: the same chains. Neither has a limit. dagrs stores every output, and is left
  out at a million tasks.

*Empty commands*: `true` in the same chains, two at a time. Greenwave starts it through `sh -c`, as
ninja does, in a new process group. make starts it without a shell.

*Schedules*: simulated averages over 500 tasks, 20 seeds, 2, 4 and 8 workers, and three
distributions of durations. Each value is a share of the best policy in the same case. The policies
are: level by level; first in, first out; ninja's depth order (the longest path, with equal
durations); the longest path with exact durations; and the longest path with durations learned from
five runs, in which each task took between half and twice its duration. *bound* is the longest path,
or the total work divided by the number of workers.

*Sleeps*: 160 tasks of 10 to 80 ms in chains and joins, on four workers. Values are wall times
divided by the bound. Greenwave is given exact durations.";

/// Expectations, from the issue that introduced the suite.
const INLINE_NS: f64 = 400.0;
const EXACT_PERCENT: f64 = 102.0;
const LEARNED_PERCENT: f64 = 105.0;
const EFFICIENCY_LOST_PERCENT: f64 = 5.0;
const OF_NINJA_PERCENT: f64 = 100.0;

const ROUNDS: usize = 5;
const CHAINS: usize = 8;

fn main() {
    if !is_measuring() {
        return;
    }
    let mut rows = Vec::new();
    empty_tasks(&mut rows);
    schedules(&mut rows);
    commands(&mut rows);
    sleeps(&mut rows);
    Page { suite: "versus-scheduler", about: ABOUT, rows }.publish();
}

fn chains(tasks: usize) -> Graph<()> {
    let mut graph = GraphBuilder::new();
    for task in 0..tasks {
        graph.task(task.to_string(), ());
    }
    for task in CHAINS..tasks {
        graph.depends_on(task.to_string(), (task - CHAINS).to_string());
    }
    graph.build().expect("edges lead forward")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio starts")
}

/// Returns a runtime with one thread, for work that only waits for child processes.
fn single_threaded() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts")
}

fn executor(workers: usize) -> Executor {
    let resources = Resources::new([("workers", workers as u32)]);
    Executor::new(Limits { resources, ..Limits::default() })
}

fn job<'a>() -> Job<'a, (), ()> {
    let one = Needs::nothing().of("workers", 1);
    Job::new().needs(move |_| one.clone())
}

fn empty_tasks(rows: &mut Vec<Row>) {
    let runtime = runtime();
    for tasks in [1_000, 10_000, 1_000_000] {
        let graph: &'static Graph<()> = Box::leak(Box::new(chains(tasks)));
        let rounds = if tasks > 100_000 { ROUNDS } else { ROUNDS * 10 };
        let mut found: Vec<Vec<f64>> = vec![Vec::new(); 6];
        for _ in 0..rounds {
            let times = [
                Some(time(|| inline(&runtime, graph))),
                Some(time(|| spawned(&runtime, graph))),
                Some(time(|| bare(&runtime, tasks))),
                Some(time(|| counters(&runtime, tasks))),
                Some(async_dag(&runtime, tasks)),
                (tasks < 100_000).then(|| dagrs(&runtime, tasks)),
            ];
            for (samples, time) in found.iter_mut().zip(times) {
                samples.extend(time.map(|time| time.as_nanos() as f64 / tasks as f64));
            }
        }
        let names = ["inline", "spawned", "bare spawn and join", "counters", "async_dag", "dagrs"];
        for (name, samples) in names.iter().zip(found).filter(|(_, samples)| !samples.is_empty()) {
            let row = Row::new(format!("empty task of {tasks}, {name}"), "ns", samples);
            rows.push(if *name == "inline" && tasks == 1_000_000 { row.at_most(INLINE_NS) } else { row });
        }
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn inline(runtime: &Runtime, graph: &Graph<()>) {
    let executor = executor(CHAINS);
    let report = runtime.block_on(executor.run_inline(graph, job(), |_| async { Step::Done(()) }));
    assert_eq!(report.expect("a task needs one worker").stats.done, graph.len());
}

fn spawned(runtime: &Runtime, graph: &'static Graph<()>) {
    let executor = executor(CHAINS);
    let run = async move { executor.run_job(graph, job(), |_| async { Step::Done(()) }).await };
    let report = runtime.block_on(runtime.spawn(run)).expect("the run does not panic");
    assert_eq!(report.expect("a task needs one worker").stats.done, graph.len());
}

fn bare(runtime: &Runtime, tasks: usize) {
    runtime.block_on(async {
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..tasks {
            set.spawn(async {});
        }
        while set.join_next().await.is_some() {}
    });
}

fn counters(runtime: &Runtime, tasks: usize) {
    fn step(at: usize, tasks: usize, done: Arc<AtomicUsize>, all: Arc<tokio::sync::Notify>) {
        tokio::spawn(async move {
            if done.fetch_add(1, Ordering::AcqRel) + 1 == tasks {
                all.notify_one();
            }
            if at + CHAINS < tasks {
                step(at + CHAINS, tasks, done, all);
            }
        });
    }
    runtime.block_on(async {
        let (done, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
        (0..CHAINS).for_each(|at| step(at, tasks, done.clone(), all.clone()));
        all.notified().await;
    });
}

fn async_dag(runtime: &Runtime, tasks: usize) -> Duration {
    let mut graph = async_dag::Graph::new();
    let mut nodes = Vec::with_capacity(tasks);
    for task in 0..tasks {
        nodes.push(match task.checked_sub(CHAINS) {
            None => graph.add_task(|| async { 0_u8 }),
            Some(before) => graph
                .add_child_task(nodes[before], |it: u8| async move { it }, 0)
                .expect("edges lead forward"),
        });
    }
    let took = time(|| runtime.block_on(graph.run()));
    assert_eq!(graph.get_value::<u8>(nodes[tasks - 1]), Some(0));
    took
}

#[derive(Default)]
struct EmptyAction;

#[async_trait::async_trait]
impl dagrs::Action for EmptyAction {
    async fn run(
        &self,
        _: &mut dagrs::InChannels,
        _: &mut dagrs::OutChannels,
        _: Arc<dagrs::EnvVar>,
    ) -> dagrs::Output {
        dagrs::Output::empty()
    }
}

fn dagrs(runtime: &Runtime, tasks: usize) -> Duration {
    use dagrs::Node as _;
    let mut table = dagrs::NodeTable::new();
    let mut graph = dagrs::Graph::new();
    let mut ids = Vec::with_capacity(tasks);
    runtime.block_on(async {
        for task in 0..tasks {
            let node = dagrs::DefaultNode::with_action(task.to_string(), EmptyAction, &mut table);
            ids.push(node.id());
            graph.add_node(node).expect("names differ");
        }
        for task in CHAINS..tasks {
            graph.add_edge(ids[task - CHAINS], vec![ids[task]]).expect("edges lead forward");
        }
        let begun = Instant::now();
        graph.async_start().await.expect("no task fails");
        begun.elapsed()
    })
}

fn schedules(rows: &mut Vec<Row>) {
    let names = [
        "level by level",
        "first in, first out",
        "depth",
        "longest path, exact",
        "longest path, learned",
        "bound",
    ];
    let (mut lost, mut bound_cases) = (0.0, 0);
    for family in FAMILIES {
        let mut sums = [0.0; 6];
        let mut count = 0.0;
        for (durations, workers, seed) in cases() {
            let case = Case::new(family, durations, 500, seed);
            let equal = vec![Duration::from_secs(1); case.graph.len()];
            let makespan = |ranks: &[u64]| case.makespan(ranks, workers).as_secs_f64();
            let found = [
                case.by_levels(workers).as_secs_f64(),
                makespan(&[]),
                makespan(&ranks(&case.graph, &equal)),
                makespan(&ranks(&case.graph, &case.durations)),
                makespan(&ranks(&case.graph, &case.learned(5, seed))),
            ];
            let best = found.iter().copied().fold(f64::INFINITY, f64::min);
            let bound = case.lower_bound(workers).as_secs_f64();
            found.iter().chain([&bound]).zip(&mut sums).for_each(|(found, sum)| *sum += found / best);
            count += 1.0;
            // Counts cases in which the total work is the bound, rather than the longest path.
            let work: Duration = case.durations.iter().sum();
            if work.as_secs_f64() / f64::from(workers) > bound * 0.999 && family != "fork and join" {
                lost += 1.0 - bound / found[3];
                bound_cases += 1;
            }
        }
        for (name, sum) in names.iter().zip(sums) {
            let row = Row::new(format!("schedule / best, {family}, {name}"), "%", [sum / count * 100.0]);
            rows.push(match *name {
                "longest path, exact" => row.at_most(EXACT_PERCENT),
                "longest path, learned" => row.at_most(LEARNED_PERCENT),
                _ => row,
            });
        }
    }
    let row = Row::new(
        "efficiency lost where the total work is the bound, except for fork and join",
        "%",
        [lost / f64::from(bound_cases) * 100.0],
    );
    rows.push(row.at_most(EFFICIENCY_LOST_PERCENT));
}

fn cases() -> impl Iterator<Item = (&'static str, u32, u64)> {
    DURATIONS.into_iter().flat_map(|durations| {
        [2, 4, 8].into_iter().flat_map(move |workers| (0..20).map(move |seed| (durations, workers, seed)))
    })
}

fn commands(rows: &mut Vec<Row>) {
    let runtime = single_threaded();
    for tasks in [1_000, 10_000] {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        write_commands(directory.path(), tasks);
        let graph: &'static Graph<()> = Box::leak(Box::new(chains(tasks)));
        let (mut greenwave, mut ninja, mut make) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..3 {
            greenwave.push(time(|| run_commands(&runtime, graph, |_| "true".to_owned(), 2)).as_secs_f64());
            ninja.push(program(directory.path(), "ninja", &["-j2", "--quiet"]).as_secs_f64());
            make.push(program(directory.path(), "make", &["-j2", "-s"]).as_secs_f64());
        }
        let of_ninja: Vec<f64> =
            greenwave.iter().zip(&ninja).map(|(greenwave, ninja)| greenwave / ninja * 100.0).collect();
        let row = Row::new(format!("{tasks} empty commands, Greenwave / ninja"), "%", of_ninja);
        rows.push(if tasks == 10_000 { row.at_most(OF_NINJA_PERCENT) } else { row });
        for (name, samples) in [("Greenwave", greenwave), ("ninja", ninja), ("make", make)] {
            rows.push(Row::new(format!("{tasks} empty commands, {name}"), "s", samples));
        }
    }
}

/// Writes a file for ninja and one for make. Their commands create no outputs, so that everything
/// always runs.
fn write_commands(directory: &Path, tasks: usize) {
    let (mut ninja, mut make) = (String::from("rule c\n  command = true\n"), String::from("all:"));
    for task in 0..tasks {
        let _ = write!(make, " t{task}");
    }
    make.push('\n');
    for task in 0..tasks {
        let before = task.checked_sub(CHAINS).map_or(String::new(), |before| format!(" t{before}"));
        let _ = writeln!(ninja, "build t{task}: c{before}");
        let _ = write!(make, "t{task}:{before}\n\t@true\n");
    }
    std::fs::write(directory.join("build.ninja"), ninja).expect("a file can be written");
    std::fs::write(directory.join("Makefile"), make).expect("a file can be written");
}

fn program(directory: &Path, name: &str, args: &[&str]) -> Duration {
    let mut command = Command::new(name);
    command.args(args).current_dir(directory).stdout(Stdio::null());
    time(|| assert!(command.status().expect("ninja and make are installed").success()))
}

fn run_commands(
    runtime: &Runtime,
    graph: &'static Graph<()>,
    script: impl Fn(Stage) -> String + Send + 'static,
    workers: usize,
) {
    let executor = executor(workers);
    let run = executor.run_inline(graph, job(), move |stage| {
        let script = script(stage);
        async move {
            let mut command = tokio::process::Command::new("/bin/sh");
            command.arg("-c").arg(script);
            let mut process = greenwave_process::Child::spawn(&mut command).expect("a shell can be started");
            let status = process.wait().await.expect("a child can be waited for");
            if status.success() { Step::Done(()) } else { Step::Failed(()) }
        }
    });
    let report = runtime.block_on(run).expect("a task needs one worker");
    assert_eq!(report.stats.done, graph.len());
}

fn sleeps(rows: &mut Vec<Row>) {
    const WORKERS: u32 = 4;
    let runtime = single_threaded();
    let (mut greenwave, mut ninja, mut make) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..3 {
        let mut case = Case::new("feature chains", "bimodal", 160, seed);
        // Scales durations of seconds down to between 10 and 80 ms.
        for duration in &mut case.durations {
            *duration = Duration::from_millis((duration.as_secs_f64() * 10.0).clamp(10.0, 80.0) as u64);
        }
        let bound = case.lower_bound(WORKERS).as_secs_f64();
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        write_sleeps(directory.path(), &case);
        let of_bound = |took: Duration| took.as_secs_f64() / bound * 100.0;
        ninja.push(of_bound(program(directory.path(), "ninja", &["-j4", "--quiet"])));
        make.push(of_bound(program(directory.path(), "make", &["-j4", "-s"])));
        let case: &'static Case = Box::leak(Box::new(case));
        let executor = executor(WORKERS as usize);
        let job = job().expected(|task| case.durations[task.index()]);
        let run = executor.run_inline(&case.graph, job, |stage| async move {
            let mut command = tokio::process::Command::new("/bin/sh");
            command.arg("-c").arg(format!("sleep {}", case.durations[stage.task.index()].as_secs_f64()));
            let mut process = greenwave_process::Child::spawn(&mut command).expect("a shell can be started");
            process.wait().await.expect("a child can be waited for");
            Step::Done(())
        });
        greenwave.push(of_bound(time(|| drop(runtime.block_on(run)))));
    }
    for (name, samples) in [("Greenwave", greenwave), ("ninja", ninja), ("make", make)] {
        rows.push(Row::new(format!("sleeps / bound, {name}"), "%", samples));
    }
}

fn write_sleeps(directory: &Path, case: &Case) {
    let mut ninja = String::from("rule c\n  command = sleep $s\n");
    let mut make = String::from("all:");
    for task in case.graph.tasks() {
        let _ = write!(make, " t{}", task.index());
    }
    make.push('\n');
    for task in case.graph.tasks() {
        let before: String =
            case.graph.dependencies(task).iter().map(|before| format!(" t{}", before.index())).collect();
        let (at, seconds) = (task.index(), case.durations[task.index()].as_secs_f64());
        let _ = writeln!(ninja, "build t{at}: c{before}\n  s = {seconds}");
        let _ = write!(make, "t{at}:{before}\n\t@sleep {seconds}\n");
    }
    std::fs::write(directory.join("build.ninja"), ninja).expect("a file can be written");
    std::fs::write(directory.join("Makefile"), make).expect("a file can be written");
}
