//! What a command and everything it starts really reads, told by the kernel. Knows nothing of tests or keys.
//!
//! A filter on system calls (seccomp, <https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html>) stops every call that
//! takes a path, and tells a thread of ours, which notes the path and lets the call go on. The filter is inherited by whatever the command
//! starts, and cannot be taken off. Static programs, raw system calls and scripts of scripts are seen like everything else, which is why
//! this was chosen over a preloaded library; and a call that is not about paths costs nothing, which is why it was chosen over `ptrace`.
//!
//! Calls that concern kernel objects which are no files (System V's, and POSIX message queues) are stopped as well: [`Objects`]. The kernel allows one
//! listener, so whoever is traced cannot trace; [`TraceStatus`] says whether it is another of ours that does.
//!
//! What is not seen: what a call means once the command has changed what paths mean (mounts, another root), opened files by handle, or
//! is made of another architecture's calls. Then [`Trace::incomplete`] says so, and nothing may be concluded from what is missing. A thread
//! that changes a path in memory between our look at it and the kernel's deceives us: this is for tests, not for attackers.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use greenwave_process::BeforeExec;

use crate::Error;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod call;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod interpreter;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod log;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod object;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod resolution;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod supervisor;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tracee;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
use supervisor as platform;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use object::kernel_object_exists;

/// Without tracing, no path stands for a kernel object.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub fn kernel_object_exists(_: &Path) -> Option<bool> {
    None
}

/// Whether tests are to be traced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TraceMode {
    /// They are not traced: results rest on what is declared.
    #[default]
    Off,
    /// They are traced where that is possible. Where it is not, the run says so.
    WhenPossible,
    /// Where they cannot be traced, nothing runs.
    Required,
}

/// Whether the tests of this process are traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceStatus {
    /// Nobody wants that.
    Off,
    /// By this process.
    Traced,
    /// By another process of this library that traces this one and whatever it starts: it sees what tests read, and this one does not.
    TracedByOuter,
    /// They are not, although that is wanted, for this reason.
    Unavailable(String),
}

impl TraceStatus {
    /// What holds in this process. Found out once.
    pub fn of(mode: TraceMode) -> Self {
        static STATUS: OnceLock<TraceStatus> = OnceLock::new();
        if mode == TraceMode::Off {
            return TraceStatus::Off;
        }
        let find = || match platform::available() {
            Ok(()) => TraceStatus::Traced,
            Err(_) if platform::is_observed() => TraceStatus::TracedByOuter,
            Err(reason) => TraceStatus::Unavailable(reason),
        };
        STATUS.get_or_init(find).clone()
    }

