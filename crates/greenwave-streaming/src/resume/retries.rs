//! How often a broken answer is asked for again, and after how long. Unaware of answers.

use std::time::Duration;

use greenwave_retry::{Attempts, Retry, Retryability};
use tokio::time::Instant;

/// The count of attempts of one answer.
#[derive(Debug)]
pub(super) struct Count {
    retry: Retry,
    total_max: u32,
    pub(super) total: u32,
    /// Attempts that have brought nothing new, with when the first of them began.
    in_vain: Option<(Attempts, Instant)>,
}

impl Count {
    pub(super) fn new(retry: Retry, total_max: u32) -> Self {
        Self { retry, total_max, total: 0, in_vain: None }
    }

    pub(super) fn begin(&mut self) {
        self.total = self.total.saturating_add(1);
        self.in_vain.get_or_insert_with(|| (self.retry.attempts(), Instant::now()));
    }

    /// Something new has come.
    pub(super) fn succeed(&mut self) {
        self.in_vain = None;
    }

    /// How long to wait before the next attempt; `None` if there is to be none. The source may ask for longer.
    pub(super) fn next_delay(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.total >= self.total_max {
            return None;
        }
        let verdict = asked.map_or(Retryability::Transient, Retryability::After);
        let new = || (self.retry.attempts(), Instant::now());
        let (attempts, since) = self.in_vain.get_or_insert_with(new);
        attempts.next_delay(verdict, since.elapsed()).ok()
    }
}
