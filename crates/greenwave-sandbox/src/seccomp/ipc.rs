//! Records the use of kernel objects that are not files: shared memory, semaphores and message
//! queues of System V, and message queues of POSIX (`sysvipc(7)`, `mq_overview(7)`). They outlive
//! the process that created them, and their contents cannot be hashed. Addresses of this machine at
//! which no server listens are recorded here as well.
//!
//! The kernel does not report who created an object, except for shared memory. The identifiers of
//! all objects are therefore listed before the first call of a command that uses one. An object
//! that exists after the command and did not exist before is attributed to the command if it has a
//! key that the command created, or if it has no key and the command created objects without a key.
//! If two commands run at the same time, both create objects without a key, and one leaves an
//! object behind, then the object is attributed to both. It is never attributed to a command that
//! creates none.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use libc::c_int;

use super::net_tables::{OWN_TABLES, is_local, receivers};
use crate::KernelObjects;

/// The kinds of System V objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum IpcKind {
    SharedMemory = 0,
    Semaphores = 1,
    MessageQueue = 2,
}

const KINDS: [IpcKind; 3] = [IpcKind::SharedMemory, IpcKind::Semaphores, IpcKind::MessageQueue];

/// The directory in which the kernel lists System V objects (`proc(5)`).
const LISTS: &str = "/proc/sysvipc";
/// The mount point of POSIX message queues.
const QUEUES: &str = "/dev/mqueue";
/// The directory of the paths that represent servers. It does not exist.
const SERVERS: &str = "/proc/net/servers";
/// Maximum number of addresses without a server that are recorded. Each is checked separately.
const SERVERS_MAX: usize = 32;

/// Returns whether the kernel object that a path represents exists, or `None` if the path does not
/// represent one.
///
/// Such paths are reported in [`KernelObjects::absent`](crate::KernelObjects::absent). An object
/// whose existence cannot be determined counts as existing.
pub fn kernel_object_exists(path: &Path) -> Option<bool> {
    let name = ObjectName::from_path(path)?;
    // Results never depend on an object that exists, which makes this the safe default.
    Some(name.exists().unwrap_or(true))
}

impl IpcKind {
    /// Returns the file name of the kernel's list of these objects.
    fn list_name(self) -> &'static str {
        match self {
            IpcKind::SharedMemory => "shm",
            IpcKind::Semaphores => "sem",
            IpcKind::MessageQueue => "msg",
        }
    }

    fn description(self) -> &'static str {
        match self {
            IpcKind::SharedMemory => "System V shared memory",
            IpcKind::Semaphores => "System V semaphores",
            IpcKind::MessageQueue => "a System V message queue",
        }
    }

    /// Lists all objects in this namespace. Returns `None` if they cannot be listed.
    fn list(self) -> Option<Vec<IpcObject>> {
        let text = fs::read_to_string(Path::new(LISTS).join(self.list_name())).ok()?;
        let object = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            Some(IpcObject { key: words.next()?.parse().ok()?, id: words.next()?.parse().ok()? })
        };
        text.lines().skip(1).map(object).collect()
    }
}

/// An existing System V object.
#[derive(Debug, Clone, Copy)]
struct IpcObject {
    key: c_int,
    id: c_int,
}

/// A call that uses a kernel object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IpcCall {
    /// Finds the object with a key, or creates it.
    Get { kind: IpcKind, key: c_int },
    /// Uses the object with an identifier.
    Use { kind: IpcKind, id: c_int },
    /// Lists all objects.
    List { kind: IpcKind },
    /// Opens, creates or removes a POSIX queue. Its name is at this address.
    Queue { name: u64 },
}

/// The name of an object, by which other processes find it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum ObjectName {
    Key(IpcKind, c_int),
    Queue(Vec<u8>),
    /// A socket that receives at this address of this machine.
    Server(SocketAddr),
}

impl ObjectName {
    /// Returns a path that represents the object.
    fn path(&self) -> PathBuf {
        match self {
            ObjectName::Key(kind, key) => Path::new(LISTS).join(kind.list_name()).join(key.to_string()),
            ObjectName::Queue(name) => Path::new(QUEUES).join(OsString::from_vec(name.clone())),
            ObjectName::Server(address) => Path::new(SERVERS).join(address.to_string()),
        }
    }

    fn from_path(path: &Path) -> Option<Self> {
        if let Ok(address) = path.strip_prefix(SERVERS) {
            return Some(ObjectName::Server(address.to_str()?.parse().ok()?));
        }
        if let Ok(name) = path.strip_prefix(QUEUES) {
            return Some(ObjectName::Queue(name.as_os_str().as_bytes().to_vec()));
        }
        let mut names = path.strip_prefix(LISTS).ok()?.iter();
        let (name, key) = (names.next()?, names.next()?);
        let kind = KINDS.into_iter().find(|kind| kind.list_name() == name)?;
        Some(ObjectName::Key(kind, key.to_str()?.parse().ok()?))
    }

