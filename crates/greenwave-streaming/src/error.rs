//! Defines the crate's errors.

use std::path::PathBuf;
use std::time::Duration;

/// An error of any type, as returned by sources.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An error of a stream, which ends the stream. `Display` omits the cause, which `source()`
/// returns.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source broke. Transient.
    #[error("source broke after {received} bytes")]
    Source {
        /// Bytes that had arrived.
        received: u64,
        /// The source's error.
        #[source]
        source: BoxError,
    },
    /// The source ended before the unit that should have been its last. Transient.
    #[error("source ended after {received} bytes without its terminal unit")]
    Truncated {
        /// Bytes that had arrived.
        received: u64,
    },
    /// The source was too slow. Transient.
    #[error("{limit} limit of {} exceeded after {received} bytes", humantime::format_duration(*after))]
    Timeout {
        /// The limit that was exceeded.
        limit: TimeoutKind,
        /// The value of the limit.
        after: Duration,
        /// Bytes that had arrived.
        received: u64,
    },
    /// The whole stream is longer than its limit.
    #[error("stream is longer than {bytes_max} bytes")]
    StreamTooLong {
        /// The limit.
        bytes_max: u64,
    },
    /// A unit is longer than its cap, which does not allow splitting.
    #[error("unit at byte {offset} is longer than {bytes_max} bytes")]
    UnitTooLong {
        /// Offset of the unit in the stream.
        offset: u64,
        /// The cap.
        bytes_max: usize,
    },
    /// A unit is nested deeper than its cap.
    #[error("value at byte {offset} is nested deeper than {depth_max} levels")]
    TooDeep {
        /// Offset in the stream of the level that exceeds the cap.
        offset: u64,
        /// The cap.
        depth_max: usize,
    },
    /// All attempts failed. The cause is the error of the last attempt.
    #[error("gave up after {attempts} attempts")]
    RetriesExhausted {
        /// Number of attempts made.
        attempts: u32,
        /// The error of the last attempt.
        #[source]
        source: Box<Self>,
    },
    /// The source cannot be opened, and a retry would fail too.
    #[error("cannot open the source")]
    Open {
        /// The source's error.
        #[source]
        source: BoxError,
    },
    /// The journal cannot be read or written. Units that could not be recorded were not delivered.
    #[error("cannot {operation} the journal in {}", dir.display())]
    Journal {
        /// The operation that failed, as a verb phrase.
        operation: &'static str,
        /// The directory of the journal.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// The bytes are not of the expected form.
    #[error("malformed at byte {offset}: expected {expected}")]
    Malformed {
        /// Offset in the stream.
        offset: u64,
        /// Description of the expected bytes.
        expected: &'static str,
    },
}

impl Error {
    /// Returns whether another attempt may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Source { .. } | Self::Truncated { .. } | Self::Timeout { .. })
    }
}

/// The time limits of [`Limits`](crate::Limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// Time from the first poll to the first byte.
    FirstByte,
    /// Time between chunks, counted only while waiting for the source.
    Idle,
    /// Time from the first poll to the end.
    Total,
}

impl std::fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FirstByte => "first-byte",
            Self::Idle => "idle",
            Self::Total => "total",
        })
    }
}
