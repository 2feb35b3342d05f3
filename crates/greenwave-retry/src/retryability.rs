//! What an error says of another attempt, and how a call ends that has none left.

use std::fmt;
use std::time::Duration;

/// What an error says of another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retryability {
    /// It would fail too, or the first one may have had an effect.
    Permanent,
    /// It may succeed.
    Transient,
    /// It may succeed, but not before this delay. At most [`Retry::asked_max`](crate::Retry::asked_max)
    /// of it is waited for.
    After(Duration),
}

#[cfg(feature = "http")]
impl Retryability {
    /// Reads the value of a `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date, from
    /// which `now` is subtracted. A date in the past is a delay of zero. Any other text is
    /// [`Transient`](Self::Transient).
    #[must_use]
    pub fn retry_after(value: &str, now: std::time::SystemTime) -> Self {
        let value = value.trim();
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            // Only a number that is too large does not parse.
            return Self::After(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
        }
        match httpdate::parse_http_date(value) {
            Ok(date) => Self::After(date.duration_since(now).unwrap_or_default()),
            Err(_) => Self::Transient,
        }
    }
}

/// Why there is no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The error is permanent.
    Permanent,
    /// As many attempts as allowed have failed.
    Attempts,
    /// The next attempt would start after the deadline.
    Deadline,
    /// Too many calls are being retried.
    Budget,
}

/// The last error of a call, and why it was the last. `Display` gives the reason; the error is its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryError<E> {
    /// The error of the last attempt.
    pub error: E,
    /// How many attempts were made.
    pub attempts: usize,
    /// Why there was no further one.
    pub reason: Reason,
}

impl<E> fmt::Display for RetryError<E> {
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

impl<E: std::error::Error + 'static> std::error::Error for RetryError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
