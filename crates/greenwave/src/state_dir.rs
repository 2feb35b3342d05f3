//! The directory that holds a project's state: its lock, and leftovers of interrupted runs.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave_testing::STATE_DIRECTORY;

use crate::error::Error;

/// Number of tries to lock the state directory: half a second in total.
const LOCK_TRIES_MAX: u32 = 20;
/// Time between two tries.
const LOCK_RETRY_AFTER: Duration = Duration::from_millis(25);
/// Prefix of directories that hold moved leftovers.
const STALE_PREFIX: &str = "old-";

/// Creates and locks the state directory of a project. Returns its path and the lock.
///
/// # Errors
/// [`Error::Busy`] if another run holds the lock, and [`Error::Io`].
pub(crate) fn lock(project: &Path) -> Result<(PathBuf, fs::File), Error> {
    let state = project.join(STATE_DIRECTORY);
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(&state);
    created.map_err(Error::io("create", &state))?;
    let ignore = state.join(".gitignore");
    fs::write(&ignore, "*\n").map_err(Error::io("write", &ignore))?;
    let path = state.join("lock");
    let lock = fs::File::create(&path).map_err(Error::io("open", &path))?;
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

/// Moves a directory of an earlier run aside, then removes as much of it as possible.
///
/// Programs of a killed run may still write there, so the directory is renamed first.
pub(crate) fn set_aside_stale(state_dir: &Path, directory: &Path) -> Result<(), Error> {
    let aside = tempfile::Builder::new().prefix(STALE_PREFIX).tempdir_in(state_dir);
    let aside = aside.map_err(Error::io("create a directory in", state_dir))?.keep();
    match fs::rename(directory, aside.join("work")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("move", directory)(error));
        }
        _ => {}
    }
    remove_set_aside(state_dir)
}

/// Returns whether a directory has the name of one that was moved aside.
pub(crate) fn is_set_aside(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(STALE_PREFIX.as_bytes())
}

/// Removes as much as possible of the directories that were moved aside.
pub(crate) fn remove_set_aside(state_dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(state_dir).map_err(Error::io("list", state_dir))?.flatten() {
        if is_set_aside(&entry.file_name()) {
            let _ = crate::remove::remove_all(&entry.path());
        }
    }
    Ok(())
}
