//! The writing end of a log: the active segment, and the work of the next flush.

use std::sync::Arc;

use crate::entry::SlotId;
use crate::index_file::PendingBlock;
use crate::segment::Segment;

/// A flush adds a block to the index file if at least this many records, or records of this many
/// bytes, wait for it.
const BLOCK_RECORDS_MIN: u32 = 512;
const BLOCK_BYTES_MIN: u64 = 256 << 10;
/// A put flushes if this many records wait for a block of the index file. They take memory, and
/// after a crash they are read one by one.
const WAITING_RECORDS_MAX: u32 = 65_536;
/// Maximum number of full segments that wait for the next flush to be sealed.
const RETIRED_MAX: usize = 1;

/// The writing end of a log.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) active: Option<ActiveSegment>,
    /// Full segments that are not sealed yet.
    pub(crate) retired: Vec<ActiveSegment>,
    /// Timestamp of the last record.
    pub(crate) timestamp: u64,
    /// Timestamp of the first attempt at the last change; earlier than `timestamp` if the record
    /// had to be written again.
    #[cfg(feature = "simulation")]
    pub(crate) first_timestamp: u64,
    /// Number of records appended since the log was opened. A flush waits for all of them.
    pub(crate) appended: u64,
    /// Whether a file was created or removed since the last sync of the directory.
    pub(crate) dir_dirty: bool,
    /// Whether the manifest records that the log is open for writing.
    pub(crate) in_use: bool,
}

/// A segment being written.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) slot: SlotId,
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: u64,
    /// Records that its index file does not cover yet.
    pub(crate) pending: PendingBlock,
    /// Whether the manifest records that it contains flushed records.
    pub(crate) listed: bool,
    /// Whether its key table was written, or could not be.
    pub(crate) table_tried: bool,
}

/// Progress of syncing.
#[derive(Debug, Default)]
pub(crate) struct SyncProgress {
    pub(crate) appended: u64,
    /// Whether a sync has failed. The kernel may have discarded dirty pages, so a second sync could
    /// succeed without them.
    pub(crate) failed: bool,
}

/// Work of a flush.
pub(crate) struct FlushWork {
    pub(crate) appended: u64,
    pub(crate) retired: Vec<ActiveSegment>,
    pub(crate) active: Option<(SlotId, Arc<Segment>, Option<PendingBlock>)>,
    /// Offset of the end of the active segment.
    pub(crate) end: u64,
    /// Id and end of the active segment, if this is its first flush.
    pub(crate) first: Option<(u64, u64)>,
}

impl Writer {
    pub(crate) fn retire(&mut self) {
        self.retired.extend(self.active.take());
    }

    /// Returns whether too much waits for a flush.
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
            let due = pending.count() >= BLOCK_RECORDS_MIN || pending.covers_bytes() >= BLOCK_BYTES_MIN;
            let pending = due.then(|| std::mem::replace(&mut active.pending, PendingBlock::new(active.end)));
            (active.slot, active.segment.clone(), pending)
        });
        FlushWork { appended: self.appended, retired: std::mem::take(&mut self.retired), active, end, first }
    }
}
