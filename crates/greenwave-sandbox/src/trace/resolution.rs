//! Which file a path means, and over which symbolic links. Knows nothing of calls.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::tracee::target;

/// Links that the kernel follows in one path.
const LINKS_MAX: usize = 40;
/// Folders that are remembered to be no links.
const FOLDERS_MAX: usize = 100_000;

/// What a path means.
#[derive(Debug)]
pub(super) struct Resolution {
    /// Symbolic links on the way, by their own paths.
    pub(super) links: Vec<PathBuf>,
    /// Where the way ends.
    pub(super) path: PathBuf,
    pub(super) found: Found,
}

/// What there is at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    File,
    Folder,
    Link,
    /// A device, a pipe, a socket.
    Other,
    /// Nothing, in a folder that is there.
    Absent,
    /// Nothing, not even a folder for it; or nothing that can be reached.
    Unreachable,
    /// Something without a path, such as a pipe's end.
    Nameless,
}

/// Follows paths as the kernel does, and remembers which folders are no links.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    folders: HashSet<PathBuf>,
}

impl Resolver {
    /// A folder's path from the kernel itself: none of it is a link.
    pub(super) fn note_folder(&mut self, folder: &Path) {
        if !self.folders.contains(folder) && !folder.starts_with("/proc") {
            if self.folders.len() >= FOLDERS_MAX {
                self.folders.clear();
            }
            self.folders.insert(folder.to_owned());
        }
    }

    /// Forgets everything, since links have come or gone.
    pub(super) fn forget(&mut self) {
        self.folders.clear();
    }

    /// Follows an absolute path for a thread. Without `follow`, a link at its end is not followed.
    pub(super) fn resolve(&mut self, thread: u32, path: &[u8], follow: bool) -> Resolution {
        let follow = follow || path.ends_with(b"/") || path.ends_with(b"/.");
        let mut walk = Walk { thread, links: Vec::new(), path: PathBuf::from("/"), rest: Vec::new() };
        match self.known_folder(path) {
            Some((folder, name)) => {
                walk.path.push(folder);
                walk.rest.push(name.to_vec());
            }
            None => walk.queue(path),
        }
        let mut found = Found::Folder;
        while let Some(name) = walk.rest.pop() {
            found = match name.as_slice() {
                b"." => Found::Folder,
                b".." => {
                    walk.path.pop();
                    Found::Folder
                }
                name => self.step(&mut walk, name, follow),
            };
            if found != Found::Folder {
                break;
            }
        }
        if !walk.rest.is_empty() && found != Found::Nameless {
            found = Found::Unreachable;
            walk.append_rest();
        }
        Resolution { links: walk.links, path: walk.path, found }
    }

    /// The path's folder and last name, if the folder is known and nothing else is to be done.
    fn known_folder<'a>(&'a self, path: &'a [u8]) -> Option<(&'a Path, &'a [u8])> {
        let end = path.iter().rposition(|byte| *byte == b'/')?;
        let (folder, name) = (Path::new(OsStr::from_bytes(&path[..end])), &path[end + 1..]);
        let is_plain = !matches!(name, b"" | b"." | b"..");
        let folder = self.folders.get(folder).filter(|_| is_plain)?;
        Some((folder, name))
    }

    /// Takes one step to a name in the folder that was reached.
    fn step(&mut self, walk: &mut Walk, name: &[u8], follow: bool) -> Found {
        if walk.path == Path::new("/proc") && matches!(name, b"self" | b"thread-self") {
            // Ours and the thread's are not the same.
            walk.path.push(walk.thread.to_string());
            return Found::Folder;
        }
        walk.path.push(OsStr::from_bytes(name));
        if self.folders.contains(&walk.path) {
            return Found::Folder;
        }
        let Ok(metadata) = fs::symlink_metadata(&walk.path) else {
            return if walk.rest.is_empty() { Found::Absent } else { Found::Unreachable };
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.note_folder(&walk.path);
            return Found::Folder;
        }
        if kind.is_symlink() && (follow || !walk.rest.is_empty()) {
            return walk.follow();
        }
        match () {
            () if kind.is_symlink() => Found::Link,
            () if kind.is_file() => Found::File,
            () => Found::Other,
        }
    }
}

/// A path on its way.
struct Walk {
    thread: u32,
    links: Vec<PathBuf>,
    /// What was reached.
    path: PathBuf,
    /// Names to go, the next one last.
    rest: Vec<Vec<u8>>,
}

impl Walk {
    fn queue(&mut self, path: &[u8]) {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        self.rest.extend(names.rev().map(<[u8]>::to_vec));
    }

    /// Goes where the link that was reached leads. `Folder` means that the way goes on.
    fn follow(&mut self) -> Found {
        if self.path.starts_with("/proc") {
            return self.follow_magic();
        }
        let Ok(target) = fs::read_link(&self.path) else { return Found::Unreachable };
        if self.links.len() >= LINKS_MAX {
            return Found::Unreachable;
        }
        self.links.push(self.path.clone());
        self.path.pop();
        let target = target.into_os_string().into_vec();
        if target.starts_with(b"/") {
            self.path = PathBuf::from("/");
        }
        self.queue(&target);
        Found::Folder
    }

    /// The kernel's links lead to things, whatever their text says.
    fn follow_magic(&mut self) -> Found {
        match self.path.to_str().map(target) {
            Some(Ok(Some(target))) => {
                self.path = PathBuf::from("/");
                self.queue(target.as_os_str().as_bytes());
                self.links.push(PathBuf::from("/proc"));
                if self.links.len() > LINKS_MAX { Found::Unreachable } else { Found::Folder }
            }
            Some(Ok(None)) => Found::Nameless,
            _ => Found::Absent,
        }
    }

    /// What was not reached still has a name, unless it goes back from what is not there.
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
