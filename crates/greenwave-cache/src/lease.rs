//! Leases: at most one process computes a key at a time. The second seam of this crate; [`FileLeases`] serves the processes of one machine.

use std::fmt::{self, Debug};
use std::fs::{File, OpenOptions, TryLockError};
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

/// Leases by locked files in a directory, for the processes of one machine. The directory has to be on a local file system.
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
        let path = self.dir.join(format!("{key}.lease"));
        let mut pause = POLL_MIN;
        loop {
            let path = path.clone();
            let attempt = tokio::task::spawn_blocking(move || HeldFile::try_take(path)).await;
            if let Some(held) = attempt.map_err(|_| Error::Shutdown)?? {
                return Ok(Lease::new(held));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }
}

/// A file that is ours while it is open.
#[derive(Debug)]
struct HeldFile {
    path: PathBuf,
    file: File,
}

impl HeldFile {
    /// `None` if somebody else has it.
    fn try_take(path: PathBuf) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            // The holder before us may have removed the file after we opened it: the lock of a file without a name excludes nobody.
            Ok(()) if is_at(&file, &path) => Ok(Some(Self { path, file })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

impl Drop for HeldFile {
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
