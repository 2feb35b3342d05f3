//! Decodes the system calls that take paths: which path each names and how it uses it.

pub(super) mod reach;

use libc::{c_int, c_long};

use super::ipc::{IpcCall, IpcKind};

/// The directory that a relative path starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// The working directory.
    WorkingDirectory,
    /// An open file descriptor.
    Descriptor(c_int),
}

/// A path argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PathArgument {
    pub(super) base: Base,
    /// The address of the path in the caller's memory.
    pub(super) address: u64,
    /// Whether an empty path means `base` itself.
    pub(super) may_be_empty: bool,
}

impl PathArgument {
    /// Returns the path of a call that sets timestamps. Without a path (`futimens`), the call sets
    /// the timestamps of an open file.
    fn or_file(self) -> Self {
        let is_file = self.address == 0 && matches!(self.base, Base::Descriptor(_));
        Self { may_be_empty: self.may_be_empty || is_file, ..self }
    }
}

/// A decoded call.
///
/// `follow` says whether a symbolic link at the end of the path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Opens a file.
    Open { path: PathArgument, flags: c_int },
    /// Opens a file, with the flags in a structure at the address `how`.
    OpenHow { path: PathArgument, how: u64 },
    /// Reads metadata, or depends on the existence of a file otherwise.
    Query { path: PathArgument, follow: bool },
    /// Reads the names in an open directory.
    List { descriptor: c_int },
    /// Executes a program.
    Execute { path: PathArgument, follow: bool },
    /// Creates something other than a regular file.
    Create { path: PathArgument, node: NewNode },
    /// Removes a file or directory.
    Remove { path: PathArgument },
    /// Renames a file or directory.
    Rename { from: PathArgument, to: PathArgument, flags: u32 },
    /// Creates a hard link.
    Link { from: PathArgument, to: PathArgument, follow: bool },
    /// Sets the length of a file.
    Truncate { path: PathArgument, length: u64 },
    /// Changes metadata. Fails if the file does not exist.
    ChangeMetadata { path: PathArgument, follow: bool },
    /// Sets the timestamps of a file.
    SetTimes { path: PathArgument, follow: bool },
    /// Uses a socket.
    Socket(SocketCall),
    /// Ends the process. Reported so that its last calls can be checked.
    Exit,
    /// Starts a thread, or a process that shares memory.
    NewThread { flags: u64 },
    /// Starts a thread or a process, with the flags in a structure.
    NewThreadOrProcess { arguments: u64 },
    /// Accesses the memory of a process.
    OtherMemory { process: c_int },
    /// Copies a descriptor of a process that a pidfd refers to.
    OtherDescriptor { process: c_int },
    /// Uses a kernel object that is not a file.
    Ipc(IpcCall),
    /// Uses keys that the kernel stores.
    Keyring,
    /// Reads or changes the kernel's log.
    KernelLog,
    /// Accesses nothing.
    Harmless,
    /// Makes the trace incomplete, because paths change their meaning or files are read without
    /// paths. The text is the reason.
    Untraceable(&'static str),
}

/// A call that uses a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketCall {
    /// Creates a socket.
    Create { family: c_int, kind: u32, protocol: c_int },
    /// Binds a socket to an address, which creates a file if the address is a path.
    Bind { descriptor: c_int, address: u64, length: u64 },
    /// Lets a socket accept connections. An unbound one gets an address.
    Listen { descriptor: c_int },
    /// Connects a socket to an address, or sends to it.
    Send { descriptor: c_int, address: u64, length: u64 },
    /// Sends messages that may name addresses.
    SendMessages { descriptor: c_int, messages: u64, count: u32 },
}

/// The kinds of file that a [`Call::Create`] creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NewNode {
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or regular file.
    Other,
}

/// Calls that are reported on every architecture.
const NUMBERS: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_name_to_handle_at,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_inotify_add_watch,
    libc::SYS_chdir,
    libc::SYS_getdents64,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_truncate,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_statfs,
    libc::SYS_open_by_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    GETXATTRAT,
    LISTXATTRAT,
    OPEN_TREE_ATTR,
    FILE_GETATTR,
];

