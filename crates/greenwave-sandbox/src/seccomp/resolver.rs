//! Resolves paths as the kernel does, and reports the symbolic links on the way.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::processes::own_number;
use super::tracee::magic_link_target;

/// Maximum number of symbolic links that the kernel follows in one path.
const LINKS_MAX: usize = 40;
/// Maximum number of cached directories. The cache is cleared when it is full.
const DIRECTORIES_MAX: usize = 100_000;

/// A resolved path.
#[derive(Debug)]
pub(super) struct Resolution {
    /// The symbolic links that were followed.
    pub(super) links: Vec<PathBuf>,
    /// The path without symbolic links.
    pub(super) path: PathBuf,
    pub(super) target: Target,
    /// The process whose directory in `/proc` the path leads through.
    pub(super) process: Option<ForeignProcess>,
    /// Whether a file system on the way is provided by a process (`fuse(4)`). The file system in
    /// which the command started does not count.
    pub(super) is_fuse: bool,
}

/// A process whose directory in `/proc` a path leads through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ForeignProcess {
    pub(super) number: u32,
    /// Whether the path continues to files or memory of the process.
    pub(super) has_files: bool,
    /// Whether the path continues to the environment variables of the process.
    pub(super) has_environment: bool,
}

/// Names in `/proc/PID` of links to files of the process.
const LINKS_OF_PROCESS: [&[u8]; 3] = [b"root", b"cwd", b"exe"];
/// Names in `/proc/PID` of directories with links to files of the process.
const LINK_DIRECTORIES_OF_PROCESS: [&[u8]; 2] = [b"fd", b"map_files"];
/// Name in `/proc/PID` of the memory of the process.
const MEMORY_OF_PROCESS: &[u8] = b"mem";
/// Type of FUSE file systems (`FUSE_SUPER_MAGIC` of `linux/magic.h`).
const FUSE: u64 = 0x6573_5546;

/// The kinds of file other than regular files, directories and symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Pipe,
    Socket,
    /// A character device, with its major and minor number.
    Character(u32, u32),
    Block,
}

/// The kinds of file at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    File,
    Directory,
    Symlink,
    /// A device, pipe or socket.
    Other(Node),
    /// Nothing, in a directory that exists.
    Absent,
    /// Nothing, because a directory on the way does not exist or cannot be searched.
    Unreachable,
    /// A file without a path, such as the end of a pipe.
    Unnamed,
}

impl Target {
    /// Returns whether a file with a path exists.
    pub(super) fn exists(self) -> bool {
        matches!(self, Target::File | Target::Directory | Target::Symlink | Target::Other(_))
    }
}

/// Resolves paths, and caches which paths are directories and not symbolic links.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    directories: HashSet<PathBuf>,
    /// Whether each device is provided by FUSE.
    devices: HashMap<u64, bool>,
}

impl Resolver {
    /// Clears the cache, because symbolic links were created or removed.
    pub(super) fn forget(&mut self) {
        self.directories.clear();
    }

    /// Removes a directory from the cache, because the command is about to remove it.
    pub(super) fn forget_directory(&mut self, path: &Path) {
        self.directories.remove(path);
    }

    /// Excludes the file system of the command's first working directory from
    /// [`Resolution::is_fuse`]. Only the first call has an effect.
    pub(super) fn trust_device_of(&mut self, thread: u32) {
        if self.devices.is_empty() {
            let directory = fs::metadata(format!("/proc/{thread}/cwd"));
            self.devices.insert(directory.map_or(0, |directory| directory.dev()), false);
        }
    }

    fn is_fuse(&mut self, path: &Path, device: u64) -> bool {
        let query = || rustix::fs::statfs(path).is_ok_and(|about| about.f_type as u64 == FUSE);
        *self.devices.entry(device).or_insert_with(query)
    }

    /// Resolves an absolute path on behalf of a thread. `follow` says whether a symbolic link at
    /// the end is followed.
    pub(super) fn resolve(&mut self, thread: u32, path: &[u8], follow: bool) -> Resolution {
        let follow = follow || path.ends_with(b"/") || path.ends_with(b"/.");
        let mut walk = Walk::new(thread);
        match self.split_cached(path) {
            Some((directory, name)) => {
                walk.path.push(directory);
                walk.rest.push(name.to_vec());
            }
            None => walk.queue(path),
        }
        let mut target = Target::Directory;
        while let Some(name) = walk.rest.pop() {
            target = match name.as_slice() {
                b"." => Target::Directory,
                b".." => {
                    walk.path.pop();
                    Target::Directory
                }
                name => self.step(&mut walk, name, follow),
            };
            if target != Target::Directory {
                break;
            }
        }
        if !walk.rest.is_empty() && target != Target::Unnamed {
            target = Target::Unreachable;
            walk.append_rest();
        }
        let Walk { links, path, process, is_fuse, .. } = walk;
        Resolution { links, path, target, process, is_fuse }
    }

