//! Gives space back: rewrites segments that are mostly dead, and drops the oldest when a budget says so.
//!
//! A copy keeps its stamp, so it neither wins nor loses against anything that the original would not have. The original is removed only
//! when its copies are on the disk.

use std::sync::Arc;

use crate::Error;
use crate::codec::Frame;
use crate::index::{Entry, Place, SlotId};
use crate::log::{Log, Writer, parse, record_buffer};
use crate::record::{HEADER_BYTES, Header};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};

/// A segment is rewritten when this share of it is dead or more: each byte given back then costs at most one byte written.
const DEAD_PERCENT_MIN: u64 = 50;

/// What [`Log::compact`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Segments removed.
    pub segments: u64,
    /// Bytes that they occupied.
    pub freed_bytes: u64,
    /// Bytes written to keep what was alive in them.
    pub written_bytes: u64,
}

impl Log {
    /// Rewrites the finished segments, of any process, of which at least half is dead. Puts and gets go on meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. Nothing is lost then: a segment goes only after its copies are durable.
    pub fn compact(&self) -> Result<Compacted, Error> {
        let _maintenance = self.maintenance.lock();
        self.refresh_locked()?;
        let mut done = Compacted::default();
        for slot in self.mostly_dead() {
            if let Some(segment) = self.claim(slot) {
                let result = self.rewrite(slot, &segment, &mut done);
                if result.is_err() {
                    self.index.write().slot_mut(slot).busy = false;
                    segment.unlock();
                }
                result?;
            }
        }
        Ok(done)
    }

    fn mostly_dead(&self) -> Vec<SlotId> {
        let index = self.index.read();
        let dead = index.slots().filter(|(_, slot)| {
            let records = slot.len.saturating_sub(SEGMENT_HEADER_BYTES);
            slot.sealed && (records - slot.live_bytes.min(records)) * 100 >= records * DEAD_PERCENT_MIN
        });
        dead.map(|(id, _)| id).collect()
    }

    /// Reserves a finished segment for removal, against other processes and our own budget.
    fn claim(&self, id: SlotId) -> Option<Arc<Segment>> {
        let mut index = self.index.write();
        let slot = index.slot_mut(id);
        let free = slot.sealed && !slot.busy && slot.segment.try_lock();
        if !free {
            return None;
        }
        if slot.segment.is_unlinked() {
            // Another process was faster. What it kept is found by the next refresh.
            index.remove(id);
            return None;
        }
        slot.busy = true;
        Some(slot.segment.clone())
    }

    fn rewrite(&self, slot: SlotId, segment: &Segment, done: &mut Compacted) -> Result<(), Error> {
        let older_elsewhere = self.index.read().stamp_min_outside(slot);
        for (key, entry) in self.entries_in(slot) {
            if entry.tombstone && (!entry.shadows || entry.stamp <= older_elsewhere) {
                self.forget_at(&key, entry.place);
                continue;
            }
            let Some(mut frame) = self.frame(segment, &key, &entry)? else { continue };
            let mut writer = self.writer.lock();
            if self.is_current(&key, entry.place) {
                let to = self.write(&mut writer, &mut frame)?;
                self.index.write().relocate(&key, entry.place, to);
                self.counters.copied_records.add(1);
                done.written_bytes += frame.bytes.len() as u64;
            }
        }
        self.flush()?;
        done.segments += 1;
        done.freed_bytes += self.unlink(slot, segment)?;
        self.writer.lock().dir_dirty = true;
        Ok(())
    }

    /// Drops the segments with the oldest records until at most `target` bytes are used. Called by a put, so the writer is held.
    pub(crate) fn drop_oldest(
        &self,
        writer: &mut Writer,
        target: u64,
        full: impl Fn() -> Error,
    ) -> Result<(), Error> {
        // Tombstones may have to move on from each segment: once around is enough to know that no more can be freed.
        let mut drops_left = self.index.read().slots().count() + 2;
        while self.index.read().disk_bytes() > target {
            drops_left = drops_left.checked_sub(1).ok_or_else(&full)?;
            let oldest = match self.oldest_sealed() {
                Some(oldest) => oldest,
                None if writer.active.as_ref().is_some_and(|active| active.end > SEGMENT_HEADER_BYTES) => {
                    self.seal_active(writer)?;
                    continue;
                }
                None => return Err(full()),
            };
            self.drop_segment(writer, oldest.0, &oldest.1)?;
        }
        Ok(())
    }

