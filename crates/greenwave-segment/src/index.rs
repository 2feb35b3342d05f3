//! Which record of which segment holds each key's newest value. Decides who wins, and what is still alive. Does no I/O.
//!
//! Records may be applied in any order, as segments of several processes are read: the newest stamp wins, of equal ones a
//! tombstone, then the later copy, then the value that is fewer differences away from a whole one. A record that is known of
//! but cannot be read is *lost*: it hides older records as a tombstone does, and yields to any copy of itself.
//!
//! Entries stand in one vector, found through a table of their numbers: opening a log of a million keys is mostly filling these two.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Found;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::key::{INLINE_BYTES_MAX, Key};
use crate::read::Location;
use crate::record::{BASE_TAG_BYTES, Codec, HEADER_BYTES, Header, Kind};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};

/// A segment's number in the index, never used again.
pub(crate) type SlotId = u32;

/// Marks an entry that is not in use.
const NO_SLOT: SlotId = SlotId::MAX;

/// Parts of the table that are filled one after another.
const PARTS: usize = 64;
/// Entries that wait for it at most.
const BULK_MAX: usize = 256 << 10;

/// Entries on their way into the table, which is filled part by part, each of which fits the processor's cache: a million entries then take
/// half the time.
#[derive(Debug)]
pub(crate) struct Bulk {
    /// Hashes and numbers.
    parts: [Vec<(u64, u32)>; PARTS],
    waiting: usize,
}

impl Default for Bulk {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| Vec::new()), waiting: 0 }
    }
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: SlotId,
    pub(crate) offset: u64,
}

/// The newest record of a key.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// What this value is a difference from.
    pub(crate) base: Option<Box<BaseRef>>,
    offset: u64,
    pub(crate) stamp: u64,
    slot: SlotId,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    /// How many differences have to be undone.
    pub(crate) depth: u8,
    /// How many times the record has been copied.
    pub(crate) generation: u8,
    /// The key has no value: it was removed, or its newest record is lost.
    pub(crate) tombstone: bool,
    /// The newest record of the key is damaged or gone.
    pub(crate) lost: bool,
    /// Whether another record of this key was seen in another segment, which would come back if this one were forgotten.
    pub(crate) shadows: bool,
}

/// The record that a value is a difference from.
#[derive(Debug, Clone)]
pub(crate) struct BaseRef {
    key: Key,
    /// The lower half of its stamp, if that was recorded.
    tag: Option<u32>,
}

impl BaseRef {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.key.as_slice()
    }

    /// Whether a record of the base's key is for sure the one.
    fn is(&self, base: &Entry) -> bool {
        !base.tombstone && self.tag == Some(base.tag())
    }
}

/// What an index has to know of a record.
#[derive(Debug, Clone)]
pub(crate) struct Item<'a> {
    pub(crate) kind: Kind,
    pub(crate) key: &'a [u8],
    /// The key and what follows it in memory, if it is short and something does.
    pub(crate) wide: Option<&'a [u8; INLINE_BYTES_MAX]>,
    /// The key of the base; empty if it is no difference.
    pub(crate) base: &'a [u8],
    /// The base's tag, if that was recorded.
    pub(crate) base_tag: Option<u32>,
    pub(crate) stamp: u64,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) depth: u8,
    pub(crate) generation: u8,
    /// The record is known of, and cannot be read.
    pub(crate) lost: bool,
}

impl<'a> Item<'a> {
    /// The item of a record, of which `base` is the key of the base with its tag, as they stand in the payload.
    pub(crate) fn new(header: &Header, key: &'a [u8], base: &'a [u8]) -> Self {
        let (base, base_tag) = split_base(base, header.codec == Codec::DELTA);
        let Header { kind, stamp, stored_len, raw_len, generation, .. } = *header;
        let depth = header.depth();
        Self {
            kind,
            key,
            wide: None,
            base,
            base_tag,
            stamp,
            stored_len,
            raw_len,
            depth,
            generation,
            lost: false,
        }
    }

    /// The item of a record that cannot be read.
    pub(crate) fn as_lost(&self) -> Self {
        Self { base: &[], depth: 0, lost: true, ..self.clone() }
    }

    pub(crate) fn record_len(&self) -> u64 {
        HEADER_BYTES as u64 + self.key.len() as u64 + u64::from(self.stored_len)
    }
}

/// The key of a base and its tag, if it has one.
pub(crate) fn split_base(base: &[u8], tagged: bool) -> (&[u8], Option<u32>) {
    match base.split_last_chunk::<BASE_TAG_BYTES>() {
        Some((key, tag)) if tagged => (key, Some(u32::from_le_bytes(*tag))),
        _ => (base, None),
    }
}

