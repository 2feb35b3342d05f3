//! Closures of the caller that panic: each fails the task it was called for, or the call that it was
//! handed to, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use greenwave_scheduler::{
    Error, Executor, Graph, GraphBuilder, Job, Limits, LoadOptions, Needs, NewTask, Resources, RunReport,
    Stage, Step, TaskFailure, TaskId, TaskOutcome, TaskSender, Workers,
};

fn graph(tasks: usize) -> Graph<()> {
    let mut graph = GraphBuilder::new();
    for task in 0..tasks {
        graph.task(format!("t{task}"), ());
    }
    graph.build().unwrap()
}

fn executor() -> Executor {
    Executor::new(Limits { resources: Resources::new([("workers", 2)]), ..Limits::default() })
}

fn check(report: &RunReport<u32, String>) {
    let [TaskOutcome::Done(0), TaskOutcome::Failed(TaskFailure::Panicked(text)), TaskOutcome::Done(2)] =
        &report.outcomes[..]
    else {
        panic!("{:?}", report.outcomes)
    };
    assert_eq!(text, "boom");
    assert_eq!((report.stats.failed, report.stats.running, report.stats.in_flight), (1, 0, 0));
}

#[tokio::test]
async fn a_panic_before_the_future_of_a_stage_fails_its_task() {
    let stage = |stage: Stage| {
        let number = stage.task.index() as u32;
        assert!(number != 1, "boom");
        async move { Step::Done(number) }
    };
    check(&executor().run_job(&graph(3), Job::new(), stage).await.unwrap());
    check(&executor().run_inline(&graph(3), Job::new(), stage).await.unwrap());
}

#[tokio::test]
async fn a_panic_in_a_time_limit_fails_its_task() {
    let stage = |stage: Stage| async move { Step::Done(stage.task.index() as u32) };
    let limit = |task: TaskId| {
        assert!(task.index() != 1, "boom");
        None
    };
    check(&executor().run_job(&graph(3), Job::new().time_max(limit), stage).await.unwrap());
}

#[tokio::test]
async fn a_panic_before_the_future_of_an_added_stage_fails_its_task() {
    let (adder, added) = TaskSender::<u32, String>::channel();
    let stage = move |stage: Stage| {
        let adder = adder.clone();
        async move {
            let new = NewTask { id: "new".into(), ..NewTask::default() };
            adder.add(new, |_| -> std::future::Ready<Step<u32, String>> { panic!("boom") }).await.unwrap();
            Step::Done(stage.task.index() as u32)
        }
    };
    let report = executor().run_job(&graph(1), Job::new().new_tasks(added), stage).await.unwrap();
    assert!(matches!(report.outcomes[0], TaskOutcome::Done(0)));
    assert!(
        matches!(&report.outcomes[1], TaskOutcome::Failed(TaskFailure::Panicked(text)) if text == "boom")
    );
}

#[tokio::test]
async fn an_observer_that_panics_is_told_no_more_and_the_run_goes_on() {
    let mut told = 0;
    let observe = |_| {
        told += 1;
        assert!(told < 2, "enough");
    };
    let stage = |_: Stage| async { Step::<u32, String>::Done(1) };
    let report = executor().run_job(&graph(5), Job::new().observe(observe), stage).await.unwrap();
    assert_eq!(report.stats.done, 5);
    assert_eq!(report.observer_panic.as_deref(), Some("enough"));
    assert_eq!(told, 2);
}

#[tokio::test]
async fn a_panic_before_the_run_is_an_error_that_names_closure_and_task() {
    let stage = |_: Stage| async { Step::<u32, String>::Done(1) };
    let needs = |task: TaskId| {
        assert!(task.index() < 1, "boom");
        Needs::nothing()
    };
    let refused = executor().run_job(&graph(3), Job::new().needs(needs), stage).await.unwrap_err();
    assert_eq!(refused.to_string(), "`needs` panicked for task `t1`: boom");
    let expected = |task: TaskId| {
        assert!(task.index() < 2, "boom");
        Duration::ZERO
    };
    let refused = executor().run_job(&graph(3), Job::new().expected(expected), stage).await.unwrap_err();
    assert_eq!(refused.to_string(), "`expected` panicked for task `t2`: boom");
}

