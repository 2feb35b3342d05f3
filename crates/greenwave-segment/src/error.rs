//! What can go wrong with a log, as a caller would act on it. A damaged record is none of it: that is a miss.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation on a [`Log`](crate::Log) did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused. Reading on is safe; what was put before the last successful flush is kept.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was attempted, as a verb phrase: `append to`, `read`.
        operation: &'static str,
        /// The file or directory it was attempted on.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A segment was written by a later version of this crate. Upgrade, or use another directory.
    #[error("{} has format version {found}, and this program reads up to {supported}", path.display())]
    NewerFormat {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version that this crate reads.
        supported: u16,
    },
    /// A key is longer than the log was opened for.
    #[error("key of {len} bytes, where at most {max} are allowed")]
    KeyTooLong {
        /// Its length.
        len: usize,
        /// [`Options::key_bytes_max`](crate::Options::key_bytes_max).
        max: u32,
    },
    /// A value is larger than the log was opened for.
    #[error("value of {len} bytes, where at most {max} are allowed")]
    ValueTooLarge {
        /// Its length.
        len: usize,
        /// [`Options::value_bytes_max`](crate::Options::value_bytes_max).
        max: u32,
    },
    /// The log has reached its disk budget, and compaction frees too little. Remove keys, or raise the budget.
    #[error("log at {} is full: {needed} more bytes would exceed {max}", path.display())]
    Full {
        /// The log's directory.
        path: PathBuf,
        /// Size of the record that did not fit.
        needed: u64,
        /// [`Options::disk_bytes_max`](crate::Options::disk_bytes_max).
        max: u64,
    },
    /// The log was opened with [`Log::open_read_only`](crate::Log::open_read_only).
    #[error("log at {} is open for reading only", path.display())]
    ReadOnly {
        /// The log's directory.
        path: PathBuf,
    },
    /// A batch takes more room than one write may. Split it.
    #[error("batch of {len} bytes, where at most {max} are allowed")]
    BatchTooLarge {
        /// What its records take.
        len: u64,
        /// The most that they may.
        max: u64,
    },
    /// The directory is a copy that was made while the log was written, and segments are missing or cut short in it. Copy it
    /// again while nobody writes, or remove the copy's file `manifest` to read it as far as it goes.
    #[error("{} is an incomplete copy of a log: {missing}", path.display())]
    IncompleteCopy {
        /// The directory.
        path: PathBuf,
        /// What is missing, as a phrase.
        missing: String,
    },
    /// An option has a value that cannot work.
    #[error("option {option} is {value}, where {accepted} is accepted")]
    Option {
        /// The field of [`Options`](crate::Options).
        option: &'static str,
        /// What it was.
        value: String,
        /// What would do.
        accepted: &'static str,
    },
}

impl Error {
    /// Wraps an operating-system error with what was attempted; made for `map_err`.
    pub(crate) fn io<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    /// Whether a file is not there any more.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// `None` where a file has been removed by another process in the meantime.
pub(crate) fn unless_gone<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}
