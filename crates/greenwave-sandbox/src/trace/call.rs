//! System calls that take paths, and what each does with them. Knows nothing of processes or of what is noted.

use libc::{c_int, c_long};

use super::object::{Kind, ObjectCall};

/// Where a path starts that is not absolute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// The working directory.
    Directory,
    /// An open file.
    File(c_int),
}

/// A path as a call names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) base: Base,
    /// The address of its text in the caller's memory.
    pub(super) text: u64,
    /// Whether an empty path means `base` itself.
    pub(super) may_be_empty: bool,
}

/// A call, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Open {
        name: Name,
        flags: c_int,
    },
    /// Open with its flags in a structure at this address.
    OpenHow {
        name: Name,
        how: u64,
    },
    Look {
        name: Name,
        follow: bool,
    },
    List {
        file: c_int,
    },
    Execute {
        name: Name,
        follow: bool,
    },
    Make {
        name: Name,
        what: Made,
    },
    Remove {
        name: Name,
    },
    Move {
        from: Name,
        to: Name,
        flags: u32,
    },
    Link {
        from: Name,
        to: Name,
        follow: bool,
    },
    Truncate {
        name: Name,
        length: u64,
    },
    /// Changes something of a file beside its content, or fails if there is none.
    Change {
        name: Name,
        follow: bool,
    },
    Connect {
        address: u64,
        length: u64,
    },
    /// Makes a socket.
    Bind {
        address: u64,
        length: u64,
    },
    /// Concerns a kernel object that is no file.
    Object(ObjectCall),
    /// After it, paths mean something else, or files are read without.
    Blind(&'static str),
}

/// What a call makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Folder,
    Link,
    Node,
}

/// Calls that are told of, on every architecture.
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
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_open_by_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsmount,
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

// Newer than the library: Linux 6.6, and 6.13 to 6.17 (`include/uapi/asm-generic/unistd.h`). The numbers are the same on all architectures.
const FCHMODAT2: c_long = 452;
const GETXATTRAT: c_long = 464;
const LISTXATTRAT: c_long = 465;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_GETATTR: c_long = 468;

/// Calls that only older architectures have.
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

/// The numbers of all calls that are told of.
pub(super) fn numbers() -> impl Iterator<Item = c_long> {
    NUMBERS.iter().chain(OLD_NUMBERS).copied()
}

/// What a call is; `None` if it is none of [`numbers`].
pub(super) fn decode(number: c_long, arguments: &[u64; 6]) -> Option<Call> {
    let arguments = Arguments(arguments);
    decode_old(number, arguments).or_else(|| decode_new(number, arguments))
}

#[derive(Clone, Copy)]
struct Arguments<'a>(&'a [u64; 6]);

impl Arguments<'_> {
    fn raw(self, at: usize) -> u64 {
        self.0[at]
    }

    /// An `int`: the kernel looks at the lower half only.
    fn int(self, at: usize) -> c_int {
        self.0[at] as u32 as c_int
    }

    fn has(self, at: usize, flag: c_int) -> bool {
        self.int(at) & flag != 0
    }

    fn plain(self, at: usize) -> Name {
        Name { base: Base::Directory, text: self.raw(at), may_be_empty: false }
    }

    /// A path behind its folder's descriptor.
    fn at(self, folder: usize) -> Name {
        let base = match self.int(folder) {
            libc::AT_FDCWD => Base::Directory,
            file => Base::File(file),
        };
        Name { base, text: self.raw(folder + 1), may_be_empty: false }
    }

    /// The same, where this argument's flags may allow an empty path.
    fn at_or_itself(self, folder: usize, flags: usize) -> Name {
        Name { may_be_empty: self.has(flags, libc::AT_EMPTY_PATH), ..self.at(folder) }
    }
}

