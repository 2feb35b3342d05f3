//! The state directory of a project during a run, which the user may remove at any moment, for
//! example with `git clean -fdx`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use greenwave_dir::{Dir, Metadata};
use greenwave_testing::STATE_DIRECTORY;
use parking_lot::Mutex;

use crate::error::Error;
use crate::state_dir;

/// The locked state directory of a project. It is created again if it was removed.
#[derive(Debug)]
pub(crate) struct StateHome {
    project: PathBuf,
    /// Directories that hold no records, whose users open files in them by their paths.
    caches: &'static [&'static str],
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    /// The directory that the newest lock is in.
    directory: Dir,
    /// Locks of directories that were created again.
    locks: Vec<fs::File>,
    /// State that was written again, and is not reported yet.
    restored: Option<Restored>,
}

/// State that was written again after its directory was removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restored {
    /// Number of stored contents that could not be read any more.
    pub(crate) lost: usize,
}

/// A directory in the state directory. Its handle keeps the inode number from being used again.
#[derive(Debug)]
pub(crate) struct StatePart {
    pub(crate) path: PathBuf,
    handle: Dir,
}

impl StateHome {
    /// Returns the home of a project whose state directory is locked. `caches` are created again
    /// with it.
    pub(crate) fn new(project: &Path, directory: Dir, caches: &'static [&'static str]) -> Self {
        let current = Current { directory, locks: Vec::new(), restored: None };
        Self { project: project.to_owned(), caches, current: Mutex::new(current) }
    }

    /// Opens a directory below the state directory. Creates both if they do not exist.
    ///
    /// # Errors
    /// [`Error::Busy`] if another run holds the lock of a new state directory, and [`Error::Io`].
    pub(crate) fn part(&self, name: &str) -> Result<StatePart, Error> {
        let mut current = self.current.lock();
        self.create(&mut current)?;
        let path = state_dir::create(&current.directory, name)?;
        let handle = current.directory.subdirectory(name).map_err(Error::io("open", &path))?;
        Ok(StatePart { path, handle })
    }

    /// Creates the state directory and the caches in it again if they were removed.
    ///
    /// # Errors
    /// Those of [`part`](Self::part).
    pub(crate) fn check(&self) -> Result<(), Error> {
        let mut current = self.current.lock();
        self.create(&mut current)?;
        for name in self.caches.iter().filter(|name| current.directory.metadata(name).is_err()) {
            state_dir::create(&current.directory, name)?;
        }
        Ok(())
    }

    fn create(&self, current: &mut Current) -> Result<(), Error> {
        if is_replaced(&self.project.join(STATE_DIRECTORY), &current.directory) {
            let (directory, lock) = state_dir::lock(&self.project)?;
            current.directory = directory;
            current.locks.push(lock);
        }
        Ok(())
    }

    /// Records that state was written again, without `lost` contents.
    pub(crate) fn note_restored(&self, lost: usize) {
        self.current.lock().restored.get_or_insert_default().lost += lost;
    }

    /// Returns what was written again since the last call.
    pub(crate) fn take_restored(&self) -> Option<Restored> {
        self.current.lock().restored.take()
    }

    /// Releases the locks of directories that were created again.
    pub(crate) fn unlock(&self) {
        self.current.lock().locks.clear();
    }
}

impl StatePart {
    /// Returns the open directory.
    pub(crate) fn into_directory(self) -> Dir {
        self.handle
    }

    /// Returns whether the directory was removed, moved or replaced.
    pub(crate) fn is_gone(&self) -> bool {
        is_replaced(&self.path, &self.handle)
    }
}

fn is_replaced(path: &Path, handle: &Dir) -> bool {
    match (fs::symlink_metadata(path), Metadata::of(handle)) {
        (Ok(now), Ok(before)) => (now.dev(), now.ino()) != before.identity(),
        (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
        (Ok(_), Err(_)) => true,
    }
}
