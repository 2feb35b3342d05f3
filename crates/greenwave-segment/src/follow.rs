//! Opening and refreshing: finds segments, reads what is new in them, adopts one that nobody writes any more.

use std::collections::HashMap;

use crate::Error;
use crate::index::{Bulk, Place, Slot, SlotId};
use crate::index_file::{IndexFile, Pending};
use crate::log::{Active, Log};
use crate::recover::{self, Found, Payloads};
use crate::segment::{self, SEGMENT_HEADER_BYTES, Segment};

/// Other processes compact while we look. Each pass sees a later state; this many suffice unless something is badly wrong.
const PASSES_MAX: usize = 8;

/// Segments that are looked at in less time than it takes to have another thread do it.
const QUICK_SEGMENTS_MAX: usize = 16;

/// What a record takes in an index file whose key is a hash with a byte before it. Only a guess of how many there are.
const TYPICAL_ITEM_BYTES: usize = 72;

/// What looking at the directory found.
struct Seen {
    new: Vec<u64>,
    grown: Vec<SlotId>,
    /// With their ids, since a place may be used again before we come to it.
    gone: Vec<(SlotId, u64)>,
}

impl Log {
    /// Takes in what other processes wrote and removed since the last call. Costs a directory listing and a look at each of their
    /// unfinished segments when nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::NewerFormat`] when one of them runs a later version.
    pub fn refresh(&self) -> Result<(), Error> {
        let _following = self.following.lock();
        for _ in 0..PASSES_MAX {
            let seen = self.look()?;
            let mut vanished = false;
            for id in seen.new {
                match self.open_segment(id)? {
                    Some((segment, len)) if len >= SEGMENT_HEADER_BYTES => {
                        self.enter(segment, len, Role::Reader)?;
                    }
                    // Just created, its header not yet written: the next refresh sees it.
                    Some(_) => {}
                    None => vanished = true,
                }
            }
            for slot in seen.grown {
                self.read_on(slot, Payloads::Trust, |_| ())?;
            }
            // Only now: whoever removed these wrote what was worth keeping elsewhere first, and we have read it.
            for (slot, id) in seen.gone {
                self.index.write().remove_segment(slot, id);
            }
            if !vanished {
                break;
            }
        }
        Ok(())
    }

    /// Whether other processes have written or removed nothing since the last [`refresh`](Self::refresh), as far as that can be told in some microseconds:
    /// `false` also where there are many segments, or somebody is just refreshing.
    pub fn is_fresh(&self) -> bool {
        let Some(_following) = self.following.try_lock() else { return false };
        if self.index.read().slots().nth(QUICK_SEGMENTS_MAX).is_some() {
            return false;
        }
        let Ok(seen) = self.look() else { return false };
        let index = self.index.read();
        let has_grown = |slot: &SlotId| {
            let slot = index.slot(*slot);
            slot.segment.len().map_or(true, |len| len != slot.len)
        };
        seen.new.is_empty() && seen.gone.is_empty() && !seen.grown.iter().any(has_grown)
    }

    /// The first look, which also takes over what a dead process left.
    pub(crate) fn recover(&self) -> Result<(), Error> {
        segment::remove_orphans(&self.dir)?;
        self.index.write().reserve(segment::index_files_bytes(&self.dir)? / TYPICAL_ITEM_BYTES);
        let mut adopted: Option<(SlotId, u64, Pending)> = None;
        for id in self.look()?.new {
            let Some((segment, len)) = self.open_segment(id)? else { continue };
            let ours = segment.writable && !recover::is_sealed(&segment, len)? && segment.try_lock();
            if !ours || segment.is_unlinked() {
                if len >= SEGMENT_HEADER_BYTES {
                    self.enter(segment, len, Role::Reader)?;
                }
                continue;
            }
            if let Some(found) = self.take_over(segment)? {
                // Write on in the fullest: it will be sealed soonest.
                let (best, loser) = match adopted {
                    Some(other) if other.1 >= found.1 => (other, Some(found)),
                    other => (found, other),
                };
                loser.iter().for_each(|(slot, ..)| self.index.read().slot(*slot).segment.unlock());
                adopted = Some(best);
            }
        }
        if let Some((slot, end, pending)) = adopted {
            let mut writer = self.writer.lock();
            let mut index = self.index.write();
            index.slot_mut(slot).own = true;
            let segment = index.slot(slot).segment.clone();
            writer.active = Some(Active { slot, segment, end, pending });
        }
        // A segment that vanished while we looked has its records in another one by now.
        self.refresh()
    }

