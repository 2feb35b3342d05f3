//! Gives space back: rewrites segments that are mostly dead, and drops the oldest when a budget says so.
//!
//! One process at a time does so, holding the lock of `turn.rs`, so its index has every record that exists. A copy keeps its
//! stamp, so it neither wins nor loses against anything that the original would not have, and has the next generation, so every
//! reader prefers it to the original. The original is removed only when what supersedes it is on the disk: its copies, and
//! newer records of any process.
//!
//! Writing is bounded: rewriting a segment writes no more bytes than it gives back, except for values that another process has
//! stranded (see `rebase.rs`). A shorter chain, which takes more room, is what the rest of that may be spent on.

use crate::Error;
use crate::codec::Frame;
use crate::index::{Entry, Item, SlotId};
use crate::index_file;
use crate::log::Log;
use crate::manifest::REMOVED;
use crate::read::{Location, parse};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::turn::Turn;

/// A segment is rewritten when this share of it is dead or more: each byte given back then costs at most one byte written.
const DEAD_PERCENT_MIN: u64 = 50;

/// Segments are rewritten and removed in steps of at most as many bytes as this many full segments, or this many bytes, whichever is more.
const STEP_SEGMENTS: u64 = 4;
const STEP_BYTES_MIN: u64 = 1 << 20;
/// And of at most this many segments.
const STEP_VICTIMS_MAX: usize = 256;

/// What [`Log::compact`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionStats {
    /// Segments removed.
    pub segments: u64,
    /// Bytes that they occupied.
    pub freed_bytes: u64,
    /// Bytes written to keep what was alive in them.
    pub written_bytes: u64,
}

impl Log {
    /// Rewrites the finished segments, of any process, of which at least half is dead. Puts, gets and refreshes go on meanwhile.
    /// Does nothing while another process is compacting.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]. Nothing is lost then: a segment goes only after its copies are durable.
    pub fn compact(&self) -> Result<CompactionStats, Error> {
        self.check_writable()?;
        let _compacting = self.compacting.lock();
        match self.compaction_lock.try_take()? {
            Some(turn) => self.compact_in(&turn),
            None => Ok(CompactionStats::default()),
        }
    }

    /// Like [`compact`](Self::compact), but waits while another process is compacting.
    pub(crate) fn compact_waiting(&self) -> Result<CompactionStats, Error> {
        let _compacting = self.compacting.lock();
        self.compact_in(&self.compaction_lock.take()?)
    }

    fn compact_in(&self, _turn: &Turn) -> Result<CompactionStats, Error> {
        self.refresh()?;
        // What is full is finished.
        self.flush()?;
        self.seal_abandoned(|slot| is_mostly_dead(slot.len, slot.live_bytes))?;
        let mut done = CompactionStats::default();
        let victims = self.mostly_dead();
        if !victims.is_empty() {
            // A power cut that kept some of the copies must not lose the originals: those of a batch count together only there.
            self.sync_dir()?;
        }
        let mut left = &victims[..];
        while !left.is_empty() {
            let (some, rest) = left.split_at(self.at_once(left));
            self.rewrite(some, &mut done)?;
            left = rest;
        }
        Ok(done)
    }

    fn mostly_dead(&self) -> Vec<SlotId> {
        let index = self.index.read();
        let dead = index
            .slots()
            .filter(|(_, slot)| slot.orphan || slot.sealed && is_mostly_dead(slot.len, slot.live_bytes));
        dead.map(|(id, _)| id).collect()
    }

    /// How many of these segments to rewrite before any is removed: each such step waits for the disk a few times, and needs room
    /// for what it copies.
    fn at_once(&self, victims: &[SlotId]) -> usize {
        let bytes_max = self.options.segment_bytes_max.saturating_mul(STEP_SEGMENTS).max(STEP_BYTES_MIN);
        let index = self.index.read();
        let mut bytes = 0;
        let fitting = victims.iter().take_while(|slot| {
            bytes += index.try_slot(**slot).map_or(0, |slot| slot.len);
            bytes <= bytes_max
        });
        fitting.count().clamp(1, STEP_VICTIMS_MAX.min(victims.len()))
    }

