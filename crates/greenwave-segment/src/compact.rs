//! Compaction: rewrites segments that are mostly dead, and drops the oldest segments of a log with
//! a budget.
//!
//! One process at a time does this, holding the compaction lock, so its index knows every record. A
//! copy has the timestamp of the original, so it wins and loses against the same records, and the
//! next generation, so readers prefer it to the original. The original is removed only once its
//! copies, and newer records of any process, are on the disk.
//!
//! Rewriting a segment writes no more bytes than it frees, except for stranded values (see
//! `deltas.rs`). Shortening a chain takes more space, and may use the rest of that allowance.

use crate::append::Appender;
use crate::codec::Frame;
use crate::compaction_lock::CompactionGuard;
use crate::deltas::Deltas;
use crate::entry::{Entry, RecordInfo, RecordRef, SlotId};
use crate::format::SEGMENT_HEADER_BYTES;
use crate::index::SegmentSlot;
use crate::index_file;
use crate::inner::Inner;
use crate::manifest::REMOVED;
use crate::options::WhenFull;
use crate::read::Reader;
use crate::record::HEADER_BYTES;
use crate::recover::Recovery;
use crate::refresh::Refresher;
use crate::segment::Segment;
use crate::unread::Unread;
use crate::{Error, LoadIndex};

/// A segment is rewritten if this percentage of it is dead. Each byte freed then costs at most one
/// byte written.
const DEAD_PERCENT_MIN: u64 = 50;

/// Segments are rewritten in steps of at most this many times the segment size, or this many bytes,
/// whichever is more.
const STEP_SEGMENTS: u64 = 4;
const STEP_BYTES_MIN: u64 = 1 << 20;

/// Maximum number of key tables to add when a log is opened. Each takes some 20 ms for a segment of
/// 16 MiB.
const TABLES_MAX: usize = 4;

/// Maximum number of segments per step.
const STEP_VICTIMS_MAX: usize = 256;

/// Result of [`Log::compact`](crate::Log::compact).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionStats {
    /// Number of segments removed.
    pub segments: u64,
    /// Bytes that they occupied.
    pub freed_bytes: u64,
    /// Bytes written to copy their live records.
    pub written_bytes: u64,
}

/// Rewrites, drops and removes segments.
#[derive(Clone, Copy)]
pub(crate) struct Compactor<'a> {
    inner: &'a Inner,
    refresher: Refresher<'a>,
    reader: Reader<'a>,
    appender: Appender<'a>,
    deltas: Deltas<'a>,
    recovery: Recovery<'a>,
    unread: Unread<'a>,
}

