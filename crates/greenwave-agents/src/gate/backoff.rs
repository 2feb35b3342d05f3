//! Delays that grow with each refusal of a provider.

use std::time::Duration;

use greenwave_pooling::{Attempts, Retry, Retryability};

/// Upper bound of the first delay without a hint.
pub(super) const DELAY_MIN: Duration = Duration::from_secs(2);
/// Upper bound of delays without a hint.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(60);
/// Upper bound of delays that a provider asks for.
pub(super) const ASKED_MAX: Duration = Duration::from_secs(15 * 60);

/// A sequence of delays.
#[derive(Debug)]
pub(super) struct Backoff {
    retry: Retry,
    attempts: Attempts,
}

impl Backoff {
    pub(super) fn new() -> Self {
        let retry = Retry {
            attempts_max: usize::MAX,
            delay_min: DELAY_MIN,
            delay_max: DELAY_MAX,
            asked_max: ASKED_MAX,
            ..Retry::default()
        };
        let attempts = retry.attempts();
        Self { retry, attempts }
    }

    /// Returns the next delay, at least the delay that the provider asks for.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let retryability = asked.map_or(Retryability::Transient, Retryability::After);
        self.attempts.next_delay(retryability, Duration::ZERO).unwrap_or(DELAY_MAX)
    }

    /// Begins again with short delays.
    pub(super) fn reset(&mut self) {
        self.attempts = self.retry.attempts();
    }
}
