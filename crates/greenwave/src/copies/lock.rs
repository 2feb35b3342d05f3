//! The directory of a project's working copies, which one run uses at a time.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use greenwave_dir::{Access, Dir};

/// Name of the file above all copies at which git stops to search for a repository.
pub(super) const REPOSITORY_BARRIER: &str = ".git";
/// Content of that file. It also marks a directory of working copies.
const BARRIER_CONTENT: &[u8] = b"gitdir: no-repository\n";
/// Name of the lock file.
const LOCK: &str = ".lock";
/// Number of tries to lock a directory: a second and a half in total.
const TRIES_MAX: u32 = 60;
/// Time between two tries.
const RETRY_AFTER: Duration = Duration::from_millis(25);

/// Creates the directory of all copies of a project, and locks it for a run.
///
/// # Errors
/// Those of the file system, and `ResourceBusy` if another program holds the lock.
pub(super) fn create(base: &Dir, name: &str) -> io::Result<(Dir, fs::File)> {
    for _ in 0..TRIES_MAX {
        let of_project = base.create_subdirectory(name, 0o700)?;
        // Stops the search for a repository, so that git in a copy never finds one above it.
        let mut barrier = of_project.open_file(REPOSITORY_BARRIER, Access::Create, 0o600)?;
        barrier.write_all(BARRIER_CONTENT)?;
        let lock = of_project.open_file(LOCK, Access::Create, 0o600)?;
        if try_lock(&lock)? && is_at(base, name.as_ref(), &of_project) {
            return Ok((of_project, lock));
        }
        std::thread::sleep(RETRY_AFTER);
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "another run or `greenwave clean` is using it"))
}

/// Opens and locks an existing directory of working copies. Returns `None` if the directory is
/// something else or a run uses it.
///
/// # Errors
/// Those of the file system.
pub(super) fn take(base: &Dir, name: &OsStr) -> io::Result<Option<(Dir, fs::File)>> {
    if !is_marked(base, name) {
        return Ok(None);
    }
    let of_project = base.subdirectory(name)?;
    let lock = of_project.open_file(LOCK, Access::Create, 0o600)?;
    Ok((try_lock(&lock)? && is_at(base, name, &of_project)).then_some((of_project, lock)))
}

/// Returns whether a directory holds working copies.
pub(super) fn is_marked(base: &Dir, name: &OsStr) -> bool {
    let read = |directory: Dir| directory.read(REPOSITORY_BARRIER, BARRIER_CONTENT.len() as u64 + 1);
    base.subdirectory(name).and_then(read).is_ok_and(|content| content == BARRIER_CONTENT)
}

fn try_lock(lock: &fs::File) -> io::Result<bool> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Returns whether the name still leads to the directory. It is renamed before it is removed.
fn is_at(base: &Dir, name: &OsStr, directory: &Dir) -> bool {
    let now = base.metadata(name).map(|metadata| metadata.identity());
    let opened = directory.metadata("");
    matches!((now, opened), (Ok(now), Ok(opened)) if now == opened.identity())
}
