//! Tasks that hand their results to the tasks which depend on them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenwave_scheduler::{
    Error, Executor, Flow, FlowFailure, Limits, Needs, Resources, Retry, TaskFailure, TaskOptions,
    TaskOutcome,
};
use tokio::sync::oneshot;

type Outcome = TaskOutcome<(), FlowFailure<String>>;

fn executor() -> Executor {
    let resources = Resources::new([("workers", 1)]);
    let retry = Retry { delay_min: Duration::ZERO, ..Retry::default() };
    let mut executor = Executor::new(Limits { resources, ..Limits::default() });
    executor.retry = retry;
    executor
}

#[tokio::test]
async fn results_reach_the_tasks_that_depend_on_them() {
    let mut flow = Flow::<String>::new();
    let number = flow.task("number", (), |()| async { Ok(6_u64) });
    let text = flow.task("text", (), |()| async { Ok("seven".to_owned()) });
    let parts: Vec<_> = (0..3_u64)
        .map(|at| flow.task(format!("part {at}"), number, move |n| async move { Ok(*n + at) }))
        .collect();
    let all = flow.task("all", (text, parts, number), |(text, parts, number)| async move {
        Ok(format!("{text} {} {number}", parts.iter().map(|part| **part).sum::<u64>()))
    });
    let report = flow.run(&executor()).await.unwrap();
    assert!(report.is_complete());
    assert_eq!(report.get(all).as_deref().map(String::as_str), Some("seven 21 6"));
    // A result is shared, not copied.
    let (one, other) = (report.get(text).unwrap(), report.get(text).unwrap());
    assert!(Arc::ptr_eq(&one, &other));
}

#[tokio::test]
async fn tasks_after_a_failed_one_are_skipped() {
    let mut flow = Flow::<String>::new();
    let fails = flow.task("fails", (), |()| async { Err::<u32, _>("no".to_owned()) });
    let panics = flow.task("panics", (), |()| async { if true { panic!("oh") } else { Ok(1_u32) } });
    let after = flow.task("after", (fails, panics), |(one, two)| async move { Ok(*one + *two) });
    let apart = flow.task("apart", (), |()| async { Ok(1_u32) });
    let report = flow.run(&executor()).await.unwrap();
    let outcome = |task| -> &Outcome { report.outcome(task).unwrap() };
    assert!(
        matches!(outcome(fails), TaskOutcome::Failed(TaskFailure::Task(FlowFailure::Task(error))) if error == "no")
    );
    assert!(matches!(outcome(panics), TaskOutcome::Failed(TaskFailure::Panicked(_))));
    assert!(matches!(outcome(after), TaskOutcome::Skipped(_)));
    assert_eq!((report.get(after), report.get(apart).as_deref()), (None, Some(&1)));
    assert!(!report.is_complete());
}

#[tokio::test]
async fn a_task_is_repeated_as_often_as_it_says() {
    let calls = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let mut flow = Flow::<String>::new();
    let counted = |at: usize| {
        let calls = Arc::clone(&calls);
        move |()| {
            let call = calls[at].fetch_add(1, Ordering::Relaxed);
            async move { if call < 5 { Err("not yet".to_owned()) } else { Ok(call) } }
        }
    };
    let often = flow.task_with("often", TaskOptions::new().retries(5), (), counted(0));
    let once = flow.task("once", (), counted(1));
    let report = flow.run(&executor()).await.unwrap();
    assert_eq!(report.get(often).as_deref(), Some(&5));
    assert_eq!(report.get(once), None);
    assert_eq!(calls.each_ref().map(|calls| calls.load(Ordering::Relaxed)), [6, 1]);
}

#[tokio::test(start_paused = true)]
async fn time_limits_needs_and_priorities_are_those_of_the_task() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut flow = Flow::<String>::new();
    let worker = || TaskOptions::new().needs(Needs::nothing().of("workers", 1));
    let mut add = |name: &'static str, priority| {
        let order = Arc::clone(&order);
        flow.task_with(name, worker().priority(priority), (), move |()| {
            order.lock().unwrap().push(name);
            async { Ok(()) }
        })
    };
    let _ = [add("low", -1), add("normal", 0), add("high", 7)];
    let endless = TaskOptions::new().time_max(Duration::from_secs(1));
    let endless = flow.task_with("endless", endless, (), |()| std::future::pending::<Result<(), _>>());
    let report = flow.run(&executor()).await.unwrap();
    assert_eq!(*order.lock().unwrap(), ["high", "normal", "low"]);
    let limit = Duration::from_secs(1);
    assert!(
        matches!(report.outcome(endless), Some(TaskOutcome::Failed(TaskFailure::TimedOut(it))) if *it == limit)
    );
}

/// Sends a message when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().map(|sender| sender.send(()));
    }
}

#[tokio::test]
async fn a_cancelled_task_is_dropped_and_those_after_it_are_skipped() {
    let (dropped, was_dropped) = oneshot::channel();
    let (began, has_begun) = oneshot::channel();
    let once = Mutex::new(Some((Dropped(Some(dropped)), began)));
    let mut flow = Flow::<String>::new();
    let runs = flow.task("runs", (), move |()| {
        let (guard, began) = once.lock().unwrap().take().unwrap();
        async move {
            let _guard = guard;
            let _ = began.send(());
            std::future::pending::<Result<u32, String>>().await
        }
    });
    let after = flow.task("after", runs, |value| async move { Ok(*value) });
    let begun = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&begun);
    let waits = flow.task("waits", (), move |()| {
        counter.fetch_add(1, Ordering::Relaxed);
        async { Ok(1_u32) }
    });
    let apart = flow.task("apart", (), |()| async { Ok(2_u32) });
    let canceller = flow.canceller();
    assert!(canceller.cancel(waits));
    let running = tokio::spawn(async move { flow.run(&executor()).await.unwrap() });
    has_begun.await.unwrap();
    assert!(canceller.cancel(runs));
    was_dropped.await.unwrap();
    let report = running.await.unwrap();
    let is_cancelled = |task| {
        matches!(report.outcome(task), Some(TaskOutcome::Failed(TaskFailure::Task(FlowFailure::Cancelled))))
    };
    assert!(is_cancelled(runs) && is_cancelled(waits));
    assert!(matches!(report.outcome(after), Some(TaskOutcome::Skipped(id)) if *id == runs.task()));
    assert_eq!((report.get(apart).as_deref(), begun.load(Ordering::Relaxed)), (Some(&2), 0));
    // It keeps its outcome.
    assert!(canceller.cancel(apart));
}

#[tokio::test]
async fn tasks_of_another_flow_and_equal_names_are_refused() {
    let (mut one, mut other) = (Flow::<String>::new(), Flow::<String>::new());
    let own = one.task("own", (), |()| async { Ok(1_u32) });
    let _ = other.task("far", own, |value| async move { Ok(*value) });
    assert!(!other.canceller().cancel(own));
    let refused = other.run(&executor()).await.unwrap_err();
    assert!(matches!(&refused, Error::ForeignTask { id } if id == "far"), "{refused}");
    let _ = one.task("own", (), |()| async { Ok(1_u32) });
    let refused = one.run(&executor()).await.unwrap_err();
    assert!(matches!(&refused, Error::DuplicateTask { id } if id == "own"), "{refused}");
    let empty = Flow::<String>::new().run(&executor()).await.unwrap();
    assert!(empty.is_complete() && empty.get(own).is_none() && empty.outcome(own).is_none());
}
