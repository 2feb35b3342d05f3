//! The error of this crate.

use std::path::PathBuf;

/// Error of setting up a trace or read restrictions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel, the architecture or an outer sandbox does not provide the facility.
    #[error("cannot use {facility}: {reason}")]
    Unavailable {
        /// The facility: system-call tracing or Landlock.
        facility: &'static str,
        /// The reason, as a lower-case fragment.
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
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { operation, path, source }
    }
}
