//! Whether to try again, and when. Knows nothing of what is tried.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::chance::Chance;

/// What an error says of another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It would fail too, or the first one may have had an effect.
    Permanent,
    /// It may succeed.
    Transient,
    /// It may succeed, but not before so long.
    After(Duration),
}

impl Verdict {
    /// What the value of a `Retry-After` header asks for (RFC 9110, section 10.2.3): seconds, or a date, of which `now` is subtracted.
    /// A date that is past is no wait at all; what is neither is [`Transient`](Self::Transient).
    #[must_use]
    pub fn retry_after(value: &str, now: std::time::SystemTime) -> Self {
        let value = value.trim();
        let is_seconds = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        if is_seconds {
            // Longer than can be counted is as long as can be counted.
            return Self::After(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
        }
        match httpdate::parse_http_date(value) {
            Ok(date) => Self::After(date.duration_since(now).unwrap_or_default()),
            Err(_) => Self::Transient,
        }
    }
}

/// How often, and how long after one another.
///
/// The delay before attempt n is uniform between zero and `delay_min * 2^(n-1)`, at most `delay_max` (full jitter: Brooker, "Exponential
/// Backoff And Jitter", 2015); a longer one that the error asked for is kept to.
///
/// ```
/// # use greenwave_pooling::{Retry, Verdict};
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let outcome = Retry::default()
///     .run(|_: &&str| Verdict::Transient, async |attempt| if attempt < 3 { Err("busy") } else { Ok(attempt) })
///     .await;
/// assert_eq!(outcome.unwrap(), 3);
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Retry {
    /// Attempts in all; at least 1.
    pub attempts_max: usize,
    /// The first delay is at most this.
    pub delay_min: Duration,
    /// No delay is longer, but for one that the error asked for.
    pub delay_max: Duration,
    /// No attempt starts later than this after the first one.
    pub deadline: Option<Duration>,
    /// Shared between calls: keeps retries to a fraction of them.
    pub budget: Option<RetryBudget>,
    /// Determines the jitter.
    pub seed: u64,
}

impl Default for Retry {
    /// 4 attempts, 100 ms to 10 s, no deadline, no budget.
    fn default() -> Self {
        Self {
            attempts_max: 4,
            delay_min: Duration::from_millis(100),
            delay_max: Duration::from_secs(10),
            deadline: None,
            budget: None,
            seed: 0,
        }
    }
}

/// Why there was no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The error was permanent.
    Permanent,
    /// There were as many as allowed.
    Attempts,
    /// The next one would have started too late.
    Deadline,
    /// Too many calls are being retried.
    Budget,
}

/// The last error, and why it was the last. `Display` says the latter; the error itself is the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaveUp<E> {
    /// What the last attempt said.
    pub error: E,
    /// How many attempts there were.
    pub attempts: usize,
    /// Why there was no further one.
    pub reason: Reason,
}

impl<E> fmt::Display for GaveUp<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = self.attempts;
        match self.reason {
            Reason::Permanent => write!(f, "failed for good at attempt {attempts}"),
            Reason::Attempts => write!(f, "failed after {attempts} attempts"),
            Reason::Deadline => write!(f, "no time left after {attempts} attempts"),
            Reason::Budget => write!(f, "retry budget spent after {attempts} attempts"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for GaveUp<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Retry {
    /// Makes attempts, counted from 1, until one succeeds or there is no point in another. Dropping it ends them.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn run<T, E, Fut>(
        &self,
        mut classify: impl FnMut(&E) -> Verdict,
        // Not `AsyncFnMut`: its futures cannot be said to be `Send`, and the run could not be spawned.
        mut attempt: impl FnMut(usize) -> Fut,
    ) -> Result<T, GaveUp<E>>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let started = Instant::now();
        let mut delays = self.delays();
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
        let mut attempts = 1;
        loop {
            let error = match attempt(attempts).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match self.next_delay(classify(&error), attempts, started.elapsed(), &mut delays) {
                Ok(delay) => tokio::time::sleep(delay).await,
                Err(reason) => return Err(GaveUp { error, attempts, reason }),
            }
            attempts += 1;
        }
    }

    /// The delays between attempts, one fewer than there are attempts: for callers that wait in their own way.
    pub fn delays(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        let mut chance = Chance::new(self.seed);
        // Its own jitter adds to the delay instead of spreading it from zero, which keeps callers in step.
        let bounds = ExponentialBuilder::new()
            .with_min_delay(self.delay_min.min(self.delay_max))
            .with_max_delay(self.delay_max)
            .with_max_times(self.attempts_max.saturating_sub(1));
        bounds.build().map(move |bound| bound.mul_f64(chance.fraction()))
    }

    fn next_delay(
        &self,
        verdict: Verdict,
        attempts: usize,
        elapsed: Duration,
        delays: &mut impl Iterator<Item = Duration>,
    ) -> Result<Duration, Reason> {
        let asked = match verdict {
            Verdict::Permanent => return Err(Reason::Permanent),
            Verdict::Transient => Duration::ZERO,
            Verdict::After(delay) => delay,
        };
        let delay = delays.next().ok_or(Reason::Attempts)?.max(asked);
        if self.deadline.is_some_and(|deadline| elapsed.saturating_add(delay) > deadline) {
            return Err(Reason::Deadline);
        }
        if self.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
            return Err(Reason::Budget);
        }
        tracing::debug!(attempts, ?delay, "trying again");
        Ok(delay)
    }
}

/// Keeps retries to a fraction of the calls, so that a failing peer is not buried under them. Cloning shares it.
///
/// Each call puts a fraction of a token in, each retry takes a whole one out; it starts full.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    fraction: f64,
    tokens_max: f64,
    tokens: Arc<Mutex<f64>>,
}

impl RetryBudget {
    /// `fraction` retries per call (0.2, say), and `tokens_max` retries in a burst.
    #[must_use]
    pub fn new(fraction: f64, tokens_max: u32) -> Self {
        let tokens_max = f64::from(tokens_max);
        Self { fraction: fraction.max(0.0), tokens_max, tokens: Arc::new(Mutex::new(tokens_max)) }
    }

    pub(crate) fn deposit(&self) {
        let mut tokens = self.tokens.lock();
        *tokens = (*tokens + self.fraction).min(self.tokens_max);
    }

    pub(crate) fn withdraw(&self) -> bool {
        let mut tokens = self.tokens.lock();
        let has_one = *tokens >= 1.0;
        if has_one {
            *tokens -= 1.0;
        }
        has_one
    }
}
