//! The options of one task in a flow.

use std::time::Duration;

use crate::Needs;

/// Options of one task in a [`Flow`](crate::Flow). By default, it needs nothing, is not retried,
/// has the time limit of the executor, and priority 0.
#[derive(Debug, Clone, Default)]
pub struct TaskOptions {
    pub(super) needs: Needs,
    pub(super) retries: u32,
    pub(super) time_max: Option<Duration>,
    pub(super) priority: i32,
    pub(super) expected: Option<Duration>,
}

impl TaskOptions {
    /// Creates the default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the resources that the task holds while it runs.
    #[must_use]
    pub fn needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    /// Sets how often the task is repeated after an error. The delays, their deadline and their
    /// budget are those of [`Executor::retry`](crate::Executor::retry), which also decides about
    /// panics.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// Sets the time limit of each attempt, in place of
    /// [`Executor::stage_time_max`](crate::Executor::stage_time_max). A task that exceeds it is
    /// dropped and has failed.
    #[must_use]
    pub fn time_max(self, time_max: Duration) -> Self {
        Self { time_max: Some(time_max), ..self }
    }

    /// Sets the priority. Of tasks that could begin, the one of highest priority does; among
    /// equals, [`Executor::priority`](crate::Executor::priority) decides.
    #[must_use]
    pub fn priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    /// Sets the expected duration, from which the order of tasks follows.
    #[must_use]
    pub fn expected(self, expected: Duration) -> Self {
        Self { expected: Some(expected), ..self }
    }
}