    /// Copies what lives in sealed segments, and removes them.
    ///
    /// The index may have read a removal in one of them without the older value, which was appended to a segment that was read a moment
    /// earlier. So all segments are looked at again first: whatever was there before a record of a sealed one is known then, and a
    /// tombstone that hides nothing known hides nothing.
    fn rewrite(&self, victims: &[SlotId], done: &mut CompactionStats) -> Result<(), Error> {
        self.refresh()?;
        let mut moved = Vec::new();
        let result =
            self.move_all(victims, &mut moved, done).and_then(|()| self.remove_rewritten(victims, done));
        if result.is_err() {
            // The originals stay, and would come back if only the copies were forgotten.
            let mut index = self.index.write();
            moved.iter().for_each(|key: &Vec<u8>| index.shadow(key));
        }
        result
    }

    /// Copies what lives in segments to our own; `moved` gets the keys.
    fn move_all(
        &self,
        victims: &[SlotId],
        moved: &mut Vec<Vec<u8>>,
        done: &mut CompactionStats,
    ) -> Result<(), Error> {
        for slot in victims {
            let (segment, older_elsewhere, entries, len) = {
                let index = self.index.read();
                let Some(found) = index.try_slot(*slot) else { continue };
                (found.segment.clone(), index.stamp_min_outside(*slot), index.entries_in(*slot), found.len)
            };
            moved.extend(entries.iter().map(|entry| entry.key.as_slice().to_vec()));
            self.move_entries(*slot, &segment, &entries, older_elsewhere, len, done)?;
        }
        Ok(())
    }

    /// Copies what lives in a segment to our own.
    fn move_entries(
        &self,
        slot: SlotId,
        segment: &Segment,
        entries: &[Entry],
        older_elsewhere: u64,
        len: u64,
        done: &mut CompactionStats,
    ) -> Result<(), Error> {
        // What is dead in it exceeds what lives by this much.
        let live: u64 = entries.iter().map(Entry::record_len).sum();
        let mut spare = len.saturating_sub(live * 2);
        for entry in entries {
            let written = if entry.tombstone {
                self.move_tombstone(entry, older_elsewhere)?
            } else {
                self.copy(segment, entry, older_elsewhere, spare)?
            };
            spare -= written.saturating_sub(entry.record_len()).min(spare);
            done.written_bytes += written;
        }
        done.written_bytes += self.copy_dictionaries(slot, segment)?;
        Ok(())
    }

    /// Removes segments whose living records have been copied.
    fn remove_rewritten(&self, victims: &[SlotId], done: &mut CompactionStats) -> Result<(), Error> {
        // Before the fence, so that those who wait there need not wait for the disk.
        self.flush()?;
        self.sync_others()?;
        let mut inside = self.fence.enter()?;
        self.refresh()?;
        if self.relieve()? > 0 {
            self.flush()?;
        }
        inside.mark()?;
        inside.saw();
        // Whoever enters from now on looks again, and relies on nothing in here: removing it may take the file system its time.
        drop(inside);
        for slot in victims {
            let segment = self.index.read().try_slot(*slot).map(|slot| slot.segment.clone());
            let Some(segment) = segment else { continue };
            done.freed_bytes += self.unlink(*slot, &segment)?;
            done.segments += 1;
        }
        Ok(())
    }

    /// Appends a tombstone, for a key that was removed or whose newest value is lost, if an older record may stand in another
    /// segment; returns the bytes written.
    fn move_tombstone(&self, entry: &Entry, older_elsewhere: u64) -> Result<u64, Error> {
        let key = entry.key.as_slice();
        let mut writer = self.writer.lock();
        if !self.is_current(key, entry.place()) {
            return Ok(0);
        }
        if !entry.shadows || entry.stamp <= older_elsewhere {
            self.forget_at(key, entry.place());
            return Ok(0);
        }
        let mut frame = Frame::tombstone(key);
        frame.header.stamp = entry.stamp;
        frame.header.generation = entry.generation;
        frame.header = frame.header.copied();
        let to = self.append_unindexed(&mut writer, &mut frame)?;
        self.index.write().relocate(entry.place(), to, &Item::new(&frame.header, key, &[]));
        Ok(frame.bytes.len() as u64)
    }

