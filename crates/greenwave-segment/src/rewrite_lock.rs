//! Keeps a record on the disk while a difference from it is being written: differences are written, and removals of segments announced, by one
//! process at a time. Knows nothing of records.
//!
//! The file `fence` in the log's directory is locked meanwhile (`flock` on Unix), which the system undoes when a process dies. Its eight bytes
//! are a mark that changes whenever a removal is announced, so that a writer of differences knows whether it has to look again before it
//! relies on what it has seen. They mean nothing else, need not reach the disk, and may be anything after a power cut.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::Error;
use crate::access::Access;
use crate::descriptors::Descriptors;
use crate::disk::{Disk, File};

/// Longer than others write differences, and far shorter than a compaction may take.
const WAIT_MAX: Duration = Duration::from_millis(2);
const WAIT_STEP: Duration = Duration::from_micros(50);

/// The file, opened when it is first needed.
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
    /// The mark when we last looked at the whole log. `None` before that.
    seen: Option<[u8; 8]>,
}

/// Being inside. Ends when dropped.
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

    /// Waits for its turn, but not for long: `None` if that does not come.
    pub(crate) fn lock_briefly(&self) -> Result<Option<RewriteGuard<'_>>, Error> {
        let Some(mut state) = self.state.try_lock_for(WAIT_MAX) else { return Ok(None) };
        let mark = self.try_lock_file(&mut state).map_err(Error::io("lock", &self.path))?;
        Ok(mark.map(|mark| RewriteGuard { state, disk: &self.disk, path: &self.path, mark }))
    }

    /// Waits for its turn, among threads and among processes.
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

    /// Like [`lock`](Self::lock), if that is possible soon.
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
    /// Whether no removal was announced since the last [`saw`](Self::saw).
    pub(crate) fn is_unchanged(&self) -> bool {
        self.state.seen == Some(self.mark)
    }

    /// We have just looked at the whole log.
    pub(crate) fn mark_refreshed(&mut self) {
        self.state.seen = Some(self.mark);
    }

    /// Tells all others that a segment will be removed.
    pub(crate) fn announce_removal(&mut self) -> Result<(), Error> {
        self.mark = self.disk.random().to_le_bytes();
        let file = self.state.file.as_ref().expect("entering opens it");
        file.write_at(&self.mark, 0).map_err(Error::io("write", self.path))
    }
}

impl Drop for RewriteGuard<'_> {
    fn drop(&mut self) {
        // Closing unlocks too, should this fail.
        if self.state.file.as_ref().is_some_and(|file| file.unlock().is_err()) {
            self.state.file = None;
        }
    }
}

/// The mark in a file that is locked. Closing it, if this fails, unlocks it.
fn mark_in(file: File, state: &mut LockFile) -> io::Result<[u8; 8]> {
    let mut mark = [0; 8];
    if !file.read_exact_at(&mut mark, 0)? {
        // Nobody has removed a segment yet.
        mark = [0; 8];
    }
    state.file = Some(file);
    Ok(mark)
}
