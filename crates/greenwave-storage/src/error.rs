//! What can go wrong with a store, as a caller would act on it.

use crate::BlobId;

/// What a cold tier's own failure looks like from here.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an operation on a [`Store`](crate::Store) did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cold tier failed. What was put stays readable in memory; trying again may succeed.
    #[error("cold tier failed to {operation}")]
    ColdTier {
        /// What was attempted: `write 12 blobs`.
        operation: String,
        /// What it said.
        source: BoxError,
    },
    /// A name is empty or longer than the limit.
    #[error("name of {len} bytes, where 1 to {max} are allowed")]
    InvalidName {
        /// Its length in bytes of UTF-8.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Contents are larger than the cold tier takes. Nothing was put.
    #[error("contents of {len} bytes, where at most {max} are allowed")]
    TooLarge {
        /// Their length in bytes.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// A record refers to contents that are gone or damaged.
    #[error("contents {blob} of {what} are missing")]
    Missing {
        /// What was read: a name, or a path in an attempt or snapshot.
        what: String,
        /// The contents.
        blob: BlobId,
    },
    /// A stored record of attempts or of a snapshot is not one, or was written by a later version.
    #[error("{name} does not hold {expected}")]
    InvalidRecord {
        /// The name it is stored under.
        name: String,
        /// What was expected there: `an attempt of version 1`.
        expected: &'static str,
    },
    /// An option has a value that cannot work.
    #[error("invalid value {value} for {option}: expected {expected}")]
    InvalidOption {
        /// The field of [`StoreOptions`](crate::StoreOptions).
        option: &'static str,
        /// What it was.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// The operation was cut off because the runtime is shutting down.
    #[error("runtime is shutting down")]
    Shutdown,
}

impl Error {
    pub(crate) fn cold(operation: impl Into<String>) -> impl FnOnce(BoxError) -> Self {
        move |source| Self::ColdTier { operation: operation.into(), source }
    }
}
