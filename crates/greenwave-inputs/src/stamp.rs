//! What a file system says of a file beside its content, and when that can be trusted to mean that the content is the same. Knows nothing of
//! what files are read for.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::codec::Reader;

/// How long a file must have rested before its stamp says anything: git's rule for "racy" entries
/// (<https://git-scm.com/docs/racy-git>). Some file systems count in steps of two seconds (FAT), most in the kernel's ticks, a few milliseconds.
const RACY_WINDOW: Duration = Duration::from_secs(2);

/// A file that was touched so long before a test began, or later, may have been touched while it ran: file systems count time in the kernel's
/// ticks, of up to ten milliseconds.
pub const CLOCK_TICK: Duration = Duration::from_millis(20);

/// Several of the kernel's ticks.
const STEPS: Duration = Duration::from_millis(50);

/// Device, inode, size, both times and mode: whatever changes a file changes one of these, unless it happens within the steps in which the
/// file system counts time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Nanoseconds since the Unix epoch.
    pub modified: i64,
    /// The same, of the last change of anything. It cannot be set.
    pub changed: i64,
    pub mode: u32,
}

impl FileStamp {
    pub fn from_metadata(it: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            device: it.dev(),
            inode: it.ino(),
            size: it.size(),
            modified: nanos(it.mtime(), it.mtime_nsec()),
            changed: nanos(it.ctime(), it.ctime_nsec()),
            mode: it.mode(),
        }
    }

    #[cfg_attr(
        all(target_os = "linux", target_pointer_width = "64"),
        expect(clippy::unnecessary_cast, reason = "on other systems these fields have other types")
    )]
    pub fn from_stat(it: &rustix::fs::Stat) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            device: it.st_dev as u64,
            inode: it.st_ino as u64,
            size: it.st_size as u64,
            modified: nanos(it.st_mtime as i64, it.st_mtime_nsec as i64),
            changed: nanos(it.st_ctime as i64, it.st_ctime_nsec as i64),
            mode: it.st_mode as u32,
        }
    }

    /// Whether it is a symbolic link's own.
    pub fn is_link(&self) -> bool {
        const KIND: u32 = 0o170_000;
        const LINK: u32 = 0o120_000;
        self.mode & KIND == LINK
    }

    /// Device, inode, size, modified and changed (8 bytes each), and mode (4).
    pub fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.device, self.inode, self.size, self.modified as u64, self.changed as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.mode.to_le_bytes());
    }

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

    /// Whether its file system counts time in the kernel's ticks, of at most ten milliseconds, or finer: coarser ones give whole seconds, or hundredths.
    fn is_fine(&self) -> bool {
        const HUNDREDTH: i64 = 10_000_000;
        self.changed % HUNDREDTH != 0
    }

    /// Returns whether the timestamps were too recent at `at` to prove within one run that the file is
    /// unchanged.
    pub(crate) fn is_racy_within_run(&self, at: i64) -> bool {
        self.changed_within(if self.is_fine() { STEPS } else { RACY_WINDOW }, at)
    }

    /// Returns whether the file was changed so shortly before `at` that a later change could carry the
    /// same timestamps (git's "racy" entries). A timestamp in the future is racy.
    #[must_use]
    pub fn is_racy(&self, at: i64) -> bool {
        self.changed_within(RACY_WINDOW, at)
    }

    fn changed_within(&self, window: Duration, at: i64) -> bool {
        let window = i64::try_from(window.as_nanos()).unwrap_or(i64::MAX);
        self.modified.max(self.changed) >= at.saturating_sub(window)
    }
}

/// Nanoseconds since the Unix epoch, by the system's clock.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Milliseconds since the Unix epoch, by the system's clock.
pub fn now_ms() -> u64 {
    u64::try_from(now_ns() / 1_000_000).unwrap_or(0)
}
