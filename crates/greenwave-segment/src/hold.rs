//! Liveness locks: show other processes that the process that wrote something still has the log
//! open.
//!
//! A holder locks the file `holder-` and sixteen hexadecimal digits in the log's directory (`flock`
//! on Unix). The system releases the lock when the process dies. The file is empty. Its holder
//! removes it, or a process that finds it unlocked.

use std::path::PathBuf;

use crate::Error;
use crate::access::Access;
use crate::disk::{Disk, File};
use crate::format::holder_path;
use crate::inner::Inner;

/// Attempts to create the file while other processes remove it before it is locked.
const TRIES_MAX: usize = 16;

/// Shows other processes that this one is alive; see [`Log::hold`](crate::Log::hold). Ends when
/// dropped.
#[derive(Debug)]
pub struct Hold {
    disk: Disk,
    path: PathBuf,
    _file: File,
}

impl Hold {
    /// Takes the lock for `number`.
    pub(crate) fn acquire(inner: &Inner, number: u64) -> Result<Self, Error> {
        inner.check_writable()?;
        let path = holder_path(&inner.dir, number);
        let io = |e| Error::io("lock", &path)(e);
        for _ in 0..TRIES_MAX {
            let file = inner.disk.open(&path, Access::Create).map_err(io)?;
            if file.try_lock().map_err(io)? && !file.is_unlinked(&path) {
                return Ok(Self { disk: inner.disk.clone(), path, _file: file });
            }
        }
        Err(io(std::io::ErrorKind::WouldBlock.into()))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A file that remains is harmless, since it is not locked.
        let _ = self.disk.remove(&self.path);
    }
}

/// Returns whether a live process holds `number`; removes the file of a dead one.
pub(crate) fn is_held(inner: &Inner, number: u64) -> Result<bool, Error> {
    let path = holder_path(&inner.dir, number);
    let file = match inner.disk.open(&path, Access::Write) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(Error::io("open", &path))?,
    };
    if !file.try_lock().map_err(Error::io("lock", &path))? {
        return Ok(true);
    }
    if !inner.read_only {
        // Removed while locked: a process that opened the file meanwhile finds it unlinked and
        // retries.
        let _ = inner.disk.remove(&path);
    }
    Ok(false)
}