    /// Splits a path into its directory and last name, if the directory is cached.
    fn split_cached<'a>(&'a self, path: &'a [u8]) -> Option<(&'a Path, &'a [u8])> {
        let end = path.iter().rposition(|byte| *byte == b'/')?;
        let (directory, name) = (Path::new(OsStr::from_bytes(&path[..end])), &path[end + 1..]);
        let is_plain = !matches!(name, b"" | b"." | b"..");
        let directory = self.directories.get(directory).filter(|_| is_plain)?;
        Some((directory, name))
    }

    /// Resolves one name in the directory that the walk has reached. Returns [`Target::Directory`]
    /// also if the walk continues behind a symbolic link.
    fn step(&mut self, walk: &mut Walk, name: &[u8], follow: bool) -> Target {
        if walk.path == Path::new("/proc") && matches!(name, b"self" | b"thread-self") {
            // These links mean the traced thread, and not this process.
            walk.path.push(walk.thread.to_string());
            return Target::Directory;
        }
        match walk.enter_process(name, follow) {
            Some(number) => walk.path.push(number.to_string()),
            None => walk.path.push(OsStr::from_bytes(name)),
        }
        if self.directories.contains(&walk.path) {
            return Target::Directory;
        }
        let Ok(metadata) = fs::symlink_metadata(&walk.path) else {
            return if walk.rest.is_empty() { Target::Absent } else { Target::Unreachable };
        };
        walk.is_fuse |= self.is_fuse(&walk.path, metadata.dev());
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.cache_directory(&walk.path);
            Target::Directory
        } else if kind.is_symlink() && (follow || !walk.rest.is_empty()) {
            walk.follow()
        } else if kind.is_symlink() {
            Target::Symlink
        } else if kind.is_file() {
            Target::File
        } else if kind.is_fifo() {
            Target::Other(Node::Pipe)
        } else if kind.is_socket() {
            Target::Other(Node::Socket)
        } else if kind.is_char_device() {
            let device = metadata.rdev();
            Target::Other(Node::Character(libc::major(device), libc::minor(device)))
        } else {
            Target::Other(Node::Block)
        }
    }

    /// Caches a directory, except in `/proc`, where directories come and go with processes.
    fn cache_directory(&mut self, directory: &Path) {
        if !self.directories.contains(directory) && !directory.starts_with("/proc") {
            if self.directories.len() >= DIRECTORIES_MAX {
                self.directories.clear();
            }
            self.directories.insert(directory.to_owned());
        }
    }
}

/// A path that is being resolved.
struct Walk {
    thread: u32,
    links: Vec<PathBuf>,
    /// The part that has been resolved.
    path: PathBuf,
    /// The names that remain, the next one last.
    rest: Vec<Vec<u8>>,
    process: Option<ForeignProcess>,
    is_fuse: bool,
}

impl Walk {
    fn new(thread: u32) -> Self {
        let path = PathBuf::from("/");
        Self { thread, links: Vec::new(), path, rest: Vec::new(), process: None, is_fuse: false }
    }

    /// Records that the walk goes on with a name, if that is the directory of another process, and
    /// returns the number that this process has here.
    fn enter_process(&mut self, name: &[u8], follow: bool) -> Option<u32> {
        if self.path != Path::new("/proc") {
            return None;
        }
        let number = own_number(self.thread, std::str::from_utf8(name).ok()?.parse().ok()?);
        let has_files = self.leads_to_files(follow);
        let has_environment = self.rest.iter().any(|name| name == b"environ");
        self.process = Some(ForeignProcess { number, has_files, has_environment });
        Some(number)
    }

    /// Returns whether the names that remain after `/proc/PID` lead to files or memory of the
    /// process. A link that is only read leads nowhere.
    fn leads_to_files(&self, follow: bool) -> bool {
        let is_followed = |at: usize| follow || at > 0;
        self.rest.iter().enumerate().any(|(at, name)| match name.as_slice() {
            MEMORY_OF_PROCESS => true,
            name if LINKS_OF_PROCESS.contains(&name) => is_followed(at),
            name => LINK_DIRECTORIES_OF_PROCESS.contains(&name) && at > 0 && is_followed(at - 1),
        })
    }

    fn queue(&mut self, path: &[u8]) {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        self.rest.extend(names.rev().map(<[u8]>::to_vec));
    }

    /// Replaces the symbolic link that was reached by its target. Returns [`Target::Directory`] if
    /// the walk continues.
    fn follow(&mut self) -> Target {
        if self.path.starts_with("/proc") {
            return self.follow_magic_link();
        }
        let Ok(target) = fs::read_link(&self.path) else { return Target::Unreachable };
        if self.links.len() >= LINKS_MAX {
            return Target::Unreachable;
        }
        self.links.push(self.path.clone());
        self.path.pop();
        let target = target.into_os_string().into_vec();
        if target.starts_with(b"/") {
            self.path = PathBuf::from("/");
        }
        self.queue(&target);
        Target::Directory
    }

    /// Follows a link in `/proc`. The kernel resolves these to open files, regardless of their
    /// text.
    fn follow_magic_link(&mut self) -> Target {
        match self.path.to_str().map(magic_link_target) {
            Some(Ok(Some(target))) => {
                self.path = PathBuf::from("/");
                self.queue(target.as_os_str().as_bytes());
                self.links.push(PathBuf::from("/proc"));
                if self.links.len() > LINKS_MAX { Target::Unreachable } else { Target::Directory }
            }
            Some(Ok(None)) => Target::Unnamed,
            _ => Target::Absent,
        }
    }

    /// Appends the names that could not be resolved, unless they lead back with `..`.
    fn append_rest(&mut self) {
        if self.rest.iter().any(|name| matches!(name.as_slice(), b"..")) {
            return;
        }
        while let Some(name) = self.rest.pop() {
            if name != b"." {
                self.path.push(OsStr::from_bytes(&name));
            }
        }
    }
}
