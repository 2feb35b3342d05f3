//! The appending end of a log: the segment being written, and what the next flush must make durable.

use std::sync::Arc;

use crate::entry::SlotId;
use crate::index_file::Pending;
use crate::segment::Segment;

/// A block of the index file is written on a flush when at least this many records wait for it, or records of this many bytes.
const BLOCK_RECORDS_MIN: u32 = 512;
const BLOCK_BYTES_MIN: u64 = 256 << 10;
/// A put flushes by itself when this many records wait, since waiting takes memory, and opening after a crash reads them one by one.
const WAITING_RECORDS_MAX: u32 = 65_536;
/// Full segments whose seal may wait for the next flush.
const RETIRED_MAX: usize = 1;

/// The appending end.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) active: Option<ActiveSegment>,
    /// Full segments, not sealed yet.
    pub(crate) retired: Vec<ActiveSegment>,
    /// The last stamp given out.
    pub(crate) timestamp: u64,
    /// Records appended so far: what a flush waits for.
    pub(crate) appended: u64,
    /// Whether a file was created or removed since the directory was last synced.
    pub(crate) dir_dirty: bool,
    /// Whether the manifest says that this log writes.
    pub(crate) in_use: bool,
}

/// A segment being written.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) slot: SlotId,
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: u64,
    /// What its index file does not have yet.
    pub(crate) pending: Pending,
    /// Whether the manifest says that records in it were flushed.
    pub(crate) listed: bool,
}

/// How far the disk has followed.
#[derive(Debug, Default)]
pub(crate) struct SyncProgress {
    pub(crate) appended: u64,
    /// Once a sync has failed the kernel may have thrown pages away, and a second one would succeed without them.
    pub(crate) failed: bool,
}

/// What a flush has to bring to the disk.
pub(crate) struct FlushWork {
    pub(crate) appended: u64,
    pub(crate) retired: Vec<ActiveSegment>,
    pub(crate) active: Option<(SlotId, Arc<Segment>, Option<Pending>)>,
    /// Where the active segment ends.
    pub(crate) end: u64,
    /// The first flush of the active segment, and where it ends.
    pub(crate) first: Option<(u64, u64)>,
    pub(crate) dir_dirty: bool,
}

impl Writer {
    pub(crate) fn retire(&mut self) {
        self.retired.extend(self.active.take());
    }

    /// Whether what waits for a flush has become too much.
    pub(crate) fn overdue(&self) -> bool {
        let waiting = self.active.as_ref().map_or(0, |active| active.pending.count());
        self.retired.len() > RETIRED_MAX || waiting >= WAITING_RECORDS_MAX
    }

    pub(crate) fn due(&mut self) -> FlushWork {
        let first = self.active.as_mut().filter(|active| !active.listed).map(|active| {
            active.listed = true;
            (active.segment.id, active.end)
        });
        let end = self.active.as_ref().map_or(0, |active| active.end);
        let active = self.active.as_mut().map(|active| {
            let pending = &active.pending;
            let worth = pending.count() >= BLOCK_RECORDS_MIN || pending.covers_bytes() >= BLOCK_BYTES_MIN;
            let pending = worth.then(|| std::mem::replace(&mut active.pending, Pending::new(active.end)));
            (active.slot, active.segment.clone(), pending)
        });
        FlushWork {
            appended: self.appended,
            retired: std::mem::take(&mut self.retired),
            active,
            end,
            first,
            dir_dirty: std::mem::take(&mut self.dir_dirty),
        }
    }
}
