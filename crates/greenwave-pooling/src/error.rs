//! Errors of this crate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An error of any type, such as one from a manager.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The reason why a pool, batcher or guard could not serve a request. `Display` does not repeat the
/// source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manager failed to connect. Worth another attempt.
    #[error("cannot connect")]
    Connect {
        /// The error of the manager.
        #[source]
        source: BoxError,
    },
    /// Connecting took longer than `connect_timeout`. Worth another attempt.
    #[error("connecting took longer than {}", humantime::format_duration(*after))]
    ConnectTimeout {
        /// The time limit.
        after: Duration,
    },
    /// The task that connected was cancelled because its runtime was shut down.
    #[error("connecting was aborted: the runtime was shut down")]
    ConnectAborted,
    /// A new connection was broken immediately, for example because the peer accepts connections
    /// and closes them. Worth another attempt, later.
    #[error("the new connection was broken immediately")]
    BrokenOnConnect,
    /// A callback of the user panicked. Only the call that it ran for fails.
    #[error("`{callback}` panicked: {message}")]
    Panicked {
        /// Name of the callback.
        callback: &'static str,
        /// Message of the panic.
        message: String,
    },
    /// Nothing became free within the time limit: the load is too high.
    #[error("no connection became free within {}", humantime::format_duration(*after))]
    Timeout {
        /// The time limit.
        after: Duration,
    },
    /// The circuit breaker is open after repeated failures.
    #[error("circuit breaker open: calls are suspended for another {}", in_milliseconds(*retry_after))]
    CircuitOpen {
        /// Time until the next call may be tried.
        retry_after: Duration,
    },
    /// The connection broke before the response arrived. The peer may or may not have processed the
    /// request.
    #[error("the connection broke before the response arrived")]
    ConnectionLost {
        /// The error that broke the connection, shared by all its requests.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The request cannot be encoded in the protocol of the connection. It was not sent.
    #[error("cannot encode the request")]
    InvalidRequest {
        /// The error of the framing.
        #[source]
        source: std::io::Error,
    },
    /// The pool, batcher or connection was closed.
    #[error("closed")]
    Closed,
    /// The task that ran the batch was cancelled because its runtime was shut down.
    #[error("the batch was aborted: the runtime was shut down")]
    BatchAborted,
    /// The handler returned more or fewer responses than the batch had requests. This is a bug in
    /// the handler.
    #[error("the handler returned {returned} responses for a batch of {expected} requests")]
    BatchResponseCount {
        /// Number of requests.
        expected: usize,
        /// Number of responses.
        returned: usize,
    },
}

impl Error {
    /// Returns true if another attempt may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::ConnectTimeout { .. }
                | Self::BrokenOnConnect
                | Self::Timeout { .. }
                | Self::CircuitOpen { .. }
        )
    }
}

/// Formats a remaining time, rounded up to a millisecond.
fn in_milliseconds(remaining: Duration) -> humantime::FormattedDuration {
    let ms = remaining.as_nanos().div_ceil(1_000_000);
    humantime::format_duration(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
}

/// Errors of a load that several callers share.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The load failed. All callers that waited for it share the error.
    Failed(Arc<E>),
    /// The load of another caller, for which this one waited, panicked.
    Panicked {
        /// Message of the panic.
        message: Arc<str>,
    },
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Panicked { message } => Self::Panicked { message: Arc::clone(message) },
        }
    }
}

impl<E: PartialEq> PartialEq for LoadError<E> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed(error), Self::Failed(other)) => error == other,
            (Self::Panicked { message }, Self::Panicked { message: other }) => message == other,
            _ => false,
        }
    }
}

impl<E> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(_) => f.write_str("cannot load the value"),
            Self::Panicked { message } => write!(f, "the load panicked: {message}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(&**error),
            Self::Panicked { .. } => None,
        }
    }
}
