//! What can go wrong with a stream. Knows nothing of how the bytes are read.

use std::path::PathBuf;
use std::time::Duration;

/// An error of a source, of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a stream failed. Nothing follows an error; `Display` leaves the source of the error to `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source broke. Worth another attempt.
    #[error("source broke after {received} bytes")]
    Source {
        /// Bytes that had arrived.
        received: u64,
        /// What the source said.
        #[source]
        source: BoxError,
    },
    /// The source ended, but the unit that was to be its last never came. Worth another attempt.
    #[error("source ended after {received} bytes without its terminal unit")]
    Truncated {
        /// Bytes that had arrived.
        received: u64,
    },
    /// The source was too slow. Worth another attempt.
    #[error("{limit} limit of {after:?} passed after {received} bytes")]
    Timeout {
        /// Which limit.
        limit: TimeoutKind,
        /// Its value.
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
    /// One unit is longer than its cap, and the splitter was told not to split it.
    #[error("unit at byte {offset} is longer than {bytes_max} bytes")]
    UnitTooLong {
        /// Where the unit starts in the stream.
        offset: u64,
        /// The cap.
        bytes_max: usize,
    },
    /// One unit is nested deeper than its cap.
    #[error("value at byte {offset} is nested deeper than {depth_max} levels")]
    TooDeep {
        /// Where the level that is one too many opens.
        offset: u64,
        /// The cap.
        depth_max: usize,
    },
    /// The source broke as often as it may. The source of this error is that of the last attempt.
    #[error("gave up after {attempts} attempts")]
    RetriesExhausted {
        /// Attempts in all.
        attempts: u32,
        /// What went wrong with the last one.
        #[source]
        source: Box<Self>,
    },
    /// The source does not want to be asked again.
    #[error("source refused")]
    Refused {
        /// What it said.
        #[source]
        source: BoxError,
    },
    /// The journal could not be read or written. Units that it could not record were not handed on.
    #[error("could not {operation} the journal in {}", dir.display())]
    Journal {
        /// What was tried.
        operation: &'static str,
        /// Where.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: BoxError,
    },
    /// The bytes cannot be cut into units.
    #[error("malformed at byte {offset}: expected {expected}")]
    Malformed {
        /// Where, in the stream.
        offset: u64,
        /// What could have stood there.
        expected: &'static str,
    },
}

impl Error {
    /// Whether the fault lies with the source, so that another attempt may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Source { .. } | Self::Truncated { .. } | Self::Timeout { .. })
    }
}

/// The time limits of [`Limits`](crate::Limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// From the first poll to the first byte.
    FirstByte,
    /// From one chunk to the next, while the source is being waited for.
    Idle,
    /// From the first poll to the end.
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
