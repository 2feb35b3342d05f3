//! Kernel objects that are no files: shared memory, semaphores and message queues of System V, and message queues of POSIX (`sysvipc(7)`,
//! `mq_overview(7)`). They outlive who has made them, and what is in them cannot be hashed.
//!
//! The kernel does not say who has made an object: only memory has the number of the process. So the identifiers of all objects are listed
//! before a command's first call that concerns one, and whatever is there after the command that was not there before is the
//! command's if it has the key of one that the command made, or if it has none and the command has made some without. Of two commands that run at
//! the same time, both of which make such objects and one of which leaves one behind, both are held to have done it; a command that makes none
//! never is.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use libc::c_int;

/// Kinds of System V's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Memory = 0,
    Semaphores = 1,
    Messages = 2,
}

const KINDS: [Kind; 3] = [Kind::Memory, Kind::Semaphores, Kind::Messages];

/// Where the kernel lists them (`proc(5)`).
const LISTS: &str = "/proc/sysvipc";
/// Where POSIX's message queues are, if they are mounted.
const QUEUES: &str = "/dev/mqueue";

impl Kind {
    /// The name of its list.
    fn name(self) -> &'static str {
        match self {
            Kind::Memory => "shm",
            Kind::Semaphores => "sem",
            Kind::Messages => "msg",
        }
    }

    fn described(self) -> &'static str {
        match self {
            Kind::Memory => "System V shared memory",
            Kind::Semaphores => "System V semaphores",
            Kind::Messages => "a System V message queue",
        }
    }

    /// All objects in this namespace; `None` if they cannot be listed.
    fn list(self) -> Option<Vec<Listed>> {
        let text = fs::read_to_string(Path::new(LISTS).join(self.name())).ok()?;
        let listed = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            Some(Listed { key: words.next()?.parse().ok()?, id: words.next()?.parse().ok()? })
        };
        text.lines().skip(1).map(listed).collect()
    }
}

#[derive(Debug, Clone, Copy)]
struct Listed {
    key: c_int,
    id: c_int,
}

/// A call that concerns such an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectCall {
    /// Finds the object of a key, or makes it.
    Get { kind: Kind, key: c_int },
    /// Uses the object with a number.
    Use { kind: Kind, id: c_int },
    /// Asks for all there are.
    List { kind: Kind },
    /// Opens, makes or removes a queue whose name is at this address.
    Queue { name: u64 },
}

/// An object that has a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Key(Kind, c_int),
    Queue(Vec<u8>),
}

impl Named {
    /// A path that stands for it.
    fn path(&self) -> PathBuf {
        match self {
            Named::Key(kind, key) => Path::new(LISTS).join(kind.name()).join(key.to_string()),
            Named::Queue(name) => Path::new(QUEUES).join(OsString::from_vec(name.clone())),
        }
    }

    fn of_path(path: &Path) -> Option<Self> {
        if let Ok(name) = path.strip_prefix(QUEUES) {
            return Some(Named::Queue(name.as_os_str().as_bytes().to_vec()));
        }
        let mut names = path.strip_prefix(LISTS).ok()?.iter();
        let (name, key) = (names.next()?, names.next()?);
        let kind = KINDS.into_iter().find(|kind| kind.name() == name)?;
        Some(Named::Key(kind, key.to_str()?.parse().ok()?))
    }

    /// Whether it exists; `None` if the kernel does not say.
    fn exists(&self) -> Option<bool> {
        match self {
            Named::Key(kind, key) => Some(kind.list()?.iter().any(|it| it.key == *key)),
            Named::Queue(name) => queue_exists(name),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Named::Key(kind, key) => write!(out, "{} with the key {key:#x}", kind.described()),
            Named::Queue(name) => write!(out, "the message queue /{}", OsStr::from_bytes(name).display()),
        }
    }
}

/// Asks without changing anything: by the call itself, which takes a name without its slash.
fn queue_exists(name: &[u8]) -> Option<bool> {
    let name = CString::new(name).ok()?;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: the kernel reads a text that ends with a zero; without `O_CREAT` it looks at no other argument.
    let queue = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0, std::ptr::null::<u8>()) };
    if queue >= 0 {
        // SAFETY: it was opened above, and nobody else has it.
        unsafe { libc::close(queue as c_int) };
        return Some(true);
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOENT) => Some(false),
        Some(libc::EACCES) => Some(true),
        _ => None,
    }
}

/// Whether the object that a path stands for is there; `None` if the path stands for none.
pub fn kernel_object_exists(path: &Path) -> Option<bool> {
    let named = Named::of_path(path)?;
    // No stored result depends on an object that exists, so this is the safe answer.
    Some(named.exists().unwrap_or(true))
}

/// What a command did with kernel objects.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// The identifiers of what was there before the command's first call, by kind.
    before: Option<[HashSet<c_int>; 3]>,
    /// Those that were not there when the command first asked for them, so that what is there afterwards is the command's.
    absent: BTreeSet<Named>,
    made_without_key: BTreeSet<Kind>,
    foreign: Option<String>,
}

impl Objects {
    pub(super) fn note(&mut self, call: ObjectCall, name: impl FnOnce(u64) -> Option<Vec<u8>>) {
        if self.foreign.is_some() {
            return;
        }
        if self.before.is_none() {
            let ids = |kind: Kind| Some(kind.list()?.iter().map(|it| it.id).collect());
            let Some(before) = KINDS.into_iter().map(ids).collect::<Option<Vec<HashSet<c_int>>>>() else {
                return self.refuse("System V objects, which cannot be listed here");
            };
            self.before = before.try_into().ok();
        }
        match call {
            ObjectCall::Get { kind, key: libc::IPC_PRIVATE, .. } => drop(self.made_without_key.insert(kind)),
            ObjectCall::Get { kind, key } => self.open(Named::Key(kind, key)),
            ObjectCall::Use { kind, id } => {
                if self.before.as_ref().is_some_and(|before| before[kind as usize].contains(&id)) {
                    self.refuse(&format!(
                        "{} with the number {id}, which was there before",
                        kind.described()
                    ));
                }
            }
            ObjectCall::List { kind } => self.refuse(&format!("the list of {}", kind.described())),
            ObjectCall::Queue { name: at } => {
                if let Some(name) = name(at) {
                    self.open(Named::Queue(name));
                }
            }
        }
    }

    fn open(&mut self, named: Named) {
        if self.absent.contains(&named) {
            return;
        }
        match named.exists() {
            // That it is not there is what the result hangs on, and can be compared.
            Some(false) => drop(self.absent.insert(named)),
            _ => self.refuse(&format!("{named}, which was there before")),
        }
    }

    fn refuse(&mut self, what: &str) {
        self.foreign.get_or_insert_with(|| what.to_owned());
    }

    /// After the command: what it used that was not its own, what it has left behind, and paths that stand for what must not be there.
    pub(super) fn finish(&self) -> super::KernelObjects {
        let left = self.absent.iter().find(|named| named.exists() != Some(false)).map(ToString::to_string);
        let left = left.or_else(|| {
            let before = self.before.as_ref()?;
            let is_left = |kind: &&Kind| {
                let listed = kind.list().unwrap_or_default();
                listed
                    .iter()
                    .any(|it| it.key == libc::IPC_PRIVATE && !before[**kind as usize].contains(&it.id))
            };
            let kind = self.made_without_key.iter().find(is_left)?;
            Some(format!("{} without a key", kind.described()))
        });
        let absent = self.absent.iter().map(Named::path).collect();
        super::KernelObjects { foreign: self.foreign.clone(), left_behind: left, absent }
    }
}
