//! Statistics of a log.

use std::sync::atomic::{AtomicU64, Ordering};

/// Contents and activity of a log. Values of different fields may be read at slightly different
/// times.
///
/// If part of the index is not in memory ([`LoadIndex::OnDemand`](crate::LoadIndex::OnDemand)),
/// numbers and sizes of keys and values are upper bounds: a key with records in several segments
/// counts several times. [`Log::load_index`](crate::Log::load_index) makes them exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Keys with a value.
    pub entries: u64,
    /// Removed keys whose older records have not all been compacted away.
    pub tombstones: u64,
    /// Values stored as deltas.
    pub deltas: u64,
    /// Segments of all processes.
    pub segments: u64,
    /// Segments whose part of the index is not in memory.
    pub unread_segments: u64,
    /// Size of all segments and their index files, in bytes.
    pub disk_bytes: u64,
    /// Size of the index files, in bytes.
    pub index_bytes: u64,
    /// Size of the records that compaction would copy, in bytes, without those of unread segments.
    pub live_bytes: u64,
    /// Size of all current values as stored, in bytes.
    pub stored_bytes: u64,
    /// Size of all current values decompressed, in bytes.
    pub raw_bytes: u64,
    /// Bytes appended since the log was opened, by compaction too.
    pub written_bytes: u64,
    /// Records copied by compaction since the log was opened.
    pub copied_records: u64,
    /// Deltas rewritten since the log was opened, because their base was removed or replaced or
    /// their chain was long.
    pub rebased_records: u64,
    /// Values dropped since the log was opened, to stay within the disk budget.
    pub dropped_entries: u64,
    /// Records that did not verify, found by a read or while opening. Each was a miss.
    pub bad_records: u64,
    /// Bytes of torn tails cut off while opening.
    pub torn_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) written_bytes: Counter,
    pub(crate) copied_records: Counter,
    pub(crate) rebased_records: Counter,
    pub(crate) dropped_entries: Counter,
    pub(crate) bad_records: Counter,
    pub(crate) torn_bytes: Counter,
    /// Number of times the log read changes of other processes; see
    /// [`Log::revision`](crate::Log::revision).
    pub(crate) refreshes: Counter,
}

/// A relaxed counter, which orders no other memory accesses. `refreshes` changes under the index
/// lock.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
