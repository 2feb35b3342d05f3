//! Applies the retry policy to the stages of a run.

use std::collections::HashMap;
use std::time::Duration;

use greenwave_retry::{Attempts, Retry, Retryability};

use crate::TaskId;

/// The retries of a run.
#[derive(Debug)]
pub(crate) struct Backoffs {
    retry: Retry,
    retry_panics: bool,
    /// Of stages that have failed, with when their first attempt began.
    tasks: HashMap<TaskId, (Attempts, Duration)>,
}

impl Backoffs {
    pub(crate) fn new(retry: Retry, retry_panics: bool) -> Self {
        Self { retry, retry_panics, tasks: HashMap::new() }
    }

    /// When to try a stage again whose attempt began at `since` and has just failed; `None` for never.
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
        let (attempts, begun) = self.tasks.entry(task).or_insert_with(|| (self.retry.attempts(), since));
        attempts.next_delay(Retryability::Transient, now.saturating_sub(*begun)).ok()
    }

    /// The task goes on to another stage, which begins anew.
    pub(crate) fn forget(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }
}
