//! Errors of caches, backends and payloads.

/// Error type of a backend.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Errors of creating a cache or a backend, and of calls that report failures. A cache miss is not
/// an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has an invalid value.
    #[error("invalid value {value} for {option}: expected {expected}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// The invalid value.
        value: String,
        /// Description of the valid values.
        expected: &'static str,
    },
    /// A backend failed.
    #[error("cannot {operation}")]
    Backend {
        /// Operation that was attempted, and on what.
        operation: String,
        /// Error returned by the backend.
        source: BoxError,
    },
    /// The server failed recently, and the call was skipped.
    #[error("{server} is unavailable, next attempt in {retry_in:?}")]
    Unavailable {
        /// Name and address of the server.
        server: String,
        /// Time until the next attempt.
        retry_in: std::time::Duration,
    },
    /// A value could not be converted to or from a payload.
    #[cfg(feature = "serde")]
    #[error("cannot {operation} a value as {format:?}")]
    Format {
        /// `read` or `write`.
        operation: &'static str,
        /// Format of the payload.
        format: crate::format::PayloadFormat,
        /// Error returned by the serializer.
        source: BoxError,
    },
    /// A user-supplied callback panicked, such as a backend or a lease provider.
    #[error("{callback} panicked: {message}")]
    Panicked {
        /// Name of the callback.
        callback: &'static str,
        /// Message of the panic.
        message: String,
    },
    /// The operation was cancelled because the runtime is shutting down.
    #[error("runtime is shutting down")]
    Shutdown,
}

impl Error {
    pub(crate) fn backend(operation: impl Into<String>) -> impl FnOnce(BoxError) -> Self {
        move |source| Self::Backend { operation: operation.into(), source }
    }
}
