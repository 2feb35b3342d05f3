//! Defines whether an error can be retried, and the result of a call that cannot.

use std::fmt;
use std::time::Duration;

/// Whether a failed call can be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retryability {
    /// Another attempt would fail too, or the first one may have had an effect.
    Permanent,
    /// Another attempt may succeed.
    Transient,
    /// Another attempt may succeed, but not before this delay, which is limited to
    /// [`Retry::asked_max`](crate::Retry::asked_max).
    After(Duration),
}

#[cfg(feature = "http")]
impl Retryability {
    /// Parses the value of a `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date,
    /// from which `now` is subtracted. A past date is a delay of zero. Any other text is
    /// [`Transient`](Self::Transient).
    #[must_use]
    pub fn retry_after(value: &str, now: std::time::SystemTime) -> Self {
        let value = value.trim();
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            // Parsing fails only if the number is too large.
            return Self::After(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
        }
        match httpdate::parse_http_date(value) {
            Ok(date) => Self::After(date.duration_since(now).unwrap_or_default()),
            Err(_) => Self::Transient,
        }
    }
}

/// The reason to stop retrying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The error is permanent.
    Permanent,
    /// The maximum number of attempts has failed.
    Attempts,
    /// The next attempt would start after the deadline.
    Deadline,
    /// The retry budget is exhausted.
    Budget,
}

/// The last error of a failed call and the reason that it was not retried. `Display` shows the
/// reason; `source()` is the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryError<E> {
    /// The error of the last attempt.
    pub error: E,
    /// Number of attempts made.
    pub attempts: usize,
    /// The reason that the call was not retried.
    pub reason: StopReason,
}

impl<E> fmt::Display for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = self.attempts;
        match self.reason {
            StopReason::Permanent => write!(f, "failed permanently at attempt {attempts}"),
            StopReason::Attempts => write!(f, "failed after {attempts} attempts"),
            StopReason::Deadline => write!(f, "deadline reached after {attempts} attempts"),
            StopReason::Budget => write!(f, "retry budget exhausted after {attempts} attempts"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for RetryError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
