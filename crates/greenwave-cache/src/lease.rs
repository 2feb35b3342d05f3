//! Leases: at most one process computes a key at a time. The second seam of this crate; [`FileLeases`] serves the processes of one machine.

use std::fmt::{self, Debug};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::{BoxError, Error, Key};

/// How long to wait before asking again; doubled each time up to the maximum.
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(100);

/// Gives one holder at a time the right to compute a key.
///
/// # Contract
///
/// - *Exclusion.* Between an `acquire` that returned `Ok` and the drop of its [`Lease`], no other `acquire` of the same key returns `Ok`, in
///   this process or any other that uses the same place; unless the place cannot tell that a holder still lives.
/// - *Death.* The lease of a process that ended, however it did, is free.
/// - *Cancellation.* An `acquire` whose future is dropped holds nothing.
/// - *Waiting* has no limit of its own; callers set one. It is not promised to be fair.
/// - *Errors* say that leases do not work at all; callers then go on without.
#[async_trait]
pub trait Leases: Debug + Send + Sync + 'static {
    /// Waits until nobody holds `key`, and takes it.
    async fn acquire(&self, key: &Key) -> Result<Lease, BoxError>;
}

/// The right to compute a key. Dropping it gives it up.
pub struct Lease(#[expect(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl Lease {
    /// A lease that is given up when `held` is dropped.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Box::new(held))
    }
}

impl Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

/// Leases by locks in a directory, for the processes of one machine. The directory has to be on a local file system.
///
/// On Linux all of them are in one file, of which each key has a byte (locks of open file descriptions, `fcntl(2)`), so that nothing is made or removed for a
/// lease; two keys in 2^62 share one, and wait for each other. Elsewhere each has a file, which is there as long as it is held.
#[derive(Debug, Clone)]
pub struct FileLeases {
    dir: PathBuf,
}

impl FileLeases {
    /// Uses this directory, which is created with mode 0700 if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let failed = |e: io::Error| Error::backend(format!("open {}", dir.display()))(e.into());
        builder.create(dir).map_err(failed)?;
        Ok(Self { dir: std::path::absolute(dir).map_err(failed)? })
    }
}

#[async_trait]
impl Leases for FileLeases {
    async fn acquire(&self, key: &Key) -> Result<Lease, BoxError> {
        let mut pause = POLL_MIN;
        loop {
            // A few microseconds, less than the way to a thread that may wait.
            if let Some(held) = Held::try_take(&self.dir, key)? {
                return Ok(Lease::new(held));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }
}

#[cfg(target_os = "linux")]
use linux::Held;
#[cfg(not(target_os = "linux"))]
use portable::Held;

#[cfg(target_os = "linux")]
mod linux {
    //! A lock on one byte.

    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    use crate::Key;

    /// The file in the directory. It stays empty.
    const NAME: &str = "leases";

    /// A byte that is ours while the file is open.
    #[derive(Debug)]
    pub(super) struct Held(#[expect(dead_code, reason = "held for its drop")] File);

    impl Held {
        /// `None` if somebody else has it.
        pub(super) fn try_take(dir: &Path, key: &Key) -> io::Result<Option<Self>> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(dir.join(NAME))?;
            // SAFETY: a structure of numbers, for which zero is a value.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = libc::F_WRLCK as _;
            lock.l_whence = libc::SEEK_SET as _;
            lock.l_start = place(key);
            lock.l_len = 1;
            // SAFETY: the kernel reads the structure only.
            match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
                0 => Ok(Some(Self(file))),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                    error => Err(error),
                },
            }
        }
    }

    /// The key's byte, far enough from the largest place that there is.
    fn place(key: &Key) -> libc::off_t {
        let mut first = [0; 8];
        first.copy_from_slice(&key.as_bytes()[..8]);
        (u64::from_le_bytes(first) >> 2) as libc::off_t
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    //! A locked file.

    use std::fs::{File, OpenOptions, TryLockError};
    use std::io;
    use std::path::{Path, PathBuf};

    use crate::Key;

    /// A file that is ours while it is open.
    #[derive(Debug)]
    pub(super) struct Held {
        path: PathBuf,
        file: File,
    }

    impl Held {
        /// `None` if somebody else has it.
        pub(super) fn try_take(dir: &Path, key: &Key) -> io::Result<Option<Self>> {
            let path = dir.join(format!("{key}.lease"));
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            match file.try_lock() {
                // The holder before us may have removed the file after we opened it: the lock of a file without a name excludes nobody.
                Ok(()) if is_at(&file, &path) => Ok(Some(Self { path, file })),
                Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(e)) => Err(e),
            }
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // Removed while locked, and by nobody else. A file that stays is no harm: the next holder takes it over.
            let _ = std::fs::remove_file(&self.path);
            let _ = self.file.unlock();
        }
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