fn decode_new(number: c_long, it: Arguments<'_>) -> Option<Call> {
    let no_follow = |flags: usize| it.has(flags, libc::AT_SYMLINK_NOFOLLOW);
    Some(match number {
        libc::SYS_openat => Call::Open { name: it.at(0), flags: it.int(2) },
        GETXATTRAT | LISTXATTRAT => Call::Look { name: it.at_or_itself(0, 2), follow: !no_follow(2) },
        FILE_GETATTR => Call::Look { name: it.at_or_itself(0, 4), follow: !no_follow(4) },
        libc::SYS_openat2 => Call::OpenHow { name: it.at(0), how: it.raw(2) },
        libc::SYS_newfstatat => Call::Look { name: it.at_or_itself(0, 3), follow: !no_follow(3) },
        libc::SYS_statx => Call::Look { name: it.at_or_itself(0, 2), follow: !no_follow(2) },
        // The older of the two has no flags; its library function has, and then calls `fstatat`.
        libc::SYS_faccessat => Call::Look { name: it.at(0), follow: true },
        libc::SYS_faccessat2 => Call::Look { name: it.at_or_itself(0, 3), follow: !no_follow(3) },
        libc::SYS_readlinkat => Call::Look { name: Name { may_be_empty: true, ..it.at(0) }, follow: false },
        libc::SYS_name_to_handle_at => {
            Call::Look { name: it.at_or_itself(0, 4), follow: it.has(4, libc::AT_SYMLINK_FOLLOW) }
        }
        libc::SYS_getxattr | libc::SYS_listxattr | libc::SYS_chdir | libc::SYS_statfs => {
            Call::Look { name: it.plain(0), follow: true }
        }
        libc::SYS_lgetxattr | libc::SYS_llistxattr => Call::Look { name: it.plain(0), follow: false },
        libc::SYS_inotify_add_watch => Call::Look { name: it.plain(1), follow: true },
        libc::SYS_getdents64 => Call::List { file: it.int(0) },
        libc::SYS_execve => Call::Execute { name: it.plain(0), follow: true },
        libc::SYS_execveat => Call::Execute { name: it.at_or_itself(0, 4), follow: !no_follow(4) },
        libc::SYS_mkdirat => Call::Make { name: it.at(0), what: Made::Folder },
        libc::SYS_mknodat => Call::Make { name: it.at(0), what: Made::Node },
        libc::SYS_symlinkat => Call::Make { name: it.at(1), what: Made::Link },
        libc::SYS_linkat => Call::Link {
            from: it.at_or_itself(0, 4),
            to: it.at(2),
            follow: it.has(4, libc::AT_SYMLINK_FOLLOW),
        },
        libc::SYS_unlinkat => Call::Remove { name: it.at(0) },
        libc::SYS_renameat => Call::Move { from: it.at(0), to: it.at(2), flags: 0 },
        libc::SYS_renameat2 => Call::Move { from: it.at(0), to: it.at(2), flags: it.raw(4) as u32 },
        libc::SYS_truncate => Call::Truncate { name: it.plain(0), length: it.raw(1) },
        libc::SYS_fchmodat => Call::Change { name: it.at(0), follow: true },
        FCHMODAT2 => Call::Change { name: it.at_or_itself(0, 3), follow: !no_follow(3) },
        libc::SYS_fchownat => Call::Change { name: it.at_or_itself(0, 4), follow: !no_follow(4) },
        libc::SYS_utimensat => Call::Change { name: it.at_or_itself(0, 3), follow: !no_follow(3) },
        libc::SYS_setxattr | libc::SYS_removexattr => Call::Change { name: it.plain(0), follow: true },
        libc::SYS_lsetxattr | libc::SYS_lremovexattr => Call::Change { name: it.plain(0), follow: false },
        libc::SYS_bind => Call::Bind { address: it.raw(1), length: u64::from(it.raw(2) as u32) },
        libc::SYS_connect => Call::Connect { address: it.raw(1), length: u64::from(it.raw(2) as u32) },
        libc::SYS_shmget => Call::Object(ObjectCall::Get { kind: Kind::Memory, key: it.int(0) }),
        libc::SYS_semget => Call::Object(ObjectCall::Get { kind: Kind::Semaphores, key: it.int(0) }),
        libc::SYS_msgget => Call::Object(ObjectCall::Get { kind: Kind::Messages, key: it.int(0) }),
        libc::SYS_shmat => Call::Object(ObjectCall::Use { kind: Kind::Memory, id: it.int(0) }),
        libc::SYS_semop | libc::SYS_semtimedop => {
            Call::Object(ObjectCall::Use { kind: Kind::Semaphores, id: it.int(0) })
        }
        libc::SYS_msgsnd | libc::SYS_msgrcv => {
            Call::Object(ObjectCall::Use { kind: Kind::Messages, id: it.int(0) })
        }
        libc::SYS_shmctl => control(Kind::Memory, it.int(0), it.int(1)),
        libc::SYS_semctl => control(Kind::Semaphores, it.int(0), it.int(2)),
        libc::SYS_msgctl => control(Kind::Messages, it.int(0), it.int(1)),
        libc::SYS_mq_open | libc::SYS_mq_unlink => Call::Object(ObjectCall::Queue { name: it.raw(0) }),
        libc::SYS_open_by_handle_at => Call::Blind("opens files without their paths"),
        libc::SYS_mount | libc::SYS_umount2 | libc::SYS_move_mount => Call::Blind("mounts file systems"),
        libc::SYS_open_tree | libc::SYS_fsmount | OPEN_TREE_ATTR => Call::Blind("mounts file systems"),
        libc::SYS_pivot_root | libc::SYS_chroot => Call::Blind("changes its root folder"),
        libc::SYS_setns => Call::Blind("enters another namespace"),
        _ => return None,
    })
}

