//! Models of a run that receives added tasks, waits for them, or ends, in which loom tries every
//! interleaving of a few threads. The queue is the scheduler's; only its lock and waker are
//! replaced by loom's. Run by `cargo xtask loom`.
//!
//! Replies use tokio's oneshot channel, which counts as one step here: tokio has its own models.
//! Likewise, the executor's other hand-offs use tokio's `JoinSet` and `watch`.

#![cfg(all(greenwave_loom, test))]

use loom::future::block_on;
use loom::thread;

use greenwave_scheduler::{Error, NewTask, Step, TaskSender};

async fn add(sender: &TaskSender<(), ()>) -> Result<usize, Error> {
    let stage = |_| async { Step::Done(()) };
    sender.add(NewTask::default(), stage).await.map(|task| task.index())
}

#[test]
fn a_waiting_run_receives_a_task() {
    loom::model(|| {
        let (sender, mut receiver) = TaskSender::channel();
        let adding = thread::spawn(move || block_on(add(&sender)).unwrap());
        block_on(receiver.accept(7));
        assert_eq!(adding.join().unwrap(), 7);
    });
}

#[test]
fn a_task_sent_at_the_end_of_a_run_is_refused() {
    loom::model(|| {
        let (sender, receiver) = TaskSender::channel();
        let adding = thread::spawn(move || block_on(add(&sender)));
        drop(receiver);
        assert!(matches!(adding.join().unwrap(), Err(Error::Ended { .. })));
    });
}

/// Three threads have too many interleavings, so each thread is preempted at most twice.
#[test]
fn two_concurrent_tasks_are_each_accepted_or_refused() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (sender, mut receiver) = TaskSender::channel();
        let others = sender.clone();
        let first = thread::spawn(move || block_on(add(&sender)).is_ok());
        let second = thread::spawn(move || block_on(add(&others)).is_ok());
        // The run accepts one task and ends.
        block_on(receiver.accept(0));
        drop(receiver);
        assert!(first.join().unwrap() != second.join().unwrap());
    });
}
