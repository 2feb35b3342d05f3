//! What happens in a pool, for whoever wants to know. Knows nothing of who that is.

use std::time::Duration;

use crate::error::Error;

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// It came back broken.
    Broken,
    /// Its check failed, took too long, or was given up.
    CheckFailed,
    /// Its borrower discarded it.
    Discarded,
    /// Nobody used it for too long.
    Idle,
    /// Its life was over.
    Expired,
    /// The pool was closed.
    PoolClosed,
}

/// Something that happened. None of these is part of a check-out that is served at once.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolEvent<'a> {
    /// A connection was made.
    Connected {
        /// How long that took.
        took: Duration,
    },
    /// A connection could not be made.
    ConnectFailed {
        /// Why.
        error: &'a Error,
    },
    /// A connection was closed.
    Closed {
        /// Why.
        reason: CloseReason,
    },
    /// A caller was served after a wait.
    Waited {
        /// How long it waited.
        waited: Duration,
    },
    /// A caller was not served in time.
    TimedOut {
        /// How long it waited.
        waited: Duration,
    },
}
