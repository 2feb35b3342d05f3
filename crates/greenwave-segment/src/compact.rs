//! Gives space back: rewrites segments that are mostly dead, and drops the oldest when a budget says so.
//!
//! A copy keeps its stamp, so it neither wins nor loses against anything that the original would not have. The original is removed only
//! when its copies are on the disk, and nothing else needs what it has.
//!
//! Writing is bounded: rewriting a segment writes no more bytes than it gives back, but for values that another process has stranded (see
//! `rebase.rs`). A shorter chain, which takes more room, is what the rest of that may be spent on.

use std::sync::Arc;

use crate::Error;
use crate::codec::Frame;
use crate::index::{Entry, Item, Slot, SlotId};
use crate::index_file;
use crate::log::Log;
use crate::read::{Location, parse};
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
    /// Rewrites the finished segments, of any process, of which at least half is dead. Puts, gets and refreshes go on meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. Nothing is lost then: a segment goes only after its copies are durable.
    pub fn compact(&self) -> Result<Compacted, Error> {
        let _compacting = self.compacting.lock();
        self.refresh()?;
        // What is full is finished.
        self.flush()?;
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
        let (older_elsewhere, entries) = {
            let index = self.index.read();
            (index.stamp_min_outside(slot), index.entries_in(slot))
        };
        // What is dead in it exceeds what lives by this much.
        let live: u64 = entries.iter().map(Entry::record_len).sum();
        let mut spare = self.index.read().slot(slot).len.saturating_sub(live * 2);
        for entry in entries {
            if entry.tombstone && (!entry.shadows || entry.stamp <= older_elsewhere) {
                self.forget_at(entry.key.as_slice(), entry.place());
                continue;
            }
            let written = self.copy(segment, &entry, spare)?;
            spare -= written.saturating_sub(entry.record_len());
            done.written_bytes += written;
        }
        done.written_bytes += self.copy_dictionaries(slot, segment)?;
        // Before the fence, so that those who wait there need not wait for the disk.
        self.flush()?;
        let mut inside = self.fence.enter()?;
        self.refresh()?;
        if self.relieve()? > 0 {
            self.flush()?;
        }
        inside.mark()?;
        inside.saw();
        // Whoever enters from now on looks again, and relies on nothing in here: removing it may take the file system its time.
        drop(inside);
        done.segments += 1;
        done.freed_bytes += self.unlink(slot, segment)?;
        self.writer.lock().dir_dirty = true;
        Ok(())
    }

    /// Appends a record of another segment, unless its key has moved on; returns the bytes written, which may be `spare` more than before.
    fn copy(&self, segment: &Segment, entry: &Entry, spare: u64) -> Result<u64, Error> {
        let key = entry.key.as_slice();
        let shortened = self.shortened(entry, spare)?;
        let Some(mut frame) = self.frame(segment, key, &Location::of(entry))? else { return Ok(0) };
        let inside = match &shortened {
            Some((shorter, _)) => self.enter_for(shorter)?,
            None => None,
        };
        let mut writer = self.writer.lock();
        if !self.is_current(key, entry.place()) {
            return Ok(0);
        }
        if let Some((shorter, chosen)) = shortened
            && (inside.is_some() || shorter.header.depth() == 0)
            && self.still_holds(&chosen)
        {
            frame = shorter;
            self.counters.rebased_records.add(1);
        }
        let to = self.write(&mut writer, &mut frame)?;
        let item = Item::new(&frame.header, frame.key(), frame.base());
        self.index.write().relocate(entry.place(), to, &item);
        self.counters.copied_records.add(1);
        Ok(frame.bytes.len() as u64)
    }

    fn copy_dictionaries(&self, slot: SlotId, segment: &Segment) -> Result<u64, Error> {
        let dictionaries = self.index.read().dictionaries_in(slot);
        let mut written = 0;
        for (id, location) in dictionaries {
            let key = id.to_le_bytes();
            let Some(mut frame) = self.frame(segment, &key, &location)? else { continue };
            let mut writer = self.writer.lock();
            let to = self.write(&mut writer, &mut frame)?;
            self.index.write().relocate_dictionary(id, to);
            written += frame.bytes.len() as u64;
        }
        Ok(written)
    }

    /// Drops the segments with the oldest records until at most `target` bytes are used.
    pub(crate) fn drop_oldest(&self, target: u64, full: Error) -> Result<(), Error> {
        let _compacting = self.compacting.lock();
        // Tombstones may have to move on from each segment: once around is enough to know that no more can be freed.
        let mut drops_left = self.index.read().slots().count() + 2;
        while self.index.read().disk_bytes() > target {
            let Some(left) = drops_left.checked_sub(1) else { return Err(full) };
            drops_left = left;
            match self.oldest_sealed() {
                Some((slot, segment)) => self.drop_segment(slot, &segment)?,
                None if self.seal_active()? => {}
                None => return Err(full),
            }
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
    fn drop_segment(&self, slot: SlotId, segment: &Segment) -> Result<(), Error> {
        let (older_elsewhere, entries) = {
            let index = self.index.read();
            (index.stamp_min_outside(slot), index.entries_in(slot))
        };
        let mut dropped = 0;
        for entry in entries {
            dropped += u64::from(!entry.tombstone);
            if entry.shadows && entry.stamp > older_elsewhere {
                let mut frame = Frame::tombstone(entry.key.as_slice());
                frame.header.stamp = entry.stamp;
                let mut writer = self.writer.lock();
                if self.is_current(entry.key.as_slice(), entry.place()) {
                    self.append_unbudgeted(&mut writer, &mut frame)?;
                }
            }
        }
        self.copy_dictionaries(slot, segment)?;
        self.counters.dropped_entries.add(dropped);
        tracing::debug!(path = %segment.path.display(), entries = dropped, "dropped the oldest segment");
        self.unlink(slot, segment)?;
        self.writer.lock().dir_dirty = true;
        Ok(())
    }

    fn unlink(&self, slot: SlotId, segment: &Segment) -> Result<u64, Error> {
        std::fs::remove_file(&segment.path).map_err(Error::io("remove", &segment.path))?;
        index_file::remove(&segment.path);
        let mut index = self.index.write();
        let Slot { len, index_len, .. } = *index.slot(slot);
        index.remove(slot);
        Ok(len + index_len)
    }

    /// A record ready to be appended elsewhere; `None` if it is damaged, and so a miss already.
    pub(crate) fn frame(
        &self,
        segment: &Segment,
        key: &[u8],
        location: &Location,
    ) -> Result<Option<Frame>, Error> {
        let mut bytes = location.buffer();
        let offset = location.place.offset;
        let read = segment.read_at(&mut bytes, offset).map_err(Error::io("read", &segment.path))?;
        bytes.truncate(read);
        match parse(segment, offset, key, &bytes) {
            Ok(header) => Ok(Some(Frame { header, bytes })),
            Err(reason) => {
                self.report_bad(segment, offset, reason);
                Ok(None)
            }
        }
    }
}