    /// Appends a record of another segment, unless its key has moved on; returns the bytes written, which may be `spare` more than before.
    fn copy(&self, segment: &Segment, entry: &Entry, older_elsewhere: u64, spare: u64) -> Result<u64, Error> {
        let key = entry.key.as_slice();
        let shortened = self.shortened(entry, spare)?;
        let Some(mut frame) = self.frame(segment, key, &Location::of(entry))? else {
            // Damaged. The key has no value from now on, and an older one must not come back.
            self.index.write().lose(key, entry.place());
            return self.move_tombstone(entry, older_elsewhere);
        };
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
        frame.header.generation = entry.generation;
        frame.header = frame.header.copied();
        let to = self.append_unindexed(&mut writer, &mut frame)?;
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
            frame.header = frame.header.copied();
            let mut writer = self.writer.lock();
            let to = self.append_unindexed(&mut writer, &mut frame)?;
            self.index.write().relocate_dictionary(id, to);
            written += frame.bytes.len() as u64;
        }
        Ok(written)
    }

    /// Drops the segments with the oldest records until at most `target` bytes are used.
    pub(crate) fn drop_oldest(&self, target: u64, full: Error) -> Result<(), Error> {
        let _compacting = self.compacting.lock();
        let _turn = self.compaction_lock.take()?;
        self.refresh()?;
        // Tombstones may have to move on from each segment: once around is enough to know that no more can be freed.
        let mut drops_left = self.index.read().slots().count() + 2;
        while self.index.read().disk_bytes() > target {
            let Some(left) = drops_left.checked_sub(1) else { return Err(full) };
            drops_left = left;
            match self.oldest_sealed() {
                Some(slot) => self.drop_segment(slot)?,
                None if self.seal_active()? || self.seal_abandoned(|_| true)? > 0 => {}
                None => return Err(full),
            }
        }
        Ok(())
    }

    fn oldest_sealed(&self) -> Option<SlotId> {
        let index = self.index.read();
        let sealed = index.slots().filter(|(_, slot)| slot.sealed);
        sealed.min_by_key(|(id, slot)| (slot.stamp_min, *id)).map(|(id, _)| id)
    }

    /// Forgets a segment's values. What would let an older record come back is replaced by a tombstone of the same stamp. As in
    /// [`rewrite`](Self::rewrite), all older records have to be known.
    fn drop_segment(&self, slot: SlotId) -> Result<(), Error> {
        self.refresh()?;
        let (segment, older_elsewhere, entries) = {
            let index = self.index.read();
            let Some(found) = index.try_slot(slot) else { return Ok(()) };
            (found.segment.clone(), index.stamp_min_outside(slot), index.entries_in(slot))
        };
        let mut dropped = 0;
        for entry in &entries {
            dropped += u64::from(!entry.tombstone);
            self.move_tombstone(entry, older_elsewhere)?;
        }
        self.copy_dictionaries(slot, &segment)?;
        self.flush()?;
        self.sync_others()?;
        self.counters.dropped_entries.add(dropped);
        tracing::debug!(path = %segment.path.display(), entries = dropped, "dropped the oldest segment");
        self.unlink(slot, &segment)?;
        Ok(())
    }

    /// Removes a segment's files, the index file first: one without its segment means that the segment was lost.
    fn unlink(&self, slot: SlotId, segment: &Segment) -> Result<u64, Error> {
        self.announce(segment.id);
        index_file::remove(&self.disk, &segment.path);
        match self.disk.remove(&segment.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &segment.path)(error));
            }
            _ => {}
        }
        let freed = self.index.read().try_slot(slot).map_or(0, |slot| slot.len + slot.index_len);
        self.writer.lock().dir_dirty = true;
        self.forget_gone(&[slot])?;
        Ok(freed)
    }

    /// Has the manifest say that a segment is gone, and how long those are that hold what was worth keeping: all that may still grow,
    /// as far as they are on the disk.
    fn announce(&self, gone: u64) {
        self.mark_in_use(&mut self.writer.lock());
        let mut entries: Vec<(u64, u64)> = {
            let index = self.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.sealed && !slot.orphan);
            open.map(|(_, slot)| (slot.segment.id, slot.synced)).collect()
        };
        entries.push((gone, REMOVED));
        self.manifest.enter(&entries);
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
        match segment.read_at(&mut bytes, offset) {
            Ok(read) => bytes.truncate(read),
            // The segment is gone, and its records with it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bytes.clear(),
            Err(error) => return Err(Error::io("read", &segment.path)(error)),
        }
        match parse(segment, offset, key, &bytes) {
            Ok(header) => Ok(Some(Frame { header, bytes })),
            Err(reason) => {
                self.report_bad(segment, offset, reason);
                Ok(None)
            }
        }
    }
}

/// Whether at least half of a segment's records is dead.
fn is_mostly_dead(len: u64, live_bytes: u64) -> bool {
    let records = len.saturating_sub(SEGMENT_HEADER_BYTES);
    (records - live_bytes.min(records)) * 100 >= records * DEAD_PERCENT_MIN
}
