//! What can go wrong with a cache, as a caller would act on it. That something is not cached is none of it.

/// What a backend's own failure looks like from here.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a cache or backend could not be made, or why a call that must not fail in silence failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has a value that cannot work.
    #[error("invalid value {value} for {option}: expected {expected}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// What it was.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// A backend failed.
    #[error("cannot {operation}")]
    Backend {
        /// What was attempted, and on what.
        operation: String,
        /// What the backend said.
        source: BoxError,
    },
    /// A server failed a moment ago, and was not asked.
    #[error("{server} is left alone for {pause:?} more")]
    Unavailable {
        /// Which.
        server: String,
        /// For how long yet.
        pause: std::time::Duration,
    },
    /// A value could not be written as a payload, or read from one.
    #[cfg(feature = "serde")]
    #[error("cannot {operation} a value as {format:?}")]
    Format {
        /// `read` or `write`.
        operation: &'static str,
        /// The format.
        format: crate::PayloadFormat,
        /// What is wrong.
        source: BoxError,
    },
    /// A callback that a user of the cache supplied panicked: a backend or a lease, say.
    #[error("{callback} panicked: {message}")]
    Panicked {
        /// Which one.
        callback: &'static str,
        /// The message of the panic.
        message: String,
    },
    /// The operation was cut off because the runtime is shutting down.
    #[error("runtime is shutting down")]
    Shutdown,
}

impl Error {
    pub(crate) fn backend(operation: impl Into<String>) -> impl FnOnce(BoxError) -> Self {
        move |source| Self::Backend { operation: operation.into(), source }
    }
}