/// Commands of the calls that control objects; with some, the first argument is a place in the system's list (`include/uapi/linux/{shm,sem,msg}.h`).
fn control(kind: Kind, id: c_int, command: c_int) -> Call {
    /// `IPC_64`, which libraries add on some architectures.
    const WIDE: c_int = 0x100;
    /// `IPC_INFO`, which all kinds have.
    const INFO: c_int = 3;
    let lists: [c_int; 3] = match kind {
        Kind::Memory => [13, 14, 15],
        Kind::Semaphores => [18, 19, 20],
        Kind::Messages => [11, 12, 13],
    };
    let command = command & !WIDE;
    Call::Object(match command == INFO || lists.contains(&command) {
        true => ObjectCall::List { kind },
        false => ObjectCall::Use { kind, id },
    })
}

#[cfg(target_arch = "x86_64")]
fn decode_old(number: c_long, it: Arguments<'_>) -> Option<Call> {
    Some(match number {
        libc::SYS_open => Call::Open { name: it.plain(0), flags: it.int(1) },
        libc::SYS_creat => {
            Call::Open { name: it.plain(0), flags: libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC }
        }
        libc::SYS_stat | libc::SYS_access => Call::Look { name: it.plain(0), follow: true },
        libc::SYS_lstat | libc::SYS_readlink => Call::Look { name: it.plain(0), follow: false },
        libc::SYS_getdents => Call::List { file: it.int(0) },
        libc::SYS_chmod | libc::SYS_chown | libc::SYS_utime | libc::SYS_utimes => {
            Call::Change { name: it.plain(0), follow: true }
        }
        libc::SYS_lchown => Call::Change { name: it.plain(0), follow: false },
        libc::SYS_futimesat => Call::Change { name: it.at(0), follow: true },
        libc::SYS_mkdir => Call::Make { name: it.plain(0), what: Made::Folder },
        libc::SYS_mknod => Call::Make { name: it.plain(0), what: Made::Node },
        libc::SYS_symlink => Call::Make { name: it.plain(1), what: Made::Link },
        libc::SYS_link => Call::Link { from: it.plain(0), to: it.plain(1), follow: false },
        libc::SYS_unlink | libc::SYS_rmdir => Call::Remove { name: it.plain(0) },
        libc::SYS_rename => Call::Move { from: it.plain(0), to: it.plain(1), flags: 0 },
        _ => return None,
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn decode_old(_: c_long, _: Arguments<'_>) -> Option<Call> {
    None
}

#[cfg(test)]
mod tests {
    use super::{decode, numbers};

    #[test]
    fn every_call_that_is_told_of_is_understood() {
        for number in numbers() {
            assert!(decode(number, &[0; 6]).is_some(), "call {number}");
        }
        assert!(decode(libc::SYS_read, &[0; 6]).is_none());
    }
}