    /// Returns whether the object exists, or `None` if the kernel does not report it.
    fn exists(&self) -> Option<bool> {
        match self {
            ObjectName::Key(kind, key) => Some(kind.list()?.iter().any(|object| object.key == *key)),
            ObjectName::Queue(name) => queue_exists(name),
            ObjectName::Server(address) => {
                let receivers = receivers(Path::new(OWN_TABLES), *address, is_local(address.ip()));
                Some(!receivers.is_empty())
            }
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectName::Key(kind, key) => write!(out, "{} with the key {key:#x}", kind.description()),
            ObjectName::Queue(name) => {
                write!(out, "the message queue /{}", OsStr::from_bytes(name).display())
            }
            ObjectName::Server(address) => write!(out, "a server at {address}"),
        }
    }
}

/// Returns whether a POSIX queue exists, by opening it. The system call takes the name without its
/// slash.
fn queue_exists(name: &[u8]) -> Option<bool> {
    let name = CString::new(name).ok()?;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: `name` is NUL-terminated and lives until the call returns, and the kernel only reads
    // it. Without `O_CREAT`, the kernel ignores the mode and the null attributes.
    let queue = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0, std::ptr::null::<u8>()) };
    if queue >= 0 {
        // SAFETY: the call above has just opened this descriptor for this process, so nothing else
        // owns it. Descriptors fit into a `c_int`.
        drop(unsafe { OwnedFd::from_raw_fd(queue as c_int) });
        return Some(true);
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOENT) => Some(false),
        Some(libc::EACCES) => Some(true),
        _ => None,
    }
}

/// The recorded uses of kernel objects.
#[derive(Debug, Default)]
pub(super) struct IpcLog {
    /// The identifiers of the objects that existed before the first call, by kind.
    before: Option<[HashSet<c_int>; 3]>,
    /// The objects that did not exist when the command first asked for them. If they exist
    /// afterwards, the command has created them.
    absent: BTreeSet<ObjectName>,
    created_without_key: BTreeSet<IpcKind>,
    foreign: Option<String>,
}

impl IpcLog {
    /// Records a call. `read_name` reads the name of a queue from the caller's memory.
    pub(super) fn record(&mut self, call: IpcCall, read_name: impl FnOnce(u64) -> Option<Vec<u8>>) {
        if self.foreign.is_some() {
            return;
        }
        if self.before.is_none() {
            self.before = list_all();
        }
        let Some(before) = &self.before else {
            return self.set_foreign("System V objects, which cannot be listed here".to_owned());
        };
        match call {
            IpcCall::Get { kind, key: libc::IPC_PRIVATE } => {
                self.created_without_key.insert(kind);
            }
            IpcCall::Get { kind, key } => self.open(ObjectName::Key(kind, key)),
            IpcCall::Use { kind, id } if before[kind as usize].contains(&id) => {
                let description = kind.description();
                self.set_foreign(format!("{description} with the number {id}, which existed before"));
            }
            IpcCall::Use { .. } => {}
            IpcCall::List { kind } => self.set_foreign(format!("the list of {}", kind.description())),
            IpcCall::Queue { name } => {
                if let Some(name) = read_name(name) {
                    self.open(ObjectName::Queue(name));
                }
            }
        }
    }

    fn open(&mut self, name: ObjectName) {
        if self.absent.contains(&name) {
            return;
        }
        if name.exists() == Some(false) {
            // The result depends on its absence, which can be checked later.
            self.absent.insert(name);
        } else {
            self.set_foreign(format!("{name}, which existed before"));
        }
    }

    /// Records that no server received at an address of this machine. Returns `false` if too many
    /// are recorded.
    pub(super) fn absent_server(&mut self, address: SocketAddr) -> bool {
        let name = ObjectName::Server(address);
        let is_server = |name: &&ObjectName| matches!(name, ObjectName::Server(_));
        if !self.absent.contains(&name) && self.absent.iter().filter(is_server).count() >= SERVERS_MAX {
            return false;
        }
        self.absent.insert(name);
        true
    }

    pub(super) fn set_foreign(&mut self, description: String) {
        self.foreign.get_or_insert(description);
    }

    /// Returns the uses after the command has ended, and searches for objects that it left behind.
    pub(super) fn finish(&self) -> KernelObjects {
        let named = self.absent.iter().find(|name| name.exists() != Some(false));
        let left_behind = named.map(ToString::to_string).or_else(|| self.left_without_key());
        let absent = self.absent.iter().map(ObjectName::path).collect();
        KernelObjects { foreign: self.foreign.clone(), left_behind, absent }
    }

    fn left_without_key(&self) -> Option<String> {
        let before = self.before.as_ref()?;
        let is_left = |kind: &&IpcKind| {
            let is_new = |object: &IpcObject| {
                object.key == libc::IPC_PRIVATE && !before[**kind as usize].contains(&object.id)
            };
            kind.list().unwrap_or_default().iter().any(is_new)
        };
        let kind = self.created_without_key.iter().find(is_left)?;
        Some(format!("{} without a key", kind.description()))
    }
}

/// Lists the identifiers of all System V objects by kind. Returns `None` if they cannot be listed.
fn list_all() -> Option<[HashSet<c_int>; 3]> {
    let ids = |kind: IpcKind| Some(kind.list()?.iter().map(|object| object.id).collect());
    let [memory, semaphores, queues] = KINDS.map(ids);
    Some([memory?, semaphores?, queues?])
}
