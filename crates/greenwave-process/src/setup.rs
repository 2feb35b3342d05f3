//! Changes that a child makes to itself before it executes its program, as data.
//!
//! They are data and not closures, so that a [`Supervisor`](crate::Supervisor) can start the child
//! in another process.

use std::io;
use std::os::fd::RawFd;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub use linux::install_filter;
#[cfg(target_os = "linux")]
pub(crate) use linux::keep_identity;

/// A change that a child makes to itself before it executes its program.
#[derive(Debug)]
#[non_exhaustive]
pub enum Setup {
    /// Keeps the descriptor with this number open in the child, under the same number.
    Inherit(RawFd),
    /// Keeps a descriptor open in the child under another number.
    #[cfg(target_os = "linux")]
    Place {
        /// The descriptor.
        file: std::os::fd::OwnedFd,
        /// Its number in the child.
        number: RawFd,
    },
    /// Gives up gaining privileges from set-user-id programs (`PR_SET_NO_NEW_PRIVS`).
    #[cfg(target_os = "linux")]
    NoNewPrivileges,
    /// Enforces a Landlock rule set. Requires [`NoNewPrivileges`](Self::NoNewPrivileges) first.
    #[cfg(target_os = "linux")]
    Restrict(std::os::fd::OwnedFd),
    /// Installs a seccomp filter and sends the descriptor on which calls are reported through a
    /// Unix socket.
    #[cfg(target_os = "linux")]
    ReportCalls {
        /// The filter.
        filter: Vec<libc::sock_filter>,
        /// The socket.
        socket: std::os::fd::OwnedFd,
        /// Fourth and fifth argument of the `sendmsg` call that sends the descriptor. The filter
        /// must let the call with these arguments pass and no other, so they are random.
        secret: [u64; 2],
    },
    /// Installs a seccomp filter that reports nothing.
    #[cfg(target_os = "linux")]
    FilterCalls {
        /// The filter.
        filter: Vec<libc::sock_filter>,
        /// Whether the filter only keeps the child from naming processes other than its own. It is
        /// left out where [`OwnProcesses`](Self::OwnProcesses) has an effect.
        on_processes: bool,
    },
    /// Moves into new namespaces.
    #[cfg(target_os = "linux")]
    Namespaces {
        /// The namespaces (`CLONE_NEW…` flags of `unshare(2)`), without those of users and
        /// processes.
        flags: libc::c_int,
        /// User and group id, which stay the same in a new user namespace. `None` without one.
        identity: Option<(u32, u32)>,
    },
    /// Mounts a `/proc` that shows the processes of the child only, which cannot name any others.
    ///
    /// Requires [`Namespaces`](Self::Namespaces) before it, with a namespace of mounts whose
    /// changes do not reach others. It has no effect on a child without a
    /// [`Supervisor`](crate::Supervisor): a process cannot enter a new namespace of processes
    /// itself.
    #[cfg(target_os = "linux")]
    OwnProcesses {
        /// Whether the child can write to no file in it.
        read_only: bool,
    },
    /// Mounts a file system (`mount(2)`).
    #[cfg(target_os = "linux")]
    Mount {
        /// Source: a device, a directory to bind, or a name.
        source: std::ffi::CString,
        /// Path of the mount point.
        target: std::ffi::CString,
        /// Type of the file system; empty for a bind mount or a change of propagation.
        kind: std::ffi::CString,
        /// Flags (`MS_…`).
        flags: libc::c_ulong,
        /// Options of the file system.
        options: std::ffi::CString,
    },
    /// Mounts the null device on a file, which hides it. Does nothing if the file is gone.
    #[cfg(target_os = "linux")]
    Cover(std::ffi::CString),
    /// Changes the attributes of a mount (`mount_setattr(2)`).
    #[cfg(target_os = "linux")]
    SetAttributes {
        /// Path of the mount point.
        path: std::ffi::CString,
        /// Attributes to set (`MOUNT_ATTR_…`).
        set: u64,
        /// Attributes to clear.
        clear: u64,
        /// Whether mounts below it change as well.
        recursive: bool,
    },
    /// Creates an empty directory or file, unless there is one. Used for mount points.
    #[cfg(target_os = "linux")]
    Create {
        /// Path of the directory or file. Its parent must exist.
        path: std::ffi::CString,
        /// Whether it is a directory.
        directory: bool,
    },
    /// Creates a symbolic link.
    #[cfg(target_os = "linux")]
    Link {
        /// Path that the link leads to.
        target: std::ffi::CString,
        /// Path of the link. Its parent must exist.
        path: std::ffi::CString,
    },
    /// Gives up capabilities for good: those whose bits are set.
    #[cfg(target_os = "linux")]
    DropCapabilities(u64),
    /// Brings up the loopback interface of the network namespace.
    #[cfg(target_os = "linux")]
    LoopbackUp,
    /// Changes the working directory.
    #[cfg(target_os = "linux")]
    Enter(std::ffi::CString),
}

impl Setup {
    /// Makes the change in the calling thread. Makes system calls only: does not allocate, take a
    /// lock or panic, so that it may be called between `fork` and `exec`.
    ///
    /// # Errors
    /// The error number of the system call that failed.
    pub fn apply(&self) -> io::Result<()> {
        match self {
            Self::Inherit(file) => clear_close_on_exec(*file),
            #[cfg(target_os = "linux")]
            other => linux::apply(other),
        }
    }
}

fn clear_close_on_exec(file: RawFd) -> io::Result<()> {
    // SAFETY: the owner of the descriptor keeps it open while the child is started. If it does not,
    // the call fails or changes a flag of another descriptor in the child only.
    let file = unsafe { std::os::fd::BorrowedFd::borrow_raw(file) };
    Ok(rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?)
}
