//! The stages that run: each a tokio task of its own, or all of them within the coordinator's. Knows nothing of what starts when.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinSet;

use crate::TaskId;
use crate::executor::{Step, TaskFailure};

/// How a stage ended.
pub(crate) type Ended<R, E> = (TaskId, Result<Step<R, E>, TaskFailure<E>>);

/// A set of stages that run.
pub(crate) trait Running<F, R, E> {
    fn start(&mut self, task: TaskId, stage: F, time_max: Option<Duration>);
    /// One that has ended; `Ready(None)` if none runs.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Option<Ended<R, E>>>;
    /// Ends them all; they are gone when none runs.
    fn abort(&mut self);
}

/// Stages as tasks of the runtime: they use all its threads.
pub(crate) struct Spawned<R, E>(JoinSet<Ended<R, E>>);

impl<R: 'static, E: 'static> Spawned<R, E> {
    pub(crate) fn new() -> Self {
        Self(JoinSet::new())
    }
}

impl<F, R, E> Running<F, R, E> for Spawned<R, E>
where
    F: Future<Output = Step<R, E>> + Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    fn start(&mut self, task: TaskId, stage: F, time_max: Option<Duration>) {
        self.0.spawn(guarded(task, stage, time_max));
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Option<Ended<R, E>>> {
        loop {
            match self.0.poll_join_next(context) {
                Poll::Ready(Some(Ok(ended))) => return Poll::Ready(Some(ended)),
                // Panics are caught inside, so this one was aborted.
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

/// Stages within the task that coordinates them. `make` makes what is polled of a stage.
pub(crate) struct Inline<G, M> {
    stages: FuturesUnordered<G>,
    make: M,
}

impl<G, M> Inline<G, M> {
    pub(crate) fn new(make: M) -> Self {
        Self { stages: FuturesUnordered::new(), make }
    }
}

impl<F, R, E, G, M> Running<F, R, E> for Inline<G, M>
where
    G: Future<Output = Ended<R, E>>,
    M: FnMut(TaskId, F, Option<Duration>) -> G,
{
    fn start(&mut self, task: TaskId, stage: F, time_max: Option<Duration>) {
        self.stages.push((self.make)(task, stage, time_max));
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Option<Ended<R, E>>> {
        self.stages.poll_next_unpin(context)
    }

    fn abort(&mut self) {
        self.stages.clear();
    }
}

/// A stage that ends at its time limit, and whose panics end nothing else.
pub(crate) async fn guarded<R, E>(
    task: TaskId,
    stage: impl Future<Output = Step<R, E>>,
    time_max: Option<Duration>,
) -> Ended<R, E> {
    let stage = AssertUnwindSafe(stage).catch_unwind();
    let ended = match time_max {
        None => Ok(stage.await),
        Some(limit) => tokio::time::timeout(limit, stage).await.map_err(|_| TaskFailure::TimedOut(limit)),
    };
    (task, ended.and_then(|ended| ended.map_err(|panic| TaskFailure::Panicked(panic_text(&*panic)))))
}

/// The message of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
