//! The set of running stages, either as tokio tasks or inside the coordinating task.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinSet;

use crate::TaskId;
use crate::task::{Step, TaskFailure};

/// A stage that has ended, with its result.
pub(crate) type EndedStage<R, E> = (TaskId, Result<Step<R, E>, TaskFailure<E>>);

/// A set of running stages.
pub(crate) trait StageSet<F, R, E> {
    fn start(&mut self, task: TaskId, stage: F, time_max: Option<Duration>);
    /// Returns a stage that has ended; `Ready(None)` if no stage runs.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Option<EndedStage<R, E>>>;
    /// Aborts all stages. They are gone when none runs.
    fn abort(&mut self);
}

/// Stages as tokio tasks, which use all threads of the runtime.
pub(crate) struct SpawnedStages<R, E>(JoinSet<EndedStage<R, E>>);

impl<R: 'static, E: 'static> SpawnedStages<R, E> {
    pub(crate) fn new() -> Self {
        Self(JoinSet::new())
    }
}

impl<F, R, E> StageSet<F, R, E> for SpawnedStages<R, E>
where
    F: Future<Output = Step<R, E>> + Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    fn start(&mut self, task: TaskId, stage: F, time_max: Option<Duration>) {
        self.0.spawn(run_guarded(task, stage, time_max));
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Option<EndedStage<R, E>>> {
        loop {
            match self.0.poll_join_next(context) {
                Poll::Ready(Some(Ok(ended))) => return Poll::Ready(Some(ended)),
                // Panics are caught inside the task, also those of a drop: this stage was aborted.
                Poll::Ready(Some(Err(_))) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn abort(&mut self) {
        self.0.abort_all();
    }
}

/// Stages inside the coordinating task. `make` wraps the future of a stage.
pub(crate) struct InlineStages<G, M> {
    stages: FuturesUnordered<G>,
    make: M,
}

impl<G, M> InlineStages<G, M> {
    pub(crate) fn new(make: M) -> Self {
        Self { stages: FuturesUnordered::new(), make }
    }
}

impl<F, R, E, G, M> StageSet<F, R, E> for InlineStages<G, M>
where
    G: Future<Output = EndedStage<R, E>>,
    M: FnMut(TaskId, F, Option<Duration>) -> G,
{
    fn start(&mut self, task: TaskId, stage: F, time_max: Option<Duration>) {
        self.stages.push((self.make)(task, stage, time_max));
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Option<EndedStage<R, E>>> {
        self.stages.poll_next_unpin(context)
    }

    fn abort(&mut self) {
        // A stage that panics when it is dropped has been removed by then.
        while catch_unwind(AssertUnwindSafe(|| self.stages.clear())).is_err() {}
    }
}

/// A stage that catches the panics of its polls and of its drop.
struct GuardedStage<'a, F>(Pin<&'a mut Option<F>>);

impl<F: Future> GuardedStage<'_, F> {
    /// Polls the stage. Returns the message of a panic as an error.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<F::Output, String>> {
        let Some(stage) = self.0.as_mut().as_pin_mut() else { return Poll::Pending };
        match catch_unwind(AssertUnwindSafe(|| stage.poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic_text(&*panic))),
        }
    }
}

impl<F> GuardedStage<'_, F> {
    /// Drops the stage. Returns the message of a panic as an error.
    fn discard(&mut self) -> Result<(), String> {
        let dropped = catch_unwind(AssertUnwindSafe(|| self.0.set(None)));
        dropped.map_err(|panic| panic_text(&*panic))
    }
}

impl<F> Drop for GuardedStage<'_, F> {
    fn drop(&mut self) {
        // The stage was aborted, so nobody waits for its result.
        let _ = self.discard();
    }
}

/// Runs a stage with a time limit, and catches its panics, including those of its drop.
pub(crate) async fn run_guarded<R, E>(
    task: TaskId,
    stage: impl Future<Output = Step<R, E>>,
    time_max: Option<Duration>,
) -> EndedStage<R, E> {
    let stage = std::pin::pin!(Some(stage));
    let mut stage = GuardedStage(stage);
    let run = std::future::poll_fn(|context| stage.poll(context));
    let ended = match time_max {
        None => Ok(run.await),
        Some(limit) => tokio::time::timeout(limit, run).await.map_err(|_| TaskFailure::TimedOut(limit)),
    };
    let ended = ended.and_then(|ended| ended.map_err(TaskFailure::Panicked));
    let discarded = stage.discard().map_err(TaskFailure::Panicked);
    // Of two failures, the first counts.
    (task, ended.and_then(|step| discarded.map(|()| step)))
}

/// Returns the message of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
