//! Errors of stores and cold tiers.

use crate::BlobId;

/// Error type of a cold tier.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Error of an operation on a [`Store`](crate::Store).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cold tier failed. Contents that were put stay readable in memory, and a retry may
    /// succeed.
    #[error("cannot {operation}")]
    ColdTier {
        /// Operation that was attempted, such as `write 12 blobs`.
        operation: String,
        /// Error returned by the cold tier.
        source: BoxError,
    },
    /// A name is empty or too long.
    #[error("invalid length {len} for name: expected 1 to {max} bytes")]
    InvalidName {
        /// Length of the name in bytes of UTF-8.
        len: usize,
        /// Maximum length in bytes.
        max: usize,
    },
    /// Contents exceed the size limit of the cold tier. Nothing was stored.
    #[error("invalid length {len} for contents: expected at most {max} bytes")]
    TooLarge {
        /// Length of the contents in bytes.
        len: u64,
        /// Maximum length in bytes.
        max: u64,
    },
    /// A record refers to contents that are missing or corrupt.
    #[error("missing contents {blob} of {what}")]
    Missing {
        /// Item that was read: a name, or a path in an attempt or snapshot.
        what: String,
        /// Id of the contents.
        blob: BlobId,
    },
    /// A stored attempt or snapshot cannot be decoded. A later version may have written it.
    #[error("invalid record {name}: expected {expected}")]
    InvalidRecord {
        /// Name of the record.
        name: String,
        /// Expected content, such as `an attempt of version 1`.
        expected: &'static str,
    },
    /// An option has an invalid value.
    #[error("invalid value {value} for {option}: expected {expected}")]
    InvalidOption {
        /// Field of the options.
        option: &'static str,
        /// The invalid value.
        value: String,
        /// Description of the valid values.
        expected: &'static str,
    },
    /// Code of the user panicked, such as the cold tier. Only the call that it ran for fails.
    #[error("{callback} panicked: {message}")]
    Panicked {
        /// The code that panicked.
        callback: &'static str,
        /// Message of the panic.
        message: String,
    },
    /// The operation was cancelled because the runtime is shutting down.
    #[error("runtime is shutting down")]
    Shutdown,
}

impl Error {
    pub(crate) fn cold(operation: impl Into<String>) -> impl FnOnce(BoxError) -> Self {
        move |source| Self::ColdTier { operation: operation.into(), source }
    }
}
