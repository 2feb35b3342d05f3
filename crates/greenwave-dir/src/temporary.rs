//! Files that take the place of others in one step.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, symlinkat, unlinkat};
use rustix::io::Errno;

use crate::{Access, Dir, FileKind, Refused};

/// Number of names that are tried before a directory counts as full of temporary files.
const NAMES_MAX: u32 = 1000;

/// A file or link with a temporary name. Dropping it removes it.
#[derive(Debug)]
pub struct Temporary {
    directory: Dir,
    name: OsString,
    file: Option<File>,
    is_placed: bool,
}

impl Dir {
    /// Creates a file with an unpredictable name that begins with `prefix`, and with these
    /// permissions (without the bits of the umask).
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn temporary(&self, prefix: &str, permissions: u32) -> io::Result<Temporary> {
        let (name, file) =
            with_new_name(prefix, |name| self.open_file(name, Access::CreateNew, permissions))?;
        Ok(Temporary { directory: self.clone(), name, file: Some(file), is_placed: false })
    }

    /// Creates a symbolic link with an unpredictable name that begins with `prefix`.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn temporary_link(&self, prefix: &str, target: impl AsRef<Path>) -> io::Result<Temporary> {
        let target = target.as_ref();
        let (name, ()) = with_new_name(prefix, |name| Ok(symlinkat(target, self, name)?))?;
        Ok(Temporary { directory: self.clone(), name, file: None, is_placed: false })
    }

    /// Creates a directory with an unpredictable name that begins with `prefix`. It stays when the
    /// handle is dropped.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn temporary_subdirectory(&self, prefix: &str, permissions: u32) -> io::Result<Dir> {
        let (_, created) = with_new_name(prefix, |name| self.create_new_subdirectory(name, permissions))?;
        Ok(created)
    }

    /// Writes a file in one step: a reader finds the whole old or the whole new content. The
    /// content is not synchronised to the disk, so it may be missing after a crash of the system.
    ///
    /// # Errors
    /// [`Refused`] if the path has anything but a file, which then stays. Otherwise those of the
    /// operating system.
    pub fn replace_file(&self, path: impl AsRef<Path>, content: &[u8], permissions: u32) -> io::Result<()> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        match parent.metadata(&name) {
            Ok(old) if !old.is_file() => return Err(Refused::error(path, old.kind(), FileKind::File)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut temporary = parent.temporary(".new-", permissions)?;
        temporary.write_all(content)?;
        temporary.replace(name).map_err(|error| with_path(error, path))
    }
}

impl Temporary {
    /// Returns the open file.
    ///
    /// # Panics
    /// If this is a link.
    pub fn file(&self) -> &File {
        self.file.as_ref().expect("a link has no content")
    }

    /// Appends to the file.
    ///
    /// # Errors
    /// Those of the operating system.
    ///
    /// # Panics
    /// If this is a link.
    pub fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        self.file().write_all(content)
    }

    /// Returns the directory that contains the file.
    pub fn directory(&self) -> &Dir {
        &self.directory
    }

    /// Returns the current name.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Renames the file, which stays from here on, and replaces a file or a link of that name.
    ///
    /// # Errors
    /// [`Refused`] if the name is that of a directory, a pipe, a socket or a device, which then
    /// stays. Otherwise those of the operating system.
    pub fn replace(mut self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = name.as_ref();
        match self.directory.metadata(name) {
            Ok(old) if old.kind().is_special() || old.is_dir() => {
                return Err(Refused::error(Path::new(name), old.kind(), FileKind::File));
            }
            _ => {}
        }
        self.directory.rename(&self.name, name)?;
        self.is_placed = true;
        Ok(())
    }

    /// Renames the file, which stays from here on, to a name that must not exist.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the name exists. Otherwise those of the operating
    /// system.
    pub fn place(mut self, name: impl AsRef<OsStr>) -> io::Result<()> {
        self.directory.rename_new(&self.name, name.as_ref())?;
        self.is_placed = true;
        Ok(())
    }

    /// Lets the file stay under its temporary name, which is returned.
    pub fn keep(mut self) -> OsString {
        self.is_placed = true;
        std::mem::take(&mut self.name)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_placed {
            // The name of a leftover shows that it is one.
            let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Returns a refusal with another path.
fn with_path(error: io::Error, path: &Path) -> io::Error {
    match crate::refused(&error) {
        Some(refused) => Refused::error(path, refused.kind(), refused.expected()),
        None => error,
    }
}

fn with_new_name<T>(
    prefix: &str,
    mut create: impl FnMut(&OsStr) -> io::Result<T>,
) -> io::Result<(OsString, T)> {
    for _ in 0..NAMES_MAX {
        let name = OsString::from(format!("{prefix}{}", unpredictable()));
        match create(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return Ok((name, created?)),
        }
    }
    Err(Errno::EXIST.into())
}

/// Returns letters and digits that no other program guesses: a keyed hash, with a key that the
/// operating system provides.
fn unpredictable() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only the numbers matter.
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}", RandomState::new().hash_one((std::process::id(), number)))
}
