//! The part of a file's metadata that changes when its content changes, and when that part can be
//! trusted.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::codec::Reader;
use crate::memory_devices;

/// Time after a change during which a timestamp is racy, by git's rule
/// (<https://git-scm.com/docs/racy-git>). FAT counts time in steps of two seconds, most file
/// systems in ticks of the kernel.
const RACY_WINDOW: Duration = Duration::from_secs(2);

/// Upper bound of the granularity of timestamps on file systems that use the kernel's ticks, which
/// take up to 10 ms. A file that was changed this long before an event may have been changed after
/// it.
pub const CLOCK_TICK: Duration = Duration::from_millis(20);

/// Several ticks of the kernel: the racy window of a file system with fine timestamps, within one
/// run.
const FINE_RACY_WINDOW: Duration = Duration::from_millis(50);

/// The bits of the mode that hold the type of a file.
const TYPE: u32 = 0o170_000;

/// The identity, size, timestamps and mode of a file, as in the index of git.
///
/// Every change of a file changes its stamp, unless the change is so quick that the timestamps do
/// not advance, or the file is [in memory](Self::is_in_memory). [`is_racy`](Self::is_racy)
/// recognizes both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// The number of the device.
    pub device: u64,
    /// The number of the inode.
    pub inode: u64,
    /// The size in bytes.
    pub size: u64,
    /// The time of the last change of the content, in nanoseconds since the Unix epoch.
    pub modified: i64,
    /// The time of the last change of content or metadata, in nanoseconds since the Unix epoch.
    /// Programs cannot set it.
    pub changed: i64,
    /// The type and permissions.
    pub mode: u32,
}

impl FileStamp {
    /// Takes the stamp from metadata.
    pub fn from_metadata(it: &Metadata) -> Self {
        Self {
            device: it.dev(),
            inode: it.ino(),
            size: it.size(),
            modified: nanoseconds(it.mtime(), it.mtime_nsec()),
            changed: nanoseconds(it.ctime(), it.ctime_nsec()),
            mode: it.mode(),
        }
    }

    /// Takes the stamp from the result of `stat`.
    #[cfg_attr(
        all(target_os = "linux", target_pointer_width = "64"),
        expect(clippy::unnecessary_cast, reason = "on other systems these fields have other types")
    )]
    pub fn from_stat(it: &rustix::fs::Stat) -> Self {
        Self {
            device: it.st_dev as u64,
            inode: it.st_ino as u64,
            size: it.st_size as u64,
            modified: nanoseconds(it.st_mtime as i64, it.st_mtime_nsec as i64),
            changed: nanoseconds(it.st_ctime as i64, it.st_ctime_nsec as i64),
            mode: it.st_mode as u32,
        }
    }

    /// Returns whether this is the stamp of a symbolic link itself.
    pub fn is_link(&self) -> bool {
        const LINK: u32 = 0o120_000;
        self.mode & TYPE == LINK
    }

    /// Appends 44 bytes: device, inode, size, modified and changed (8 bytes each), and mode (4),
    /// little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.device, self.inode, self.size, self.modified as u64, self.changed as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.mode.to_le_bytes());
    }

    /// Reads what [`encode`](Self::encode) has written. Returns `None` if bytes are missing.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            device: reader.number()?,
            inode: reader.number()?,
            size: reader.number()?,
            modified: reader.number()? as i64,
            changed: reader.number()? as i64,
            mode: u32::from_le_bytes(reader.array()?),
        })
    }

    /// Returns whether the file was changed so shortly before `at` that a later change could carry
    /// the same timestamps: within two seconds. A timestamp in the future is racy, and so is each
    /// one of a file [in memory](Self::is_in_memory). `at` is in nanoseconds since the Unix epoch.
    pub fn is_racy(&self, at: i64) -> bool {
        self.changed_within(RACY_WINDOW, at)
    }

    /// Returns whether the timestamps are racy, judging by the granularity that this stamp shows.
    /// Suits caches that live as long as one run; durable ones need [`is_racy`](Self::is_racy).
    pub fn is_racy_within_run(&self, at: i64) -> bool {
        self.changed_within(if self.is_fine() { FINE_RACY_WINDOW } else { RACY_WINDOW }, at)
    }

    /// Returns whether the file system counts time in ticks of at most 10 ms. Coarser ones produce
    /// whole seconds or hundredths.
    fn is_fine(&self) -> bool {
        const HUNDREDTH: i64 = 10_000_000;
        self.changed % HUNDREDTH != 0
    }

    fn changed_within(&self, window: Duration, at: i64) -> bool {
        let window = i64::try_from(window.as_nanos()).unwrap_or(i64::MAX);
        self.modified.max(self.changed) >= at.saturating_sub(window) || self.is_in_memory()
    }

    /// Returns whether this is the stamp of a regular file on a file system in memory (tmpfs,
    /// ramfs). Writes through a memory map do not change such a stamp, so only the content shows
    /// whether the file is unchanged.
    ///
    /// An overlay file system counts as its layers, if they are at the paths that it was mounted
    /// with.
    pub fn is_in_memory(&self) -> bool {
        const REGULAR: u32 = 0o100_000;
        self.mode & TYPE == REGULAR && memory_devices::is_in_memory(self.device)
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// Returns the time of the system clock, in nanoseconds since the Unix epoch.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns the time of the system clock, in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    u64::try_from(now_ns() / 1_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::FileStamp;

    #[test]
    fn recent_and_future_timestamps_are_racy() {
        let second = 1_000_000_000;
        let stamp = |changed| FileStamp { device: 1, inode: 1, size: 0, modified: 0, changed, mode: 0 };
        let at = 100 * second + 1;
        for (changed, durably, within_run) in [
            (at - 3 * second, false, false),
            (at - 2 * second, true, false),
            (at - 60_000_000, true, false),
            (at - 50_000_000, true, true),
            (at + second, true, true),
            // Whole seconds, as on a coarse file system.
            (99 * second, true, true),
            (97 * second, false, false),
        ] {
            let stamp = stamp(changed);
            assert_eq!((stamp.is_racy(at), stamp.is_racy_within_run(at)), (durably, within_run), "{changed}");
        }
    }
}
