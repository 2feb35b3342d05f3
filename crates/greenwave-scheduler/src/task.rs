//! The vocabulary of tasks and their stages: results of a stage, outcomes of a task, and progress
//! events.

use std::time::Duration;

use crate::{Error, Needs, TaskId};

/// The result of one stage of a task.
#[derive(Debug)]
pub enum Step<R, E> {
    /// The task is done, with this result.
    Done(R),
    /// The task has another stage with these needs. This stage's resources are released, and the
    /// task is queued again with its old rank.
    Next(Needs),
    /// The task has failed. Tasks that depend on it are skipped.
    Failed(E),
    /// The stage has failed but may succeed later. It is retried as far as [`Executor::retry`]
    /// allows; after that, the task has failed.
    ///
    /// [`Executor::retry`]: crate::Executor::retry
    Retry(E),
}

/// Identifies one attempt at one stage of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// The task.
    pub task: TaskId,
    /// Number of the stage, from 0.
    pub number: u32,
    /// Number of earlier attempts at this stage.
    pub retry: u32,
}

/// The result of a task.
#[derive(Debug)]
pub enum TaskOutcome<R, E> {
    /// Succeeded, with this result.
    Done(R),
    /// Finished by an earlier, interrupted run.
    AlreadyDone,
    /// Failed.
    Failed(TaskFailure<E>),
    /// Never began, because this ancestor failed.
    Skipped(TaskId),
    /// Had not begun or not finished when the run was stopped.
    Stopped,
}

/// The reason why a task failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskFailure<E> {
    /// An error returned by the task.
    #[error(transparent)]
    Task(E),
    /// The task's code panicked.
    #[error("panicked: {0}")]
    Panicked(String),
    /// A stage exceeded its time limit and was cancelled.
    #[error("ran longer than {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// A further stage could never start.
    #[error(transparent)]
    Unschedulable(Error),
}

/// A progress event, passed to the observer from the coordinating task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A stage starts.
    Started(Stage),
    /// A stage succeeded, and another one follows.
    Ended(Stage),
    /// A stage failed and is retried after this delay.
    Retrying(Stage, Duration),
    /// A task succeeded.
    Done(TaskId),
    /// A task failed.
    Failed(TaskId),
    /// The first task is skipped, because its ancestor, the second task, failed.
    Skipped(TaskId, TaskId),
    /// A task was added to the run.
    Added(TaskId),
}
