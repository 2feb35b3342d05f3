//! Removes entries with everything below them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::entries::list;
use crate::permissions::set_mode;
use crate::resolve::DIRECTORY;
use crate::{Dir, DirEntry, FileKind};

/// Number of nested directories that are open at once. Deeper ones are moved up first, so that
/// neither the stack nor the table of open files limits the depth.
const DEPTH_MAX: usize = 32;

/// Number of times that a directory is emptied in which another program creates entries.
const ROUNDS_MAX: usize = 100;

impl Dir {
    /// Removes an entry, and everything in it if it is a directory. Gives itself the permissions
    /// that the removal needs. Does not follow links. An entry that does not exist counts as
    /// removed.
    ///
    /// # Errors
    /// Those of the operating system. Some entries may then be removed.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let (parent, name) = match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            parent => parent?,
        };
        Ok(remove_entry(parent.as_fd(), &name)?)
    }

    /// Removes everything in the directory, but not the directory itself.
    ///
    /// # Errors
    /// Those of the operating system. Some entries may then be removed.
    pub fn clear(&self) -> io::Result<()> {
        Ok(empty(self.as_fd())?)
    }
}

fn remove_entry(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let kind = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        stat => FileKind::of(FileType::from_raw_mode(stat?.st_mode)),
    };
    if kind != FileKind::Directory {
        return unlink(parent, name, AtFlags::empty());
    }
    let Some(directory) = enter(parent, name)? else { return Ok(()) };
    empty(directory.as_fd())?;
    unlink(parent, name, AtFlags::REMOVEDIR)
}

/// Removes the entries of a directory, including entries that other programs create meanwhile.
fn empty(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut rounds = 0;
    while rounds < ROUNDS_MAX {
        let entries = list(directory)?;
        if entries.is_empty() {
            return Ok(());
        }
        // A round that moves a directory up leaves it to the next one.
        rounds += usize::from(!remove_listed(directory, directory, entries, 0)?);
    }
    Err(Errno::NOTEMPTY)
}

/// Removes entries of a directory. Returns whether one was moved up instead.
fn remove_listed(
    top: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    entries: Vec<DirEntry>,
    depth: usize,
) -> Result<bool, Errno> {
    let mut was_moved = false;
    for (number, DirEntry { name, kind }) in entries.into_iter().enumerate() {
        if kind != FileKind::Directory {
            match unlink(parent, &name, AtFlags::empty()) {
                // A directory has taken the place of the file. The next round removes it.
                Err(Errno::ISDIR | Errno::PERM) if depth == 0 => continue,
                removed => removed?,
            }
            continue;
        }
        let Some(directory) = enter(parent, &name)? else { continue };
        if depth == DEPTH_MAX {
            drop(directory);
            move_up(top, parent, &name, number)?;
            was_moved = true;
            continue;
        }
        let entries = list(&directory)?;
        was_moved |= remove_listed(top, directory.as_fd(), entries, depth + 1)?;
        match unlink(parent, &name, AtFlags::REMOVEDIR) {
            // Another program has created entries in it. The next round removes them.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            removed => removed?,
        }
    }
    Ok(was_moved)
}

/// Moves a directory up to the top, where the next round finds it.
fn move_up(top: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &OsStr, number: usize) -> Result<(), Errno> {
    for attempt in 0_u32.. {
        let moved = OsString::from(format!("removed-{number}-{attempt}"));
        match renameat(parent, name, top, &moved) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            Err(Errno::NOENT) => return Ok(()),
            result => return result,
        }
    }
    Err(Errno::EXIST)
}

/// Opens a directory, and gives its owner all permissions. Returns `None` if it is gone or not a
/// directory any more.
fn enter(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Option<OwnedFd>, Errno> {
    // Without `O_PATH`, opening it needs the permissions.
    let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        stat => stat?,
    };
    let mode = Mode::from_raw_mode(stat.st_mode);
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && !mode.contains(Mode::RWXU) {
        // If that fails, so does what needs the permission, with a better error.
        let _ = set_mode(parent, name, mode | Mode::RWXU);
    }
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::MLINK) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a name. One that does not exist counts as removed.
fn unlink(parent: BorrowedFd<'_>, name: &OsStr, flags: AtFlags) -> Result<(), Errno> {
    match unlinkat(parent, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}
