//! Child processes that fail, never exit or leave descendants behind, and tasks added at the end of
//! a run.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_scheduler::{
    Error, Executor, Graph, GraphBuilder, Job, Limits, NewTask, RunReport, Stage, Step, TaskFailure,
    TaskOutcome, TaskSender,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

fn graph(tasks: usize) -> Graph<()> {
    let mut graph = GraphBuilder::new();
    for task in 0..tasks {
        graph.task(task.to_string(), ());
    }
    graph.build().unwrap()
}

type Pipe = BufReader<tokio::process::ChildStdout>;

/// Runs each script as a task, and passes on its pipe after its first line of output.
async fn run(
    executor: &Executor,
    scripts: &'static [&'static str],
    pipes: mpsc::UnboundedSender<Pipe>,
) -> RunReport<(), String> {
    let stage = move |stage: Stage| {
        let pipes = pipes.clone();
        async move {
            let mut command = Command::new("sh");
            command.arg("-c").arg(scripts[stage.task.index()]).stdout(Stdio::piped());
            let mut group = greenwave_process::Child::spawn(&mut command).unwrap();
            let mut pipe = BufReader::new(group.take_stdout().unwrap());
            pipe.read_line(&mut String::new()).await.unwrap();
            pipes.send(pipe).unwrap();
            let status = group.wait().await.unwrap();
            match status.signal() {
                Some(signal) => Step::Failed(format!("signal {signal}")),
                None if status.success() => Step::Done(()),
                None => Step::Failed(status.to_string()),
            }
        }
    };
    executor.run_job(&graph(scripts.len()), Job::new(), stage).await.unwrap()
}

/// Waits for the end of the pipes, which end when all processes that hold them are gone.
async fn all_end(mut pipes: mpsc::UnboundedReceiver<Pipe>, count: usize) {
    for _ in 0..count {
        let mut pipe = pipes.recv().await.unwrap();
        let mut rest = Vec::new();
        let end = pipe.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_secs(20), end).await.expect("some process is alive").unwrap();
    }
}

const FOREVER: &str = "sleep 1000 & echo ready; trap '' TERM; while :; do wait; done";

#[tokio::test]
async fn a_child_killed_by_a_signal_fails_only_its_task() {
    let (sender, pipes) = mpsc::unbounded_channel();
    let report = run(&Executor::default(), &["echo; kill -9 $$", "echo; sleep 1000 & exit 0"], sender).await;
    assert!(
        matches!(&report.outcomes[0], TaskOutcome::Failed(TaskFailure::Task(text)) if text == "signal 9")
    );
    assert!(matches!(report.outcomes[1], TaskOutcome::Done(())));
    all_end(pipes, 2).await;
}

#[tokio::test]
async fn a_time_limit_kills_stubborn_children_and_their_descendants() {
    let mut executor = Executor::new(Limits::default());
    executor.stage_time_max = Some(Duration::from_millis(300));
    let (sender, pipes) = mpsc::unbounded_channel();
    let report = run(&executor, &[FOREVER, "echo; exit 3"], sender).await;
    assert!(
        matches!(report.outcomes[0], TaskOutcome::Failed(TaskFailure::TimedOut(_))),
        "{:?}",
        report.outcomes
    );
    assert!(
        matches!(&report.outcomes[1], TaskOutcome::Failed(TaskFailure::Task(text)) if text == "exit status: 3")
    );
    all_end(pipes, 2).await;
}

#[tokio::test]
async fn stopping_kills_children_and_their_descendants() {
    let executor = Executor::default();
    let stopper = executor.stopper();
    let (sender, mut pipes) = mpsc::unbounded_channel();
    let stop = async {
        let ready = [pipes.recv().await.unwrap(), pipes.recv().await.unwrap()];
        stopper.stop();
        ready
    };
    let (report, ready) = tokio::join!(run(&executor, &[FOREVER, FOREVER], sender), stop);
    assert!(report.outcomes.iter().all(|outcome| matches!(outcome, TaskOutcome::Stopped)));
    let (again, pipes) = mpsc::unbounded_channel();
    ready.into_iter().for_each(|pipe| again.send(pipe).unwrap());
    all_end(pipes, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_task_added_at_the_end_of_a_run_is_run_or_refused() {
    let graph: &'static Graph<()> = Box::leak(Box::new(graph(4)));
    for _ in 0..200 {
        let (sender, receiver) = TaskSender::<(), String>::channel();
        let ran = Arc::new(AtomicUsize::new(0));
        let outside: Vec<_> = (0..4)
            .map(|task| {
                let (sender, ran) = (sender.clone(), ran.clone());
                tokio::spawn(async move {
                    let mut accepted = 0;
                    for number in 0.. {
                        let ran = ran.clone();
                        let task = NewTask { id: format!("{task}/{number}"), ..NewTask::default() };
                        let stage = move |_| {
                            ran.fetch_add(1, Ordering::Relaxed);
                            async { Step::Done(()) }
                        };
                        match sender.add(task, stage).await {
                            Ok(_) => accepted += 1,
                            Err(Error::Ended { .. }) => return accepted,
                            Err(error) => panic!("{error}"),
                        }
                        // Several delays of each length, so that runs end at different points.
                        if number > 20 {
                            return accepted;
                        }
                    }
                    unreachable!("the row does not end")
                })
            })
            .collect();
        let run = async move {
            let executor = Executor::default();
            executor
                .run_job(graph, Job::new().new_tasks(receiver), |_| async { Step::Done(()) })
                .await
                .unwrap()
        };
        let report = tokio::spawn(run).await.unwrap();
        let mut accepted = 0;
        for task in outside {
            accepted += task.await.unwrap();
        }
        assert_eq!((report.outcomes.len(), ran.load(Ordering::Relaxed)), (4 + accepted, accepted));
        assert!(report.outcomes.iter().all(|outcome| matches!(outcome, TaskOutcome::Done(()))));
    }
}
