//! The error of this crate.

use std::path::PathBuf;

/// TraceSession or confinement could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel, the architecture or an outer sandbox does not allow it.
    #[error("{what} is not available: {reason}")]
    Unavailable {
        /// The operation that was wanted.
        what: &'static str,
        /// The reason.
        reason: String,
    },
    /// A file or directory could not be opened.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// The operation that was attempted.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

impl Error {
    #[cfg(target_os = "linux")]
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { operation, path, source }
    }
}