    /// Recovers a segment whose lock we hold. Returns where to write on, if it is fit for that; else it is unlocked.
    fn take_over(&self, segment: Segment) -> Result<Option<(SlotId, u64, Pending)>, Error> {
        let mut len = segment.len()?;
        if len < SEGMENT_HEADER_BYTES {
            segment.truncate(0)?;
            segment.write_header()?;
            len = SEGMENT_HEADER_BYTES;
        }
        let whole = segment.check_header()?;
        let (slot, pending) = self.enter(segment, len, Role::Heir)?;
        let index = self.index.read();
        let Slot { segment, end, sealed, .. } = index.slot(slot);
        if *sealed || !whole || *end >= self.options.segment_bytes_max {
            segment.unlock();
            return Ok(None);
        }
        let (segment, end) = (segment.clone(), *end);
        drop(index);
        if end < len {
            tracing::warn!(path = %segment.path.display(), offset = end, bytes = len - end, "cutting off a torn tail");
            segment.truncate(end)?;
            self.counters.torn_bytes.add(len - end);
            self.index.write().slot_mut(slot).len = end;
        }
        Ok(Some((slot, end, pending)))
    }

    /// Compares the directory with the index. Holds the writer so that a segment of our own cannot appear in between.
    fn look(&self) -> Result<Seen, Error> {
        let writer = self.writer.lock();
        let ids = segment::list(&self.dir)?;
        let index = self.index.read();
        drop(writer);
        let mut known: HashMap<u64, (SlotId, &Slot)> =
            index.slots().map(|(id, slot)| (slot.segment.id, (id, slot))).collect();
        let mut seen = Seen { new: Vec::new(), grown: Vec::new(), gone: Vec::new() };
        for id in ids {
            match known.remove(&id) {
                None => seen.new.push(id),
                Some((_, slot)) if slot.own || slot.sealed => {}
                Some((slot, _)) => seen.grown.push(slot),
            }
        }
        let gone = known.into_iter().filter(|(_, (_, slot))| !slot.own || slot.sealed);
        seen.gone = gone.map(|(id, (slot, _))| (slot, id)).collect();
        Ok(seen)
    }

    fn open_segment(&self, id: u64) -> Result<Option<(Segment, u64)>, Error> {
        let Some(segment) = Segment::open(&self.dir, id)? else { return Ok(None) };
        let len = segment.len()?;
        Ok(Some((segment, len)))
    }

    /// Reads a segment that the index does not know yet: its index file as far as that reaches, then its records. Returns what the index
    /// file does not cover.
    fn enter(&self, segment: Segment, len: u64, role: Role) -> Result<(SlotId, Pending), Error> {
        if !segment.check_header()? {
            self.report_bad(&segment, 0, "the segment's header is damaged");
        }
        let mut file = IndexFile::open(&segment, len)?;
        let slot = Slot::new(segment, len);
        let segment = slot.segment.clone();
        let slot = self.index.write().add(slot);
        if let Some(file) = &mut file {
            let mut index = self.index.write();
            let mut bulk = Bulk::default();
            let read = loop {
                match file.next_block(&segment) {
                    Ok(Some(items)) => index.apply_bulk(&mut bulk, slot, items),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            index.finish(&mut bulk);
            read?;
        }
        if role == Role::Heir {
            IndexFile::mend(&segment, file.as_ref())?;
        }
        let mark = file.map_or(SEGMENT_HEADER_BYTES, |file| {
            let mut index = self.index.write();
            let slot = index.slot_mut(slot);
            (slot.end, slot.index_len) = (file.mark, file.len);
            file.mark
        });
        let mut pending = Pending::new(mark);
        match role {
            Role::Reader => self.read_on(slot, Payloads::Trust, |_| ())?,
            Role::Heir => self.read_on(slot, Payloads::Verify, |found| {
                pending.push(found.offset, &found.header, found.key.as_slice(), found.base(), found.checksum);
            })?,
        }
        Ok((slot, pending))
    }

    /// Reads a segment from where we stopped.
    fn read_on(
        &self,
        slot: SlotId,
        payloads: Payloads,
        mut on_record: impl FnMut(&Found),
    ) -> Result<(), Error> {
        let (segment, mut from) = {
            let index = self.index.read();
            let slot = index.slot(slot);
            (slot.segment.clone(), slot.end)
        };
        let len = segment.len()?;
        if len < from {
            // Cut off behind what we believed good. Entries beyond miss when read; start again for the rest.
            from = SEGMENT_HEADER_BYTES;
        }
        let mut found: Vec<Found> = Vec::new();
        let scan = recover::scan(&segment, from, len, payloads, |record| found.push(record))?;
        if scan.damaged > 0 {
            self.counters.bad_records.add(scan.damaged);
            tracing::warn!(path = %segment.path.display(), places = scan.damaged, "stepped over damaged records");
        }
        let mut index = self.index.write();
        for found in &found {
            on_record(found);
            index.apply(Place { slot, offset: found.offset }, &found.item());
        }
        let slot = index.slot_mut(slot);
        (slot.end, slot.len, slot.sealed) = (scan.end, len, scan.sealed);
        Ok(())
    }
}

/// As what a segment is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Somebody else writes it, or nobody any more.
    Reader,
    /// Its writer died, and we hold its lock.
    Heir,
}
