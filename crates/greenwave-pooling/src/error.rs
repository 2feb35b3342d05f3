//! Why a thing was not lent.

use std::sync::Arc;
use std::time::Duration;

/// An error of a manager, of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a thing was not lent. `Display` leaves the source of the error to `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manager could not connect. Worth another attempt.
    #[error("could not connect")]
    Connect {
        /// What the manager said.
        #[source]
        source: BoxError,
    },
    /// Connecting took too long. Worth another attempt.
    #[error("no connection within {after:?}")]
    ConnectTimeout {
        /// The limit.
        after: Duration,
    },
    /// The runtime of the task that connected went away.
    #[error("connecting was given up")]
    ConnectAborted,
    /// A new connection was broken as soon as it was made: the other side accepts connections and
    /// closes them, for example. Worth another attempt, later.
    #[error("the new connection was broken at once")]
    BrokenOnConnect,
    /// Code of the caller panicked. Only the call that it was made for fails.
    #[error("`{callback}` panicked: {message}")]
    Panicked {
        /// The name of the function.
        callback: &'static str,
        /// The panic's message.
        message: String,
    },
    /// Nothing became free in time: too little for the load.
    #[error("nothing was free within {after:?}")]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The breaker is open: so many calls failed that none is made for a while.
    #[error("calls are suspended for another {retry_after:?}")]
    CircuitOpen {
        /// Until the next call may be tried.
        retry_after: Duration,
    },
    /// The connection that carried the request broke before the answer came. Whether it was carried out is not known.
    #[error("the connection broke before the answer")]
    ConnectionLost {
        /// How it broke, for all requests that it carried.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The request cannot be written in the protocol of its connection; it was not sent.
    #[error("the request cannot be written")]
    InvalidRequest {
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The pool, batcher or connection was closed.
    #[error("closed")]
    Closed,
    /// The runtime of the batch that the request was in went away.
    #[error("the batch was given up")]
    BatchAborted,
    /// The batch was answered with more or fewer answers than it had requests: a fault of its handler.
    #[error("a batch of {expected} requests got {found} answers")]
    BatchResponseCount {
        /// Requests.
        expected: usize,
        /// Answers.
        found: usize,
    },
}

impl Error {
    /// Whether another attempt may succeed.
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
