//! Handles on a run from outside: stop it, pause it, add tasks to it, hear of it. Knows nothing of how tasks run.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::executor::{Stage, Step};
use crate::inbox;
use crate::{Error, Needs, Progress, TaskId};

/// What a run is asked to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) stopped: bool,
    pub(crate) paused: bool,
}

/// Stops the runs of an executor, and those that begin before it is [`reset`](Self::reset). Clones stop
/// the same.
#[derive(Debug, Clone)]
pub struct Stopper(pub(crate) Arc<watch::Sender<Wish>>);

impl Stopper {
    /// Aborts all stages, and has [`Executor::run`](crate::Executor::run) return when they are gone. May be called at any time and again.
    pub fn stop(&self) {
        self.0.send_modify(|wish| wish.stopped = true);
    }

    /// Lets runs that begin from now on run again. Those that were stopped stay so: call it when they
    /// have returned.
    pub fn reset(&self) {
        self.0.send_modify(|wish| wish.stopped = false);
    }

    /// Whether it was asked to stop and not reset since.
    pub fn is_stopped(&self) -> bool {
        self.0.borrow().stopped
    }

    /// Waits until it was asked to stop, for what is done beside a run. Cancel-safe.
    pub async fn stopped(&self) {
        // An error would mean that nobody is left who could ask, and this handle is one.
        let _ = self.0.subscribe().wait_for(|wish| wish.stopped).await;
    }
}

/// Pauses the runs of an executor. Clones pause the same.
#[derive(Debug, Clone)]
pub struct Pauser(pub(crate) Arc<watch::Sender<Wish>>);

impl Pauser {
    /// Lets no further stage start until [`resume`](Self::resume). What runs goes on.
    pub fn pause(&self) {
        self.0.send_modify(|wish| wish.paused = true);
    }

    /// Lets stages start again.
    pub fn resume(&self) {
        self.0.send_modify(|wish| wish.paused = false);
    }

    /// Whether it was asked to pause.
    pub fn is_paused(&self) -> bool {
        self.0.borrow().paused
    }
}

pub(crate) type BoxedStage<R, E> = Pin<Box<dyn Future<Output = Step<R, E>> + Send>>;

/// The code of an added task: makes the future of each of its stages.
pub(crate) type AddedStage<R, E> = Arc<dyn Fn(Stage) -> BoxedStage<R, E> + Send + Sync>;

/// A task to be added to a run: what [`Addition`](crate::Addition) says, and its code.
#[derive(Debug, Clone, Default)]
pub struct NewTask {
    /// Its name, which no other task of the run has.
    pub id: String,
    /// Its rank among the others, highest first. Under [`Priority::LongestPath`](crate::Priority) these are nanoseconds of work, so 0 is
    /// what goes last.
    pub rank: u64,
    /// What its first stage holds.
    pub needs: Needs,
    /// What it waits for.
    pub after: Vec<TaskId>,
    /// What shall wait for it, and waits for others still.
    pub before: Vec<TaskId>,
}

/// A task on its way into a run.
pub(crate) struct Request<R, E> {
    pub(crate) task: NewTask,
    pub(crate) stage: AddedStage<R, E>,
    pub(crate) answer: oneshot::Sender<Result<TaskId, Error>>,
}

/// Adds tasks to a run under way, from its own tasks or from elsewhere. Clones add to the same run.
#[derive(Debug)]
pub struct TaskSender<R, E> {
    requests: inbox::Sender<Request<R, E>>,
}

impl<R, E> Clone for TaskSender<R, E> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone() }
    }
}

/// The other end of an [`TaskSender`], for [`Job::new_tasks`](crate::Job::new_tasks).
#[derive(Debug)]
pub struct TaskReceiver<R, E> {
    pub(crate) requests: inbox::Receiver<Request<R, E>>,
}

impl<R: 'static, E: 'static> TaskSender<R, E> {
    /// An adder, and what a run has to be given for it.
    pub fn channel() -> (Self, TaskReceiver<R, E>) {
        let (sender, requests) = inbox::inbox();
        (Self { requests: sender }, TaskReceiver { requests })
    }

    /// Adds a task; returns its number once it is in the run. Whether it waits, starts at once or is skipped is as for all others.
    ///
    /// # Errors
    /// [`Error::Ended`] if nothing of the run is left; [`Error::DuplicateTask`] if another task of the
    /// run has the name; and those of [`Dispatcher::add`](crate::Dispatcher::add).
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
        if self.requests.send(Request { task, stage, answer }).is_err() {
            return Err(ended);
        }
        answered.await.unwrap_or(Err(ended))
    }
}

/// The progress of a run as a stream, made by [`progress`].
#[derive(Debug)]
pub struct ProgressStream(mpsc::UnboundedReceiver<Progress>);

impl Stream for ProgressStream {
    type Item = Progress;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Progress>> {
        self.0.poll_recv(context)
    }
}

/// An observer for a run, and what it observes as a stream, which ends when the observer is dropped. A reader that falls behind makes it grow, by
/// what a run tells at most: two events a stage.
pub fn progress() -> (impl FnMut(Progress) + Send + 'static, ProgressStream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    // A reader that has gone needs to hear no more.
    let observe = move |progress| {
        let _ = sender.send(progress);
    };
    (observe, ProgressStream(receiver))
}

#[cfg(greenwave_loom)]
impl<R, E> TaskReceiver<R, E> {
    /// For models: takes the next task and answers as a run does that has room for it.
    pub async fn accept(&mut self, number: usize) {
        let request = std::future::poll_fn(|context| self.requests.poll_next(context)).await;
        let _ = request.answer.send(Ok(TaskId::from_index(number)));
    }
}
