//! Handles to a run: stop it, pause it, add tasks to it, observe it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::inbox;
use crate::task::{Progress, Stage, Step};
use crate::{Error, Needs, TaskId};

/// The requested state of the runs of an executor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RunControl {
    pub(crate) stopped: bool,
    pub(crate) paused: bool,
}

/// Stops the runs of an executor, including runs that start before [`reset`](Self::reset). Clones
/// control the same runs.
#[derive(Debug, Clone)]
pub struct Stopper(pub(crate) Arc<watch::Sender<RunControl>>);

impl Stopper {
    /// Aborts all stages and makes [`Executor::run`](crate::Executor::run) return once they are
    /// gone. May be called at any time and repeatedly.
    pub fn stop(&self) {
        self.0.send_modify(|control| control.stopped = true);
    }

    /// Allows new runs to start. Runs that were stopped stay stopped, so call this after they have
    /// returned.
    pub fn reset(&self) {
        self.0.send_modify(|control| control.stopped = false);
    }

    /// Returns true if a stop was requested and not reset.
    pub fn is_stopped(&self) -> bool {
        self.0.borrow().stopped
    }

    /// Waits until a stop is requested, for work done beside a run. Cancel safe.
    pub async fn stopped(&self) {
        // Fails only if all senders are gone, and this handle is a sender.
        let _ = self.0.subscribe().wait_for(|control| control.stopped).await;
    }
}

/// Pauses the runs of an executor. Clones control the same runs.
#[derive(Debug, Clone)]
pub struct Pauser(pub(crate) Arc<watch::Sender<RunControl>>);

impl Pauser {
    /// Prevents further stages from starting until [`resume`](Self::resume). Running stages
    /// continue.
    pub fn pause(&self) {
        self.0.send_modify(|control| control.paused = true);
    }

    /// Lets stages start again.
    pub fn resume(&self) {
        self.0.send_modify(|control| control.paused = false);
    }

    /// Returns true if the executor is paused.
    pub fn is_paused(&self) -> bool {
        self.0.borrow().paused
    }
}

pub(crate) type BoxedStage<R, E> = Pin<Box<dyn Future<Output = Step<R, E>> + Send>>;

/// The code of an added task: creates the future of each of its stages.
pub(crate) type AddedStage<R, E> = Arc<dyn Fn(Stage) -> BoxedStage<R, E> + Send + Sync>;

/// A task to add to a run; its code is passed separately. See [`Addition`](crate::Addition).
#[derive(Debug, Clone, Default)]
pub struct NewTask {
    /// Name of the task, unique within the run.
    pub id: String,
    /// Rank among all tasks, highest first. Under [`Priority::LongestPath`](crate::Priority), ranks
    /// are nanoseconds of remaining work, and rank 0 goes last.
    pub rank: u64,
    /// Resources held by the first stage.
    pub needs: Needs,
    /// Tasks that this task depends on.
    pub after: Vec<TaskId>,
    /// Tasks that shall depend on this task. They must still be waiting.
    pub before: Vec<TaskId>,
}

/// A request to add a task.
pub(crate) struct AddRequest<R, E> {
    pub(crate) task: NewTask,
    pub(crate) stage: AddedStage<R, E>,
    pub(crate) answer: oneshot::Sender<Result<TaskId, Error>>,
}

/// Adds tasks to a run, from its own tasks or from elsewhere. Clones add to the same run.
#[derive(Debug)]
pub struct TaskSender<R, E> {
    requests: inbox::Sender<AddRequest<R, E>>,
}

impl<R, E> Clone for TaskSender<R, E> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone() }
    }
}

/// The receiving end of a [`TaskSender`], for [`Job::new_tasks`](crate::Job::new_tasks).
#[derive(Debug)]
pub struct TaskReceiver<R, E> {
    pub(crate) requests: inbox::Receiver<AddRequest<R, E>>,
}

impl<R: 'static, E: 'static> TaskSender<R, E> {
    /// Creates a sender and the receiver to pass to a run.
    pub fn channel() -> (Self, TaskReceiver<R, E>) {
        let (sender, requests) = inbox::inbox();
        (Self { requests: sender }, TaskReceiver { requests })
    }

    /// Adds a task and returns its id once it is part of the run. From then on it is treated like
    /// any other task: it waits, starts, or is skipped.
    ///
    /// # Errors
    /// [`Error::Ended`] if the run has ended; [`Error::DuplicateTask`] if the name is taken; the
    /// errors of [`Dispatcher::add`](crate::Dispatcher::add).
    pub async fn add<F>(
        &self,
        task: NewTask,
        stage: impl Fn(Stage) -> F + Send + Sync + 'static,
    ) -> Result<TaskId, Error>
    where
        F: Future<Output = Step<R, E>> + Send + 'static,
    {
        let ended = Error::Ended { id: task.id.clone() };
        let (answer, answered) = oneshot::channel();
        let stage: AddedStage<R, E> = Arc::new(move |at| Box::pin(stage(at)));
        if self.requests.send(AddRequest { task, stage, answer }).is_err() {
            return Err(ended);
        }
        answered.await.unwrap_or(Err(ended))
    }
}

/// The progress of a run as a stream, created by [`progress`].
#[derive(Debug)]
pub struct ProgressStream(mpsc::UnboundedReceiver<Progress>);

impl Stream for ProgressStream {
    type Item = Progress;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Progress>> {
        self.0.poll_recv(context)
    }
}

/// Creates an observer for a run, and a stream of its events. The stream ends when the
/// observer is dropped. It is unbounded: a slow reader makes it grow by at most two events per
/// stage.
pub fn progress() -> (impl FnMut(Progress) + Send + 'static, ProgressStream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    // The reader may be gone.
    let observe = move |progress| {
        let _ = sender.send(progress);
    };
    (observe, ProgressStream(receiver))
}

#[cfg(greenwave_loom)]
impl<R, E> TaskReceiver<R, E> {
    /// Takes the next task and replies with `number`, as a run does. For models.
    pub async fn accept(&mut self, number: usize) {
        let request = std::future::poll_fn(|context| self.requests.poll_next(context)).await;
        let _ = request.answer.send(Ok(TaskId::from_index(number)));
    }
}
