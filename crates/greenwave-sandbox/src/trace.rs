//! The result of tracing: every path that a command accessed, and how.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::{Peer, Retimed};

/// Directories of pseudo file systems, which hold the state of the kernel instead of files.
const PSEUDO_FILE_SYSTEMS: [&str; 3] = ["/proc", "/sys", "/dev"];
/// The directory below `/dev` that holds ordinary files.
const SHARED_MEMORY: &str = "/dev/shm";

/// All file accesses of a command and of every process that it started.
///
/// Paths are absolute and free of symbolic links, except that their last component may be one. A
/// symbolic link that was followed is recorded under its own path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The accesses by path.
    pub paths: BTreeMap<PathBuf, Access>,
    /// The paths that existed when the command first used them. A path that the command itself
    /// created is not one of them.
    pub existing: HashSet<PathBuf>,
    /// Directories that existed, and that the command removed and created again, without reading a
    /// file in them before. It came upon everything in them by reading the names in a directory, as
    /// `rm -r` does.
    pub swept: HashSet<PathBuf>,
    /// Programs that the command executed, and whose files it did not access in any other way.
    pub only_executed: HashSet<PathBuf>,
    /// Regular files whose timestamps the command has set, and which it has not changed otherwise,
    /// except perhaps through an open descriptor. These are [written](Access::written), too.
    pub retimed: HashMap<PathBuf, Retimed>,
    /// Accesses to kernel objects that are not files.
    pub objects: KernelObjects,
    /// The reason why accesses may be missing from this trace, as in "mounts file systems". `None`
    /// if the trace is complete. An incomplete trace proves nothing about paths that it does not
    /// list.
    pub incomplete: Option<String>,
    /// Servers, pipes, devices and processes outside of the command that it may have exchanged data
    /// with. A peer may have read files on its behalf, or have passed it open files.
    pub peers: BTreeSet<Peer>,
    /// The parts of the command, if it could [announce](crate::Tracer::announcements) any.
    pub parts: Option<TraceParts>,
    /// The programs that were the first to depend on each path. For explanations.
    pub readers: TraceReaders,
}

/// The programs of a command, and which of them was the first to depend on each path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceReaders {
    pub(crate) commands: Vec<String>,
    /// Index of the command line.
    pub(crate) by_path: HashMap<PathBuf, u32>,
}

impl TraceReaders {
    /// Returns the command line of the process that was the first to depend on a path: its
    /// arguments with one space between them, up to 200 bytes. Returns `None` for a path on which
    /// nothing depends, and where the process had ended.
    pub fn command(&self, path: &Path) -> Option<&str> {
        let number = *self.by_path.get(path)?;
        self.commands.get(number as usize).map(String::as_str)
    }
}

/// The parts of a command that ran one after another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceParts {
    /// The parts that observed each path.
    pub observed: HashMap<PathBuf, Vec<u32>>,
    /// The parts that read the names in each directory.
    pub listed: HashMap<PathBuf, Vec<u32>>,
    /// For each part, those whose changes of files or directories it has observed.
    pub uses: BTreeMap<u32, BTreeSet<u32>>,
}

impl TraceParts {
    /// Returns the parts that the result of a part depends on: itself, part 0, and all those whose
    /// changes they observed.
    pub fn closure(&self, part: u32) -> BTreeSet<u32> {
        let mut reached = BTreeSet::new();
        let mut open = vec![0, part];
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(self.uses.get(&next).into_iter().flatten());
            }
        }
        reached
    }

    /// Returns whether one of the given parts observed a path other than by reading the names in a
    /// directory. A path without an entry is taken to be observed by all.
    pub fn is_observed(&self, path: &Path, by: &BTreeSet<u32>) -> bool {
        self.observed.get(path).is_none_or(|parts| parts.iter().any(|part| by.contains(part)))
    }

    /// Returns whether one of the given parts read the names in a directory. A directory without an
    /// entry is taken to be read by all.
    pub fn is_listed(&self, directory: &Path, by: &BTreeSet<u32>) -> bool {
        self.listed.get(directory).is_none_or(|parts| parts.iter().any(|part| by.contains(part)))
    }
}

