//! Errors of a log.

use std::io;
use std::path::{Path, PathBuf};

/// Error of an operation on a [`Log`](crate::Log). The operation had no effect. A damaged record is
/// not an error but a miss.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed. The log can still be read, and everything flushed before remains
    /// durable.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// Attempted operation as a verb phrase: `append to`, `read`.
        operation: &'static str,
        /// Affected file or directory.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A segment was written by a later version of this crate. Upgrade, or use another directory.
    #[error("unsupported format version {found} in {}: expected at most {supported}", path.display())]
    NewerFormat {
        /// Path of the segment.
        path: PathBuf,
        /// Format version of the segment.
        found: u16,
        /// Newest version that this crate reads.
        supported: u16,
    },
    /// A key exceeds [`Options::key_bytes_max`](crate::Options::key_bytes_max).
    #[error("invalid key of {len} bytes: expected at most {max}")]
    KeyTooLong {
        /// Length of the key in bytes.
        len: usize,
        /// Maximum length in bytes.
        max: u32,
    },
    /// A value exceeds [`Options::value_bytes_max`](crate::Options::value_bytes_max).
    #[error("invalid value of {len} bytes: expected at most {max}")]
    ValueTooLarge {
        /// Size of the value in bytes.
        len: usize,
        /// Maximum size in bytes.
        max: u32,
    },
    /// The log has reached its disk budget, and compaction frees too little. Remove keys, or raise
    /// the budget.
    #[error("cannot write to {}: {needed} more bytes exceed its limit of {max}", path.display())]
    Full {
        /// The log's directory.
        path: PathBuf,
        /// Space needed for the record, in bytes.
        needed: u64,
        /// Value of [`Options::disk_bytes_max`](crate::Options::disk_bytes_max).
        max: u64,
    },
    /// The log was opened with [`Log::open_read_only`](crate::Log::open_read_only).
    #[error("cannot write to {}: the log is open for reading only", path.display())]
    ReadOnly {
        /// The log's directory.
        path: PathBuf,
    },
    /// A batch exceeds the size of one write. Split it.
    #[error("invalid batch of {len} bytes: expected at most {max}")]
    BatchTooLarge {
        /// Size of the batch's records in bytes.
        len: u64,
        /// Maximum size in bytes.
        max: u64,
    },
    /// The directory is a copy made while the log was written, and it lacks segments or the ends of
    /// segments. Copy it again while no process writes, or remove the file `manifest` from the copy
    /// to read its contents.
    #[error("cannot open {}: it is an incomplete copy of a log: {missing}", path.display())]
    IncompleteCopy {
        /// The log's directory.
        path: PathBuf,
        /// Missing data, as a clause.
        missing: String,
    },
    /// An option has an invalid value.
    #[error("invalid value {value} for {option}: expected {accepted}")]
    Option {
        /// Field of [`Options`](crate::Options).
        option: &'static str,
        /// The invalid value.
        value: String,
        /// Accepted values.
        accepted: &'static str,
    },
}

impl Error {
    /// Returns a function for `map_err` that adds the operation and the path to an I/O error.
    pub(crate) fn io<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    /// Returns whether the error says that a file is missing.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Turns an error about a file that another process has removed into `None`.
pub(crate) fn unless_gone<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}