    fn oldest_sealed(&self) -> Option<(SlotId, Arc<Segment>)> {
        let mut by_age: Vec<_> = {
            let index = self.index.read();
            let sealed = index.slots().filter(|(_, slot)| slot.sealed && !slot.busy);
            sealed.map(|(id, slot)| (slot.stamp_min, id)).collect()
        };
        by_age.sort_unstable();
        by_age.into_iter().find_map(|(_, id)| Some((id, self.claim(id)?)))
    }

    /// Forgets a segment's values. What would let an older record come back is replaced by a tombstone of the same stamp.
    fn drop_segment(&self, writer: &mut Writer, slot: SlotId, segment: &Segment) -> Result<(), Error> {
        let older_elsewhere = self.index.read().stamp_min_outside(slot);
        let mut dropped = 0;
        for (key, entry) in self.entries_in(slot) {
            dropped += u64::from(!entry.tombstone);
            if entry.shadows && entry.stamp > older_elsewhere {
                let mut frame = Frame::tombstone(&key);
                frame.header.stamp = entry.stamp;
                self.append_unbudgeted(writer, &mut frame)?;
            }
        }
        self.counters.dropped_entries.add(dropped);
        tracing::debug!(path = %segment.path.display(), entries = dropped, "dropped the oldest segment");
        self.unlink(slot, segment)?;
        writer.dir_dirty = true;
        Ok(())
    }

    fn unlink(&self, slot: SlotId, segment: &Segment) -> Result<u64, Error> {
        std::fs::remove_file(&segment.path).map_err(Error::io("remove", &segment.path))?;
        let mut index = self.index.write();
        let len = index.slot(slot).len;
        index.remove(slot);
        Ok(len)
    }

    /// The entries that point into a segment, in the order of the file.
    fn entries_in(&self, slot: SlotId) -> Vec<(Box<[u8]>, Entry)> {
        let index = self.index.read();
        let inside = index.entries.iter().filter(|(_, entry)| entry.place.slot == slot);
        let mut entries: Vec<_> = inside.map(|(key, entry)| (key.clone(), *entry)).collect();
        drop(index);
        entries.sort_unstable_by_key(|(_, entry)| entry.place.offset);
        entries
    }

    fn is_current(&self, key: &[u8], place: Place) -> bool {
        self.index.read().entries.get(key).is_some_and(|entry| entry.place == place)
    }

    /// Takes an entry out of the index, unless the key has moved on.
    pub(crate) fn forget_at(&self, key: &[u8], place: Place) {
        let mut index = self.index.write();
        if index.entries.get(key).is_some_and(|entry| entry.place == place) {
            index.forget(key);
        }
    }

    /// A record ready to be appended elsewhere; `None` if it is damaged, and so a miss already.
    fn frame(&self, segment: &Segment, key: &[u8], entry: &Entry) -> Result<Option<Frame>, Error> {
        let mut bytes = record_buffer(entry, key);
        let read =
            segment.read_at(&mut bytes, entry.place.offset).map_err(Error::io("read", &segment.path))?;
        bytes.truncate(read);
        match parse(segment, entry, key, &bytes) {
            Ok(header) => Ok(Some(reframe(header, key, bytes))),
            Err(reason) => {
                self.report_bad(segment, entry.place.offset, reason);
                Ok(None)
            }
        }
    }
}

fn reframe(header: Header, key: &[u8], bytes: Vec<u8>) -> Frame {
    assert!(bytes.len() >= HEADER_BYTES + key.len());
    Frame { header, bytes }
}
