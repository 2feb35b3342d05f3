//! Resolves paths below a directory handle without following symbolic links.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::{FileKind, Refused};

/// Way in which paths are resolved. Both have the same result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// The kernel resolves the whole path: `openat2`.
    #[cfg(target_os = "linux")]
    Kernel,
    /// Each component is opened by itself.
    Steps,
}

impl Resolution {
    /// Returns the best way of this system. A kernel before 5.6 lacks `openat2`, and filters of
    /// system calls refuse it with `ENOSYS` or `EPERM`.
    pub(crate) fn best() -> Self {
        #[cfg(target_os = "linux")]
        {
            use std::sync::OnceLock;

            use rustix::fs::{CWD, ResolveFlags, openat2};
            static BEST: OnceLock<Resolution> = OnceLock::new();
            *BEST.get_or_init(|| {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                match openat2(CWD, ".", DIRECTORY, Mode::empty(), resolve) {
                    Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::TOOBIG) => Self::Steps,
                    // The working directory may have been removed, which is no reason to avoid the
                    // call.
                    Ok(_) | Err(_) => Self::Kernel,
                }
            })
        }
        #[cfg(not(target_os = "linux"))]
        Self::Steps
    }
}

/// Flags that open a directory as the base of other operations. On Linux they require no permission
/// to read it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Returns the names that a path consists of.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for a path that is absolute or contains `..`.
pub(crate) fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => names.push(name),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                let path = path.to_string_lossy();
                let problem = format!("invalid path `{}`: expected names without `..`", path.escape_debug());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
        }
    }
    Ok(names)
}

/// Opens a path below a directory. No component is followed if it is a link. An empty path names
/// the directory itself.
///
/// # Errors
/// [`Refused`] for a component that is not a directory, and for a last component that is not of the
/// `expected` kind. Otherwise those of the operating system.
pub(crate) fn open(
    resolution: Resolution,
    base: BorrowedFd<'_>,
    path: &Path,
    (flags, mode): (OFlags, u32),
    expected: FileKind,
) -> io::Result<OwnedFd> {
    let names = names(path)?;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode as _);
    let opened = match (resolution, names.as_slice()) {
        (_, []) => openat(base, ".", flags - OFlags::NOFOLLOW, mode),
        (_, [name]) => openat(base, *name, flags, mode),
        #[cfg(target_os = "linux")]
        (Resolution::Kernel, _) => {
            let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
            let path: PathBuf = names.iter().collect();
            match rustix::fs::openat2(base, &path, flags, mode, resolve) {
                // Only `..` is refused while something is renamed.
                Err(Errno::AGAIN) => steps(base, &names, flags, mode),
                opened => opened,
            }
        }
        (Resolution::Steps, _) => steps(base, &names, flags, mode),
    };
    opened.map_err(|error| explain(base, &names, error, expected))
}

fn steps(base: BorrowedFd<'_>, names: &[&OsStr], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let Some((last, parents)) = names.split_last() else { return openat(base, ".", flags, mode) };
    let mut at: Option<OwnedFd> = None;
    for name in parents {
        let from = at.as_ref().map_or(base, AsFd::as_fd);
        at = Some(openat(from, *name, DIRECTORY, Mode::empty())?);
    }
    openat(at.as_ref().map_or(base, AsFd::as_fd), *last, flags, mode)
}

/// Returns an error that names the entry in the way, if there is one.
pub(crate) fn explain(base: BorrowedFd<'_>, names: &[&OsStr], error: Errno, expected: FileKind) -> io::Error {
    let is_obstructed = [
        Errno::LOOP,
        Errno::NOTDIR,
        Errno::ISDIR,
        Errno::NXIO,
        Errno::XDEV,
        // FreeBSD returns this for a link that is not followed.
        Errno::MLINK,
    ];
    if !is_obstructed.contains(&error) {
        return error.into();
    }
    obstacle(base, names, expected).unwrap_or_else(|| error.into())
}

/// Returns the first entry of a path that is not of the kind that is needed there.
fn obstacle(base: BorrowedFd<'_>, names: &[&OsStr], expected: FileKind) -> Option<io::Error> {
    let mut at: Option<OwnedFd> = None;
    let mut shown = PathBuf::new();
    for (index, name) in names.iter().enumerate() {
        let from = at.as_ref().map_or(base, AsFd::as_fd);
        shown.push(name);
        let stat = statat(from, *name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let kind = FileKind::of(FileType::from_raw_mode(stat.st_mode));
        let needed = if index + 1 == names.len() { expected } else { FileKind::Directory };
        if kind != needed {
            return Some(Refused::error(&shown, kind, needed));
        }
        if index + 1 < names.len() {
            at = Some(openat(from, *name, DIRECTORY, Mode::empty()).ok()?);
        }
    }
    None
}
