//! Operations on the entries below a directory handle.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fstat, linkat, readlinkat,
    renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::permissions::{set_mode, set_open_mode};
use crate::{Dir, FileKind, Metadata, Refused, wait_for_leases};

/// Purpose for which a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads a file that exists.
    Read,
    /// Reads and writes a file that exists.
    Write,
    /// Reads and writes a file, which is created if it does not exist. Its content stays.
    Create,
    /// Reads and writes a file that must not exist.
    CreateNew,
    /// Appends to a file, which is created if it does not exist.
    Append,
}

impl Access {
    fn flags(self) -> OFlags {
        match self {
            Self::Read => OFlags::RDONLY,
            Self::Write => OFlags::RDWR,
            Self::Create => OFlags::RDWR | OFlags::CREATE,
            Self::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            Self::Append => OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND,
        }
    }
}

impl Dir {
    /// Opens a file. A file that is created gets these permissions (without the bits of the umask).
    /// Does not wait for the other end of a pipe. Waits for programs that have a
    /// [lease](wait_for_leases) on the file.
    ///
    /// # Errors
    /// [`Refused`] if the path is not that of a file, or a component is not a directory. Otherwise
    /// those of the operating system.
    pub fn open_file(&self, path: impl AsRef<Path>, access: Access, permissions: u32) -> io::Result<File> {
        let path = path.as_ref();
        let flags = access.flags() | OFlags::NONBLOCK | OFlags::NOCTTY;
        // `openat2` accepts permissions only if it may create the file.
        let permissions = if flags.contains(OFlags::CREATE) { permissions } else { 0 };
        let open = || self.resolve(path, (flags, permissions), FileKind::File);
        let file = File::from(wait_for_leases(open)?);
        let kind = FileKind::of(FileType::from_raw_mode(fstat(&file)?.st_mode));
        if kind != FileKind::File {
            return Err(Refused::error(path, kind, FileKind::File));
        }
        Ok(file)
    }

    /// Returns the content of a file of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] for a larger file. Otherwise as
    /// [`open_file`](Self::open_file).
    pub fn read(&self, path: impl AsRef<Path>, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.open_file(path, Access::Read, 0)?;
        let mut content = Vec::new();
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(content)
    }

