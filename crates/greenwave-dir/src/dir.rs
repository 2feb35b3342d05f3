//! A handle of an open directory, and the ways to directories below it.

use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use crate::FileKind;
use crate::resolve::{self, DIRECTORY, Resolution};

/// A handle of an open directory. Clones share it.
///
/// The directory stays the same one if it is renamed or replaced by another one.
#[derive(Debug, Clone)]
pub struct Dir {
    handle: Arc<OwnedFd>,
    path: Arc<Path>,
    resolution: Resolution,
}

impl Dir {
    /// Opens a directory. Follows symbolic links in its path.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let handle = openat(CWD, here, DIRECTORY - OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Self { handle: Arc::new(handle), path: path.into(), resolution: Resolution::best() })
    }

    /// Opens a directory, and creates it and its parents with these permissions if they do not
    /// exist. Follows symbolic links in its path.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn create(path: impl AsRef<Path>, permissions: u32) -> io::Result<Self> {
        let path = path.as_ref();
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        DirBuilder::new().recursive(true).mode(permissions).create(path)?;
        Self::open(path)
    }

    /// Resolves paths component by component from here on, as on kernels without `openat2`. For
    /// tests of that way.
    #[must_use]
    pub fn without_openat2(self) -> Self {
        Self { resolution: Resolution::Steps, ..self }
    }

    /// Returns the path by which the directory was opened, for messages and for other programs.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below this one. An empty path names this one.
    ///
    /// # Errors
    /// [`Refused`](crate::Refused) for a component that is not a directory. Otherwise those of the
    /// operating system.
    pub fn subdirectory(&self, path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let opened = self.resolve(path, (DIRECTORY, 0), FileKind::Directory)?;
        Ok(self.below(path, opened))
    }

    /// Opens a directory below this one, and creates it and its parents with these permissions
    /// (without the bits of the umask), if they do not exist.
    ///
    /// # Errors
    /// [`Refused`](crate::Refused) for a component that is not a directory. Otherwise those of the
    /// operating system.
    pub fn create_subdirectory(&self, path: impl AsRef<Path>, permissions: u32) -> io::Result<Self> {
        let path = path.as_ref();
        match self.subdirectory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let names = resolve::names(path)?;
        let mut at: Option<OwnedFd> = None;
        for (index, name) in names.iter().enumerate() {
            let from = at.as_ref().map_or(self.as_fd(), AsFd::as_fd);
            match mkdirat(from, *name, Mode::from_raw_mode(permissions as _)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            at = Some(openat(from, *name, DIRECTORY, Mode::empty()).map_err(|error| {
                resolve::explain(self.as_fd(), &names[..=index], error, FileKind::Directory)
            })?);
        }
        match at {
            Some(opened) => Ok(self.below(path, opened)),
            None => Ok(self.clone()),
        }
    }

    /// Creates a directory that must not exist.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the path exists. Otherwise as
    /// [`subdirectory`](Self::subdirectory).
    pub fn create_new_subdirectory(&self, path: impl AsRef<Path>, permissions: u32) -> io::Result<Self> {
        let path = path.as_ref();
        self.at(path, |parent, name| mkdirat(parent, name, Mode::from_raw_mode(permissions as _)))?;
        self.subdirectory(path)
    }

    /// Opens the directory that contains a path. Returns it with the last name of the path.
    ///
    /// # Errors
    /// As [`subdirectory`](Self::subdirectory), and [`io::ErrorKind::InvalidInput`] for an empty
    /// path.
    pub fn parent(&self, path: impl AsRef<Path>) -> io::Result<(Self, OsString)> {
        let (parent, name) = split(path.as_ref())?;
        let parent = if parent.as_os_str().is_empty() { self.clone() } else { self.subdirectory(parent)? };
        Ok((parent, name))
    }

    /// Opens the directory that contains a path, and creates it if it does not exist. Returns it
    /// with the last name of the path.
    ///
    /// # Errors
    /// As [`create_subdirectory`](Self::create_subdirectory), and [`io::ErrorKind::InvalidInput`]
    /// for an empty path.
    pub fn create_parent(&self, path: impl AsRef<Path>, permissions: u32) -> io::Result<(Self, OsString)> {
        let (parent, name) = split(path.as_ref())?;
        Ok((self.create_subdirectory(parent, permissions)?, name))
    }

    /// Makes creations, removals and renames in the directory durable.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn sync(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::fsync(openat(self, ".", flags, Mode::empty())?)?)
    }

    fn below(&self, path: &Path, opened: OwnedFd) -> Self {
        let path = self.path.join(path).into();
        Self { handle: Arc::new(opened), path, resolution: self.resolution }
    }

    pub(crate) fn resolve(&self, path: &Path, how: (OFlags, u32), expected: FileKind) -> io::Result<OwnedFd> {
        resolve::open(self.resolution, self.as_fd(), path, how, expected)
    }

    /// Calls the system with the directory that contains a path, and the last name of the path.
    pub(crate) fn at<T>(
        &self,
        path: &Path,
        call: impl FnOnce(BorrowedFd<'_>, &OsStr) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let (parent, name) = self.parent(path)?;
        Ok(call(parent.as_fd(), &name)?)
    }

    pub(crate) fn at_both(
        &self,
        one: &Path,
        other: &Path,
        call: impl FnOnce((BorrowedFd<'_>, &OsStr), (BorrowedFd<'_>, &OsStr)) -> Result<(), Errno>,
    ) -> io::Result<()> {
        let (one, one_name) = self.parent(one)?;
        let (other, other_name) = self.parent(other)?;
        Ok(call((one.as_fd(), &one_name), (other.as_fd(), &other_name))?)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Splits a path into its parent and its last name.
fn split(path: &Path) -> io::Result<(PathBuf, OsString)> {
    let names = resolve::names(path)?;
    let Some((last, parents)) = names.split_last() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "invalid path: expected a name"));
    };
    Ok((parents.iter().collect(), (*last).to_owned()))
}
