//! Every interleaving of a few threads, by loom: tasks that are added to a run while it takes them in, waits for them, or ends. The queue is the
//! scheduler's own; only its lock and its waker are loom's. Run by `cargo xtask loom`.
//!
//! The answers go through tokio's channel for one value, which counts as one step here: tokio has models of its own. What else the executor
//! hands over goes through tokio's task sets and watches.

#![cfg(all(greenwave_loom, test))]

use loom::future::block_on;
use loom::thread;

use greenwave_scheduler::{TaskSender, Error, NewTask, Step};

async fn add(adder: &TaskSender<(), ()>) -> Result<usize, Error> {
    let stage = |_| async { Step::Done(()) };
    adder.add(NewTask::default(), stage).await.map(|task| task.index())
}

#[test]
fn a_run_that_waits_hears_of_a_task() {
    loom::model(|| {
        let (adder, mut added) = TaskSender::channel();
        let adding = thread::spawn(move || block_on(add(&adder)).unwrap());
        block_on(added.accept(7));
        assert_eq!(adding.join().unwrap(), 7);
    });
}

#[test]
fn what_comes_as_the_run_ends_is_refused_and_nobody_waits_for_ever() {
    loom::model(|| {
        let (adder, added) = TaskSender::channel();
        let adding = thread::spawn(move || block_on(add(&adder)));
        drop(added);
        assert!(matches!(adding.join().unwrap(), Err(Error::Ended { .. })));
    });
}

/// Three threads have too many interleavings for all of them: those in which none is interrupted more than twice.
#[test]
fn of_two_tasks_each_is_taken_or_refused() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (adder, mut added) = TaskSender::channel();
        let others = adder.clone();
        let first = thread::spawn(move || block_on(add(&adder)).is_ok());
        let second = thread::spawn(move || block_on(add(&others)).is_ok());
        // The run takes one and ends.
        block_on(added.accept(0));
        drop(added);
        assert!(first.join().unwrap() != second.join().unwrap());
    });
}
