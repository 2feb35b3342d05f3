//! Lists the entries of a directory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::{Dir, FileKind, Refused};

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name.
    pub name: OsString,
    /// The kind at the time of the listing.
    pub kind: FileKind,
}

impl Dir {
    /// Returns the entries, in no order. Entries that vanish meanwhile are left out.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn entries(&self) -> io::Result<Vec<DirEntry>> {
        Ok(list(self)?)
    }

    /// Checks that the directory holds nothing but files and directories, to any depth. Call it
    /// before code that opens files in the directory by their paths, and so would follow a link,
    /// wait for the other end of a pipe, or write to a device.
    ///
    /// # Errors
    /// [`Refused`] for the first other entry. Otherwise those of the operating system.
    pub fn check_entries(&self) -> io::Result<()> {
        let mut rest = vec![PathBuf::new()];
        while let Some(path) = rest.pop() {
            let directory =
                if path.as_os_str().is_empty() { self.clone() } else { self.subdirectory(&path)? };
            for entry in directory.entries()? {
                match entry.kind {
                    FileKind::File => {}
                    FileKind::Directory => rest.push(path.join(entry.name)),
                    kind => return Err(Refused::error(&path.join(entry.name), kind, FileKind::File)),
                }
            }
        }
        Ok(())
    }
}

/// Lists the directory behind a handle.
pub(crate) fn list(directory: impl AsFd) -> Result<Vec<DirEntry>, Errno> {
    // A separate handle, because the position in the listing belongs to the handle.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = openat(&directory, ".", flags, Mode::empty())?;
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::new(listed)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not list the kind.
            FileType::Unknown => match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            },
            kind => kind,
        };
        entries.push(DirEntry { name: name.to_owned(), kind: FileKind::of(kind) });
    }
    Ok(entries)
}
