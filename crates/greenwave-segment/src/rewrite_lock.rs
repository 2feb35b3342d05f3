//! The rewrite lock: protects the base of a delta from removal while the delta is being written.
//!
//! A process holds the lock while it writes a delta, a copy of one that it rewrites, or a
//! conditional batch, and while it announces the removal of segments. It locks the file `fence` in
//! the log's directory (`flock` on Unix). The system releases the lock when the process dies. The
//! file contains a mark of eight bytes that changes with every announced removal. A process that
//! finds another mark than last time must refresh before it relies on its index. The mark has no
//! other meaning, is not synced, and may be anything after a power cut.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::Error;
use crate::access::Access;
use crate::descriptors::Descriptors;
use crate::disk::{Disk, File};

/// Maximum time to wait for other processes that write deltas; far shorter than a compaction.
const WAIT_MAX: Duration = Duration::from_millis(2);
const WAIT_STEP: Duration = Duration::from_micros(50);

/// The lock file, opened on first use.
#[derive(Debug)]
pub(crate) struct RewriteLock {
    disk: Disk,
    descriptors: Arc<Descriptors>,
    path: PathBuf,
    state: Mutex<LockFile>,
}

#[derive(Debug, Default)]
struct LockFile {
    file: Option<File>,
    /// Mark at the time of the last refresh under the lock; `None` before the first.
    seen: Option<[u8; 8]>,
}

/// Guard of the rewrite lock; releases it when dropped.
#[derive(Debug)]
pub(crate) struct RewriteGuard<'a> {
    state: MutexGuard<'a, LockFile>,
    disk: &'a Disk,
    path: &'a Path,
    mark: [u8; 8],
}

impl RewriteLock {
    pub(crate) fn new(disk: &Disk, descriptors: &Arc<Descriptors>, dir: &Path) -> Self {
        Self {
            disk: disk.clone(),
            descriptors: descriptors.clone(),
            path: dir.join("fence"),
            state: Mutex::default(),
        }
    }

    /// Takes the lock; returns `None` if it is not free within 2 ms.
    pub(crate) fn lock_briefly(&self) -> Result<Option<RewriteGuard<'_>>, Error> {
        let Some(mut state) = self.state.try_lock_for(WAIT_MAX) else { return Ok(None) };
        let mark = self.try_lock_file(&mut state).map_err(Error::io("lock", &self.path))?;
        Ok(mark.map(|mark| RewriteGuard { state, disk: &self.disk, path: &self.path, mark }))
    }

    /// Takes the lock, waiting for other threads and processes.
    pub(crate) fn lock(&self) -> Result<RewriteGuard<'_>, Error> {
        let mut state = self.state.lock();
        let mark = self.lock_file(&mut state).map_err(Error::io("lock", &self.path))?;
        Ok(RewriteGuard { state, disk: &self.disk, path: &self.path, mark })
    }

    /// Locks the file and returns its mark.
    fn lock_file(&self, state: &mut LockFile) -> io::Result<[u8; 8]> {
        let file = self.opened(state)?;
        file.lock()?;
        mark_in(file, state)
    }

    /// Like [`lock_file`](Self::lock_file), but gives up after a short time.
    fn try_lock_file(&self, state: &mut LockFile) -> io::Result<Option<[u8; 8]>> {
        let file = self.opened(state)?;
        for _ in 0..WAIT_MAX.as_micros() / WAIT_STEP.as_micros() {
            if file.try_lock()? {
                return mark_in(file, state).map(Some);
            }
            self.disk.pause(WAIT_STEP);
        }
        state.file = Some(file);
        Ok(None)
    }

    fn opened(&self, state: &mut LockFile) -> io::Result<File> {
        match state.file.take() {
            Some(file) => Ok(file),
            None => self.descriptors.open(&self.disk, &self.path, Access::Create),
        }
    }
}

impl RewriteGuard<'_> {
    /// Returns whether no removal was announced since [`mark_refreshed`](Self::mark_refreshed).
    pub(crate) fn is_unchanged(&self) -> bool {
        self.state.seen == Some(self.mark)
    }

    /// Records that the log was refreshed under the lock.
    pub(crate) fn mark_refreshed(&mut self) {
        self.state.seen = Some(self.mark);
    }

    /// Announces to all processes that segments will be removed.
    pub(crate) fn announce_removal(&mut self) -> Result<(), Error> {
        self.mark = self.disk.random().to_le_bytes();
        let file = self.state.file.as_ref().expect("locking opens the file");
        file.write_at(&self.mark, 0).map_err(Error::io("write", self.path))
    }
}

impl Drop for RewriteGuard<'_> {
    fn drop(&mut self) {
        // If unlocking fails, closing the file releases the lock.
        if self.state.file.as_ref().is_some_and(|file| file.unlock().is_err()) {
            self.state.file = None;
        }
    }
}

/// Reads the mark of a locked file. If that fails, closes the file, which unlocks it.
fn mark_in(file: File, state: &mut LockFile) -> io::Result<[u8; 8]> {
    let mut mark = [0; 8];
    if !file.read_exact_at(&mut mark, 0)? {
        // No process has removed a segment yet.
        mark = [0; 8];
    }
    state.file = Some(file);
    Ok(mark)
}
