//! The policy, and its use for one call.

use std::time::Duration;

use crate::budget::RetryBudget;
use crate::retryability::{Reason, Retryability};

/// How often a failed call is tried again, and after how long.
///
/// The delay before attempt n + 1 is uniform between zero and `delay_min * 2^(n - 1)`, at most
/// `delay_max` (full jitter: Brooker, "Exponential Backoff And Jitter", 2015), so that callers that
/// failed at the same time do not come back at the same time. A longer delay that the error asked for
/// is respected up to `asked_max`.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Attempts in all; 0 counts as 1. Default 4.
    pub attempts_max: usize,
    /// The upper bound of the first delay. Default 100 ms; with 0 there are no delays.
    pub delay_min: Duration,
    /// The upper bound of all delays, except those that an error asked for. Default 10 s. If it is less
    /// than `delay_min`, it is the upper bound of the first delay as well.
    pub delay_max: Duration,
    /// The upper bound of delays that an error asked for: a longer one is cut to this. Default 10 min.
    pub asked_max: Duration,
    /// No attempt starts later than this after the first one. Default: no deadline.
    pub deadline: Option<Duration>,
    /// Shared between calls: limits retries to a fraction of the calls. Default: no budget.
    pub budget: Option<RetryBudget>,
    /// Makes the delays repeatable: the same in all calls. Default: none, and the delays of two calls
    /// differ.
    pub seed: Option<u64>,
}

impl Default for Retry {
    /// 4 attempts, 100 ms to 10 s, at most 10 min if asked for, no deadline, no budget, random jitter.
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
    /// One attempt and no retries.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts_max: 1, ..Self::default() }
    }

    /// The delays between attempts, one fewer than there are attempts: for callers that decide
    /// themselves what is tried again.
    #[must_use]
    pub fn delays(&self) -> Delays {
        Delays {
            bound: self.delay_min.min(self.delay_max),
            bound_max: self.delay_max,
            left: self.attempts_max.saturating_sub(1),
            rng: self.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
        }
    }

    /// Counts a call in the budget, and returns what decides on its retries.
    #[must_use]
    pub fn attempts(&self) -> Attempts {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
        Attempts { retry: self.clone(), delays: self.delays(), failed: 0 }
    }
}

/// The delays between the attempts of one call: see [`Retry`].
#[derive(Debug, Clone)]
pub struct Delays {
    bound: Duration,
    bound_max: Duration,
    left: usize,
    rng: fastrand::Rng,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let bound = self.bound;
        self.bound = bound.saturating_mul(2).min(self.bound_max);
        let seconds = bound.as_secs_f64() * self.rng.f64();
        // The bound may have been rounded up.
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
    /// After a failed attempt: how long to wait before the next one. `elapsed` is the time since the
    /// first attempt began.
    ///
    /// # Errors
    /// The reason to give up. A retry that is refused takes nothing from the budget.
    pub fn next_delay(&mut self, retryability: Retryability, elapsed: Duration) -> Result<Duration, Reason> {
        self.failed = self.failed.saturating_add(1);
        let asked = match retryability {
            Retryability::Permanent => return Err(Reason::Permanent),
            Retryability::Transient => Duration::ZERO,
            Retryability::After(delay) => delay.min(self.retry.asked_max),
        };
        let delay = self.delays.next().ok_or(Reason::Attempts)?.max(asked);
        if self.retry.deadline.is_some_and(|deadline| elapsed.saturating_add(delay) > deadline) {
            return Err(Reason::Deadline);
        }
        if self.retry.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
            return Err(Reason::Budget);
        }
        Ok(delay)
    }

    /// How many attempts have failed so far.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed
    }
}
