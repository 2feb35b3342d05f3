//! Appends records to the active segment, flushes them, and seals full segments.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::codec::Frame;
use crate::entry::{Location, RecordInfo, SlotId};
use crate::error::unless_gone;
use crate::format::SEGMENT_HEADER_BYTES;
use crate::index::SegmentSlot;
use crate::index_file::PendingBlock;
use crate::inner::Inner;
use crate::key_table;
use crate::manifest;
use crate::record::{self, HEADER_BYTES, Header, RecordKind};
use crate::refresh::Refresher;
use crate::segment::Segment;
use crate::writer::{ActiveSegment, FlushWork, SyncProgress, Writer};
use crate::writer_number::WriterNumber;
use crate::{Error, LoadIndex};

/// Space that a record takes in the index file in addition to its key, in bytes.
const INDEX_SHARE_BYTES: u64 = 128;

/// Size of the buffer in which small records of a batch are collected, in bytes.
const WRITE_BUFFER_BYTES: usize = 128 << 10;

/// Attempts at writing a record that compactors may have missed. Each fails only if a compactor
/// removes records that were written during the attempt.
const LATE_TRIES_MAX: u32 = 16;

/// Appends records to the active segment and flushes them.
#[derive(Clone, Copy)]
pub(crate) struct Appender<'a> {
    inner: &'a Inner,
    refresher: Refresher<'a>,
}

