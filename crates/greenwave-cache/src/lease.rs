//! Leases, which give one process at a time the right to compute a key.

use std::fmt::{self, Debug};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::{BoxError, Error, Key};

/// Interval between attempts to acquire a lease. It doubles after each attempt, up to the maximum.
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(100);

/// Grants the right to compute a key to one holder at a time.
///
/// # Contract
///
/// - *Exclusion.* Between an `acquire` that returns `Ok` and the drop of its [`Lease`], no other
///   `acquire` of the same key returns `Ok`, in any process that uses the same location. The
///   exception is a location that cannot tell whether a holder is still alive.
/// - *Death.* A lease is released when its process ends, normally or not.
/// - *Cancellation.* An `acquire` whose future is dropped holds no lease.
/// - *Waiting* is unlimited; callers set a timeout. Fairness is not guaranteed.
/// - *Errors* mean that leases do not work at all. Callers then continue without one.
#[async_trait]
pub trait Leases: Debug + Send + Sync + 'static {
    /// Waits until `key` has no holder, and acquires its lease.
    async fn acquire(&self, key: &Key) -> Result<Lease, BoxError>;
}

/// The right to compute a key, released on drop.
pub struct Lease(#[expect(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl Lease {
    /// Creates a lease that is released by dropping `held`.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Box::new(held))
    }
}

impl Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

/// Leases as file locks in a directory, for the processes of one machine. The directory must be on
/// a local file system.
///
/// On Linux all leases are in one file, in which each key locks one byte (open file description
/// locks, `fcntl(2)`), so that a lease creates and removes no file. Two keys share a byte with a
/// probability of 2^-62, and then wait for each other. On other systems each lease is a file that
/// exists while the lease is held.
#[derive(Debug, Clone)]
pub struct FileLeases {
    dir: PathBuf,
}

impl FileLeases {
    /// Opens a directory, which is created with mode 0700 if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Backend`] if the directory cannot be created.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let failed = |e: io::Error| Error::backend(format!("create directory {}", dir.display()))(e.into());
        builder.create(dir).map_err(failed)?;
        Ok(Self { dir: std::path::absolute(dir).map_err(failed)? })
    }
}

#[async_trait]
impl Leases for FileLeases {
    async fn acquire(&self, key: &Key) -> Result<Lease, BoxError> {
        let mut pause = POLL_MIN;
        loop {
            // Takes a few microseconds, less than moving the call to the blocking pool.
            if let Some(held) = KeyLock::try_acquire(&self.dir, key)? {
                return Ok(Lease::new(held));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }
}

#[cfg(target_os = "linux")]
use linux::KeyLock;
#[cfg(not(target_os = "linux"))]
use portable::KeyLock;

#[cfg(target_os = "linux")]
mod linux {
    //! Locks one byte of a file.

    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use rustix::fs::{Mode, OFlags, open, openat};

    use crate::Key;

    /// Name of the lock file, which stays empty.
    const NAME: &str = "leases";

    /// A locked byte. The lock ends when the file is closed.
    #[derive(Debug)]
    pub(super) struct KeyLock(#[expect(dead_code, reason = "held for its drop")] File);

    impl KeyLock {
        /// Returns `None` if another holder has the lock.
        pub(super) fn try_acquire(dir: &Path, key: &Key) -> io::Result<Option<Self>> {
            let file = open_lock_file(dir)?;
            // SAFETY: `flock` consists of integers, for which all-zero bytes are valid.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = libc::F_WRLCK as _;
            lock.l_whence = libc::SEEK_SET as _;
            lock.l_start = byte_offset(key);
            lock.l_len = 1;
            // SAFETY: the descriptor is open, and the kernel only reads the structure.
            match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
                0 => Ok(Some(Self(file))),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                    error => Err(error),
                },
            }
        }
    }

    /// Opens the lock file. Other programs may write to the directory: a link in the place of the
    /// file or of the directory is not followed, and a pipe is not waited for.
    fn open_lock_file(dir: &Path) -> io::Result<File> {
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = open(dir, flags | OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK;
        let file = File::from(openat(&dir, NAME, flags, Mode::RUSR | Mode::WUSR)?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{NAME}` is not a file")))
        }
    }

    /// Returns the key's byte, well below the largest file offset.
    fn byte_offset(key: &Key) -> libc::off_t {
        let mut first = [0; 8];
        first.copy_from_slice(&key.as_bytes()[..8]);
        (u64::from_le_bytes(first) >> 2) as libc::off_t
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    //! Locks a file per key.

    use std::fs::{File, OpenOptions};
    use std::io;
    use std::path::{Path, PathBuf};

    use crate::Key;

    /// A locked file. The lock ends when the file is closed.
    #[derive(Debug)]
    pub(super) struct KeyLock {
        path: PathBuf,
        file: File,
    }

    impl KeyLock {
        /// Returns `None` if another holder has the lock.
        pub(super) fn try_acquire(dir: &Path, key: &Key) -> io::Result<Option<Self>> {
            let path = dir.join(format!("{key}.lease"));
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            // The previous holder may have removed the file after this call opened it. The lock of
            // an unlinked file excludes nobody.
            let is_held = try_lock(&file)? && is_at(&file, &path);
            Ok(is_held.then_some(Self { path, file }))
        }
    }

    impl Drop for KeyLock {
        fn drop(&mut self) {
            // Removed only by the holder of the lock. If the removal fails, the next holder reuses
            // the file.
            let _ = std::fs::remove_file(&self.path);
            unlock(&self.file);
        }
    }

    #[cfg(unix)]
    fn try_lock(file: &File) -> io::Result<bool> {
        use rustix::fs::{FlockOperation, flock};
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(unix)]
    fn unlock(file: &File) {
        // Closing the file does the same.
        let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
    }

    #[cfg(not(unix))]
    #[expect(clippy::incompatible_msrv, reason = "needs Rust 1.89 there")]
    fn try_lock(file: &File) -> io::Result<bool> {
        match file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::incompatible_msrv, reason = "needs Rust 1.89 there")]
    fn unlock(file: &File) {
        // Closing the file does the same.
        let _ = file.unlock();
    }

    #[cfg(unix)]
    fn is_at(file: &File, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let same = |a: std::fs::Metadata, b: std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        file.metadata().is_ok_and(|ours| std::fs::metadata(path).is_ok_and(|there| same(ours, there)))
    }

    #[cfg(not(unix))]
    fn is_at(_: &File, path: &Path) -> bool {
        path.exists()
    }
}
