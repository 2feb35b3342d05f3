//! Applies the retry policy to the stages of a run.

use std::collections::HashMap;
use std::time::Duration;

use greenwave_retry::{Attempts, Retry, Retryability};

use crate::TaskId;

/// The retry state of a run.
#[derive(Debug)]
pub(crate) struct RetryTracker {
    retry: Retry,
    retry_panics: bool,
    /// Attempts and start of the first attempt of stages that have failed.
    tasks: HashMap<TaskId, (Attempts, Duration)>,
}

impl RetryTracker {
    pub(crate) fn new(retry: Retry, retry_panics: bool) -> Self {
        Self { retry, retry_panics, tasks: HashMap::new() }
    }

    /// Returns the delay before the retry of a stage that failed, after an attempt that began at
    /// `since`. Returns `None` if it is not retried.
    pub(crate) fn next(
        &mut self,
        task: TaskId,
        panicked: bool,
        since: Duration,
        now: Duration,
    ) -> Option<Duration> {
        if panicked && !self.retry_panics {
            return None;
        }
        let (attempts, started) = self.tasks.entry(task).or_insert_with(|| (self.retry.attempts(), since));
        attempts.next_delay(Retryability::Transient, now.saturating_sub(*started)).ok()
    }

    /// Resets a task that continues with another stage.
    pub(crate) fn reset(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }
}
