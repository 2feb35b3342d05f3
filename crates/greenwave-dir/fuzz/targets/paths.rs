//! Applies operations with arbitrary names to arbitrary trees with links, and compares
//! which of them succeed with a model of what may be written. Nothing outside of the tree changes.
#![no_main]

use std::ffi::OsStr;
use std::fs::{self, FileType, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use greenwave_dir::{Access, Dir};
use libfuzzer_sys::fuzz_target;

/// Maximum number of lines of an input. Later ones are ignored.
const LINES_MAX: usize = 40;

// Each line is an operation: a letter, and one or two names separated by a tab. Capital letters
// build the tree as a repository's author does, through the file system.
fuzz_target!(|input: &[u8]| {
    let world = World::new();
    for line in input.split(|byte| *byte == b'\n').take(LINES_MAX) {
        let Some((operation, names)) = line.split_first() else { continue };
        let mut names = names.split(|byte| *byte == b'\t').map(path);
        let (one, other) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
        match operation {
            b'A'..=b'Z' => world.build(*operation, &one, &other),
            _ => world.operate(*operation, &one, &other),
        }
        world.check_outside(line);
    }
});

fn path(bytes: &[u8]) -> PathBuf {
    // The system accepts no name with a zero byte, and fuzzing its check is pointless.
    let bytes: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).take(300).collect();
    OsStr::from_bytes(&bytes).into()
}

/// A base directory, and beside it a directory of the user.
struct World {
    directory: tempfile::TempDir,
    handles: [Dir; 2],
}

impl World {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = made.expect("a directory");
        let base = directory.path().join("base");
        fs::create_dir(&base).expect("a directory");
        fs::create_dir(directory.path().join("outside")).expect("a directory");
        fs::write(directory.path().join("outside/precious"), "precious").expect("a file");
        let handle = Dir::open(&base).expect("a handle");
        Self { directory, handles: [handle.clone(), handle.without_openat2()] }
    }

    fn base(&self) -> PathBuf {
        self.directory.path().join("base")
    }

    /// Adds an entry to the tree, without regard to the handles.
    fn build(&self, kind: u8, one: &Path, target: &Path) {
        let Some(one) = normal(one).filter(|one| self.has_directories_above(one)) else { return };
        let at = self.base().join(one);
        // A link may lead anywhere, outside included.
        let _ = match kind % 4 {
            0 => fs::create_dir(&at),
            1 => OpenOptions::new().write(true).create_new(true).open(&at).map(drop),
            2 => symlink(target, &at),
            _ => symlink("../outside/precious", &at),
        };
    }

    fn operate(&self, operation: u8, one: &Path, other: &Path) {
        let dir = &self.handles[usize::from(operation & 1)];
        match (operation >> 1) % 8 {
            0 => {
                let may = self.may_write(one);
                let done = dir.replace_file(one, b"written", 0o600);
                assert_eq!(done.is_ok(), may, "replace {one:?}: {done:?}");
            }
            1 => {
                let may = self.may_write(one);
                let opened = dir.open_file(one, Access::Create, 0o600);
                assert_eq!(opened.is_ok(), may, "open {one:?}: {opened:?}");
                if let Ok(mut file) = opened {
                    file.write_all(b"written").expect("the file is writable");
                }
            }
            2 => {
                let may = self.may_create_directory(one);
                let done = dir.create_subdirectory(one, 0o700);
                assert_eq!(done.is_ok(), may, "create {one:?}: {done:?}");
            }
            3 => drop(dir.remove_all(one)),
            4 => drop(dir.rename(one, other)),
            5 => drop(dir.symlink(other, one)),
            6 => drop(dir.hard_link(one, other)),
            _ => {
                let done = dir.set_permissions(one, 0o700);
                let may = normal(one).is_some_and(|path| {
                    path.as_os_str().is_empty()
                        || (self.has_directories_above(&path)
                            && matches!(self.kind(&path), Some(Kind::Directory | Kind::File)))
                });
                assert!(!done.is_ok() || may, "set permissions of {one:?}");
            }
        }
    }

    /// The model: a file may be written if its parents are directories, and nothing but a file is
    /// in its place.
    fn may_write(&self, path: &Path) -> bool {
        let Some(path) = normal(path).filter(|path| !path.as_os_str().is_empty()) else { return false };
        self.has_directories_above(&path) && matches!(self.kind(&path), None | Some(Kind::File))
    }

    fn may_create_directory(&self, path: &Path) -> bool {
        let Some(path) = normal(path) else { return false };
        let mut at = PathBuf::new();
        path.components().all(|name| {
            at.push(name);
            matches!(self.kind(&at), None | Some(Kind::Directory))
        })
    }

    fn has_directories_above(&self, path: &Path) -> bool {
        let mut at = PathBuf::new();
        path.parent().is_some_and(|parent| {
            parent.components().all(|name| {
                at.push(name);
                self.kind(&at) == Some(Kind::Directory)
            })
        })
    }

    /// Returns what is at a path, without following a link at its end.
    fn kind(&self, path: &Path) -> Option<Kind> {
        let kind: FileType = fs::symlink_metadata(self.base().join(path)).ok()?.file_type();
        Some(if kind.is_dir() {
            Kind::Directory
        } else if kind.is_file() {
            Kind::File
        } else {
            assert!(kind.is_symlink(), "the tree has no other entries");
            Kind::Other
        })
    }

    fn check_outside(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let names = |directory: &str| {
            let entries = fs::read_dir(self.directory.path().join(directory)).expect("a directory");
            let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("outside"), ["precious"], "after {line:?}");
        assert_eq!(names(""), ["base", "outside"], "after {line:?}");
        let content = fs::read(self.directory.path().join("outside/precious"));
        assert_eq!(content.expect("a file"), b"precious", "after {line:?}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    /// A link.
    Other,
}

/// Returns a path without `.`, or `None` if it contains anything but names that the kernel accepts.
fn normal(path: &Path) -> Option<PathBuf> {
    let names = path.components().filter(|it| *it != Component::CurDir);
    let name = |it: Component<'_>| match it {
        Component::Normal(name) if name.len() <= 255 => Some(PathBuf::from(name)),
        _ => None,
    };
    names.map(name).collect()
}
