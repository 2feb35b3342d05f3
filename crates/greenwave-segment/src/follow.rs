//! Opening and refreshing: finds segments, reads what is new in them, adopts one that nobody writes any more.

use std::collections::HashMap;

use crate::Error;
use crate::index::{Place, Slot, SlotId};
use crate::log::{Active, Log};
use crate::recover::{self, Found, Payloads};
use crate::segment::{self, SEGMENT_HEADER_BYTES, Segment};

/// Other processes compact while we look. Each pass sees a later state; this many suffice unless something is badly wrong.
const PASSES_MAX: usize = 8;

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
        let _maintenance = self.maintenance.lock();
        self.refresh_locked()
    }

    pub(crate) fn refresh_locked(&self) -> Result<(), Error> {
        for _ in 0..PASSES_MAX {
            let seen = self.look()?;
            let mut vanished = false;
            for id in seen.new {
                match self.open_segment(id)? {
                    Some((segment, len)) if len >= SEGMENT_HEADER_BYTES => {
                        self.enter(segment, len, Payloads::Trust)?;
                    }
                    // Just created, its header not yet written: the next refresh sees it.
                    Some(_) => {}
                    None => vanished = true,
                }
            }
            for slot in seen.grown {
                self.read_on(slot, Payloads::Trust)?;
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

    /// The first look, which also takes over what a dead process left.
    pub(crate) fn recover(&self) -> Result<(), Error> {
        let mut adopted: Option<(SlotId, u64)> = None;
        for id in self.look()?.new {
            let Some((segment, len)) = self.open_segment(id)? else { continue };
            let ours = segment.writable && !recover::is_sealed(&segment, len)? && segment.try_lock();
            if !ours || segment.is_unlinked() {
                if len >= SEGMENT_HEADER_BYTES {
                    self.enter(segment, len, Payloads::Trust)?;
                }
                continue;
            }
            if let Some((slot, end)) = self.take_over(segment)? {
                // Write on in the fullest: it will be sealed soonest.
                let best = adopted.filter(|(_, other)| *other >= end).unwrap_or((slot, end));
                let loser = if best.0 == slot { adopted.map(|(slot, _)| slot) } else { Some(slot) };
                loser.into_iter().for_each(|slot| self.index.read().slot(slot).segment.unlock());
                adopted = Some(best);
            }
        }
        if let Some((slot, end)) = adopted {
            let mut writer = self.writer.lock();
            let mut index = self.index.write();
            index.slot_mut(slot).own = true;
            let segment = index.slot(slot).segment.clone();
            writer.active = Some(Active { slot, segment, end });
        }
        // A segment that vanished while we looked has its records in another one by now.
        self.refresh_locked()
    }

    /// Recovers a segment whose lock we hold. Returns where to write on, if it is fit for that; else it is unlocked.
    fn take_over(&self, segment: Segment) -> Result<Option<(SlotId, u64)>, Error> {
        let mut len = segment.len()?;
        if len < SEGMENT_HEADER_BYTES {
            segment.truncate(0)?;
            segment.write_header()?;
            len = SEGMENT_HEADER_BYTES;
        }
        let whole = segment.check_header()?;
        let slot = self.enter(segment, len, Payloads::Verify)?;
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
        Ok(Some((slot, end)))
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

    /// Reads a segment that the index does not know yet.
    fn enter(&self, segment: Segment, len: u64, payloads: Payloads) -> Result<SlotId, Error> {
        if !segment.check_header()? {
            self.report_bad(&segment, 0, "the segment's header is damaged");
        }
        let slot = self.index.write().add(Slot::new(segment, len));
        self.read_on(slot, payloads)?;
        Ok(slot)
    }

    /// Reads a segment from where we stopped.
    fn read_on(&self, slot: SlotId, payloads: Payloads) -> Result<(), Error> {
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
        for Found { offset, header, key } in found {
            index.apply(Place { slot, offset }, &header, &key);
        }
        let slot = index.slot_mut(slot);
        (slot.end, slot.len, slot.sealed) = (scan.end, len, scan.sealed);
        Ok(())
    }
}