impl<'a> Appender<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner, refresher: Refresher::new(inner) }
    }

    /// Takes a writer number before the first write. Fails if the log is open for reading only.
    pub(crate) fn begin_writing(&self) -> Result<(), Error> {
        self.inner.check_writable()?;
        if self.inner.writer_number.get().is_some() {
            return Ok(());
        }
        let _becoming_writer = self.inner.becoming_writer.lock();
        if self.inner.writer_number.get().is_none() {
            let number = WriterNumber::take(&self.inner.disk, &self.inner.descriptors, &self.inner.dir)?;
            // Later timestamps than those of the number's last holder require that all its records
            // have been read.
            self.refresher.refresh()?;
            self.inner.writer_number.get_or_init(|| number);
        }
        Ok(())
    }

    /// Returns once everything put and removed before is on the disk; see
    /// [`Log::flush`](crate::Log::flush).
    pub(crate) fn flush(&self) -> Result<(), Error> {
        let target = self.inner.writer.lock().appended;
        let mut synced = self.inner.synced.lock();
        if synced.failed {
            return Err(Error::io("sync", &self.inner.dir)(io::Error::other("an earlier sync failed")));
        }
        if synced.appended >= target && self.inner.writer.lock().retired.is_empty() {
            return Ok(());
        }
        let due = self.take_due(&mut synced)?;
        let appended = due.appended;
        let result = self.sync_due(due);
        match &result {
            Ok(()) => synced.appended = appended,
            Err(_) => synced.failed = true,
        }
        result
    }

    /// Flushes if `overdue`. A failure is not reported to the put that triggered the flush: every
    /// later flush reports it.
    pub(crate) fn flush_if(&self, overdue: bool) {
        if overdue && let Err(error) = self.flush() {
            tracing::warn!(%error, "cannot flush pending records");
        }
    }

    /// Flushes, and also syncs what other processes wrote; see
    /// [`Log::flush_shared`](crate::Log::flush_shared).
    pub(crate) fn flush_shared(&self) -> Result<(), Error> {
        let others: Vec<Arc<Segment>> = {
            let index = self.inner.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.own && !slot.sealed && !slot.orphan);
            open.map(|(_, slot)| slot.segment.clone()).collect()
        };
        if !others.is_empty() {
            self.inner.sync_dir()?;
        }
        for segment in others {
            // The compactor that removed a segment has copied its records and synced the copies
            // first.
            unless_gone(segment.sync())?;
        }
        self.flush()
    }

    /// Syncs the directory if necessary, and returns the rest of a flush. The directory comes
    /// first: an index file whose segment has no directory entry means that flushed records were
    /// lost.
    fn take_due(&self, synced: &mut SyncProgress) -> Result<FlushWork, Error> {
        loop {
            {
                let mut writer = self.inner.writer.lock();
                if !writer.dir_dirty {
                    return Ok(writer.due());
                }
            }
            // Nothing was synced if the process has no descriptor left. The next flush retries.
            let directory = self.inner.open_directory()?;
            // A file that is created during the sync requires another one.
            self.inner.writer.lock().dir_dirty = false;
            self.inner.sync_directory(&directory).inspect_err(|_| synced.failed = true)?;
        }
    }

    fn sync_due(&self, due: FlushWork) -> Result<(), Error> {
        let mut unsealed = Vec::new();
        for mut retired in due.retired {
            self.sync_full(&mut retired)?;
            if let Err(error) = self.write_seal(&mut retired) {
                // Its records are on the disk. The next flush writes the seal.
                tracing::warn!(%error, path = %retired.segment.path.display(), "cannot seal a segment");
                unsealed.push(retired);
            }
        }
        if !unsealed.is_empty() {
            self.inner.writer.lock().retired.splice(0..0, unsealed);
        }
        if let Some((_, segment, _)) = &due.active {
            segment.sync()?;
        }
        if let Some((slot, ..)) = &due.active
            && let Some(slot) = self.inner.index.write().try_slot_mut(*slot)
        {
            slot.synced = slot.synced.max(due.end);
        }
        if let Some(first) = due.first {
            self.inner.manifest.record(&[first]);
        }
        if let Some((slot, segment, Some(pending))) = due.active {
            self.write_index_block(slot, &segment, &pending);
        }
        Ok(())
    }

    /// Seals a full segment. Its records are on the disk before the seal is written.
    pub(crate) fn seal(&self, full: &mut ActiveSegment) -> Result<(), Error> {
        self.sync_full(full)?;
        self.write_seal(full)
    }

    /// Syncs a full segment and completes its index file.
    fn sync_full(&self, full: &mut ActiveSegment) -> Result<(), Error> {
        full.segment.sync()?;
        self.inner.manifest.record(&[(full.segment.id, full.end)]);
        // If the seal cannot be written now, its next attempt must not repeat the block.
        let pending = std::mem::replace(&mut full.pending, PendingBlock::new(full.end));
        self.write_index_block(full.slot, &full.segment, &pending);
        Ok(())
    }

    /// Writes the seal of a synced segment, and unlocks the segment. After a failure, for example
    /// on a full disk, it can be called again.
    fn write_seal(&self, full: &mut ActiveSegment) -> Result<(), Error> {
        if !std::mem::replace(&mut full.table_tried, true) {
            // The lock of the segment keeps other processes from doing the same.
            self.write_key_table(full.slot, &full.segment, full.end);
        }
        let ActiveSegment { slot, segment, end, .. } = &*full;
        let mut seal = Header::empty(RecordKind::Seal, &[]);
        seal.payload_hash = 0;
        let bytes = seal.encode(record::location_seed(segment.id, *end), &[]);
        if let Err(error) = segment.write_at(&bytes, *end) {
            let _ = segment.truncate(*end);
            return Err(Error::io("seal", &segment.path)(error));
        }
        segment.unlock();
        self.inner.counters.written_bytes.add(bytes.len() as u64);
        if let Some(slot) = self.inner.index.write().try_slot_mut(*slot) {
            slot.sealed = true;
            slot.len = end + bytes.len() as u64;
            slot.end = slot.len;
        }
        self.inner.has_sealed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Seals the active segment if it contains a record.
    pub(crate) fn seal_active(&self) -> Result<bool, Error> {
        let mut writer = self.inner.writer.lock();
        let has_records = writer.active.as_ref().is_some_and(|active| active.end > SEGMENT_HEADER_BYTES);
        if has_records {
            writer.retire();
        }
        drop(writer);
        if has_records {
            self.flush()?;
        }
        Ok(has_records)
    }

    /// Adds a block for synced records to the segment's index file. A failure only makes the next
    /// open slower: each block names the offset where it begins, so a gap is detected.
    fn write_index_block(&self, slot: SlotId, segment: &Segment, pending: &PendingBlock) {
        if pending.count() == 0 {
            return;
        }
        match pending.append_to(&self.inner.disk, segment) {
            Ok(written) => {
                self.inner.counters.written_bytes.add(written);
                if let Some(slot) = self.inner.index.write().try_slot_mut(slot) {
                    slot.index_len += written;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot append to an index file: opening the log will read the segment");
            }
        }
    }

    /// Adds a key table to the index file of a segment that ends at `end`, if this log uses them. A
    /// failure only makes the next open slower.
    pub(crate) fn write_key_table(&self, slot: SlotId, segment: &Segment, end: u64) {
        if self.inner.options.load_index == LoadIndex::OnOpen {
            return;
        }
        match key_table::append(&self.inner.disk, segment, end) {
            Ok(0) => {}
            Ok(written) => {
                self.inner.counters.written_bytes.add(written);
                if let Some(slot) = self.inner.index.write().try_slot_mut(slot) {
                    slot.index_len += written;
                    slot.has_table = true;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write a key table: opening the log will read the index file");
            }
        }
    }

    /// Syncs the unsealed segments of other processes as far as the index has read them, and the
    /// directory. Compaction calls this before it removes records that only those segments
    /// supersede.
    pub(crate) fn sync_others(&self) -> Result<(), Error> {
        let unsynced: Vec<_> = {
            let index = self.inner.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.own && !slot.sealed && slot.synced < slot.end);
            open.map(|(id, slot)| (id, slot.segment.clone(), slot.end)).collect()
        };
        for (id, segment, end) in unsynced {
            segment.sync()?;
            if let Some(slot) = self.inner.index.write().try_slot_mut(id) {
                slot.synced = end;
            }
        }
        self.inner.sync_dir()
    }

    /// Appends a record that is not a value (a dictionary), within the disk budget.
    pub(crate) fn append(&self, frame: &mut Frame) -> Result<(), Error> {
        self.begin_writing()?;
        self.fits(frame.len())?;
        self.append_new(&mut self.inner.writer.lock(), frame)
    }

    /// Appends a record with a new timestamp, and adds it to the index.
    pub(crate) fn append_new(&self, writer: &mut Writer, frame: &mut Frame) -> Result<(), Error> {
        self.until_timely(writer, |writer, timestamp| {
            frame.header.timestamp = timestamp;
            self.append_unbudgeted(writer, frame)
        })
    }

    /// Appends the records of a batch with a new timestamp, and adds them to the index.
    pub(crate) fn append_new_batch(&self, writer: &mut Writer, frames: &mut [Frame]) -> Result<(), Error> {
        self.until_timely(writer, |writer, timestamp| {
            frames.iter_mut().for_each(|frame| frame.header.timestamp = timestamp);
            self.append_batch(writer, frames)
        })
    }

    /// Appends records with a new timestamp, and again with a later one if a compactor may have
    /// missed them; see `shared_clock.rs`.
    fn until_timely(
        &self,
        writer: &mut Writer,
        mut append: impl FnMut(&mut Writer, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut written = None;
        for _ in 0..LATE_TRIES_MAX {
            let timestamp = self.next_timestamp(writer);
            #[cfg(feature = "simulation")]
            if written.is_none() {
                writer.first_timestamp = timestamp;
            }
            match append(writer, timestamp) {
                Ok(()) => {}
                Err(error) => {
                    let Some(written) = written else { return Err(error) };
                    // The records exist, so the change must not be reported as failed.
                    tracing::warn!(%error, "cannot write a record again that a compactor may have missed");
                    writer.timestamp = written;
                    return Ok(());
                }
            }
            if !self.inner.shared_clock.is_late(timestamp) {
                return Ok(());
            }
            written = Some(timestamp);
        }
        Ok(())
    }

    /// Appends a record whose timestamp is set, and adds it to the index.
    pub(crate) fn append_unbudgeted(&self, writer: &mut Writer, frame: &mut Frame) -> Result<(), Error> {
        let location = self.append_unindexed(writer, frame)?;
        self.inner.index.write().apply(location, &RecordInfo::new(&frame.header, frame.key(), frame.base()));
        Ok(())
    }

    /// Writes a record to the active segment or to a new one. Updates the sizes in the index but
    /// not the entry of the key.
    pub(crate) fn append_unindexed(&self, writer: &mut Writer, frame: &mut Frame) -> Result<Location, Error> {
        let len = frame.len();
        self.make_room(writer, len)?;
        let active = writer.active.as_mut().expect("make_room leaves one");
        let location = Location { slot: active.slot, offset: active.end };
        frame.write_header(record::location_seed(active.segment.id, active.end));
        if let Err(e) = active.segment.write_at(&frame.bytes, active.end) {
            // Recovery would skip half a record; truncating it also frees its space.
            let _ = active.segment.truncate(active.end);
            return Err(Error::io("append to", &active.segment.path)(e));
        }
        active.pending.push(active.end, &frame.header, frame.key(), frame.base(), frame.checksum());
        active.end += len;
        writer.appended += 1;
        self.inner.counters.written_bytes.add(len);
        if let Some(slot) = self.inner.index.write().try_slot_mut(location.slot) {
            (slot.end, slot.len) = (active.end, active.end);
        }
        Ok(location)
    }

    /// Appends the records of a batch, whose timestamps are set, and adds them to the index.
    fn append_batch(&self, writer: &mut Writer, frames: &mut [Frame]) -> Result<(), Error> {
        let len = frames.iter().map(Frame::len).sum();
        self.make_room(writer, len)?;
        let active = writer.active.as_mut().expect("make_room leaves one");
        let mut at = active.end;
        let last = frames.len().saturating_sub(1);
        for (number, frame) in frames.iter_mut().enumerate() {
            (frame.header.follows, frame.header.continues) = (number > 0, number < last);
            frame.write_header(record::location_seed(active.segment.id, at));
            at += frame.len();
        }
        if let Err(e) = write_frames(&active.segment, active.end, frames) {
            let _ = active.segment.truncate(active.end);
            return Err(Error::io("append to", &active.segment.path)(e));
        }
        let mut index = self.inner.index.write();
        for frame in &*frames {
            let location = Location { slot: active.slot, offset: active.end };
            active.pending.push(active.end, &frame.header, frame.key(), frame.base(), frame.checksum());
            active.end += frame.len();
            writer.appended += 1;
            index.apply(location, &RecordInfo::new(&frame.header, frame.key(), frame.base()));
        }
        if let Some(slot) = index.try_slot_mut(active.slot) {
            (slot.end, slot.len) = (active.end, active.end);
        }
        self.inner.counters.written_bytes.add(len);
        Ok(())
    }

    /// Returns [`Error::Full`] if a record does not fit the disk budget.
    pub(crate) fn fits(&self, record_len: u64) -> Result<(), Error> {
        let Some(max) = self.inner.options.disk_bytes_max else { return Ok(()) };
        // The record may start a new segment, seal the old one and add to an index file.
        let needed = record_len + SEGMENT_HEADER_BYTES * 2 + HEADER_BYTES as u64 + INDEX_SHARE_BYTES;
        if self.inner.index.read().disk_bytes() + needed <= max {
            return Ok(());
        }
        Err(Error::Full { path: self.inner.dir.clone(), needed, max })
    }

    /// With a disk budget, refreshes before a new segment is started, so that all processes
    /// together exceed the budget by at most their unsealed segments.
    pub(crate) fn refresh_before_roll(&self, len: u64) -> Result<(), Error> {
        let rolls = |active: &ActiveSegment| !self.has_room(active, len);
        let refresh = self.inner.options.disk_bytes_max.is_some()
            && self.inner.writer.lock().active.as_ref().is_none_or(rolls);
        if refresh { self.refresher.refresh() } else { Ok(()) }
    }

    /// Records in the manifest that the log is open for writing. A copy made meanwhile is compared
    /// with the manifest.
    pub(crate) fn mark_in_use(&self, writer: &mut Writer) {
        if !std::mem::replace(&mut writer.in_use, true) {
            self.inner.manifest.record(&[(manifest::USAGE, manifest::OPENED)]);
        }
    }

    fn has_room(&self, active: &ActiveSegment, len: u64) -> bool {
        let room = self.inner.options.segment_bytes_max.saturating_sub(HEADER_BYTES as u64);
        active.end.saturating_add(len) <= room || active.end == SEGMENT_HEADER_BYTES
    }

    fn make_room(&self, writer: &mut Writer, len: u64) -> Result<(), Error> {
        self.mark_in_use(writer);
        if writer.active.as_ref().is_some_and(|active| self.has_room(active, len)) {
            return Ok(());
        }
        let created = Segment::create(&self.inner.disk, &self.inner.descriptors, &self.inner.dir)?;
        self.inner.manifest.record(&[(created.id, 0)]);
        let mut slot = SegmentSlot::new(created, SEGMENT_HEADER_BYTES);
        slot.own = true;
        writer.retire();
        writer.dir_dirty = true;
        let segment = slot.segment.clone();
        let slot = self.inner.index.write().add(slot);
        let pending = PendingBlock::new(SEGMENT_HEADER_BYTES);
        writer.active = Some(ActiveSegment {
            slot,
            segment,
            end: SEGMENT_HEADER_BYTES,
            pending,
            listed: false,
            table_tried: false,
        });
        Ok(())
    }

    /// Returns a timestamp later than all that this log has seen and all that were acknowledged to
    /// other processes, whatever the clock says. No other log returns the same one.
    ///
    /// The caller has called [`begin_writing`](Self::begin_writing).
    fn next_timestamp(&self, writer: &mut Writer) -> u64 {
        let number = self.inner.writer_number.get().expect("begin_writing comes before every write");
        let seen = writer.timestamp.max(self.inner.index.read().timestamp_max);
        writer.timestamp = self.inner.shared_clock.timestamp(self.inner.options.clock, seen, number);
        writer.timestamp
    }
}

/// Writes records one after the other, beginning at `offset`. Collects small ones, so that there
/// are few calls.
fn write_frames(segment: &Segment, mut offset: u64, frames: &[Frame]) -> io::Result<()> {
    let parts = frames.iter().flat_map(|frame| [frame.bytes.as_slice(), &frame.shared_payload]);
    let mut buffer = Vec::new();
    for part in parts {
        if buffer.len() + part.len() > WRITE_BUFFER_BYTES {
            segment.write_at(&buffer, offset)?;
            offset += buffer.len() as u64;
            buffer.clear();
        }
        if part.len() > WRITE_BUFFER_BYTES {
            segment.write_at(part, offset)?;
            offset += part.len() as u64;
        } else {
            buffer.extend_from_slice(part);
        }
    }
    segment.write_at(&buffer, offset)
}
