//! Events of a run, and the decisions that follow from them.

use std::time::Duration;

use crate::{Needs, TaskId};

/// An event of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DispatchEvent<'a> {
    /// The run begins. Sent once, before all other events.
    Begin,
    /// A stage succeeded and the task has another one with these needs. The task is queued again
    /// with its old rank.
    Next(TaskId, &'a Needs),
    /// A task succeeded. Tasks that waited only for it may start.
    Done(TaskId),
    /// A task failed. Tasks that depend on it are skipped.
    Failed(TaskId),
    /// A stage failed and is retried after this delay. It holds no resources in the meantime, and
    /// is then queued with its old rank.
    Retry(TaskId, Duration),
    /// Time has passed: see [`Dispatcher::wakes_at`](super::Dispatcher::wakes_at).
    Tick,
    /// Sets the number of usable units of a pool, up to its limit. Running stages continue. Unknown
    /// pools are ignored.
    Admit(&'a str, u32),
    /// Prevents stages from starting until [`Resume`](Self::Resume). Running stages continue.
    Pause,
    /// Lets stages start again.
    Resume,
    /// Prevents stages from starting for good.
    Stop,
}

/// A decision, to be performed in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the current stage of the task.
    Start(TaskId),
    /// The first task will never start, because its ancestor, the second task, failed.
    Skip(TaskId, TaskId),
}

/// The state of a task. Only [`Dispatcher::handle`](super::Dispatcher::handle) changes states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Waits for this number of dependencies.
    Waiting(u32),
    /// Could start if resources allowed. Holds the time at which it became ready.
    Ready(Duration),
    /// A stage runs. Holds the time at which it started.
    Running(Duration),
    /// A stage failed and is retried at this time.
    Delayed(Duration),
    /// Succeeded.
    Done,
    /// Failed.
    Failed,
    /// Never started, because this ancestor failed.
    Skipped(TaskId),
}

/// A task to add to a running schedule.
#[derive(Debug, Clone, Copy)]
pub struct Addition<'a> {
    /// Name of the task, for errors. Duplicates are not detected here.
    pub id: &'a str,
    /// Rank among all tasks, highest first.
    pub rank: u64,
    /// Resources held by the first stage.
    pub needs: &'a Needs,
    /// Tasks that this task depends on, in any state. If one has failed, this task is skipped.
    pub after: &'a [TaskId],
    /// Tasks that shall depend on this task. They must still be waiting.
    pub before: &'a [TaskId],
}
