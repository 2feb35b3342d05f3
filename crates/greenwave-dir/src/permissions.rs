//! Sets permissions without following links.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

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
        // Leads to the open entry, even if another one has its name by now.
        use std::os::fd::AsRawFd;
        let through = format!("/proc/self/fd/{}", opened.as_raw_fd());
        match rustix::fs::chmod(through, mode) {
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