// Missing from the libc crate: Linux 6.6, and 6.13 to 6.17 (`include/uapi/asm-generic/unistd.h`).
// The numbers are the same on all architectures.
const FCHMODAT2: c_long = 452;
const GETXATTRAT: c_long = 464;
const LISTXATTRAT: c_long = 465;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_GETATTR: c_long = 468;

/// Calls that only x86-64 has. Newer architectures have the `…at` calls alone.
#[cfg(target_arch = "x86_64")]
const OLD_NUMBERS: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_symlink,
    libc::SYS_link,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_NUMBERS: &[c_long] = &[];

/// Calls that open files, without `openat2`.
#[cfg(target_arch = "x86_64")]
pub(super) const OPENING: &[c_long] = &[libc::SYS_openat, libc::SYS_open, libc::SYS_creat];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OPENING: &[c_long] = &[libc::SYS_openat];

/// Returns the numbers of all calls that are reported with any arguments.
pub(super) fn numbers() -> impl Iterator<Item = c_long> {
    NUMBERS.iter().chain(OLD_NUMBERS).chain(reach::NUMBERS).copied()
}

/// Decodes a call. Returns `None` if it is never reported.
pub(super) fn decode(number: c_long, arguments: &[u64; 6]) -> Option<Call> {
    let arguments = Arguments(arguments);
    query(number, arguments)
        .or_else(|| query_without_base(number, arguments))
        .or_else(|| change(number, arguments))
        .or_else(|| change_without_base(number, arguments))
        .or_else(|| ipc(number, arguments))
        .or_else(|| reach::decode(number, arguments))
        .or_else(|| untraceable(number))
}

/// The arguments of a call.
#[derive(Clone, Copy)]
struct Arguments<'a>(&'a [u64; 6]);

impl Arguments<'_> {
    fn raw(self, at: usize) -> u64 {
        self.0[at]
    }

    /// Returns an argument of type `int`, whose lower half alone the kernel reads.
    fn int(self, at: usize) -> c_int {
        self.0[at] as u32 as c_int
    }

    fn has(self, at: usize, flag: c_int) -> bool {
        self.int(at) & flag != 0
    }

    fn follows(self, flags: usize) -> bool {
        !self.has(flags, libc::AT_SYMLINK_NOFOLLOW)
    }

    /// Returns a path that starts in the working directory.
    fn path(self, at: usize) -> PathArgument {
        PathArgument { base: Base::WorkingDirectory, address: self.raw(at), may_be_empty: false }
    }

    /// Returns a path whose base is the argument before it.
    fn path_at(self, base: usize) -> PathArgument {
        let address = self.raw(base + 1);
        let base = match self.int(base) {
            libc::AT_FDCWD => Base::WorkingDirectory,
            descriptor => Base::Descriptor(descriptor),
        };
        PathArgument { base, address, may_be_empty: false }
    }

    /// Returns a path like [`path_at`](Self::path_at) that may be empty if the flags allow it.
    fn path_at_or_empty(self, base: usize, flags: usize) -> PathArgument {
        PathArgument { may_be_empty: self.has(flags, libc::AT_EMPTY_PATH), ..self.path_at(base) }
    }
}

/// Decodes the calls that read, list or execute, on all architectures.
fn query(number: c_long, it: Arguments<'_>) -> Option<Call> {
    Some(match number {
        libc::SYS_openat => Call::Open { path: it.path_at(0), flags: it.int(2) },
        libc::SYS_openat2 => Call::OpenHow { path: it.path_at(0), how: it.raw(2) },
        libc::SYS_newfstatat | libc::SYS_faccessat2 => {
            Call::Query { path: it.path_at_or_empty(0, 3), follow: it.follows(3) }
        }
        libc::SYS_statx | GETXATTRAT | LISTXATTRAT => {
            Call::Query { path: it.path_at_or_empty(0, 2), follow: it.follows(2) }
        }
        FILE_GETATTR => Call::Query { path: it.path_at_or_empty(0, 4), follow: it.follows(4) },
        // The system call has no flags. The library function has, and calls `fstatat` for them.
        libc::SYS_faccessat => Call::Query { path: it.path_at(0), follow: true },
        libc::SYS_readlinkat => {
            Call::Query { path: PathArgument { may_be_empty: true, ..it.path_at(0) }, follow: false }
        }
        libc::SYS_name_to_handle_at => {
            Call::Query { path: it.path_at_or_empty(0, 4), follow: it.has(4, libc::AT_SYMLINK_FOLLOW) }
        }
        libc::SYS_getxattr | libc::SYS_listxattr | libc::SYS_chdir | libc::SYS_statfs => {
            Call::Query { path: it.path(0), follow: true }
        }
        libc::SYS_lgetxattr | libc::SYS_llistxattr => Call::Query { path: it.path(0), follow: false },
        libc::SYS_inotify_add_watch => Call::Query { path: it.path(1), follow: true },
        libc::SYS_getdents64 => Call::List { descriptor: it.int(0) },
        libc::SYS_execve => Call::Execute { path: it.path(0), follow: true },
        libc::SYS_execveat => Call::Execute { path: it.path_at_or_empty(0, 4), follow: it.follows(4) },
        _ => return None,
    })
}

