//! Which record of which segment holds each key's newest value. Decides who wins, and what is still alive. Does no I/O.
//!
//! Records may be applied in any order, as segments of several processes are read: the newest stamp wins, and of equal ones a tombstone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::record::{Header, Kind};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};

/// A segment's place in the index. Places are used again.
pub(crate) type SlotId = u32;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: SlotId,
    pub(crate) offset: u64,
}

/// The newest record of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) stamp: u64,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) tombstone: bool,
    /// Whether an older record of this key was seen in another segment, which would come back if this one were forgotten.
    pub(crate) shadows: bool,
}

impl Entry {
    pub(crate) fn new(place: Place, header: &Header) -> Self {
        let Header { stamp, stored_len, raw_len, kind, .. } = *header;
        Self { place, stamp, stored_len, raw_len, tombstone: kind == Kind::Tombstone, shadows: false }
    }

    pub(crate) fn record_len(&self, key: &[u8]) -> u64 {
        crate::record::HEADER_BYTES as u64 + key.len() as u64 + u64::from(self.stored_len)
    }

    /// Whether compaction has to keep it.
    fn needed(&self) -> bool {
        !self.tombstone || self.shadows
    }

    fn beats(&self, other: &Self) -> bool {
        self.stamp > other.stamp || (self.stamp == other.stamp && (self.tombstone || !other.tombstone))
    }
}

/// What is known of a segment.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) segment: Arc<Segment>,
    /// Read up to here.
    pub(crate) end: u64,
    /// Size of the file when last looked at.
    pub(crate) len: u64,
    /// Bytes of records that compaction has to keep.
    pub(crate) live_bytes: u64,
    /// The oldest stamp in it.
    pub(crate) stamp_min: u64,
    /// Never grows again.
    pub(crate) sealed: bool,
    /// Written by this log: known without reading.
    pub(crate) own: bool,
    /// Being compacted by this log.
    pub(crate) busy: bool,
}

impl Slot {
    pub(crate) fn new(segment: Segment, len: u64) -> Self {
        Self {
            segment: Arc::new(segment),
            end: SEGMENT_HEADER_BYTES,
            len,
            live_bytes: 0,
            stamp_min: u64::MAX,
            sealed: false,
            own: false,
            busy: false,
        }
    }
}

/// Sums over all entries, kept as they change.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) raw_bytes: u64,
}

/// The index of a log.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) entries: HashMap<Box<[u8]>, Entry>,
    slots: Vec<Option<Slot>>,
    pub(crate) totals: Totals,
    /// The newest stamp seen.
    pub(crate) stamp_max: u64,
}

impl Index {
    /// Finds a place for a segment.
    pub(crate) fn add(&mut self, slot: Slot) -> SlotId {
        let free = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[free] = Some(slot);
        SlotId::try_from(free).expect("fewer segments than 2^32")
    }

    /// Forgets a segment, and every entry that still points into it.
    pub(crate) fn remove(&mut self, id: SlotId) {
        let Self { entries, totals, .. } = self;
        entries.retain(|_, entry| {
            let stays = entry.place.slot != id;
            if !stays {
                totals.count(entry, u64::wrapping_sub);
            }
            stays
        });
        self.slots[id as usize] = None;
    }

    /// Forgets a segment if it still has that place.
    pub(crate) fn remove_segment(&mut self, slot: SlotId, id: u64) {
        if self.slots[slot as usize].as_ref().is_some_and(|slot| slot.segment.id == id) {
            self.remove(slot);
        }
    }

    /// Forgets an entry that nothing needs any more.
    pub(crate) fn forget(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.totals.count(&entry, u64::wrapping_sub);
            self.weigh(&entry, key, u64::wrapping_sub);
        }
    }

    pub(crate) fn slot(&self, id: SlotId) -> &Slot {
        self.slots[id as usize].as_ref().expect("entries and callers name slots in use")
    }

    pub(crate) fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        self.slots[id as usize].as_mut().expect("entries and callers name slots in use")
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        let numbered = (0..).zip(&self.slots);
        numbered.filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// Bytes that all segments occupy.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.slots().map(|(_, slot)| slot.len).sum()
    }

    /// The oldest stamp in any segment but one.
    pub(crate) fn stamp_min_outside(&self, id: SlotId) -> u64 {
        let others = self.slots().filter(|(other, _)| *other != id);
        others.map(|(_, slot)| slot.stamp_min).min().unwrap_or(u64::MAX)
    }

    /// Takes note of a record.
    pub(crate) fn apply(&mut self, place: Place, header: &Header, key: &[u8]) {
        self.stamp_max = self.stamp_max.max(header.stamp);
        let slot = self.slot_mut(place.slot);
        slot.stamp_min = slot.stamp_min.min(header.stamp);
        let mut new = Entry::new(place, header);
        let Some(old) = self.entries.get(key).copied() else {
            self.set(key, new);
            return;
        };
        let apart = old.place.slot != place.slot;
        if new.beats(&old) {
            new.shadows = old.shadows || apart;
            self.set(key, new);
        } else {
            self.set(key, Entry { shadows: old.shadows || apart, ..old });
        }
    }

    /// Points a key at a copy of its record, unless something newer was put in the meantime.
    pub(crate) fn relocate(&mut self, key: &[u8], from: Place, to: Place) {
        if let Some(old) = self.entries.get(key).copied().filter(|entry| entry.place == from) {
            let slot = self.slot_mut(to.slot);
            slot.stamp_min = slot.stamp_min.min(old.stamp);
            self.set(key, Entry { place: to, ..old });
        }
    }

    fn set(&mut self, key: &[u8], entry: Entry) {
        self.totals.count(&entry, u64::wrapping_add);
        self.weigh(&entry, key, u64::wrapping_add);
        let old = match self.entries.get_mut(key) {
            Some(old) => Some(std::mem::replace(old, entry)),
            None => self.entries.insert(key.into(), entry),
        };
        if let Some(old) = old {
            self.totals.count(&old, u64::wrapping_sub);
            self.weigh(&old, key, u64::wrapping_sub);
        }
    }

    fn weigh(&mut self, entry: &Entry, key: &[u8], op: fn(u64, u64) -> u64) {
        if entry.needed() {
            let slot = self.slot_mut(entry.place.slot);
            slot.live_bytes = op(slot.live_bytes, entry.record_len(key));
        }
    }
}

impl Totals {
    fn count(&mut self, entry: &Entry, op: fn(u64, u64) -> u64) {
        if entry.tombstone {
            self.tombstones = op(self.tombstones, 1);
        } else {
            self.entries = op(self.entries, 1);
            self.stored_bytes = op(self.stored_bytes, u64::from(entry.stored_len));
            self.raw_bytes = op(self.raw_bytes, u64::from(entry.raw_len));
        }
    }
}
