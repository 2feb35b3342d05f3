//! Private temporary directories, which are removed even if the process that uses one is killed.
//!
//! A process holds a lock on each of its directories. The next process that creates one removes
//! those whose lock is free, since their owner has ended without removing them.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use greenwave_dir::Dir;
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

/// Beginning of the names of all directories.
const PREFIX: &str = "greenwave-test-";
/// Minimum age of a directory that is removed. The owner of a younger one may not have locked it
/// yet.
const AGE_MIN: Duration = Duration::from_secs(60);
/// Number of attempts to create a directory.
const CREATED_MAX: usize = 16;
/// Maximum number of directories that one call removes.
const REMOVED_MAX: usize = 64;
/// Flags with which a directory is opened to be locked. Symbolic links are not followed.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A temporary directory that only the user can use. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct PrivateDir {
    // Fields are dropped in this order: the directory is locked until it is removed.
    directory: TempDir,
    _lock: Option<File>,
}

impl PrivateDir {
    /// Creates a directory, under any umask.
    ///
    /// # Errors
    /// Those of the file system, also if other processes remove each directory before it is locked.
    pub(crate) fn new() -> io::Result<Self> {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(temporary: &Path) -> io::Result<Self> {
        for _ in 0..CREATED_MAX {
            let private = fs::Permissions::from_mode(0o700);
            let directory =
                tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(temporary)?;
            // Until it is locked, a process with another clock can take the directory for an old
            // one.
            let lock = match open(directory.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            match lock.try_lock() {
                Ok(()) if is_at(&lock, directory.path()) => {
                    return Ok(Self { directory, _lock: Some(lock) });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                // Not every file system has locks. Without one, no process removes the directory.
                Err(TryLockError::Error(_)) => return Ok(Self { directory, _lock: None }),
            }
        }
        Err(io::Error::other("other processes remove new directories"))
    }

    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes directories below `temporary` that killed processes of this user have left. Errors are
/// ignored, because the directories do no harm but to take space.
pub(crate) fn remove_abandoned(temporary: &Path) {
    remove_older(temporary, AGE_MIN);
}

fn remove_older(temporary: &Path, age_min: Duration) {
    let Ok(temporary) = Dir::open(temporary) else { return };
    let names = temporary.entries().unwrap_or_default().into_iter().map(|entry| entry.name);
    let names = names.filter(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    let abandoned = names.filter_map(|name| {
        let (directory, lock) = lock_abandoned(&temporary, &name, age_min)?;
        Some((name, directory, lock))
    });
    for (name, directory, _lock) in abandoned.take(REMOVED_MAX) {
        // Empties the directory that is locked, whatever has its name now.
        let _ = directory.clear().and_then(|()| temporary.remove_empty(name));
    }
}

/// Locks a directory whose owner has ended. Returns `None` for any other file.
fn lock_abandoned(temporary: &Dir, name: &OsStr, age_min: Duration) -> Option<(Dir, File)> {
    let directory = temporary.subdirectory(name).ok()?;
    let lock = File::from(rustix::fs::openat(&directory, ".", FLAGS, Mode::empty()).ok()?);
    let metadata = lock.metadata().ok()?;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0;
    // A time in the future proves nothing.
    let is_old = metadata.modified().ok()?.elapsed().is_ok_and(|age| age >= age_min);
    (is_own && is_old && lock.try_lock().is_ok()).then_some((directory, lock))
}

/// Returns whether an open directory still has its path.
fn is_at(directory: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let now = fs::symlink_metadata(path).map(identity).ok();
    now.is_some() && now == directory.metadata().map(identity).ok()
}

/// Opens a directory, and no symbolic link.
fn open(path: &Path) -> io::Result<File> {
    Ok(rustix::fs::open(path, FLAGS, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::SystemTime;

    use super::*;

    /// Creates a directory that looks as if it was left `seconds` ago.
    fn left(temporary: &Path, name: &str, mode: u32, seconds: u64) -> PathBuf {
        let path = temporary.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let time = SystemTime::now() - Duration::from_secs(seconds);
        File::open(&path).unwrap().set_modified(time).unwrap();
        path
    }

    #[test]
    fn only_abandoned_directories_of_the_user_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let at = temporary.path();
        let abandoned = left(at, "greenwave-test-abandoned", 0o700, 120);
        let young = left(at, "greenwave-test-young", 0o700, 5);
        let shared = left(at, "greenwave-test-shared", 0o755, 120);
        let other = left(at, "other-test-1", 0o700, 120);
        let used = left(at, "greenwave-test-used", 0o700, 120);
        let target = left(at, "target", 0o700, 120);
        let link = at.join("greenwave-test-link");
        symlink(&target, &link).unwrap();
        let lock = open(&used).unwrap();
        lock.try_lock().unwrap();
        remove_abandoned(at);
        assert!(!abandoned.exists());
        for kept in [&young, &shared, &other, &used, &target, &link] {
            assert!(kept.join("file").exists(), "{}", kept.display());
        }
        drop(lock);
        remove_abandoned(at);
        assert!(!used.exists());
    }

    #[test]
    fn a_process_with_another_clock_removes_no_directory_in_use() {
        let temporary = tempfile::tempdir().unwrap();
        let (at, is_done) = (temporary.path(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    remove_older(at, Duration::ZERO);
                }
            });
            for _ in 0..500 {
                let directory = PrivateDir::new_in(at).unwrap();
                fs::create_dir(directory.path().join("in use")).unwrap();
                remove_older(at, Duration::ZERO);
                assert!(directory.path().join("in use").exists());
            }
            is_done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_directory_in_use_is_locked() {
        let directory = PrivateDir::new().unwrap();
        assert!(open(directory.path()).unwrap().try_lock().is_err());
        let path = directory.path().to_owned();
        drop(directory);
        assert!(!path.exists());
    }
}
