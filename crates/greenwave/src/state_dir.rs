//! The directory that holds a project's state: its lock, and leftovers of interrupted runs.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave_dir::{Access, Dir};
use greenwave_testing::STATE_DIRECTORY;

use crate::error::Error;

/// Number of tries to lock the state directory: a second and a half in total.
const LOCK_TRIES_MAX: u32 = 60;
/// Time between two tries.
const LOCK_RETRY_AFTER: Duration = Duration::from_millis(25);
/// Name of the lock file.
const LOCK: &str = "lock";
/// Name of the file that excludes the state from version control.
const IGNORE: &str = ".gitignore";
/// Prefix of directories that hold moved leftovers.
const STALE_PREFIX: &str = "old-";

/// Creates and locks the state directory of a project. Returns it with the lock.
///
/// # Errors
/// [`Error::Busy`] if another run holds the lock, and [`Error::Io`], also if the project has a link
/// in the place of the directory or of a file in it.
pub(crate) fn lock(project: &Path) -> Result<(Dir, fs::File), Error> {
    let path = project.join(STATE_DIRECTORY);
    let opened = Dir::open(project).and_then(|project| project.create_subdirectory(STATE_DIRECTORY, 0o700));
    let state = opened.map_err(Error::io("create", &path))?;
    exclude_from_version_control(&state).map_err(Error::io("write", path.join(IGNORE)))?;
    let path = path.join(LOCK);
    let lock = state.open_file(LOCK, Access::Create, 0o666).map_err(Error::io("open", &path))?;
    // A run that is killed while it spawns a program leaves its lock to the child until exec.
    for _ in 0..LOCK_TRIES_MAX {
        match lock.try_lock() {
            Ok(()) => return Ok((state, lock)),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY_AFTER),
            Err(fs::TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
    }
    Err(Error::Busy { project: project.to_owned() })
}

/// Creates a directory below the state directory, and returns its path.
///
/// # Errors
/// [`Error::Io`], also if the project has a link in its place.
pub(crate) fn create(state: &Dir, name: &str) -> Result<PathBuf, Error> {
    let path = state.path().join(name);
    let created = state.create_subdirectory(name, 0o700).map_err(Error::io("create", &path))?;
    // Files in it are opened by their paths.
    created.check_entries().map_err(Error::io("use", &path))?;
    Ok(path)
}

/// Opens a directory below the state directory of a project, and returns its path. Returns `None`
/// if it does not exist.
///
/// # Errors
/// [`Error::Io`], also if the project has a link in its place, or anything but files in it.
pub(crate) fn existing(project: &Path, name: &str) -> Result<Option<PathBuf>, Error> {
    let below = Path::new(STATE_DIRECTORY).join(name);
    let path = project.join(&below);
    let opened = Dir::open(project).and_then(|project| project.subdirectory(below));
    match opened.and_then(|directory| directory.check_entries()) {
        Ok(()) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("use", &path)(error)),
    }
}

/// Creates a directory that the settings name, and checks it. Links in the path are the user's,
/// except in the project: there they may come with a clone.
///
/// # Errors
/// Those of the file system, also if there is anything but files in the directory.
pub(crate) fn create_named(project: &Path, directory: &Path) -> io::Result<()> {
    let created = match directory.strip_prefix(project) {
        Ok(below) => Dir::open(project)?.create_subdirectory(below, 0o700)?,
        Err(_) => Dir::create(directory, 0o700)?,
    };
    created.check_entries()
}

/// Removes everything that a project's state directory holds, except for its lock.
///
/// # Errors
/// [`Error::Busy`] if a run holds the lock, and [`Error::Io`].
pub(crate) fn clear(project: &Path) -> Result<(), Error> {
    let (state, _lock) = lock(project)?;
    for entry in state.entries().map_err(Error::io("list", state.path()))? {
        if entry.name != LOCK && entry.name != IGNORE {
            state.remove_all(&entry.name).map_err(Error::io("remove", state.path().join(&entry.name)))?;
        }
    }
    Ok(())
}

fn exclude_from_version_control(state: &Dir) -> io::Result<()> {
    let mut ignore = state.open_file(IGNORE, Access::Create, 0o666)?;
    // A file that somebody has written stays as it is.
    if ignore.metadata()?.len() == 0 { ignore.write_all(b"*\n") } else { Ok(()) }
}

/// Moves a directory of an earlier run aside, then removes as much of it as possible.
///
/// Programs of a killed run may still write there, so the directory is renamed first.
pub(crate) fn set_aside_stale(parent: &Dir, name: &OsStr) -> Result<(), Error> {
    let created = parent.temporary_subdirectory(STALE_PREFIX, 0o700);
    let aside = created.map_err(Error::io("create a directory in", parent.path()))?;
    let aside = Path::new(aside.path().file_name().unwrap_or_default()).join("work");
    match parent.rename(name, aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("move", parent.path().join(name))(error));
        }
        _ => {}
    }
    remove_set_aside(parent)
}

/// Returns whether a directory has the name of one that was moved aside.
pub(crate) fn is_set_aside(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(STALE_PREFIX.as_bytes())
}

/// Removes as much as possible of the directories that were moved aside.
pub(crate) fn remove_set_aside(parent: &Dir) -> Result<(), Error> {
    for entry in parent.entries().map_err(Error::io("list", parent.path()))? {
        if is_set_aside(&entry.name) {
            let _ = parent.remove_all(&entry.name);
        }
    }
    Ok(())
}