impl<'a> Compactor<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self {
            inner,
            refresher: Refresher::new(inner),
            reader: Reader::new(inner),
            appender: Appender::new(inner),
            deltas: Deltas::new(inner),
            recovery: Recovery::new(inner),
            unread: Unread::new(inner),
        }
    }

    /// Rewrites segments that are mostly dead; see [`Log::compact`](crate::Log::compact).
    pub(crate) fn compact(&self) -> Result<CompactionStats, Error> {
        self.inner.check_writable()?;
        let _compacting = self.inner.compacting.lock();
        match self.inner.compaction_lock.try_lock()? {
            Some(guard) => self.compact_in(&guard),
            None => Ok(CompactionStats::default()),
        }
    }

    /// Like [`compact`](Self::compact), but waits while another process is compacting.
    pub(crate) fn compact_waiting(&self) -> Result<CompactionStats, Error> {
        let _compacting = self.inner.compacting.lock();
        self.compact_in(&self.inner.compaction_lock.lock()?)
    }

    /// Makes space in a full log, or returns `full` if there is nothing to free.
    pub(crate) fn make_space(&self, full: Error) -> Result<(), Error> {
        let Error::Full { needed, max, .. } = full else { return Err(full) };
        match self.inner.options.when_full {
            WhenFull::DropOldest if needed <= max => self.drop_oldest(max - needed, full),
            WhenFull::DropOldest => Err(full),
            WhenFull::Refuse => {
                if self.compact_waiting()?.freed_bytes == 0 {
                    Err(full)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Drops the segments with the oldest records until at most `target` bytes are used.
    pub(crate) fn drop_oldest(&self, target: u64, full: Error) -> Result<(), Error> {
        let _compacting = self.inner.compacting.lock();
        let _guard = self.inner.compaction_lock.lock()?;
        self.unread.load_all()?;
        self.refresher.refresh()?;
        // Tombstones may be copied from each segment into a new one. After each segment has been
        // dropped once, no more can be freed.
        let mut drops_left = self.inner.index.read().slots().count() + 2;
        while self.inner.index.read().disk_bytes() > target {
            let Some(left) = drops_left.checked_sub(1) else { return Err(full) };
            drops_left = left;
            match self.oldest_sealed() {
                Some(slot) => self.drop_segment(slot)?,
                None if self.appender.seal_active()? || self.recovery.seal_abandoned(|_| true)? > 0 => {}
                None => return Err(full),
            }
        }
        Ok(())
    }

    fn compact_in(&self, _guard: &CompactionGuard) -> Result<CompactionStats, Error> {
        self.unread.load_all()?;
        self.refresher.refresh()?;
        // Full segments are sealed by a flush.
        self.appender.flush()?;
        self.recovery.seal_abandoned(|slot| is_mostly_dead(slot.len, slot.live_bytes))?;
        let mut done = CompactionStats::default();
        let victims = self.mostly_dead();
        if !victims.is_empty() {
            // After a power cut that preserved only some of the copies, the originals must exist:
            // the records of a batch count together only there.
            self.inner.sync_dir()?;
        }
        let mut left = &victims[..];
        while !left.is_empty() {
            let (some, rest) = left.split_at(self.step_len(left));
            self.rewrite(some, &mut done)?;
            left = rest;
        }
        self.add_key_tables(usize::MAX);
        Ok(done)
    }

    /// Adds a few key tables of sealed segments that lack them, unless another process is
    /// compacting. Their records have been read.
    pub(crate) fn add_some_key_tables(&self) -> Result<(), Error> {
        let lacks = |(_, slot): (SlotId, &SegmentSlot)| lacks_table(slot);
        if self.inner.read_only
            || self.inner.options.load_index == LoadIndex::OnOpen
            || !self.inner.index.read().slots().any(lacks)
        {
            return Ok(());
        }
        let _compacting = self.inner.compacting.lock();
        if let Some(_guard) = self.inner.compaction_lock.try_lock()? {
            self.add_key_tables(TABLES_MAX);
        }
        Ok(())
    }

    /// Adds the key tables of sealed segments that lack them, since a log without them wrote these
    /// or after a crash. The compaction lock keeps other processes from doing the same.
    fn add_key_tables(&self, max: usize) {
        let lacking: Vec<_> = {
            let index = self.inner.index.read();
            let lacking = index.slots().filter(|(_, slot)| lacks_table(slot)).take(max);
            lacking.map(|(id, slot)| (id, slot.segment.clone(), slot.len - HEADER_BYTES as u64)).collect()
        };
        for (slot, segment, end) in lacking {
            self.appender.write_key_table(slot, &segment, end);
        }
    }

    fn mostly_dead(&self) -> Vec<SlotId> {
        let index = self.inner.index.read();
        let dead = index
            .slots()
            .filter(|(_, slot)| slot.orphan || slot.sealed && is_mostly_dead(slot.len, slot.live_bytes));
        dead.map(|(id, _)| id).collect()
    }

    /// Returns how many of these segments to rewrite before any is removed. Each step waits for the
    /// disk a few times, and needs space for its copies.
    fn step_len(&self, victims: &[SlotId]) -> usize {
        let bytes_max =
            self.inner.options.segment_bytes_max.saturating_mul(STEP_SEGMENTS).max(STEP_BYTES_MIN);
        let index = self.inner.index.read();
        let mut bytes = 0;
        let fitting = victims.iter().take_while(|slot| {
            bytes += index.try_slot(**slot).map_or(0, |slot| slot.len);
            bytes <= bytes_max
        });
        fitting.count().clamp(1, STEP_VICTIMS_MAX.min(victims.len()))
    }

    /// Copies the live records of sealed segments, and removes the segments.
    ///
    /// The index may have read a removal in one of them but not the older value, which another
    /// process appended to a segment read a moment earlier. [`begin_removal`](Self::begin_removal)
    /// reads everything older.
    fn rewrite(&self, victims: &[SlotId], done: &mut CompactionStats) -> Result<(), Error> {
        let complete = self.begin_removal(victims)?;
        let mut moved = Vec::new();
        let result = self
            .copy_live_records(victims, complete, &mut moved, done)
            .and_then(|()| self.remove_rewritten(victims, done));
        if result.is_err() {
            self.restore(&moved);
        }
        result
    }

    /// Raises the floor of new timestamps to the latest one in these segments, announces their
    /// removal, and then refreshes. If this returns `true`, the index has read every record older
    /// than those in the segments, and no process will write another one. A tombstone that hides
    /// nothing in the index then hides nothing at all. Otherwise every tombstone must be copied.
    fn begin_removal(&self, victims: &[SlotId]) -> Result<bool, Error> {
        let latest = {
            let index = self.inner.index.read();
            let slots = victims.iter().filter_map(|slot| index.try_slot(*slot));
            slots.map(|slot| slot.timestamp_max).max().unwrap_or(0)
        };
        let raised = self.inner.shared_clock.raise_floor(latest);
        let announced = raised
            .map_err(Error::io("raise the floor of timestamps in", &self.inner.dir))
            // A process that copies a record of its index, with the old timestamp, holds the lock.
            .and_then(|()| self.inner.rewrite_lock.lock()?.announce_removal());
        if let Err(error) = &announced {
            tracing::warn!(%error, "cannot announce the removal of segments: all tombstones are copied");
        }
        self.refresher.refresh()?;
        Ok(announced.is_ok())
    }

    /// Restores entries of segments that could not be removed. The originals remain, and would
    /// reappear if only the copies were forgotten.
    fn restore(&self, moved: &[Entry]) {
        let mut index = self.inner.index.write();
        for entry in moved {
            index.restore(entry);
            index.mark_shadowing(entry.key.as_slice());
        }
    }

    /// Copies the live records of segments to the active segment; adds their entries to `moved`.
    fn copy_live_records(
        &self,
        victims: &[SlotId],
        complete: bool,
        moved: &mut Vec<Entry>,
        done: &mut CompactionStats,
    ) -> Result<(), Error> {
        for slot in victims {
            let (segment, older_elsewhere, entries, len) = {
                let index = self.inner.index.read();
                let Some(found) = index.try_slot(*slot) else { continue };
                (
                    found.segment.clone(),
                    complete.then(|| index.timestamp_min_outside(*slot)),
                    index.entries_in(*slot),
                    found.len,
                )
            };
            moved.extend_from_slice(&entries);
            self.copy_entries(*slot, &segment, &entries, older_elsewhere, len, done)?;
        }
        Ok(())
    }

    /// Copies live records of one segment to the active segment.
    fn copy_entries(
        &self,
        slot: SlotId,
        segment: &Segment,
        entries: &[Entry],
        older_elsewhere: Option<u64>,
        len: u64,
        done: &mut CompactionStats,
    ) -> Result<(), Error> {
        // The dead bytes in excess of the live ones may be spent on shorter chains.
        let live: u64 = entries.iter().map(Entry::record_len).sum();
        let mut spare = len.saturating_sub(live * 2);
        for entry in entries {
            let written = if entry.tombstone {
                self.copy_tombstone(entry, older_elsewhere)?
            } else {
                self.copy(segment, entry, older_elsewhere, spare)?
            };
            spare -= written.saturating_sub(entry.record_len()).min(spare);
            done.written_bytes += written;
        }
        done.written_bytes += self.copy_dictionaries(slot, segment)?;
        Ok(())
    }

    /// Removes segments whose live records have been copied.
    fn remove_rewritten(&self, victims: &[SlotId], done: &mut CompactionStats) -> Result<(), Error> {
        // Flushed before taking the rewrite lock, so that processes waiting for the lock need not
        // wait for the disk.
        self.appender.flush()?;
        self.appender.sync_others()?;
        let mut guard = self.inner.rewrite_lock.lock()?;
        self.refresher.refresh()?;
        if self.deltas.rewrite_stranded()? > 0 {
            self.appender.flush()?;
        }
        guard.announce_removal()?;
        guard.mark_refreshed();
        // Every later holder of the lock refreshes first and relies on nothing in these segments,
        // so they can be removed without holding it.
        drop(guard);
        for slot in victims {
            let segment = self.inner.index.read().try_slot(*slot).map(|slot| slot.segment.clone());
            let Some(segment) = segment else { continue };
            done.freed_bytes += self.unlink(*slot, &segment)?;
            done.segments += 1;
        }
        Ok(())
    }

    /// Appends the tombstone of a key that was removed or lost, if an older record of the key may
    /// exist in another segment; returns the bytes written. `older_elsewhere` is the earliest
    /// timestamp in other segments, or `None` if there may be records that the index has not read.
    fn copy_tombstone(&self, entry: &Entry, older_elsewhere: Option<u64>) -> Result<u64, Error> {
        let key = entry.key.as_slice();
        let mut writer = self.inner.writer.lock();
        if !self.inner.is_current(key, entry.location()) {
            return Ok(0);
        }
        if older_elsewhere.is_some_and(|older| !entry.shadows || entry.timestamp <= older) {
            self.inner.forget_at(key, entry.location());
            return Ok(0);
        }
        let mut frame = Frame::tombstone(key);
        frame.header.timestamp = entry.timestamp;
        frame.header.generation = entry.generation;
        frame.header = frame.header.copied();
        let to = self.appender.append_unindexed(&mut writer, &mut frame)?;
        self.inner.index.write().relocate(entry.location(), to, &RecordInfo::new(&frame.header, key, &[]));
        Ok(frame.len())
    }

    /// Appends a copy of a record unless its key has changed; returns the bytes written, at most
    /// `spare` more than the original's size.
    fn copy(
        &self,
        segment: &Segment,
        entry: &Entry,
        older_elsewhere: Option<u64>,
        spare: u64,
    ) -> Result<u64, Error> {
        let key = entry.key.as_slice();
        let shortened = self.deltas.shorten_chain(entry, spare)?;
        let Some(mut frame) = self.reader.read_frame(segment, key, &RecordRef::to(entry))? else {
            // The record is damaged. The key has no value from now on, and an older one must not
            // reappear.
            self.inner.index.write().mark_lost(key, entry.location());
            return self.copy_tombstone(entry, older_elsewhere);
        };
        let guard = match &shortened {
            Some((shorter, _)) => self.deltas.lock_for_delta(shorter)?,
            None => None,
        };
        let mut writer = self.inner.writer.lock();
        if !self.inner.is_current(key, entry.location()) {
            return Ok(0);
        }
        if let Some((shorter, base)) = shortened
            && (guard.is_some() || shorter.header.depth() == 0)
            && self.deltas.base_is_current(&base)
        {
            frame = shorter;
            self.inner.counters.rebased_records.add(1);
        }
        frame.header.generation = entry.generation;
        frame.header = frame.header.copied();
        let to = self.appender.append_unindexed(&mut writer, &mut frame)?;
        let info = RecordInfo::new(&frame.header, frame.key(), frame.base());
        self.inner.index.write().relocate(entry.location(), to, &info);
        self.inner.counters.copied_records.add(1);
        Ok(frame.len())
    }

    fn copy_dictionaries(&self, slot: SlotId, segment: &Segment) -> Result<u64, Error> {
        let dictionaries = self.inner.index.read().dictionaries_in(slot);
        let mut written = 0;
        for (id, record) in dictionaries {
            let key = id.to_le_bytes();
            let Some(mut frame) = self.reader.read_frame(segment, &key, &record)? else {
                continue;
            };
            frame.header = frame.header.copied();
            let mut writer = self.inner.writer.lock();
            let to = self.appender.append_unindexed(&mut writer, &mut frame)?;
            self.inner.index.write().relocate_dictionary(id, to);
            written += frame.len();
        }
        Ok(written)
    }

    fn oldest_sealed(&self) -> Option<SlotId> {
        let index = self.inner.index.read();
        let sealed = index.slots().filter(|(_, slot)| slot.sealed);
        sealed.min_by_key(|(id, slot)| (slot.timestamp_min, *id)).map(|(id, _)| id)
    }

    /// Drops all values of a segment. Appends a tombstone with the same timestamp for each value
    /// that hides an older one. Like [`rewrite`](Self::rewrite), needs all older records in the
    /// index.
    fn drop_segment(&self, slot: SlotId) -> Result<(), Error> {
        let complete = self.begin_removal(&[slot])?;
        let (segment, older_elsewhere, entries) = {
            let index = self.inner.index.read();
            let Some(found) = index.try_slot(slot) else { return Ok(()) };
            let older_elsewhere = complete.then(|| index.timestamp_min_outside(slot));
            (found.segment.clone(), older_elsewhere, index.entries_in(slot))
        };
        let result = self.drop_entries(slot, &segment, &entries, older_elsewhere);
        if result.is_err() {
            self.restore(&entries);
        }
        result
    }

    fn drop_entries(
        &self,
        slot: SlotId,
        segment: &Segment,
        entries: &[Entry],
        older_elsewhere: Option<u64>,
    ) -> Result<(), Error> {
        for entry in entries {
            self.copy_tombstone(entry, older_elsewhere)?;
        }
        self.copy_dictionaries(slot, segment)?;
        self.appender.flush()?;
        self.appender.sync_others()?;
        self.unlink(slot, segment)?;
        let dropped = entries.iter().filter(|entry| !entry.tombstone).count() as u64;
        self.inner.counters.dropped_entries.add(dropped);
        tracing::debug!(path = %segment.path.display(), entries = dropped, "dropped the oldest segment");
        Ok(())
    }

    /// Removes a segment's files, the index file first: an index file without its segment means
    /// that the segment was lost.
    fn unlink(&self, slot: SlotId, segment: &Segment) -> Result<u64, Error> {
        self.record_removal(segment.id);
        index_file::remove(&self.inner.disk, &segment.path);
        match self.inner.disk.remove(&segment.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &segment.path)(error));
            }
            _ => {}
        }
        let freed = self.inner.index.read().try_slot(slot).map_or(0, |slot| slot.len + slot.index_len);
        self.inner.writer.lock().dir_dirty = true;
        self.refresher.remove_missing(&[slot])?;
        Ok(freed)
    }

    /// Records in the manifest that a segment is removed, and the synced sizes of all unsealed
    /// segments, since these may contain the copies.
    fn record_removal(&self, removed: u64) {
        self.appender.mark_in_use(&mut self.inner.writer.lock());
        let mut entries: Vec<(u64, u64)> = {
            let index = self.inner.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.sealed && !slot.orphan);
            open.map(|(_, slot)| (slot.segment.id, slot.synced)).collect()
        };
        entries.push((removed, REMOVED));
        self.inner.manifest.record(&entries);
    }
}

fn lacks_table(slot: &SegmentSlot) -> bool {
    slot.sealed && !slot.orphan && !slot.has_table
}

/// Returns whether at least half of a segment's records is dead.
fn is_mostly_dead(len: u64, live_bytes: u64) -> bool {
    let records = len.saturating_sub(SEGMENT_HEADER_BYTES);
    (records - live_bytes.min(records)) * 100 >= records * DEAD_PERCENT_MIN
}
