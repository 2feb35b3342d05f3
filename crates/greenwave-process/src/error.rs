//! The error of operations on a jobserver.

/// An operation on a jobserver failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pipe of the jobserver could not be created or filled.
    #[error("cannot {operation} a jobserver")]
    Jobserver {
        /// The operation that was attempted.
        operation: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
}
