//! The compaction lock, which lets one process at a time remove segments of a directory.
//!
//! The holder locks the file `compactor` in the log's directory (`flock` on Unix). The system
//! releases the lock when the process dies. The file is empty. While it is locked, no other process
//! can remove a segment, so one listing of the directory shows every record.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Error;
use crate::access::Access;
use crate::descriptors::Descriptors;
use crate::disk::{Disk, File};

/// The lock file, opened for each compaction.
#[derive(Debug)]
pub(crate) struct CompactionLock {
    disk: Disk,
    descriptors: Arc<Descriptors>,
    path: PathBuf,
}

/// Guard of the compaction lock; releases it when dropped.
#[derive(Debug)]
pub(crate) struct CompactionGuard {
    _file: File,
}

impl CompactionLock {
    pub(crate) fn new(disk: &Disk, descriptors: &Arc<Descriptors>, dir: &Path) -> Self {
        Self { disk: disk.clone(), descriptors: descriptors.clone(), path: dir.join("compactor") }
    }

    /// Takes the lock; returns `None` if another process holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<CompactionGuard>, Error> {
        let io = |e| Error::io("lock", &self.path)(e);
        let file = self.descriptors.open(&self.disk, &self.path, Access::Create).map_err(io)?;
        Ok(file.try_lock().map_err(io)?.then_some(CompactionGuard { _file: file }))
    }

    /// Takes the lock, waiting until no other process holds it.
    pub(crate) fn lock(&self) -> Result<CompactionGuard, Error> {
        let io = |e| Error::io("lock", &self.path)(e);
        let file = self.descriptors.open(&self.disk, &self.path, Access::Create).map_err(io)?;
        file.lock().map_err(io)?;
        Ok(CompactionGuard { _file: file })
    }
}