impl Entry {
    fn new(place: Place, item: &Item<'_>) -> Self {
        let Item { kind, key, wide, base, base_tag, stamp, stored_len, raw_len, depth, generation, lost } =
            *item;
        let short = wide.and_then(|wide| Some((u8::try_from(key.len()).ok()?, wide)));
        Self {
            key: short.map_or_else(|| key.into(), |(len, wide)| Key::with_what_follows(len, wide)),
            base: (!base.is_empty()).then(|| Box::new(BaseRef { key: base.into(), tag: base_tag })),
            offset: place.offset,
            stamp,
            slot: place.slot,
            stored_len,
            raw_len,
            depth,
            generation,
            tombstone: kind == Kind::Tombstone || lost,
            lost,
            shadows: false,
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place { slot: self.slot, offset: self.offset }
    }

    pub(crate) fn record_len(&self) -> u64 {
        HEADER_BYTES as u64 + self.key.as_slice().len() as u64 + u64::from(self.stored_len)
    }

    /// The lower half of its stamp.
    pub(crate) fn tag(&self) -> u32 {
        self.stamp as u32
    }

    /// Whether compaction has to keep it.
    fn needed(&self) -> bool {
        !self.tombstone || self.shadows
    }

    fn beats(&self, other: &Self) -> bool {
        match self.stamp.cmp(&other.stamp) {
            Ordering::Greater => true,
            Ordering::Less => false,
            // Of copies the latest: what it was copied from is about to be removed. Of copies by two processes the one that
            // depends on fewer others: what it depended on before may be gone.
            Ordering::Equal => match self.rank().cmp(&other.rank()) {
                Ordering::Greater => true,
                Ordering::Less => false,
                Ordering::Equal => self.depth <= other.depth,
            },
        }
    }

    /// What decides between records of the same stamp.
    fn rank(&self) -> (u8, u8) {
        let kind = match (self.tombstone, self.lost) {
            (_, true) => 0,
            (false, false) => 1,
            (true, false) => 2,
        };
        (kind, self.generation)
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
    /// Bytes of its index file.
    pub(crate) index_len: u64,
    /// Bytes of records that compaction has to keep.
    pub(crate) live_bytes: u64,
    /// The oldest stamp in it.
    pub(crate) stamp_min: u64,
    /// The entries that pointed here at some time, by number.
    members: Vec<u32>,
    /// Never grows again.
    pub(crate) sealed: bool,
    /// Whether it was sealed when it was first met. What is appended later is checked more closely.
    pub(crate) sealed_at_first: bool,
    /// Whether all that its index file says of it is true.
    pub(crate) fits: bool,
    /// Only the index file is left of it.
    pub(crate) orphan: bool,
    /// How far the records are known to have reached the disk.
    pub(crate) synced: u64,
    /// Written by this log: known without reading.
    pub(crate) own: bool,
}

impl Slot {
    pub(crate) fn new(segment: Segment, len: u64) -> Self {
        Self {
            segment: Arc::new(segment),
            end: SEGMENT_HEADER_BYTES,
            len,
            index_len: 0,
            live_bytes: 0,
            stamp_min: u64::MAX,
            members: Vec::new(),
            sealed: false,
            sealed_at_first: false,
            fits: true,
            orphan: false,
            synced: 0,
            own: false,
        }
    }

    fn weigh(&mut self, entry: &Entry, op: fn(u64, u64) -> u64) {
        if entry.needed() {
            self.live_bytes = op(self.live_bytes, entry.record_len());
        }
    }
}

/// Sums over all entries, kept as they change.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    pub(crate) deltas: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) raw_bytes: u64,
}

/// The index of a log.
#[derive(Debug)]
pub(crate) struct Index {
    /// Numbers of entries, by the hash of their keys.
    table: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    seed: u64,
    /// Slots from number `first_slot` on. The first one is in use.
    slots: VecDeque<Option<Slot>>,
    first_slot: SlotId,
    /// How many differences name a base, by the base's hash.
    bases: HashMap<u64, u32>,
    /// Dictionaries by id, which callers do not see, with their stamps.
    pub(crate) dictionaries: HashMap<u32, (Location, u64)>,
    pub(crate) totals: Totals,
    /// The newest stamp seen.
    pub(crate) stamp_max: u64,
}

impl Index {
    /// An empty index. The seed keeps others from choosing keys that collide.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            table: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            seed,
            slots: VecDeque::new(),
            first_slot: 0,
            bases: HashMap::new(),
            dictionaries: HashMap::new(),
            totals: Totals::default(),
            stamp_max: 0,
        }
    }

    /// Makes room for this many more entries at once, of which a segment will have as many.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let Self { table, entries, seed, .. } = self;
        entries.reserve(additional);
        table
            .reserve(additional, |number| xxh3_64_with_seed(entries[*number as usize].key.as_slice(), *seed));
    }

    /// The newest record of a key, a tombstone included.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        let number = self.table.find(self.hash(key), |number| self.key(*number) == key)?;
        Some(&self.entries[*number as usize])
    }

    /// All entries, tombstones included.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.slot != NO_SLOT)
    }

    /// The entries that point into a segment, in the order of the file.
    pub(crate) fn entries_in(&self, slot: SlotId) -> Vec<Entry> {
        let Some(mut numbers) = self.try_slot(slot).map(|slot| slot.members.clone()) else {
            return Vec::new();
        };
        numbers.sort_unstable();
        numbers.dedup();
        let inside = numbers.into_iter().map(|number| &self.entries[number as usize]);
        let mut entries: Vec<Entry> = inside.filter(|entry| entry.slot == slot).cloned().collect();
        entries.sort_unstable_by_key(|entry| entry.offset);
        entries
    }

    /// Whether some value may be stored as a difference from this key's.
    pub(crate) fn may_be_base(&self, key: &[u8]) -> bool {
        !self.bases.is_empty() && self.bases.contains_key(&self.hash(key))
    }

    /// Takes in a segment.
    pub(crate) fn add(&mut self, slot: Slot) -> SlotId {
        let number = u32::try_from(self.slots.len()).ok().and_then(|len| self.first_slot.checked_add(len));
        let id = number.filter(|id| *id != NO_SLOT).expect("a log meets fewer than 2^32 segments");
        self.slots.push_back(Some(slot));
        id
    }

    /// Forgets a segment, and every entry that still points into it. Does nothing if it is forgotten already.
    pub(crate) fn remove(&mut self, id: SlotId) {
        if self.try_slot(id).is_none() {
            return;
        }
        for entry in self.entries_in(id) {
            self.forget(entry.key.as_slice());
        }
        self.dictionaries.retain(|_, (location, _)| location.place.slot != id);
        self.slots[(id - self.first_slot) as usize] = None;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first_slot += 1;
        }
    }

    /// Forgets an entry that nothing needs any more.
    pub(crate) fn forget(&mut self, key: &[u8]) {
        let hash = self.hash(key);
        let Self { table, entries, .. } = self;
        let Ok(found) = table.find_entry(hash, |number| entries[*number as usize].key.as_slice() == key)
        else {
            return;
        };
        let (number, _) = found.remove();
        let entry = self.take(number);
        self.leave(&entry);
    }

    /// A segment that entries point into.
    pub(crate) fn slot(&self, id: SlotId) -> &Slot {
        self.try_slot(id).expect("entries name slots in use")
    }

    /// A segment, unless it was removed in the meantime.
    pub(crate) fn try_slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id.checked_sub(self.first_slot)? as usize)?.as_ref()
    }

    pub(crate) fn try_slot_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        slot_in(&mut self.slots, self.first_slot, id)
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        let numbered = (self.first_slot..).zip(&self.slots);
        numbered.filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// Bytes that all segments and their index files occupy.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.slots().map(|(_, slot)| slot.len + slot.index_len).sum()
    }

    /// The oldest stamp in any segment but one.
    pub(crate) fn stamp_min_outside(&self, id: SlotId) -> u64 {
        let others = self.slots().filter(|(other, _)| *other != id);
        others.map(|(_, slot)| slot.stamp_min).min().unwrap_or(u64::MAX)
    }

    /// Takes note of a record.
    pub(crate) fn apply(&mut self, place: Place, item: &Item<'_>) {
        self.see(place.slot, item.stamp);
        match item.kind {
            Kind::Value | Kind::Tombstone => self.apply_entry(place, item),
            Kind::Dictionary => self.apply_dictionary(place, item),
            Kind::Seal => {}
        }
    }

    fn apply_dictionary(&mut self, place: Place, item: &Item<'_>) {
        if let Ok(id) = item.key.try_into().map(u32::from_le_bytes) {
            // Of several copies any will do: they are named after their contents.
            self.dictionaries
                .entry(id)
                .or_insert_with(|| (Location::of(&Entry::new(place, item)), item.stamp));
        }
    }

    fn apply_entry(&mut self, place: Place, item: &Item<'_>) {
        let hash = self.hash(item.key);
        let new = Entry::new(place, item);
        let number = match self.free.pop() {
            Some(number) => {
                self.entries[number as usize] = new;
                number
            }
            None => {
                self.entries.push(new);
                u32::try_from(self.entries.len() - 1).expect("fewer entries than 2^32")
            }
        };
        self.enlist(hash, number);
    }

    /// Takes note of many records of a segment, each with its offset: the same as applying one after another, once all has been
    /// [`finish`](Self::finish)ed. The lock is held until then.
    pub(crate) fn apply_bulk<'a>(
        &mut self,
        bulk: &mut Bulk,
        slot: SlotId,
        items: impl Iterator<Item = (u64, Item<'a>)>,
    ) {
        // Where a hash goes in the table is decided by its lowest bits.
        let shift = self.table.num_buckets().max(PARTS).ilog2() - PARTS.ilog2();
        for (offset, item) in items {
            let place = Place { slot, offset };
            if !matches!(item.kind, Kind::Value | Kind::Tombstone) {
                self.apply(place, &item);
                continue;
            }
            self.see(slot, item.stamp);
            let hash = self.hash(item.key);
            let number = u32::try_from(self.entries.len()).expect("fewer entries than 2^32");
            self.entries.push(Entry::new(place, &item));
            bulk.parts[(hash >> shift) as usize % PARTS].push((hash, number));
            bulk.waiting += 1;
        }
        if bulk.waiting >= BULK_MAX {
            self.finish(bulk);
        }
    }

    /// Has the entries of a bulk found.
    pub(crate) fn finish(&mut self, bulk: &mut Bulk) {
        for part in &mut bulk.parts {
            for (hash, number) in part.drain(..) {
                self.enlist(hash, number);
            }
        }
        bulk.waiting = 0;
    }

    /// Has a new entry found under its key, or in the place of the one that is there, whichever is newer.
    fn enlist(&mut self, hash: u64, number: u32) {
        let Self { table, entries, seed, .. } = self;
        let new = &entries[number as usize];
        let eq = |number: &u32| entries[*number as usize].key == new.key;
        let rehash = |number: &u32| xxh3_64_with_seed(entries[*number as usize].key.as_slice(), *seed);
        match table.entry(hash, eq, rehash) {
            Found::Vacant(vacant) => {
                vacant.insert(number);
                self.enter(number);
            }
            Found::Occupied(occupied) => {
                let there = *occupied.get();
                let new = self.take(number);
                self.meet(there, new);
            }
        }
    }

    /// Decides between an entry and a new one of the same key.
    fn meet(&mut self, number: u32, mut new: Entry) {
        let old = &mut self.entries[number as usize];
        let apart = old.slot != new.slot;
        if new.beats(old) {
            new.shadows = old.shadows || apart;
            let old = std::mem::replace(old, new);
            self.enter(number);
            self.leave(&old);
        } else if apart && !old.shadows {
            // Counted again: a tombstone that shadows is needed, and one that does not is not.
            let was = old.clone();
            old.shadows = true;
            let is = old.clone();
            self.count(&was, u64::wrapping_sub);
            self.count(&is, u64::wrapping_add);
        }
    }

    /// Empties an entry, whose number may then be used again.
    fn take(&mut self, number: u32) -> Entry {
        let unused = Entry {
            key: Key::from(&[][..]),
            base: None,
            offset: 0,
            stamp: 0,
            slot: NO_SLOT,
            stored_len: 0,
            raw_len: 0,
            depth: 0,
            generation: 0,
            tombstone: true,
            lost: false,
            shadows: false,
        };
        self.free.push(number);
        std::mem::replace(&mut self.entries[number as usize], unused)
    }

    fn see(&mut self, slot: SlotId, stamp: u64) {
        self.stamp_max = self.stamp_max.max(stamp);
        if let Some(slot) = self.try_slot_mut(slot) {
            slot.stamp_min = slot.stamp_min.min(stamp);
        }
    }

    /// Counts an entry that comes.
    fn enter(&mut self, number: u32) {
        let Self { entries, slots, first_slot, totals, bases, seed, .. } = self;
        let entry = &entries[number as usize];
        let slot = slot_in(slots, *first_slot, entry.slot).expect("entries name slots in use");
        slot.members.push(number);
        totals.count(entry, u64::wrapping_add);
        slot.weigh(entry, u64::wrapping_add);
        if let Some(base) = &entry.base {
            *bases.entry(xxh3_64_with_seed(base.as_slice(), *seed)).or_default() += 1;
        }
    }

    /// Counts an entry that goes.
    fn leave(&mut self, entry: &Entry) {
        self.count(entry, u64::wrapping_sub);
        let Some(base) = &entry.base else { return };
        let hash = self.hash(base.as_slice());
        if let Some(count) = self.bases.get_mut(&hash) {
            *count -= 1;
            if *count == 0 {
                self.bases.remove(&hash);
            }
        }
    }

    /// Points a key at a copy of its record, unless something newer was put in the meantime.
    pub(crate) fn relocate(&mut self, from: Place, to: Place, item: &Item<'_>) {
        self.see(to.slot, item.stamp);
        self.replace(from, item.key, |old| Entry { shadows: old.shadows, ..Entry::new(to, item) });
    }

    /// Takes note that the newest record of a key cannot be read. The key is then without a value, and older records of it
    /// stay hidden.
    pub(crate) fn lose(&mut self, key: &[u8], place: Place) {
        self.replace(place, key, |old| Entry {
            tombstone: true,
            lost: true,
            base: None,
            depth: 0,
            ..old.clone()
        });
    }

    /// Takes note that another record of a key remains where this one was copied from.
    pub(crate) fn shadow(&mut self, key: &[u8]) {
        if let Some(place) = self.get(key).map(Entry::place) {
            self.replace(place, key, |old| Entry { shadows: true, ..old.clone() });
        }
    }

    /// Replaces the entry of a key, if it is still the one at `place`.
    fn replace(&mut self, place: Place, key: &[u8], new: impl FnOnce(&Entry) -> Entry) {
        let hash = self.hash(key);
        let Some(number) = self.table.find(hash, |number| self.key(*number) == key).copied() else { return };
        let old = &self.entries[number as usize];
        if old.place() != place {
            return;
        }
        let new = new(old);
        let old = std::mem::replace(&mut self.entries[number as usize], new);
        self.enter(number);
        self.leave(&old);
    }

    /// The dictionaries in a segment.
    pub(crate) fn dictionaries_in(&self, slot: SlotId) -> Vec<(u32, Location)> {
        let inside = self.dictionaries.iter().filter(|(_, (location, _))| location.place.slot == slot);
        let mut inside: Vec<_> = inside.map(|(id, (location, _))| (*id, *location)).collect();
        inside.sort_unstable_by_key(|(id, _)| *id);
        inside
    }

    pub(crate) fn relocate_dictionary(&mut self, id: u32, to: Place) {
        if let Some((location, _)) = self.dictionaries.get_mut(&id) {
            location.place = to;
        }
    }

    /// The entries whose values are differences from one of `keys`. Looks at all.
    pub(crate) fn dependants(&self, keys: &dyn Fn(&[u8]) -> bool) -> Vec<Entry> {
        let depending = |entry: &&Entry| entry.base.as_ref().is_some_and(|base| keys(base.as_slice()));
        self.entries().filter(depending).cloned().collect()
    }

    /// The entries whose values are differences from values that are not current any more: another process has removed or replaced these
    /// without knowing. Looks at all.
    pub(crate) fn stranded(&self) -> Vec<Entry> {
        if self.totals.deltas == 0 {
            return Vec::new();
        }
        let is_stranded = |entry: &&Entry| {
            entry
                .base
                .as_ref()
                .is_some_and(|base| !self.get(base.as_slice()).is_some_and(|current| base.is(current)))
        };
        self.entries().filter(is_stranded).cloned().collect()
    }

    fn count(&mut self, entry: &Entry, op: fn(u64, u64) -> u64) {
        self.totals.count(entry, op);
        if let Some(slot) = self.try_slot_mut(entry.slot) {
            slot.weigh(entry, op);
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    fn key(&self, number: u32) -> &[u8] {
        self.entries[number as usize].key.as_slice()
    }
}

fn slot_in(slots: &mut VecDeque<Option<Slot>>, first: SlotId, id: SlotId) -> Option<&mut Slot> {
    slots.get_mut(id.checked_sub(first)? as usize)?.as_mut()
}

impl Totals {
    fn count(&mut self, entry: &Entry, op: fn(u64, u64) -> u64) {
        if entry.tombstone {
            self.tombstones = op(self.tombstones, 1);
        } else {
            self.entries = op(self.entries, 1);
            self.deltas = op(self.deltas, u64::from(entry.depth > 0));
            self.stored_bytes = op(self.stored_bytes, u64::from(entry.stored_len));
            self.raw_bytes = op(self.raw_bytes, u64::from(entry.raw_len));
        }
    }
}
