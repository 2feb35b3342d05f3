//! Measures the overhead of the scheduler with empty tasks: decisions alone, and execution on
//! tokio.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use greenwave_benches::{Page, Row, criterion, is_measuring, samples};
use greenwave_scheduler::{
    Action, DispatchEvent, Dispatcher, Durations, Executor, Graph, GraphBuilder, Limits, Needs, Resources,
    Step,
};

const ABOUT: &str = "
Empty tasks form eight chains with edges between neighboring chains, on eight workers. `dispatcher`
makes all decisions with a new dispatcher. `executor` also runs each task as a tokio task on two
threads. Times are per task and do not include building the graph. The suite `versus-scheduler`
compares the scheduler with rivals.";

/// Numbers of tasks, each with the expected nanoseconds per task of the dispatcher and the
/// executor.
///
/// The executor may take twice the time of the cheapest prototype that spawns its tasks (a heap and
/// a `JoinSet`, 600 ns), since it also reports progress and statistics. The value for the
/// dispatcher is a guess.
const EXPECTED: [(usize, f64, f64); 2] = [(1_000, 400.0, 1_200.0), (10_000, 400.0, 1_200.0)];

const CHAINS: usize = 8;

fn graph(tasks: usize) -> Graph<()> {
    let mut graph = GraphBuilder::new();
    for task in 0..tasks {
        graph.task(task.to_string(), ());
    }
    for task in CHAINS..tasks {
        graph.depends_on(task.to_string(), (task - CHAINS).to_string());
        if task % CHAINS > 0 {
            graph.depends_on(task.to_string(), (task - CHAINS - 1).to_string());
        }
    }
    graph.build().expect("edges lead from lower numbers to higher ones")
}

fn limits() -> Limits {
    Limits { resources: Resources::new([("workers", CHAINS as u32)]), ..Limits::default() }
}

fn needs() -> Needs {
    Needs::nothing().of("workers", 1)
}

/// Makes all decisions of a run in which each task ends as soon as it starts.
fn decide(graph: &Graph<()>) -> usize {
    // Tasks with lower numbers have longer paths ahead.
    let ranks: Vec<u64> = (0..graph.len() as u64).rev().collect();
    let mut dispatcher =
        Dispatcher::new(graph, limits(), &ranks, |_| needs()).expect("eight workers are enough");
    let (mut actions, mut running, mut ended) = (Vec::new(), std::collections::VecDeque::new(), 0);
    let mut event = DispatchEvent::Begin;
    loop {
        dispatcher.handle(Duration::ZERO, event, &mut actions).expect("needs do not change");
        running.extend(actions.drain(..).filter_map(|action| match action {
            Action::Start(task) => Some(task),
            Action::Skip(..) => None,
        }));
        let Some(task) = running.pop_front() else { return ended };
        ended += 1;
        event = DispatchEvent::Done(task);
    }
}

async fn run(graph: &Graph<()>) -> usize {
    let executor = Executor::new(limits());
    let stage = |_| async { Step::<(), ()>::Done(()) };
    let report = executor.run(graph, |_| Durations::DEFAULT, &[], |_| needs(), stage, |_| {}).await;
    report.expect("eight workers are enough").stats.done
}

fn measure(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime can be created");
    let mut group = criterion.benchmark_group("scheduler");
    for (tasks, ..) in EXPECTED {
        let graph = graph(tasks);
        group.throughput(Throughput::Elements(tasks as u64)).sample_size(50);
        assert_eq!((decide(&graph), runtime.block_on(run(&graph))), (tasks, tasks), "every task runs");
        group.bench_function(BenchmarkId::new("dispatcher", tasks), |bencher| {
            bencher.iter(|| decide(black_box(&graph)));
        });
        group.bench_function(BenchmarkId::new("executor", tasks), |bencher| {
            bencher.to_async(&runtime).iter(|| run(black_box(&graph)));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    measure(&mut criterion);
    criterion.final_summary();
    if !is_measuring() {
        return;
    }
    let mut rows = Vec::new();
    for (tasks, dispatcher, executor) in EXPECTED {
        for (name, limit) in [("dispatcher", dispatcher), ("executor", executor)] {
            let all = samples(&format!("scheduler/{name}/{tasks}")).into_iter();
            let each =
                all.map(|samples| samples.into_iter().map(|time| time / tasks as f64).collect::<Vec<_>>());
            rows.extend(
                each.map(|each| Row::new(format!("{name}, {tasks} tasks"), "ns", each).at_most(limit)),
            );
        }
    }
    Page { suite: "scheduler", about: ABOUT, rows }.publish();
}
