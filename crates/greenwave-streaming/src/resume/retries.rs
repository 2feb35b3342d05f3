//! Counts the attempts of a response and decides the delay before the next one.

use std::time::Duration;

use greenwave_retry::{Attempts, Retry, Retryability};
use tokio::time::Instant;

/// The attempts of one response.
#[derive(Debug)]
pub(super) struct AttemptCount {
    retry: Retry,
    total_max: u32,
    pub(super) total: u32,
    /// Attempts without a new unit, with the start time of the first.
    fruitless: Option<(Attempts, Instant)>,
}

impl AttemptCount {
    pub(super) fn new(retry: Retry, total_max: u32) -> Self {
        Self { retry, total_max, total: 0, fruitless: None }
    }

    pub(super) fn begin(&mut self) {
        self.total = self.total.saturating_add(1);
        self.fruitless.get_or_insert_with(|| (self.retry.attempts(), Instant::now()));
    }

    /// Records that a new unit was delivered.
    pub(super) fn record_progress(&mut self) {
        self.fruitless = None;
    }

    /// Returns the delay before the next attempt, at least `requested`, or `None` to give up.
    pub(super) fn next_delay(&mut self, requested: Option<Duration>) -> Option<Duration> {
        if self.total >= self.total_max {
            return None;
        }
        let retryability = requested.map_or(Retryability::Transient, Retryability::After);
        let new = || (self.retry.attempts(), Instant::now());
        let (attempts, since) = self.fruitless.get_or_insert_with(new);
        attempts.next_delay(retryability, since.elapsed()).ok()
    }
}
