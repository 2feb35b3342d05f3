//! How often a broken answer is asked for again, and after how long. Unaware of answers.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// When to try again: after a delay that doubles from attempt to attempt, with jitter of up to its own length, so that readers that lost
/// the same server do not come back together. A unit that is handed on begins the count anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Attempts after each other that bring nothing new, before the reader gives up. At least 1.
    pub attempts_max: u32,
    /// Attempts in all, whatever they bring.
    pub attempts_total_max: u32,
    /// The first delay is at least this.
    pub delay_min: Duration,
    /// No delay is longer before jitter.
    pub delay_max: Duration,
    /// Determines the jitter.
    pub seed: u64,
}

impl Default for Retries {
    /// 5 attempts that bring nothing, 100 in all, 100 ms to 10 s.
    fn default() -> Self {
        Self {
            attempts_max: 5,
            attempts_total_max: 100,
            delay_min: Duration::from_millis(100),
            delay_max: Duration::from_secs(10),
            seed: 0,
        }
    }
}

/// The count of attempts.
#[derive(Debug)]
pub(super) struct Attempts {
    retries: Retries,
    pub(super) total: u32,
    in_vain: u32,
    backoff: ExponentialBackoff,
}

impl Attempts {
    pub(super) fn new(retries: Retries) -> Self {
        Self { retries, total: 0, in_vain: 0, backoff: backoff(retries, 0) }
    }

    pub(super) fn begin(&mut self) {
        self.total += 1;
        self.in_vain += 1;
    }

    /// Something new has come.
    pub(super) fn succeed(&mut self) {
        if self.in_vain > 0 {
            self.in_vain = 0;
            self.backoff = backoff(self.retries, self.total);
        }
    }

    /// How long to wait before the next attempt; `None` if there is to be none. The source may ask for longer.
    pub(super) fn next_delay(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let Retries { attempts_max, attempts_total_max, .. } = self.retries;
        if self.in_vain >= attempts_max.max(1) || self.total >= attempts_total_max {
            return None;
        }
        self.backoff.next().map(|delay| delay.max(asked.unwrap_or_default()))
    }
}

fn backoff(retries: Retries, nonce: u32) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter_seed(retries.seed.wrapping_add(u64::from(nonce)))
        .with_jitter()
        .with_min_delay(retries.delay_min)
        .with_max_delay(retries.delay_max)
        .without_max_times()
        .build()
}
