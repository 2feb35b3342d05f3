//! Counters of a log, and the snapshot that a caller sees. Knows nothing of files.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a log holds and has done. A snapshot: figures of different fields may be a moment apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Keys with a value.
    pub entries: u64,
    /// Keys remembered as removed, until compaction has seen the last of their values go.
    pub tombstones: u64,
    /// Of the values, those stored as differences from others.
    pub deltas: u64,
    /// Segments, those of other processes included.
    pub segments: u64,
    /// Bytes that the segments and their index files occupy.
    pub disk_bytes: u64,
    /// Of these, bytes of the index files.
    pub index_bytes: u64,
    /// Of these, bytes of records that compaction would keep.
    pub live_bytes: u64,
    /// Bytes of all current values as stored.
    pub stored_bytes: u64,
    /// Bytes of all current values decompressed.
    pub raw_bytes: u64,
    /// Bytes appended since the log was opened, compaction's included.
    pub written_bytes: u64,
    /// Records copied by compaction since the log was opened.
    pub copied_records: u64,
    /// Values stored anew, since they were differences from something that was removed, or far from it, since the log was opened.
    pub rebased_records: u64,
    /// Values dropped to stay within the disk budget since the log was opened.
    pub dropped_entries: u64,
    /// Records that did not verify, met by a read or stepped over on opening. Each was a miss.
    pub bad_records: u64,
    /// Bytes of torn tails cut off on opening.
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
    /// Not reported: how often something of others was taken in.
    pub(crate) refreshes: Counter,
}

/// A count that orders nothing by itself; `taken_in` changes under the index's lock.
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
