//! The error that names an entry which an operation refuses to follow or to replace.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::FileKind;

/// An entry that an operation refuses to follow or to replace.
///
/// The cause of an [`io::Error`] of the kind [`NotADirectory`](io::ErrorKind::NotADirectory), or
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the entry is where a file should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    path: PathBuf,
    kind: FileKind,
    expected: FileKind,
}

impl Refused {
    pub(crate) fn error(path: &Path, kind: FileKind, expected: FileKind) -> io::Error {
        let error_kind = match expected {
            FileKind::Directory => io::ErrorKind::NotADirectory,
            _ => io::ErrorKind::AlreadyExists,
        };
        io::Error::new(error_kind, Self { path: path.to_owned(), kind, expected })
    }

    /// Returns the path of the entry, relative to the directory handle.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the kind of the entry.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Returns the kind that the operation needs there: a file or a directory.
    pub fn expected(&self) -> FileKind {
        self.expected
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string_lossy();
        write!(formatter, "`{}` is {}, expected {}", path.escape_debug(), self.kind, self.expected)
    }
}

impl Error for Refused {}

/// Returns the entry that caused an error, if the cause is an entry that was refused.
pub fn refused(error: &io::Error) -> Option<&Refused> {
    error.get_ref()?.downcast_ref()
}