/// Decodes the calls that create, change or remove, on all architectures.
fn change(number: c_long, it: Arguments<'_>) -> Option<Call> {
    Some(match number {
        libc::SYS_mkdirat => Call::Create { path: it.path_at(0), node: NewNode::Directory },
        libc::SYS_mknodat => Call::Create { path: it.path_at(0), node: NewNode::Other },
        libc::SYS_symlinkat => Call::Create { path: it.path_at(1), node: NewNode::Symlink },
        libc::SYS_linkat => Call::Link {
            from: it.path_at_or_empty(0, 4),
            to: it.path_at(2),
            follow: it.has(4, libc::AT_SYMLINK_FOLLOW),
        },
        libc::SYS_unlinkat => Call::Remove { path: it.path_at(0) },
        libc::SYS_renameat => Call::Rename { from: it.path_at(0), to: it.path_at(2), flags: 0 },
        libc::SYS_renameat2 => {
            Call::Rename { from: it.path_at(0), to: it.path_at(2), flags: it.raw(4) as u32 }
        }
        libc::SYS_truncate => Call::Truncate { path: it.path(0), length: it.raw(1) },
        libc::SYS_fchmodat => Call::ChangeMetadata { path: it.path_at(0), follow: true },
        FCHMODAT2 => Call::ChangeMetadata { path: it.path_at_or_empty(0, 3), follow: it.follows(3) },
        libc::SYS_utimensat => {
            Call::SetTimes { path: it.path_at_or_empty(0, 3).or_file(), follow: it.follows(3) }
        }
        libc::SYS_fchownat => Call::ChangeMetadata { path: it.path_at_or_empty(0, 4), follow: it.follows(4) },
        libc::SYS_setxattr | libc::SYS_removexattr => Call::ChangeMetadata { path: it.path(0), follow: true },
        libc::SYS_lsetxattr | libc::SYS_lremovexattr => {
            Call::ChangeMetadata { path: it.path(0), follow: false }
        }
        _ => return None,
    })
}

/// Decodes the calls that use kernel objects.
fn ipc(number: c_long, it: Arguments<'_>) -> Option<Call> {
    let get = |kind| IpcCall::Get { kind, key: it.int(0) };
    let uses = |kind| IpcCall::Use { kind, id: it.int(0) };
    Some(Call::Ipc(match number {
        libc::SYS_shmget => get(IpcKind::SharedMemory),
        libc::SYS_semget => get(IpcKind::Semaphores),
        libc::SYS_msgget => get(IpcKind::MessageQueue),
        libc::SYS_shmat => uses(IpcKind::SharedMemory),
        libc::SYS_semop | libc::SYS_semtimedop => uses(IpcKind::Semaphores),
        libc::SYS_msgsnd | libc::SYS_msgrcv => uses(IpcKind::MessageQueue),
        libc::SYS_shmctl => control(IpcKind::SharedMemory, it.int(0), it.int(1)),
        libc::SYS_semctl => control(IpcKind::Semaphores, it.int(0), it.int(2)),
        libc::SYS_msgctl => control(IpcKind::MessageQueue, it.int(0), it.int(1)),
        libc::SYS_mq_open | libc::SYS_mq_unlink => IpcCall::Queue { name: it.raw(0) },
        _ => return None,
    }))
}

