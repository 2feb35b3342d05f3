//! Sets permissions without following links.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::Mode;
#[cfg(any(target_os = "linux", target_os = "android"))]
use rustix::fs::{FileType, OFlags, fstat, openat};
use rustix::io::Errno;

/// Sets the permissions of a file or directory without following a link.
pub(crate) fn set_mode(parent: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> Result<(), Errno> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(parent, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&opened)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        match set_open_mode(opened.as_fd(), mode) {
            // Without `/proc`, only entries that can be read can be changed.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                rustix::fs::fchmod(openat(parent, name, flags, Mode::empty())?, mode)
            }
            changed => changed,
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    rustix::fs::chmodat(parent, name, mode, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the permissions of an open file or directory, even one that was opened as a path only.
pub(crate) fn set_open_mode(opened: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // Leads to the open entry, even if another one has its name by now.
        rustix::fs::chmod(format!("/proc/self/fd/{}", opened.as_raw_fd()), mode)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    rustix::fs::fchmod(opened, mode)
}
