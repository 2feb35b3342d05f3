//! A real run killed with SIGKILL at any point and begun again: what was finished is not run again, what was not is.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use greenwave_scheduler::{Executor, Graph, GraphBuilder, Job, Journal, Limits, Needs, Resources, Step};

/// Names the journal's folder to the child, which is this same test binary.
const DIR: &str = "GREENWAVE_SCHEDULER_RESUME_DIR";
/// More rounds, for the long run.
const ROUNDS: &str = "GREENWAVE_CRASH_ROUNDS";
const TASKS: usize = 40;

fn graph() -> Graph<()> {
    let mut graph = GraphBuilder::new();
    for task in 0..TASKS {
        graph.task(task.to_string(), ());
    }
    for task in 3..TASKS {
        graph.depends_on(task.to_string(), (task / 2).to_string());
        graph.depends_on(task.to_string(), (task - 3).to_string());
    }
    graph.build().unwrap()
}

/// Not a test of its own: says what it runs and what is recorded, until it is done or killed.
#[test]
#[ignore = "the child of the test below"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let journal = Arc::new(Journal::open(dir).unwrap());
    let graph = graph();
    let done: Vec<_> = journal.finished().unwrap().keys().map(|id| graph.find(id).unwrap()).collect();
    let executor = Executor::new(Limits { resources: Resources::new([("workers", 3)]), ..Limits::default() });
    let job = Job::<(), String>::new().already_done(&done).needs(|_| Needs::nothing().of("workers", 1));
    let say = |text: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{text}").unwrap();
        out.flush().unwrap();
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let run = executor.run_job(&graph, job, |stage| {
        let (journal, task) = (journal.clone(), stage.task.index());
        async move {
            say(format!("runs {task}"));
            journal.record(&task.to_string(), b"").unwrap();
            say(format!("recorded {task}"));
            Step::Done(())
        }
    });
    let report = runtime.block_on(run).unwrap();
    say(format!("all {}", report.stats.done));
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let rounds = std::env::var(ROUNDS).map_or(6, |number| number.parse::<u64>().unwrap());
    for round in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        let mut recorded: HashSet<usize> = HashSet::new();
        // Each life is a little longer than the one before, so that the last one ends by itself.
        for life in 0.. {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "resume::child", "--ignored", "--nocapture"])
                .env(DIR, dir.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            let lives_on = (round * 7 + life * 13) % 23;
            let mut all = None;
            let mut said = HashSet::new();
            let mut heed = |line: String| {
                let number = |prefix| line.strip_prefix(prefix)?.parse::<usize>().ok();
                if let Some(task) = number("runs ") {
                    assert!(
                        !recorded.contains(&task),
                        "{task} was finished, and runs again in round {round}"
                    );
                }
                said.extend(number("recorded "));
                all = all.or(number("all "));
            };
            for line in lines.by_ref().take(lives_on as usize * 2) {
                heed(line);
            }
            child.kill().unwrap();
            // What it said before it died counts too.
            lines.for_each(&mut heed);
            let status = child.wait().unwrap();
            assert!(status.success() || status.signal() == Some(9), "the run failed by itself: {status}");
            recorded.extend(said);
            if let Some(all) = all {
                assert_eq!(all, TASKS);
                break;
            }
            assert!(life < 1000, "it never ends");
        }
        let finished = Journal::open(dir.path()).unwrap().finished().unwrap();
        assert_eq!(finished.len(), TASKS, "none was skipped that was not finished");
    }
}
