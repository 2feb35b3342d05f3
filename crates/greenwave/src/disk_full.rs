//! Recognises a full disk, after which no agent gets another request.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// Kinds of errors of a full file system and of an exhausted quota.
const FULL: [ErrorKind; 2] = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];

/// Space that a file system must have for a failure not to be blamed on it, in bytes.
const SPACE_MIN: u64 = 1 << 20;

/// The directory on a full file system, once one was found.
#[derive(Debug, Default)]
pub(crate) struct DiskFull(Mutex<Option<PathBuf>>);

impl DiskFull {
    /// Notes the directory if an error, or one of its causes, is due to a full file system. The
    /// first directory stays. Returns whether it is.
    pub(crate) fn observe(&self, error: &(dyn std::error::Error + 'static), directory: &Path) -> bool {
        let is_full = is_full(error);
        if is_full {
            self.0.lock().get_or_insert_with(|| directory.to_owned());
        }
        is_full
    }

    /// Notes the first of these directories whose file system is full now, if any. Returns the
    /// directory that was noted first.
    ///
    /// Agents and tests see the errors of a full file system and report them in their own words.
    /// Another feature that ends has freed its space by the time at which such an error is looked
    /// at, so a file system that was full before in this run counts as well.
    pub(crate) fn look(&self, directories: &[&Path]) -> Option<PathBuf> {
        if let Some(noted) = self.directory() {
            return Some(noted);
        }
        let full = directories.iter().find(|directory| has_no_space(directory))?;
        Some(self.0.lock().get_or_insert_with(|| full.to_path_buf()).clone())
    }

    /// Returns the directory on a full file system.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        self.0.lock().clone()
    }
}

/// Returns whether the file system of a directory has no space or no files left for this user.
fn has_no_space(directory: &Path) -> bool {
    let Ok(found) = rustix::fs::statvfs(directory) else { return false };
    let is_root = rustix::process::geteuid().is_root();
    let blocks = if is_root { found.f_bfree } else { found.f_bavail };
    let has_no_files = found.f_files > 0 && found.f_favail == 0;
    // Some virtual file systems have no blocks at all.
    found.f_blocks > 0 && (blocks.saturating_mul(found.f_frsize) < SPACE_MIN || has_no_files)
}

/// Returns whether an error, or one of its causes, is due to a full file system.
pub(crate) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| FULL.contains(&io.kind())) {
            return true;
        }
        // An `io::Error` that wraps another error does not return it as its source.
        let inner =
            io.and_then(std::io::Error::get_ref).map(|inner| inner as &(dyn std::error::Error + 'static));
        cause = inner.or_else(|| error.source());
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_full_disk_is_recognised_behind_other_errors() {
        let full = || std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        let quota = std::io::Error::from_raw_os_error(rustix::io::Errno::DQUOT.raw_os_error());
        assert!(is_full(&quota));
        assert!(is_full(&Error::io("write", "a.txt")(full())));
        assert!(is_full(&Error::store("write to")(Error::io("write", "a.txt")(full()))));
        assert!(is_full(&std::io::Error::other(full())));
        assert!(!is_full(&Error::io("write", "a.txt")(std::io::Error::other("no space left on device"))));
        let disk = DiskFull::default();
        assert!(disk.observe(&full(), Path::new("/first")) && disk.observe(&full(), Path::new("/second")));
        assert_eq!(disk.directory().as_deref(), Some(Path::new("/first")));
        // It was full when the failure happened that is looked at now.
        assert_eq!(disk.look(&[&std::env::temp_dir()]).as_deref(), Some(Path::new("/first")));
    }

    #[test]
    fn a_file_system_with_space_is_not_full() {
        let disk = DiskFull::default();
        assert_eq!(disk.look(&[Path::new("/does/not/exist"), &std::env::temp_dir()]), None);
        // A file system without blocks.
        assert_eq!(disk.look(&[Path::new("/proc")]), None);
        assert_eq!(disk.directory(), None);
    }
}