/// Accesses to kernel objects that are not files: System V shared memory, semaphores and message
/// queues, POSIX message queues, and servers at addresses of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelObjects {
    /// Description of an object that the command used and that existed before.
    pub foreign: Option<String>,
    /// Description of an object that the command created and did not remove.
    pub left_behind: Option<String>,
    /// Paths that represent objects that did not exist when the command asked for them. Pass them
    /// to [`kernel_object_exists`](crate::kernel_object_exists) to find out whether they exist now.
    pub absent: BTreeSet<PathBuf>,
}

/// The ways in which a path was accessed.
///
/// Once the command has created, overwritten or removed the file at a path, later accesses to it
/// are accesses to the command's own output. They set `written` at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    /// The file was opened for reading, executed, renamed or hard-linked.
    pub read: bool,
    /// The command asked for its metadata or existence, followed it as a symbolic link, or could
    /// not open it.
    pub queried: bool,
    /// The names in the directory were read.
    pub listed: bool,
    /// The file was opened for writing, created, changed or removed.
    pub written: bool,
    /// The file was created by a call that would have behaved differently if one had existed.
    pub created: bool,
    /// The path was a symbolic link when it was first accessed.
    pub symlink: bool,
    /// Nothing that the command did depends on the earlier state of the path: its first access
    /// replaced the file, or the file is in a directory that the command created.
    pub output_only: bool,
}

impl Trace {
    /// Returns the files that were read or executed, including programs, script interpreters and
    /// dynamic linkers.
    ///
    /// Files that the command wrote itself before it read them are not included. A file that it had
    /// no permission to read is.
    pub fn read_paths(&self) -> impl Iterator<Item = &Path> {
        self.paths_with(|access| access.read)
    }

    /// Returns the paths that were created, written, changed or removed.
    pub fn written_paths(&self) -> impl Iterator<Item = &Path> {
        self.paths_with(|access| access.written)
    }

    /// Returns the directories whose names were read.
    pub fn listed_paths(&self) -> impl Iterator<Item = &Path> {
        self.paths_with(|access| access.listed)
    }

    /// Returns the paths that the command looked up without finding anything, such as configuration
    /// files that do not exist and directories of a search path that lack a program.
    ///
    /// Paths at which the command then created a file itself are not included.
    pub fn missing_paths(&self) -> impl Iterator<Item = &Path> {
        let missing = self.paths.iter().filter(|(path, access)| {
            access.queried && !access.created && !self.existing.contains(path.as_path())
        });
        missing.map(|(path, _)| path.as_path())
    }

    /// Returns the paths whose earlier state may have influenced the command: everything that a
    /// cached result of the command depends on.
    ///
    /// Excluded are the directories in `excluded` (absolute, without symbolic links), `/proc`,
    /// `/sys`, `/dev` except for `/dev/shm`, and [output-only](Access::output_only) paths.
    pub fn inputs<'a>(&'a self, excluded: &'a [PathBuf]) -> impl Iterator<Item = (&'a Path, Access)> + 'a {
        let is_excluded = move |path: &Path| {
            let is_pseudo = PSEUDO_FILE_SYSTEMS.iter().any(|root| path.starts_with(root));
            (is_pseudo && !path.starts_with(SHARED_MEMORY))
                || excluded.iter().any(|directory| path.starts_with(directory))
        };
        let is_input = |access: Access| {
            let depends = access.read || access.queried || access.listed;
            access.created || (depends && !access.output_only)
        };
        let paths = self.paths.iter().map(|(path, access)| (path.as_path(), *access));
        paths.filter(move |(path, access)| is_input(*access) && !is_excluded(path))
    }

    fn paths_with(&self, has: impl Fn(&Access) -> bool) -> impl Iterator<Item = &Path> {
        self.paths.iter().filter(move |(_, access)| has(access)).map(|(path, _)| path.as_path())
    }
}