#[tokio::test(start_paused = true)]
async fn a_sampler_that_panics_leaves_the_workers_as_they_are() {
    let mut executor = executor();
    let sampler = Arc::new(|| panic!("boom"));
    executor.workers =
        Workers { follow: Some(LoadOptions { min: 1, every: Duration::from_millis(10), sampler }) };
    let stage = |_: Stage| async {
        tokio::time::sleep(Duration::from_millis(25)).await;
        Step::<u32, String>::Done(1)
    };
    let needs = |_| Needs::nothing().of("workers", 1);
    let report = executor.run_job(&graph(5), Job::new().needs(needs), stage).await.unwrap();
    assert_eq!(report.stats.done, 5);
}

#[tokio::test]
async fn errors_of_later_stages_name_the_task() {
    let stage = |stage: Stage| async move {
        match (stage.task.index(), stage.number) {
            (1, 1) | (3, _) => Step::Next(Needs::nothing().of("workers", 3)),
            (1, 0) => Step::Next(Needs::nothing().of("workers", 1)),
            _ => Step::<u32, String>::Done(1),
        }
    };
    let report = executor().run_job(&graph(2), Job::new(), stage).await.unwrap();
    let TaskOutcome::Failed(TaskFailure::Unschedulable(error)) = &report.outcomes[1] else {
        panic!("{report:?}")
    };
    assert_eq!(error.to_string(), "task `t1` needs 3 of resource `workers`, of which there are 2");

    let (adder, added) = TaskSender::<u32, String>::channel();
    let add = move |_: Stage| {
        let adder = adder.clone();
        async move {
            let new = NewTask { id: "new".into(), ..NewTask::default() };
            adder.add(new, |_| async { Step::Next(Needs::nothing().of("gpu", 1)) }).await.unwrap();
            Step::Done(1)
        }
    };
    let report = executor().run_job(&graph(1), Job::new().new_tasks(added), add).await.unwrap();
    let TaskOutcome::Failed(TaskFailure::Unschedulable(error)) = &report.outcomes[1] else {
        panic!("{report:?}")
    };
    assert_eq!(error.to_string(), "task `new` needs 1 of resource `gpu`, of which there are 0");
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused() {
    let (adder, added) = TaskSender::<u32, String>::channel();
    let stage = move |_: Stage| {
        let adder = adder.clone();
        async move {
            let add = |id: &str| {
                let new = NewTask { id: id.to_owned(), ..NewTask::default() };
                adder.add(new, |_| async { Step::<u32, String>::Done(2) })
            };
            assert!(matches!(add("t0").await, Err(Error::DuplicateTask { id }) if id == "t0"));
            assert_eq!(add("new").await.unwrap().index(), 1);
            assert!(matches!(add("new").await, Err(Error::DuplicateTask { id }) if id == "new"));
            Step::Done(1)
        }
    };
    let report = executor().run_job(&graph(1), Job::new().new_tasks(added), stage).await.unwrap();
    assert!(matches!(report.outcomes[..], [TaskOutcome::Done(1), TaskOutcome::Done(2)]), "{report:?}");
}

#[tokio::test]
async fn an_executor_that_was_stopped_can_run_again() {
    let executor = executor();
    let stopper = executor.stopper();
    let stage = |_: Stage| async { Step::<u32, String>::Done(1) };
    stopper.stop();
    let report = executor.run_job(&graph(2), Job::new(), stage).await.unwrap();
    assert!(matches!(report.outcomes[..], [TaskOutcome::Stopped, TaskOutcome::Stopped]));
    assert!(stopper.is_stopped());
    stopper.reset();
    assert!(!stopper.is_stopped());
    let report = executor.run_job(&graph(2), Job::new(), stage).await.unwrap();
    assert!(matches!(report.outcomes[..], [TaskOutcome::Done(1), TaskOutcome::Done(1)]));
}
