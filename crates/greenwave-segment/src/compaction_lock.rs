//! The compaction lock: one process at a time removes segments of a directory.
//!
//! The file `compactor` in the log's directory is locked meanwhile (`flock` on Unix), which the system undoes when the process
//! dies. The file is empty. With it held, no other process can remove a segment, so one look at the directory sees every record.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Error;
use crate::access::Access;
use crate::descriptors::Descriptors;
use crate::disk::{Disk, File};

/// The lock's file, opened for each compaction.
#[derive(Debug)]
pub(crate) struct CompactionLock {
    disk: Disk,
    descriptors: Arc<Descriptors>,
    path: PathBuf,
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(crate) struct CompactionGuard {
    _file: File,
}

impl CompactionLock {
    pub(crate) fn new(disk: &Disk, descriptors: &Arc<Descriptors>, dir: &Path) -> Self {
        Self { disk: disk.clone(), descriptors: descriptors.clone(), path: dir.join("compactor") }
    }

    /// `None` if another process holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<CompactionGuard>, Error> {
        let io = |e| Error::io("lock", &self.path)(e);
        let file = self.descriptors.open(&self.disk, &self.path, Access::Create).map_err(io)?;
        Ok(file.try_lock().map_err(io)?.then_some(CompactionGuard { _file: file }))
    }

    /// Waits until no other process holds it.
    pub(crate) fn lock(&self) -> Result<CompactionGuard, Error> {
        let io = |e| Error::io("lock", &self.path)(e);
        let file = self.descriptors.open(&self.disk, &self.path, Access::Create).map_err(io)?;
        file.lock().map_err(io)?;
        Ok(CompactionGuard { _file: file })
    }
}
