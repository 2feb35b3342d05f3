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

/// Resolves paths, and caches which paths are directories.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    /// Directories that are reached without symbolic links.
    directories: HashSet<PathBuf>,
    /// Directories that are reached through symbolic links, by the path with the links.
    linked: HashMap<PathBuf, LinkedDirectory>,
    /// Threads whose last call changes what paths mean. Until their next call, such a change may
    /// still be to come, and a directory that is reached through links is not cached.
    changing: HashSet<u32>,
    /// Whether each device is provided by FUSE.
    devices: HashMap<u64, bool>,
}

/// A directory that is reached through symbolic links.
#[derive(Debug, Clone)]
struct LinkedDirectory {
    path: PathBuf,
    links: Vec<PathBuf>,
}

impl Resolver {
    /// Starts the resolution of the paths of a thread's next call.
    pub(super) fn next_call(&mut self, thread: u32) {
        if !self.changing.is_empty() {
            self.changing.remove(&thread);
        }
    }

    /// Clears the cache, because a thread is about to create a symbolic link or to move a file.
    pub(super) fn forget(&mut self, thread: u32) {
        self.directories.clear();
        self.linked.clear();
        self.changing.insert(thread);
    }

    /// Removes a directory or a symbolic link from the cache, because a thread is about to remove
    /// it.
    pub(super) fn forget_removed(&mut self, thread: u32, path: &Path) {
        self.directories.remove(path);
        // Any of them can lead through it.
        self.linked.clear();
        self.changing.insert(thread);
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
        let is_cached = self.start_in_cached(&mut walk, path);
        let mut unresolved = if is_cached { None } else { split(path).map(|(directory, _)| directory) };
        let mut target = Target::Directory;
        while let Some(name) = walk.rest.pop() {
            if walk.rest.is_empty()
                && let Some(directory) = unresolved.take()
            {
                self.cache_linked(directory, &walk);
            }
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

    /// Starts a walk in the directory of a path, if that is cached, and else at the root. Returns
    /// whether it is cached.
    fn start_in_cached(&self, walk: &mut Walk, path: &[u8]) -> bool {
        if let Some((directory, name)) = split(path) {
            if let Some(directory) = self.directories.get(directory) {
                walk.path.push(directory);
                walk.rest.push(name.to_vec());
                return true;
            }
            if let Some(LinkedDirectory { path, links }) = self.linked.get(directory) {
                walk.path.push(path);
                walk.links.clone_from(links);
                walk.rest.push(name.to_vec());
                return true;
            }
        }
        walk.queue(path);
        false
    }

    /// Caches the directory that a walk has reached, if it came through symbolic links and these
    /// mean the same for every process.
    fn cache_linked(&mut self, directory: &Path, walk: &Walk) {
        let is_in_proc = |path: &Path| path.starts_with("/proc");
        let depends_on_caller =
            is_in_proc(directory) || is_in_proc(&walk.path) || walk.links.iter().any(|link| is_in_proc(link));
        let is_uncertain = walk.is_fuse || walk.process.is_some() || !self.changing.is_empty();
        if walk.links.is_empty() || depends_on_caller || is_uncertain {
            return;
        }
        if self.linked.len() >= DIRECTORIES_MAX {
            self.linked.clear();
        }
        let reached = LinkedDirectory { path: walk.path.clone(), links: walk.links.clone() };
        self.linked.insert(directory.to_owned(), reached);
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

/// Splits a path into its directory and last name, unless that leads to a directory by itself.
fn split(path: &[u8]) -> Option<(&Path, &[u8])> {
    let end = path.iter().rposition(|byte| *byte == b'/')?;
    let (directory, name) = (Path::new(OsStr::from_bytes(&path[..end])), &path[end + 1..]);
    (!matches!(name, b"" | b"." | b"..")).then_some((directory, name))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_to_directories_are_cached_until_one_changes() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for (name, target) in [("one", "link"), ("two", "next")] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("file"), "").unwrap();
            symlink(name, root.join(target)).unwrap();
        }
        let thread = std::process::id();
        let mut resolver = Resolver::default();
        let file = root.join("link/file").into_os_string().into_vec();
        let resolve = |resolver: &mut Resolver| {
            let Resolution { links, path, target, .. } = resolver.resolve(thread, &file, true);
            assert_eq!((links, target), (vec![root.join("link")], Target::File));
            path.strip_prefix(&root).unwrap().to_owned()
        };
        assert_eq!(resolve(&mut resolver), Path::new("one/file"));
        assert_eq!(resolver.linked.len(), 1);
        assert_eq!(resolve(&mut resolver), Path::new("one/file"));
        // Another thread asks after the report of the call that moves the link, and before the
        // kernel executes the call.
        resolver.forget(thread + 1);
        assert_eq!(resolve(&mut resolver), Path::new("one/file"));
        fs::rename(root.join("next"), root.join("link")).unwrap();
        assert_eq!(resolve(&mut resolver), Path::new("two/file"));
        assert!(resolver.linked.is_empty(), "the thread that moves the link has not made a further call");
        resolver.next_call(thread + 1);
        assert_eq!(resolve(&mut resolver), Path::new("two/file"));
        assert_eq!(resolver.linked.len(), 1);
        resolver.forget_removed(thread, &root.join("link"));
        fs::remove_file(root.join("link")).unwrap();
        let gone = resolver.resolve(thread, &file, true);
        assert_eq!((gone.path, gone.target), (root.join("link/file"), Target::Unreachable));
    }

    #[test]
    fn links_of_processes_are_not_cached() {
        let mut resolver = Resolver::default();
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().canonicalize().unwrap().join("own");
        symlink("/proc/self", &link).unwrap();
        for path in [link.join("status"), PathBuf::from("/proc/self/cwd/file")] {
            resolver.resolve(std::process::id(), path.as_os_str().as_bytes(), true);
        }
        assert!(resolver.linked.is_empty());
    }
}
