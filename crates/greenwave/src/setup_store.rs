//! Stores what setup commands have created in one working copy, for the other copies of a run.
//!
//! Files with the path of the copy in them, such as the scripts of a virtual environment of Python,
//! work only there. If a setup creates such a file, or a pipe or socket, each copy is set up by
//! itself.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use greenwave_dir::{Access, Dir, FileKind};
use memchr::memmem::Finder;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::included;

/// Maximum number of entries that are stored.
const ENTRIES_MAX: usize = 200_000;
/// Maximum size of all files that are stored, in bytes.
const BYTES_MAX: u64 = 4 << 30;
/// Number of bytes of a file that are searched at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// The stored setups of a run, by the hash of their commands and inputs.
#[derive(Debug, Default)]
pub(crate) struct SetupStore(Mutex<HashMap<[u8; 32], Arc<AsyncMutex<StoredSetup>>>>);

/// The stored result of a setup.
#[derive(Debug, Default)]
pub(crate) enum StoredSetup {
    /// Nothing: no copy was set up yet.
    #[default]
    Missing,
    /// Everything that the commands have created, in a directory.
    Stored(StoredFiles),
    /// Nothing, because the results work only in the copy in which they were created.
    Unshared,
}

/// Files and directories that setup commands have created.
#[derive(Debug)]
pub(crate) struct StoredFiles {
    dir: Dir,
    /// Directories, each before those below it.
    directories: Vec<String>,
    files: Vec<String>,
}

impl SetupStore {
    /// Locks a setup, so that copies that need it at the same time wait for the first one.
    pub(crate) async fn lock(&self, key: [u8; 32]) -> OwnedMutexGuard<StoredSetup> {
        let setup = Arc::clone(self.0.lock().entry(key).or_default());
        setup.lock_owned().await
    }
}

impl StoredFiles {
    /// Copies everything in a working copy that is not one of the `existing` files to `dir`, which
    /// is empty. Returns `None` for files that work only in this copy, and for too many files.
    ///
    /// # Errors
    /// The error of the operating system.
    pub(crate) fn store(copy: &Dir, dir: Dir, existing: &BTreeSet<String>) -> io::Result<Option<Self>> {
        let (mut stored, mut bytes) = (Self { dir, directories: Vec::new(), files: Vec::new() }, 0);
        let path_of_copy = Finder::new(copy.path().as_os_str().as_bytes());
        let mut pending = vec![String::new()];
        while let Some(directory) = pending.pop() {
            for entry in copy.subdirectory(&directory)?.entries()? {
                // Such a name needs no care: the setup runs in each copy.
                let Some(name) = entry.name.to_str() else { return Ok(None) };
                let path = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
                if existing.contains(&path) {
                    continue;
                }
                if stored.files.len() + stored.directories.len() >= ENTRIES_MAX {
                    return Ok(None);
                }
                match entry.kind {
                    FileKind::Directory => {
                        stored.directories.push(path.clone());
                        pending.push(path);
                    }
                    FileKind::File | FileKind::Link => {
                        bytes += copy.metadata(&path)?.len();
                        if bytes > BYTES_MAX || names(copy, &path, entry.kind, &path_of_copy)? {
                            return Ok(None);
                        }
                        included::copy(copy, &stored.dir, &path)?;
                        stored.files.push(path);
                    }
                    _ => return Ok(None),
                }
            }
        }
        Ok(Some(stored))
    }

    /// Copies the files to another working copy.
    ///
    /// # Errors
    /// The error of the operating system.
    pub(crate) fn restore(&self, copy: &Dir) -> io::Result<()> {
        for directory in &self.directories {
            copy.create_subdirectory(directory, 0o777)?;
        }
        self.files.iter().try_for_each(|path| included::copy(&self.dir, copy, path).map(drop))
    }
}

/// Returns whether a file or the target of a link has the path of its working copy in it.
fn names(copy: &Dir, path: &str, kind: FileKind, path_of_copy: &Finder<'_>) -> io::Result<bool> {
    if kind == FileKind::Link {
        let target = copy.read_link(path)?;
        return Ok(path_of_copy.find(target.as_os_str().as_bytes()).is_some());
    }
    let mut file = copy.open_file(Path::new(path), Access::Read, 0)?;
    // A path can lie across two blocks, so the end of each block stays for the next one.
    let overlap = path_of_copy.needle().len();
    let (mut block, mut filled) = (vec![0; BLOCK_BYTES + overlap], 0);
    loop {
        let count = file.read(&mut block[filled..])?;
        if count == 0 {
            return Ok(false);
        }
        filled += count;
        if path_of_copy.find(&block[..filled]).is_some() {
            return Ok(true);
        }
        let rest = filled.min(overlap);
        block.copy_within(filled - rest..filled, 0);
        filled = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    struct Dirs {
        directory: tempfile::TempDir,
    }

    impl Dirs {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for name in ["one", "two", "store"] {
                fs::create_dir(directory.path().join(name)).unwrap();
            }
            Self { directory }
        }

        fn write(&self, path: &str, content: impl AsRef<[u8]>) {
            let path = self.directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn dir(&self, name: &str) -> Dir {
            Dir::open(self.directory.path().join(name)).unwrap()
        }

        fn store(&self) -> Option<StoredFiles> {
            StoredFiles::store(&self.dir("one"), self.dir("store"), &BTreeSet::new()).unwrap()
        }
    }

    #[test]
    fn everything_that_was_created_is_restored() {
        let dirs = Dirs::new();
        dirs.write("one/node_modules/.bin/tool", "#!/bin/sh\n");
        let tool = dirs.directory.path().join("one/node_modules/.bin/tool");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        symlink("../.bin/tool", dirs.directory.path().join("one/node_modules/link")).unwrap();
        fs::create_dir(dirs.directory.path().join("one/empty")).unwrap();
        dirs.store().unwrap().restore(&dirs.dir("two")).unwrap();
        let restored = dirs.directory.path().join("two/node_modules/.bin/tool");
        let (before, after) = (fs::metadata(&tool).unwrap(), fs::metadata(&restored).unwrap());
        assert_eq!((after.mode(), after.mtime_nsec()), (before.mode(), before.mtime_nsec()));
        assert!(before.ino() != after.ino() && dirs.directory.path().join("two/empty").is_dir());
        let link = fs::read_link(dirs.directory.path().join("two/node_modules/link")).unwrap();
        assert_eq!(link, Path::new("../.bin/tool"));
    }

    #[test]
    fn files_that_name_their_copy_are_not_shared() {
        for start in [0, BLOCK_BYTES - 10, BLOCK_BYTES + 7, 3 * BLOCK_BYTES] {
            let dirs = Dirs::new();
            let copy = dirs.dir("one");
            let mut content = vec![b'x'; start];
            dirs.write("one/plain", &content);
            assert!(dirs.store().is_some());
            content.extend_from_slice(copy.path().as_os_str().as_bytes());
            dirs.write("one/bin/activate", &content);
            assert!(dirs.store().is_none(), "the path begins at {start}");
        }
        let dirs = Dirs::new();
        symlink(dirs.directory.path().join("one/x"), dirs.directory.path().join("one/link")).unwrap();
        assert!(dirs.store().is_none());
    }
}
