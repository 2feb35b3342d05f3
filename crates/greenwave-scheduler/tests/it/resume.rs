//! Kills a real run with SIGKILL at many points and restarts it. Finished tasks are not repeated,
//! and all others run.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use greenwave_scheduler::{Executor, Graph, GraphBuilder, Job, Journal, Limits, Needs, Resources, Step};

/// Passes the journal's directory to the child process, which is this test binary.
const DIR: &str = "GREENWAVE_SCHEDULER_RESUME_DIR";
/// Number of rounds, for long runs.
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

/// The child process: prints the tasks that it runs and records, until it finishes or is killed.
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
fn a_killed_run_resumes_from_its_journal() {
    let rounds = std::env::var(ROUNDS).map_or(6, |number| number.parse::<u64>().unwrap());
    for round in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        let mut recorded: HashSet<usize> = HashSet::new();
        // Each process lives a little longer than the one before, so that the last one finishes.
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
            let mut handle_line = |line: String| {
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
                handle_line(line);
            }
            child.kill().unwrap();
            // Output from before the kill counts too.
            lines.for_each(&mut handle_line);
            let status = child.wait().unwrap();
            assert!(
                status.success() || status.signal() == Some(9),
                "the run failed without a kill: {status}"
            );
            recorded.extend(said);
            if let Some(all) = all {
                assert_eq!(all, TASKS);
                break;
            }
            assert!(life < 1000, "it has not ended");
        }
        let finished = Journal::open(dir.path()).unwrap().finished().unwrap();
        assert_eq!(finished.len(), TASKS, "only finished tasks are skipped");
    }
}
