//! Defines the retry policy and applies it to one call.

use std::time::Duration;

use fastrand::Rng;

use crate::budget::RetryBudget;
use crate::retryability::{Retryability, StopReason};

/// A retry policy: the number of attempts and the delays between them.
///
/// The delay before attempt n + 1 is uniform between zero and `delay_min * 2^(n - 1)`, at most
/// `delay_max` (full jitter: Brooker, "Exponential Backoff And Jitter", 2015), so that callers that
/// failed together do not retry together. A longer delay requested by an error is honored up to
/// `asked_max`.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Maximum number of attempts; 0 counts as 1. Default 4.
    pub attempts_max: usize,
    /// Upper bound of the first delay. Default 100 ms; with 0 there are no delays.
    pub delay_min: Duration,
    /// Upper bound of all delays, except those requested by an error. Default 10 s. If it is less
    /// than `delay_min`, it also bounds the first delay.
    pub delay_max: Duration,
    /// Upper bound of delays requested by an error; longer ones are shortened to it. Default 10
    /// min.
    pub asked_max: Duration,
    /// Maximum time between the start of the first attempt and the start of the last. Default: no
    /// deadline.
    pub deadline: Option<Duration>,
    /// Budget that limits retries to a fraction of the calls that share it. Default: no budget.
    pub budget: Option<RetryBudget>,
    /// Seed that makes the delays of every call the same. Default: none, so delays differ from call
    /// to call.
    pub seed: Option<u64>,
}

impl Default for Retry {
    /// 4 attempts, delays of 100 ms to 10 s (up to 10 min if requested), no deadline, no budget,
    /// random jitter.
    fn default() -> Self {
        Self {
            attempts_max: 4,
            delay_min: Duration::from_millis(100),
            delay_max: Duration::from_secs(10),
            asked_max: Duration::from_secs(600),
            deadline: None,
            budget: None,
            seed: None,
        }
    }
}

impl Retry {
    /// Returns a policy of one attempt and no retries.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts_max: 1, ..Self::default() }
    }

    /// Returns the delays between attempts, one fewer than attempts, for callers that decide
    /// themselves what to retry.
    #[must_use]
    pub fn delays(&self) -> Delays {
        Delays {
            bound: self.delay_min.min(self.delay_max),
            bound_max: self.delay_max,
            left: self.attempts_max.saturating_sub(1),
            rng: self.seed.map_or_else(Rng::new, Rng::with_seed),
        }
    }

    /// Counts a call in the budget and returns its attempts.
    #[must_use]
    pub fn attempts(&self) -> Attempts {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
        Attempts { retry: self.clone(), delays: self.delays(), failed: 0 }
    }
}

/// An iterator over the delays between the attempts of one call. See [`Retry`].
#[derive(Debug, Clone)]
pub struct Delays {
    bound: Duration,
    bound_max: Duration,
    left: usize,
    rng: Rng,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let bound = self.bound;
        self.bound = bound.saturating_mul(2).min(self.bound_max);
        let seconds = bound.as_secs_f64() * self.rng.f64();
        // The conversion may have rounded up.
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(bound).min(bound))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// The attempts of one call.
#[derive(Debug, Clone)]
pub struct Attempts {
    retry: Retry,
    delays: Delays,
    failed: usize,
}

impl Attempts {
    /// Records a failed attempt and returns the delay before the next one. `elapsed` is the time
    /// since the first attempt started.
    ///
    /// # Errors
    /// Returns the reason to give up. A refused retry takes no token from the budget.
    pub fn next_delay(
        &mut self,
        retryability: Retryability,
        elapsed: Duration,
    ) -> Result<Duration, StopReason> {
        self.failed = self.failed.saturating_add(1);
        let requested = match retryability {
            Retryability::Permanent => return Err(StopReason::Permanent),
            Retryability::Transient => Duration::ZERO,
            Retryability::After(delay) => delay.min(self.retry.asked_max),
        };
        let delay = self.delays.next().ok_or(StopReason::Attempts)?.max(requested);
        if self.retry.deadline.is_some_and(|deadline| elapsed.saturating_add(delay) > deadline) {
            return Err(StopReason::Deadline);
        }
        if self.retry.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
            return Err(StopReason::Budget);
        }
        Ok(delay)
    }

    /// Returns the number of failed attempts.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed
    }
}
