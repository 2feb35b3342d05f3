//! Building blocks of the files that hold cached state: a reader of byte strings, paths as bytes,
//! and atomic replacement.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::Error;

/// Replaces a file atomically: concurrent readers get the old content or the new one, never a part.
///
/// The file is not synchronized to the disk. After a crash of the system it may be empty, so
/// readers must verify a checksum.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written. The old content remains.
pub fn replace_file(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let written = tempfile::Builder::new().prefix(".new-").tempfile_in(directory).and_then(|mut new| {
        new.write_all(bytes)?;
        new.persist(file).map_err(|error| error.error)
    });
    written.map(drop).map_err(Error::io("write", file))
}

/// Returns the bytes of a path. Comparing them defines the order of paths in this crate, which
/// differs from the order of [`Path`] by components.
pub fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// A reader that takes values off the front of a byte string. Each method returns `None` if too few
/// bytes remain.
#[derive(Debug, Clone)]
pub struct Reader<'a>(
    /// The bytes that remain.
    pub &'a [u8],
);

impl<'a> Reader<'a> {
    /// Takes `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Takes a little-endian number of eight bytes.
    pub fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }
}
