//! Bytes of the files that this crate writes: paths, numbers, checksums, atomic replacement.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::Error;

/// Writes a file so that readers see the old one or the new one, never a part.
pub fn replace_file(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let written = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).and_then(|mut new| {
        new.write_all(bytes)?;
        new.persist(file).map_err(|error| error.error)
    });
    written.map(drop).map_err(Error::io("write", file))
}

/// Takes bytes off the front.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }
}

/// The order of paths in manifests.
pub fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
