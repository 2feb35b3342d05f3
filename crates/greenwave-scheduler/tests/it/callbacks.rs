//! Panics in closures of the caller. Each fails the task or call that the closure ran for, and
//! nothing else.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
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
async fn a_panic_while_creating_a_stage_fails_its_task() {
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

/// Panics when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("boom");
    }
}

/// A future that is ready at once, or never, and panics when it is dropped.
struct DropPanics {
    ready: bool,
    _guard: PanicsOnDrop,
}

impl Future for DropPanics {
    type Output = Step<u32, String>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.ready { Poll::Ready(Step::Done(1)) } else { Poll::Pending }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_dropping_a_stage_fails_its_task() {
    let limited = |ready| {
        move |stage: Stage| {
            let number = stage.task.index() as u32;
            async move {
                match number {
                    1 => DropPanics { ready, _guard: PanicsOnDrop }.await,
                    _ => Step::Done(number),
                }
            }
        }
    };
    let mut executor = executor();
    executor.stage_time_max = Some(Duration::from_millis(5));
    for report in [
        executor.run_job(&graph(3), Job::new(), limited(false)).await.unwrap(),
        executor.run_inline(&graph(3), Job::new(), limited(false)).await.unwrap(),
    ] {
        let [TaskOutcome::Done(0), TaskOutcome::Failed(TaskFailure::TimedOut(_)), TaskOutcome::Done(2)] =
            &report.outcomes[..]
        else {
            panic!("{:?}", report.outcomes)
        };
        assert_eq!((report.stats.running, report.stats.in_flight), (0, 0));
    }
    let ready = |stage: Stage| {
        let is_guarded = stage.task.index() == 1;
        let value = stage.task.index() as u32;
        let plain = (!is_guarded).then(|| std::future::ready(Step::Done(value)));
        let guarded = is_guarded.then(|| DropPanics { ready: true, _guard: PanicsOnDrop });
        EitherStage { plain, guarded }
    };
    check(&executor.run_job(&graph(3), Job::new(), ready).await.unwrap());
    check(&executor.run_inline(&graph(3), Job::new(), ready).await.unwrap());
}

/// One of two futures, which is not dropped before this one.
struct EitherStage {
    plain: Option<std::future::Ready<Step<u32, String>>>,
    guarded: Option<DropPanics>,
}

impl Future for EitherStage {
    type Output = Step<u32, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match (&mut this.plain, &mut this.guarded) {
            (Some(plain), _) => Pin::new(plain).poll(context),
            (None, Some(guarded)) => Pin::new(guarded).poll(context),
            (None, None) => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn a_panic_while_dropping_a_stopped_stage_ends_the_run() {
    for inline in [false, true] {
        let executor = executor();
        let stopper = executor.stopper();
        let stage = |stage: Stage| {
            if stage.task.index() == 0 {
                stopper.stop();
            }
            DropPanics { ready: false, _guard: PanicsOnDrop }
        };
        let graph = graph(3);
        let run = async {
            if inline {
                executor.run_inline(&graph, Job::new(), stage).await
            } else {
                executor.run_job(&graph, Job::new(), stage).await
            }
        };
        let report = tokio::time::timeout(Duration::from_secs(20), run).await.unwrap().unwrap();
        assert!(report.outcomes.iter().all(|outcome| matches!(outcome, TaskOutcome::Stopped)), "{report:?}");
    }
}

#[tokio::test]
async fn a_panic_while_creating_an_added_stage_fails_its_task() {
    let (sender, receiver) = TaskSender::<u32, String>::channel();
    let stage = move |stage: Stage| {
        let sender = sender.clone();
        async move {
            let new = NewTask { id: "new".into(), ..NewTask::default() };
            sender.add(new, |_| -> std::future::Ready<Step<u32, String>> { panic!("boom") }).await.unwrap();
            Step::Done(stage.task.index() as u32)
        }
    };
    let report = executor().run_job(&graph(1), Job::new().new_tasks(receiver), stage).await.unwrap();
    assert!(matches!(report.outcomes[0], TaskOutcome::Done(0)));
    assert!(
        matches!(&report.outcomes[1], TaskOutcome::Failed(TaskFailure::Panicked(text)) if text == "boom")
    );
}

#[tokio::test]
async fn a_panicking_observer_is_not_called_again_and_the_run_continues() {
    let mut observed = 0;
    let observe = |_| {
        observed += 1;
        assert!(observed < 2, "enough");
    };
    let stage = |_: Stage| async { Step::<u32, String>::Done(1) };
    let report = executor().run_job(&graph(5), Job::new().observe(observe), stage).await.unwrap();
    assert_eq!(report.stats.done, 5);
    assert_eq!(report.observer_panic.as_deref(), Some("enough"));
    assert_eq!(observed, 2);
}

#[tokio::test]
async fn a_panic_before_the_run_is_an_error_with_closure_and_task() {
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
async fn a_panicking_sampler_does_not_change_the_workers() {
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
    assert_eq!(error.to_string(), "invalid number 3 of resource `workers` for task `t1`: expected at most 2");

    let (sender, receiver) = TaskSender::<u32, String>::channel();
    let add = move |_: Stage| {
        let sender = sender.clone();
        async move {
            let new = NewTask { id: "new".into(), ..NewTask::default() };
            sender.add(new, |_| async { Step::Next(Needs::nothing().of("gpu", 1)) }).await.unwrap();
            Step::Done(1)
        }
    };
    let report = executor().run_job(&graph(1), Job::new().new_tasks(receiver), add).await.unwrap();
    let TaskOutcome::Failed(TaskFailure::Unschedulable(error)) = &report.outcomes[1] else {
        panic!("{report:?}")
    };
    assert_eq!(error.to_string(), "invalid number 1 of resource `gpu` for task `new`: expected at most 0");
}

#[tokio::test]
async fn duplicate_names_are_refused() {
    let (sender, receiver) = TaskSender::<u32, String>::channel();
    let stage = move |_: Stage| {
        let sender = sender.clone();
        async move {
            let add = |id: &str| {
                let new = NewTask { id: id.to_owned(), ..NewTask::default() };
                sender.add(new, |_| async { Step::<u32, String>::Done(2) })
            };
            assert!(matches!(add("t0").await, Err(Error::DuplicateTask { id }) if id == "t0"));
            assert_eq!(add("new").await.unwrap().index(), 1);
            assert!(matches!(add("new").await, Err(Error::DuplicateTask { id }) if id == "new"));
            Step::Done(1)
        }
    };
    let report = executor().run_job(&graph(1), Job::new().new_tasks(receiver), stage).await.unwrap();
    assert!(matches!(report.outcomes[..], [TaskOutcome::Done(1), TaskOutcome::Done(2)]), "{report:?}");
}

#[tokio::test]
async fn a_stopped_executor_can_run_again() {
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
