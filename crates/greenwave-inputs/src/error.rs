//! The error of this crate.

use std::path::{Path, PathBuf};

/// Error of determining the state of input files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A pattern of input files is not a valid glob.
    #[error("invalid pattern `{pattern}`{}: expected a glob in the syntax of .gitignore", of_test(test))]
    InvalidPattern {
        /// The test that the pattern belongs to, if the caller named it.
        test: Option<String>,
        /// The pattern.
        pattern: String,
        /// The error of the glob parser.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The project has no input specification under this name.
    #[error("unknown test `{test}`")]
    UnknownTest {
        /// The name.
        test: String,
    },
    /// A file or directory could not be read or written.
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
    /// Names the test that an invalid pattern belongs to. Other errors are returned unchanged.
    #[must_use]
    pub fn for_test(self, name: &str) -> Self {
        match self {
            Error::InvalidPattern { pattern, source, .. } => {
                Error::InvalidPattern { test: Some(name.to_owned()), pattern, source }
            }
            other => other,
        }
    }

    /// Returns the file or directory that could not be read or written.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::Io { path, .. } => Some(path),
            Error::InvalidPattern { .. } | Error::UnknownTest { .. } => None,
        }
    }

    /// Returns whether the user lacks a permission.
    pub fn is_denied(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
    }

    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { operation, path, source }
    }
}

fn of_test(test: &Option<String>) -> String {
    test.as_ref().map(|test| format!(" of test `{test}`")).unwrap_or_default()
}