    /// Returns the metadata of an entry, without following a link. An empty path names the
    /// directory itself.
    ///
    /// # Errors
    /// As [`subdirectory`](Self::subdirectory).
    pub fn metadata(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        let path = path.as_ref();
        if path.as_os_str().is_empty() {
            return Ok(Metadata(fstat(self)?));
        }
        self.at(path, |parent, name| statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)).map(Metadata)
    }

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// As [`subdirectory`](Self::subdirectory).
    pub fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let target = self.at(path.as_ref(), |parent, name| readlinkat(parent, name, Vec::new()))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the path exists. Otherwise as
    /// [`subdirectory`](Self::subdirectory).
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> io::Result<()> {
        self.at(path.as_ref(), |parent, name| symlinkat(target.as_ref(), parent, name))
    }

    /// Gives a file a second name.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the new name exists. Otherwise as
    /// [`subdirectory`](Self::subdirectory).
    pub fn hard_link(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.at_both(from.as_ref(), to.as_ref(), |(from, name), (to, new)| {
            linkat(from, name, to, new, AtFlags::empty())
        })
    }

    /// Renames an entry, and replaces a file or link that has the new name.
    ///
    /// # Errors
    /// As [`subdirectory`](Self::subdirectory).
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.at_both(from.as_ref(), to.as_ref(), |(from, name), (to, new)| renameat(from, name, to, new))
    }

    /// Renames an entry to a name that must not exist. Where the system cannot do that, a file gets
    /// the new name as a second one.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the new name exists. Otherwise as
    /// [`subdirectory`](Self::subdirectory).
    pub fn rename_new(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.at_both(from.as_ref(), to.as_ref(), |(from, name), (to, new)| {
            match rename_with((from, name), (to, new), Renaming::New) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM) => {
                    linkat(from, name, to, new, AtFlags::empty())?;
                    unlinkat(from, name, AtFlags::empty())
                }
                renamed => renamed,
            }
        })
    }

    /// Exchanges two entries in one step.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system or the operating system cannot do that,
    /// and [`io::ErrorKind::NotFound`] if one does not exist. Otherwise as
    /// [`subdirectory`](Self::subdirectory).
    pub fn exchange(&self, one: impl AsRef<Path>, other: impl AsRef<Path>) -> io::Result<()> {
        self.at_both(one.as_ref(), other.as_ref(), |one, other| {
            match rename_with(one, other, Renaming::Exchange) {
                Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::NOTSUP),
                exchanged => exchanged,
            }
        })
    }

    /// Removes an entry that is not a directory.
    ///
    /// # Errors
    /// As [`subdirectory`](Self::subdirectory).
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.at(path.as_ref(), |parent, name| unlinkat(parent, name, AtFlags::empty()))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As [`subdirectory`](Self::subdirectory).
    pub fn remove_empty(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.at(path.as_ref(), |parent, name| unlinkat(parent, name, AtFlags::REMOVEDIR))
    }

    /// Sets the permissions of a file or directory, even one that its owner cannot read.
    ///
    /// # Errors
    /// [`Refused`] for other entries. Otherwise as [`subdirectory`](Self::subdirectory).
    pub fn set_permissions(&self, path: impl AsRef<Path>, permissions: u32) -> io::Result<()> {
        let path = path.as_ref();
        let kind = self.metadata(path)?.kind();
        if !matches!(kind, FileKind::File | FileKind::Directory) {
            return Err(Refused::error(path, kind, FileKind::File));
        }
        self.at(path, |parent, name| set_mode(parent, name, Mode::from_raw_mode(permissions as _)))
    }

    /// Sets the permissions of this directory, even if its owner cannot read it.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn set_own_permissions(&self, permissions: u32) -> io::Result<()> {
        Ok(set_open_mode(self.as_fd(), Mode::from_raw_mode(permissions as _))?)
    }

    /// Sets the owner and the group of an entry, by their numbers; `None` keeps the old one. Does
    /// not follow a link.
    ///
    /// # Errors
    /// [`io::ErrorKind::PermissionDenied`] if the user may not give the entry away. Otherwise as
    /// [`subdirectory`](Self::subdirectory).
    pub fn set_owner(
        &self,
        path: impl AsRef<Path>,
        owner: Option<u32>,
        group: Option<u32>,
    ) -> io::Result<()> {
        let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
        self.at(path.as_ref(), |parent, name| chownat(parent, name, owner, group, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Sets the times of the last access and of the last change of an entry, in seconds and
    /// nanoseconds since the Unix epoch. Does not follow a link.
    ///
    /// # Errors
    /// As [`subdirectory`](Self::subdirectory).
    pub fn set_time(&self, path: impl AsRef<Path>, seconds: i64, nanoseconds: u32) -> io::Result<()> {
        let time = Timespec { tv_sec: seconds as _, tv_nsec: nanoseconds as _ };
        let times = Timestamps { last_access: time, last_modification: time };
        self.at(path.as_ref(), |parent, name| utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW))
    }
}

/// Treatment of an entry that has the new name.
#[derive(Debug, Clone, Copy)]
enum Renaming {
    /// It must not exist.
    New,
    /// It gets the old name.
    Exchange,
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_with(
    (from, name): (BorrowedFd<'_>, &OsStr),
    (to, new): (BorrowedFd<'_>, &OsStr),
    renaming: Renaming,
) -> Result<(), Errno> {
    use rustix::fs::RenameFlags;
    let flags = match renaming {
        Renaming::New => RenameFlags::NOREPLACE,
        Renaming::Exchange => RenameFlags::EXCHANGE,
    };
    rustix::fs::renameat_with(from, name, to, new, flags)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_with(_: (BorrowedFd<'_>, &OsStr), _: (BorrowedFd<'_>, &OsStr), _: Renaming) -> Result<(), Errno> {
    Err(Errno::NOTSUP)
}
