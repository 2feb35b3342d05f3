//! Appending records and making them durable.

use std::sync::Arc;

use crate::Error;
use crate::codec::Frame;
use crate::entry::{Location, RecordInfo, SlotId};
use crate::error::unless_gone;
use crate::format::SEGMENT_HEADER_BYTES;
use crate::index::SegmentSlot;
use crate::index_file::Pending;
use crate::inner::Inner;
use crate::inner::TIMESTAMP_RESIDUES;
use crate::manifest;
use crate::record::{self, HEADER_BYTES, Header, Kind};
use crate::refresh::Refresher;
use crate::segment::Segment;
use crate::writer::{ActiveSegment, FlushWork, Writer};

/// What a record takes in the index file, besides its key.
const INDEX_SHARE_BYTES: u64 = 128;

/// Appends records to the active segment and flushes them.
#[derive(Clone, Copy)]
pub(crate) struct Appender<'a> {
    inner: &'a Inner,
}

impl<'a> Appender<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner }
    }

    /// Returns once everything put and removed before is on the disk. Callers that meet here share one sync.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. From then on every flush fails: what the disk has can no longer be known, and the log should be reopened.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        let target = self.inner.writer.lock().appended;
        let mut synced = self.inner.synced.lock();
        if synced.failed {
            return Err(Error::io("sync", &self.inner.dir)(std::io::Error::other("an earlier sync failed")));
        }
        if synced.appended >= target && self.inner.writer.lock().retired.is_empty() {
            return Ok(());
        }
        let due = self.inner.writer.lock().due();
        let appended = due.appended;
        let result = self.sync_due(due);
        match &result {
            Ok(()) => synced.appended = appended,
            Err(_) => synced.failed = true,
        }
        result
    }

    /// Flushes when too much waits for it. A failure is no failure of the put that came across it: the next flush reports it.
    pub(crate) fn flush_if(&self, overdue: bool) {
        if overdue && let Err(error) = self.flush() {
            tracing::warn!(%error, "cannot flush what has been waiting");
        }
    }

    /// Like [`flush`](Self::flush), and also makes durable what other processes wrote and this log has taken in: for whoever is about to
    /// remove values that only records of others have made superfluous.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. What other processes wrote may then not be durable.
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
            // One that is gone was copied, and the copies synced, before it was removed.
            unless_gone(segment.sync())?;
        }
        self.flush()
    }

    fn sync_due(&self, due: FlushWork) -> Result<(), Error> {
        // First, since an index file whose segment has no name any more says that flushed records were lost.
        if due.dir_dirty {
            self.inner.sync_dir()?;
        }
        for retired in due.retired {
            self.seal(&retired)?;
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

    /// Ends a full segment: everything in it is on the disk before the seal says so.
    pub(crate) fn seal(&self, retired: &ActiveSegment) -> Result<(), Error> {
        let ActiveSegment { slot, segment, end, pending, .. } = retired;
        segment.sync()?;
        self.inner.manifest.record(&[(segment.id, *end)]);
        self.write_index_block(*slot, segment, pending);
        let mut seal = Header::empty(Kind::Seal, &[]);
        seal.payload_hash = 0;
        let bytes = seal.encode(record::location_seed(segment.id, *end), &[]);
        segment.write_at(&bytes, *end).map_err(Error::io("seal", &segment.path))?;
        segment.unlock();
        self.inner.counters.written_bytes.add(bytes.len() as u64);
        if let Some(slot) = self.inner.index.write().try_slot_mut(*slot) {
            slot.sealed = true;
            slot.len = end + bytes.len() as u64;
            slot.end = slot.len;
        }
        Ok(())
    }

    /// Ends the active segment, if it has a record.
    pub(crate) fn seal_active(&self) -> Result<bool, Error> {
        let mut writer = self.inner.writer.lock();
        let worth = writer.active.as_ref().is_some_and(|active| active.end > SEGMENT_HEADER_BYTES);
        if worth {
            writer.retire();
        }
        drop(writer);
        if worth {
            self.flush()?;
        }
        Ok(worth)
    }

    /// Adds to a segment's index file what is on the disk. Only a shortcut, so a failure costs time on opening and nothing else; but no block
    /// may follow one that is missing, which each block's beginning sees to.
    fn write_index_block(&self, slot: SlotId, segment: &Segment, pending: &Pending) {
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
            Err(error) => tracing::warn!(%error, "opening will have to read a segment"),
        }
    }

    /// Brings to the disk what other processes have appended to segments that they have not finished, as far as the index has
    /// it, and the names of all segments: what compaction is about to drop may be superseded by nothing else.
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

    /// Appends a record that is no value, within the budget.
    pub(crate) fn append(&self, frame: &mut Frame) -> Result<(), Error> {
        self.fits(frame.bytes.len() as u64)?;
        let mut writer = self.inner.writer.lock();
        frame.header.timestamp = self.next_timestamp(&mut writer);
        self.append_unbudgeted(&mut writer, frame)
    }

    /// Appends a record, its stamp given, and enters it into the index.
    pub(crate) fn append_unbudgeted(&self, writer: &mut Writer, frame: &mut Frame) -> Result<(), Error> {
        let location = self.append_unindexed(writer, frame)?;
        self.inner.index.write().apply(location, &RecordInfo::new(&frame.header, frame.key(), frame.base()));
        Ok(())
    }

    /// Writes a record to the active segment or a new one. The index hears of the bytes, not yet of the key.
    pub(crate) fn append_unindexed(&self, writer: &mut Writer, frame: &mut Frame) -> Result<Location, Error> {
        let len = frame.bytes.len() as u64;
        self.make_room(writer, len)?;
        let active = writer.active.as_mut().expect("make_room leaves one");
        let location = Location { slot: active.slot, offset: active.end };
        frame.write_header(record::location_seed(active.segment.id, active.end));
        if let Err(e) = active.segment.write_at(&frame.bytes, active.end) {
            // Half a record would be stepped over anyway; cutting it off gives the space back.
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

    /// Appends records that count together or not at all, their stamps given, and enters them into the index.
    pub(crate) fn append_batch(&self, writer: &mut Writer, frames: &mut [Frame]) -> Result<(), Error> {
        let len = frames.iter().map(|frame| frame.bytes.len() as u64).sum();
        self.make_room(writer, len)?;
        let active = writer.active.as_mut().expect("make_room leaves one");
        let start = active.end;
        let mut bytes = Vec::with_capacity(usize::try_from(len).expect("checked against BATCH_BYTES_MAX"));
        let last = frames.len().saturating_sub(1);
        for (number, frame) in frames.iter_mut().enumerate() {
            (frame.header.follows, frame.header.continues) = (number > 0, number < last);
            frame.write_header(record::location_seed(active.segment.id, start + bytes.len() as u64));
            bytes.extend_from_slice(&frame.bytes);
        }
        if let Err(e) = active.segment.write_at(&bytes, start) {
            let _ = active.segment.truncate(start);
            return Err(Error::io("append to", &active.segment.path)(e));
        }
        let mut index = self.inner.index.write();
        for frame in &*frames {
            let location = Location { slot: active.slot, offset: active.end };
            active.pending.push(active.end, &frame.header, frame.key(), frame.base(), frame.checksum());
            active.end += frame.bytes.len() as u64;
            writer.appended += 1;
            index.apply(location, &RecordInfo::new(&frame.header, frame.key(), frame.base()));
        }
        if let Some(slot) = index.try_slot_mut(active.slot) {
            (slot.end, slot.len) = (active.end, active.end);
        }
        self.inner.counters.written_bytes.add(len);
        Ok(())
    }

    /// Whether a record fits the disk budget; if not, the error that says so.
    pub(crate) fn fits(&self, record_len: u64) -> Result<(), Error> {
        let Some(max) = self.inner.options.disk_bytes_max else { return Ok(()) };
        // A new segment, the old one's seal and its share of an index file may come on top.
        let needed = record_len + SEGMENT_HEADER_BYTES * 2 + HEADER_BYTES as u64 + INDEX_SHARE_BYTES;
        if self.inner.index.read().disk_bytes() + needed <= max {
            return Ok(());
        }
        Err(Error::Full { path: self.inner.dir.clone(), needed, max })
    }

    /// With a disk budget, looks at what other processes have written before a new segment is begun, so that together they exceed it by
    /// their unfinished segments at most.
    pub(crate) fn refresh_before_roll(&self, len: u64) -> Result<(), Error> {
        let rolls = |active: &ActiveSegment| !self.has_room(active, len);
        let refresh = self.inner.options.disk_bytes_max.is_some()
            && self.inner.writer.lock().active.as_ref().is_none_or(rolls);
        if refresh { Refresher::new(self.inner).refresh() } else { Ok(()) }
    }

    /// Has the manifest say that the directory is being changed, so that a copy that is made meanwhile is looked at more closely.
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
        let pending = Pending::new(SEGMENT_HEADER_BYTES);
        writer.active =
            Some(ActiveSegment { slot, segment, end: SEGMENT_HEADER_BYTES, pending, listed: false });
        Ok(())
    }

    /// Later than every stamp seen so far, and every one that was acknowledged to another process, whatever the clock says. Where the
    /// clock is behind, two processes that have seen the same must not go on with the same stamp: beside others, each takes stamps of
    /// its own residue.
    pub(crate) fn next_timestamp(&self, writer: &mut Writer) -> u64 {
        let index = self.inner.index.read();
        let seen = writer.timestamp.max(index.timestamp_max);
        let now = (self.inner.options.clock)();
        let own = if now > seen {
            now
        } else if index.slots().all(|(_, slot)| slot.own) {
            seen.saturating_add(1)
        } else {
            let next = seen - seen % TIMESTAMP_RESIDUES + self.inner.timestamp_residue;
            if next > seen { next } else { next.saturating_add(TIMESTAMP_RESIDUES) }
        };
        drop(index);
        writer.timestamp = self.inner.shared_clock.timestamp(now, own);
        writer.timestamp
    }
}