    /// In a word, for programs: `off`, `traced`, `traced_by_outer` or `unavailable`.
    pub fn as_str(&self) -> &'static str {
        match self {
            TraceStatus::Off => "off",
            TraceStatus::Traced => "traced",
            TraceStatus::TracedByOuter => "traced_by_outer",
            TraceStatus::Unavailable(_) => "unavailable",
        }
    }

    /// Why tests are not traced although that is wanted.
    pub fn reason(&self) -> Option<&str> {
        match self {
            TraceStatus::Unavailable(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Most paths that are noted of one command where nothing else is said; beyond, it counts as not seen.
const PATHS_MAX: usize = 200_000;

/// Puts commands under observation.
#[derive(Debug, Clone, Copy)]
pub struct Tracer {
    /// Most paths that are noted of one command. Beyond, [`Trace::incomplete`] is set.
    pub paths_max: usize,
}

impl Default for Tracer {
    fn default() -> Self {
        Self { paths_max: PATHS_MAX }
    }
}

impl Tracer {
    /// Whether commands can be observed here. Tried out once in the life of this process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason: another system than Linux 5.9 or later on `x86_64` or `aarch64`, no `/proc`, a sandbox that
    /// forbids it, or this process being observed itself (the kernel allows one observer).
    pub fn available() -> Result<(), Error> {
        platform::available().map_err(|reason| Error::Unavailable { what: "seeing what tests read", reason })
    }

    /// Has a command observed from its start on. Spawn it next, then drop it, and call [`TraceSession::finish`] when it has ended.
    ///
    /// A program that gains rights by being started (set-user-id) does not gain them under observation, unless this process is privileged.
    ///
    /// # Errors
    /// [`Error::Unavailable`] as [`available`](Self::available), or if there is no thread or descriptor left.
    pub fn attach(self, command: &mut impl BeforeExec) -> Result<TraceSession, Error> {
        Self::available()?;
        let tracing = platform::attach(command, self.paths_max);
        let failed = |error: std::io::Error| Error::Unavailable {
            what: "seeing what tests read",
            reason: error.to_string(),
        };
        Ok(TraceSession(tracing.map_err(failed)?))
    }
}

/// A command under observation. When this is dropped, what is left of the command can go on, unobserved.
#[derive(Debug)]
#[must_use = "what was read is told by `finish`"]
pub struct TraceSession(platform::Supervisor);

impl TraceSession {
    /// What was seen. Call it when the command and what it started have ended: it blocks until the last of them is gone, but no longer
    /// than half a second. What goes on after that makes the answer [incomplete](Trace::incomplete), and can go on for as long as this process
    /// lives: afterwards its calls that take a path fail.
    pub fn blocking_finish(self) -> Trace {
        self.0.blocking_finish()
    }

    /// The same for tasks, who wait without keeping a thread.
    pub async fn finish(self) -> Trace {
        self.0.finish().await
    }
}

/// What a command and everything it started read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// By absolute path. No component but the last is a symbolic link; links that were crossed are paths of their own.
    pub paths: BTreeMap<PathBuf, Access>,
    /// Those at which something was when they were first used, and before the command put something there.
    pub existing: HashSet<PathBuf>,
    /// What it did with kernel objects that are no files.
    pub objects: KernelObjects,
    /// Why that may not be all: what the command did, as in "it mounts a file system". `None` if it is all.
    pub incomplete: Option<String>,
    /// Whether it connected to somebody, who may have read something for it. Its own parts talking to each other count as well.
    pub connected: bool,
}

/// What a command did with kernel objects that are no files: System V shared memory, semaphores and message queues, and message queues of POSIX.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelObjects {
    /// One that it used and that was there before, described.
    pub foreign: Option<String>,
    /// One that it has left behind, described.
    pub left_behind: Option<String>,
    /// Paths that stand for those that were not there when it asked for them.
    pub absent: BTreeSet<PathBuf>,
}

/// How a path was used. What was done to a path after the command itself had put something there is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    /// It was opened for reading, or executed, or was moved or linked to another name.
    pub read: bool,
    /// It was asked whether or what it is, or opening it had to fail, or it was crossed as a symbolic link.
    pub queried: bool,
    /// The names in it were read.
    pub listed: bool,
    /// It was opened for writing, made, or removed.
    pub written: bool,
    /// It was made where nothing was before, in a way that would have had another result had something been there.
    pub created: bool,
    /// It was a symbolic link when it was first seen.
    pub symlink: bool,
    /// Nothing the command did depends on what was there before: first of all it was overwritten, or it is below a folder that the
    /// command made. Not an input.
    pub output_only: bool,
}

impl Trace {
    /// Paths whose state before the command may have changed what it did. Left out are those in these folders (as resolved) and in `/proc`, `/sys` and
    /// `/dev` (but for `/dev/shm`, where ordinary files are), and what the command [made itself](Access::own).
    pub fn inputs<'a>(&'a self, omit: &'a [PathBuf]) -> impl Iterator<Item = (&'a Path, Access)> + 'a {
        let system = ["/proc", "/sys", "/dev"].map(Path::new);
        let is_left_out = move |path: &Path| {
            (system.iter().any(|folder| path.starts_with(folder)) && !path.starts_with("/dev/shm"))
                || omit.iter().any(|folder| path.starts_with(folder))
        };
        let counts = move |path: &Path, access: Access| {
            let depends = access.read || access.queried || access.listed;
            (access.created || (depends && !access.output_only)) && !is_left_out(path)
        };
        let paths = self.paths.iter().map(|(path, access)| (path.as_path(), *access));
        paths.filter(move |(path, access)| counts(path, *access))
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod platform {
    use super::{BeforeExec, Trace};

    /// Never made.
    #[derive(Debug)]
    pub(super) enum Supervisor {}

    impl Supervisor {
        pub(super) fn blocking_finish(self) -> Trace {
            match self {}
        }

        pub(super) async fn finish(self) -> Trace {
            match self {}
        }
    }

    pub(super) fn available() -> Result<(), String> {
        Err("it takes Linux on x86_64 or aarch64".to_owned())
    }

    pub(super) fn is_observed() -> bool {
        false
    }

    pub(super) fn attach(_: &mut impl BeforeExec, _: usize) -> std::io::Result<Supervisor> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}
