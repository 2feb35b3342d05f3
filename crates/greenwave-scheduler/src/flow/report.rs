//! The outcome of a flow.

use std::sync::Arc;
use std::time::Duration;

use super::{Handle, Results};
use crate::{RunReport, ScheduleStats, TaskOutcome};

/// The reason why the code of a task in a [`Flow`](crate::Flow) has no result.
#[derive(Debug, thiserror::Error)]
pub enum FlowFailure<E> {
    /// The task returned this error.
    #[error(transparent)]
    Task(E),
    /// A [`Canceller`](crate::Canceller) cancelled the task.
    #[error("cancelled")]
    Cancelled,
}

/// The outcomes and results of all tasks of a [`Flow`](crate::Flow).
#[derive(Debug)]
pub struct FlowReport<E> {
    /// The outcome of each task, in order of addition.
    pub outcomes: Vec<TaskOutcome<(), FlowFailure<E>>>,
    /// The final statistics.
    pub stats: ScheduleStats,
    /// A lower bound on the length of every schedule of these tasks: see
    /// [`RunReport::lower_bound`].
    pub lower_bound: Duration,
    flow: u64,
    results: Arc<Results>,
}

impl<E> FlowReport<E> {
    pub(super) fn new(flow: u64, report: RunReport<(), FlowFailure<E>>, results: Arc<Results>) -> Self {
        let RunReport { outcomes, stats, lower_bound, .. } = report;
        Self { outcomes, stats, lower_bound, flow, results }
    }

    /// Returns the result of a task. `None` if the task has not succeeded, or is of another flow.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self, task: Handle<T>) -> Option<Arc<T>> {
        (task.flow == self.flow).then(|| self.results.get(task.task))?
    }

    /// Returns the outcome of a task. `None` if it is of another flow.
    #[must_use]
    pub fn outcome<T>(&self, task: Handle<T>) -> Option<&TaskOutcome<(), FlowFailure<E>>> {
        if task.flow == self.flow { self.outcomes.get(task.task.index()) } else { None }
    }

    /// Returns whether every task has succeeded.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.outcomes.iter().all(|outcome| matches!(outcome, TaskOutcome::Done(())))
    }
}
