//! Signs of life: whether a process that wrote something still has the log open. Knows nothing of what was written.
//!
//! The file `holder-` and sixteen hexadecimal digits in the log's directory is locked (`flock` on Unix) for as long as its maker lives,
//! which the system undoes when the process dies. The file is empty, and removed by its maker, or by whoever finds it free.

use std::path::PathBuf;

use crate::Error;
use crate::disk::{Access, Disk, File};
use crate::log::Log;

const PREFIX: &str = "holder-";
/// How often a file is made again that somebody else has removed before it was locked.
const TRIES_MAX: usize = 16;

/// Shows that its maker lives, for [`Log::is_held`]. Ends when dropped.
#[derive(Debug)]
pub struct Hold {
    disk: Disk,
    path: PathBuf,
    _file: File,
}

impl Log {
    /// Shows other processes that this one lives, under a number of its choice that no other uses.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`], or [`Error::Io`]; also when the number is held.
    pub fn hold(&self, number: u64) -> Result<Hold, Error> {
        self.check_writable()?;
        let path = self.holder_path(number);
        let io = |e| Error::io("lock", &path)(e);
        for _ in 0..TRIES_MAX {
            let file = self.disk.open(&path, Access::Create).map_err(io)?;
            if file.try_lock().map_err(io)? && !file.is_unlinked(&path) {
                return Ok(Hold { disk: self.disk.clone(), path, _file: file });
            }
        }
        Err(io(std::io::ErrorKind::WouldBlock.into()))
    }

    /// Whether a process that lives holds this number.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn is_held(&self, number: u64) -> Result<bool, Error> {
        let path = self.holder_path(number);
        let file = match self.disk.open(&path, Access::Write) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(Error::io("open", &path))?,
        };
        if !file.try_lock().map_err(Error::io("lock", &path))? {
            return Ok(true);
        }
        if !self.read_only {
            // While it is locked: whoever makes it anew notices.
            let _ = self.disk.remove(&path);
        }
        Ok(false)
    }

    fn holder_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{number:016x}"))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A file that stays is no harm: nobody locks it.
        let _ = self.disk.remove(&self.path);
    }
}

/// Whether a file of this name is one.
pub(crate) fn is_holder(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}
