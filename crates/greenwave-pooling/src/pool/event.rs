//! Events of a pool.

use std::time::Duration;

use crate::error::Error;

/// The reason why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The connection was broken when it was returned.
    Broken,
    /// The check failed, timed out, or was cancelled.
    CheckFailed,
    /// The user discarded the connection.
    Discarded,
    /// The connection was idle for too long.
    Idle,
    /// The connection reached its maximum lifetime.
    Expired,
    /// The pool was closed.
    PoolClosed,
    /// The user took the connection out of the pool. It is still open.
    Taken,
    /// [`Pool::retain`](super::Pool::retain) refused the connection.
    NotRetained,
    /// The pool became smaller.
    Surplus,
}

/// An event of a pool. A checkout that is served at once causes no event.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolEvent<'a> {
    /// A connection was established.
    Connected {
        /// Duration of the connect.
        took: Duration,
    },
    /// A connect failed.
    ConnectFailed {
        /// The error.
        error: &'a Error,
    },
    /// A connection was closed.
    Closed {
        /// The reason.
        reason: CloseReason,
    },
    /// A caller was served after a wait.
    Waited {
        /// Duration of the wait.
        waited: Duration,
    },
    /// A caller was not served in time.
    TimedOut {
        /// Duration of the wait.
        waited: Duration,
    },
}
