//! Errors of caches, computations, backends and payloads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Error type of a backend.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Errors of creating a cache or a backend, and of calls that report failures. A cache miss is not
/// an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has an invalid value.
    #[error("invalid value {value} for {option}: expected {expected}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// The invalid value.
        value: String,
        /// Description of the valid values.
        expected: &'static str,
    },
    /// A backend failed.
    #[error("cannot {operation}")]
    Backend {
        /// Operation that was attempted, and on what.
        operation: String,
        /// Error returned by the backend.
        source: BoxError,
    },
    /// The server failed recently, and the call was skipped.
    #[error("cannot reach {server}: the next attempt is in {}", in_milliseconds(*retry_in))]
    Unavailable {
        /// Name and address of the server.
        server: String,
        /// Time until the next attempt.
        retry_in: Duration,
    },
    /// A value could not be converted to or from a payload.
    #[cfg(feature = "serde")]
    #[error("cannot {operation} a value as {format:?}")]
    Format {
        /// `read` or `write`.
        operation: &'static str,
        /// Format of the payload.
        format: crate::format::PayloadFormat,
        /// Error returned by the serializer.
        source: BoxError,
    },
    /// A user-supplied callback panicked, such as a backend or a lease provider.
    #[error("{callback} panicked: {message}")]
    Panicked {
        /// Name of the callback.
        callback: &'static str,
        /// Message of the panic.
        message: String,
    },
    /// The operation was cancelled because the runtime is shutting down.
    #[error("runtime is shutting down")]
    Shutdown,
}

impl Error {
    pub(crate) fn backend(operation: impl Into<String>) -> impl FnOnce(BoxError) -> Self {
        move |source| Self::Backend { operation: operation.into(), source }
    }
}

/// Formats a remaining time, rounded up to a millisecond.
fn in_milliseconds(remaining: Duration) -> humantime::FormattedDuration {
    let ms = remaining.as_nanos().div_ceil(1_000_000);
    humantime::format_duration(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
}

/// Errors of a computation that several callers share.
#[derive(Debug)]
#[non_exhaustive]
pub enum ComputeError<E> {
    /// The computation failed. All callers that waited for it share the error.
    Failed(Arc<E>),
    /// The computation of another caller, for which this one waited, panicked.
    Panicked {
        /// Message of the panic.
        message: Arc<str>,
    },
}

impl<E> Clone for ComputeError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Panicked { message } => Self::Panicked { message: Arc::clone(message) },
        }
    }
}

impl<E: PartialEq> PartialEq for ComputeError<E> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed(error), Self::Failed(other)) => error == other,
            (Self::Panicked { message }, Self::Panicked { message: other }) => message == other,
            _ => false,
        }
    }
}

impl<E> fmt::Display for ComputeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(_) => f.write_str("cannot compute the value"),
            Self::Panicked { message } => write!(f, "the computation panicked: {message}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ComputeError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(&**error),
            Self::Panicked { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remaining_time_is_rounded_up_to_a_millisecond() {
        let check = |remaining: Duration, expected: &str| {
            assert_eq!(in_milliseconds(remaining).to_string(), expected);
        };
        check(Duration::ZERO, "0s");
        check(Duration::from_nanos(1), "1ms");
        check(Duration::from_nanos(59_999_000_001), "1m");
        check(Duration::from_millis(1_250), "1s 250ms");
        in_milliseconds(Duration::MAX).to_string();
    }
}
