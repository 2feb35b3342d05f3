//! Limits the number of segments that a log has open. A closed segment is reopened by the next
//! read.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::access::Access;
use crate::disk::{Directory, Disk, File};

/// The open files of a log: a queue, oldest first, that gives recently used files a second chance.
#[derive(Debug)]
pub(crate) struct Descriptors {
    max: usize,
    open: Mutex<VecDeque<Weak<SharedFile>>>,
}

/// A segment's file, open or closed.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<SharedFile>,
    descriptors: Arc<Descriptors>,
}

#[derive(Debug)]
struct SharedFile {
    file: RwLock<Option<Arc<File>>>,
    /// Whether the file is locked. Closing it would release the lock.
    pinned: AtomicBool,
    used: AtomicBool,
}

impl Descriptors {
    pub(crate) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { max: max as usize, open: Mutex::default() })
    }

    /// Opens a file. If the process has no descriptors left, closes half of the log's files and
    /// retries once.
    pub(crate) fn open(&self, disk: &Disk, path: &Path, access: Access) -> io::Result<File> {
        self.with_free_descriptor(|| disk.open(path, access))
    }

    /// Like [`open`](Self::open), for a directory.
    pub(crate) fn open_directory(&self, disk: &Disk, path: &Path) -> io::Result<Directory> {
        self.with_free_descriptor(|| disk.open_directory(path))
    }

    fn with_free_descriptor<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match open() {
            Err(error) if is_exhausted(&error) && self.shrink(|open| open / 2) > 0 => open(),
            other => other,
        }
    }

    /// Registers an open file, and closes others to stay within the limit.
    pub(crate) fn admit(self: &Arc<Self>, file: File) -> Handle {
        let handle = self.closed();
        *handle.shared.file.write() = Some(Arc::new(file));
        self.register(&handle.shared);
        handle
    }

    /// Returns the handle of a file that is not open yet.
    pub(crate) fn closed(self: &Arc<Self>) -> Handle {
        let (pinned, used) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(SharedFile { file: RwLock::default(), pinned, used });
        Handle { shared, descriptors: self.clone() }
    }

    fn register(&self, shared: &Arc<SharedFile>) {
        self.open.lock().push_back(Arc::downgrade(shared));
        self.shrink(|_| self.max);
    }

    /// Closes files until the number computed by `target` from the current number remains; returns
    /// how many were closed.
    fn shrink(&self, target: impl FnOnce(usize) -> usize) -> usize {
        let mut open = self.open.lock();
        let target = target(open.len());
        let mut closed = 0;
        // Two rounds: one to take second chances away, one to close.
        let mut steps_left = open.len() * 2;
        while open.len() > target && steps_left > 0 {
            steps_left -= 1;
            let Some(next) = open.pop_front() else { break };
            let Some(shared) = next.upgrade() else { continue };
            if shared.pinned.load(Ordering::Relaxed) || shared.used.swap(false, Ordering::Relaxed) {
                open.push_back(next);
            } else {
                closed += usize::from(shared.file.write().take().is_some());
            }
        }
        closed
    }
}

impl Handle {
    /// Returns the open file. It stays open while the caller holds it.
    pub(crate) fn file(&self, disk: &Disk, path: &Path, writable: bool) -> io::Result<Arc<File>> {
        if let Some(file) = &*self.shared.file.read() {
            if !self.shared.used.load(Ordering::Relaxed) {
                self.shared.used.store(true, Ordering::Relaxed);
            }
            return Ok(file.clone());
        }
        let access = if writable { Access::Write } else { Access::Read };
        let file = Arc::new(self.descriptors.open(disk, path, access)?);
        let mut current = self.shared.file.write();
        // Another thread may have reopened it first. Closing a second descriptor of the file would
        // release its lock.
        if let Some(current) = &*current {
            return Ok(current.clone());
        }
        *current = Some(file.clone());
        drop(current);
        self.descriptors.register(&self.shared);
        Ok(file)
    }

    /// Pins the file so that it stays open, or unpins it.
    pub(crate) fn pin(&self, pinned: bool) {
        self.shared.pinned.store(pinned, Ordering::Relaxed);
    }
}

/// Returns whether the process or the system has no descriptors left.
#[cfg(unix)]
fn is_exhausted(error: &io::Error) -> bool {
    // EMFILE and ENFILE have these numbers on every Unix.
    matches!(error.raw_os_error(), Some(24 | 23))
}

#[cfg(not(unix))]
fn is_exhausted(_: &io::Error) -> bool {
    false
}