/// Decodes a command of `shmctl`, `semctl` or `msgctl`. Some commands take an index into the
/// system's list instead of an identifier (`include/uapi/linux/{shm,sem,msg}.h`).
fn control(kind: IpcKind, id: c_int, command: c_int) -> IpcCall {
    /// `IPC_64`, which libraries add on some architectures.
    const WIDE: c_int = 0x100;
    /// `IPC_INFO`, which all kinds support.
    const INFO: c_int = 3;
    let lists: [c_int; 3] = match kind {
        IpcKind::SharedMemory => [13, 14, 15],
        IpcKind::Semaphores => [18, 19, 20],
        IpcKind::MessageQueue => [11, 12, 13],
    };
    let command = command & !WIDE;
    if command == INFO || lists.contains(&command) {
        IpcCall::List { kind }
    } else {
        IpcCall::Use { kind, id }
    }
}

/// Decodes the calls after which a trace is incomplete.
fn untraceable(number: c_long) -> Option<Call> {
    Some(Call::Untraceable(match number {
        libc::SYS_open_by_handle_at => "opens files without their paths",
        libc::SYS_mount | libc::SYS_umount2 | libc::SYS_move_mount => "mounts file systems",
        libc::SYS_open_tree | libc::SYS_fsmount | libc::SYS_mount_setattr | OPEN_TREE_ATTR => {
            "mounts file systems"
        }
        libc::SYS_pivot_root | libc::SYS_chroot => "changes its root directory",
        libc::SYS_setns => "enters another namespace",
        _ => return None,
    }))
}

/// Decodes the calls of x86-64 that read or list and have no base argument.
#[cfg(target_arch = "x86_64")]
fn query_without_base(number: c_long, it: Arguments<'_>) -> Option<Call> {
    Some(match number {
        libc::SYS_open => Call::Open { path: it.path(0), flags: it.int(1) },
        libc::SYS_creat => {
            Call::Open { path: it.path(0), flags: libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC }
        }
        libc::SYS_stat | libc::SYS_access => Call::Query { path: it.path(0), follow: true },
        libc::SYS_lstat | libc::SYS_readlink => Call::Query { path: it.path(0), follow: false },
        libc::SYS_getdents => Call::List { descriptor: it.int(0) },
        _ => return None,
    })
}

/// Decodes the calls of x86-64 that create, change or remove and have no base argument, and
/// `futimesat`.
#[cfg(target_arch = "x86_64")]
fn change_without_base(number: c_long, it: Arguments<'_>) -> Option<Call> {
    Some(match number {
        libc::SYS_chmod | libc::SYS_chown => Call::ChangeMetadata { path: it.path(0), follow: true },
        libc::SYS_utime | libc::SYS_utimes => Call::SetTimes { path: it.path(0), follow: true },
        libc::SYS_lchown => Call::ChangeMetadata { path: it.path(0), follow: false },
        libc::SYS_futimesat => Call::SetTimes { path: it.path_at(0).or_file(), follow: true },
        libc::SYS_mkdir => Call::Create { path: it.path(0), node: NewNode::Directory },
        libc::SYS_mknod => Call::Create { path: it.path(0), node: NewNode::Other },
        libc::SYS_symlink => Call::Create { path: it.path(1), node: NewNode::Symlink },
        libc::SYS_link => Call::Link { from: it.path(0), to: it.path(1), follow: false },
        libc::SYS_unlink | libc::SYS_rmdir => Call::Remove { path: it.path(0) },
        libc::SYS_rename => Call::Rename { from: it.path(0), to: it.path(1), flags: 0 },
        _ => return None,
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn query_without_base(_: c_long, _: Arguments<'_>) -> Option<Call> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn change_without_base(_: c_long, _: Arguments<'_>) -> Option<Call> {
    None
}

#[cfg(test)]
mod tests {
    use super::{decode, numbers};

    #[test]
    fn every_reported_call_is_decoded() {
        for number in numbers() {
            assert!(decode(number, &[0; 6]).is_some(), "call {number}");
        }
        for number in
            [libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_socket, libc::SYS_ptrace, libc::SYS_clone]
        {
            assert!(decode(number, &[0; 6]).is_some(), "call {number}");
        }
        assert!(decode(libc::SYS_read, &[0; 6]).is_none());
    }
}
