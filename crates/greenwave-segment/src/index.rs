//! The index of a log: maps each key to its newest record, and tracks how much of each segment is
//! live. Performs no I/O.
//!
//! Records may be applied in any order, since segments of several processes are read one after
//! another. The latest timestamp wins; among equal ones a tombstone, then the later copy, then the
//! value with fewer deltas. A record that exists or existed but cannot be read is *lost*: it hides
//! older records like a tombstone, and loses against any copy of itself.
//!
//! The records of some sealed segments may not have been added. Their *key tables* (`key_table.rs`)
//! find them on the disk. The entry of a key is complete only after the records of the key in these
//! segments were added, see `unread.rs`.
//!
//! All entries are in one vector, and a hash table contains their positions. Opening a log of a
//! million keys spends most of its time filling these two.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::entry::{Entry, Location, RecordInfo, RecordRef, SlotId};
use crate::format::SEGMENT_HEADER_BYTES;
use crate::key::Key;
use crate::key_table::{KeyTable, TableTotals};
use crate::record::RecordKind;
use crate::segment::Segment;

/// Slot of an unused entry.
const NO_SLOT: SlotId = SlotId::MAX;

/// Number of parts of the hash table that a bulk insert fills one after another.
const PARTS: usize = 64;
/// Maximum number of keys in the set of complete ones.
const COMPLETE_MAX: usize = 1 << 16;
/// Maximum number of entries in a bulk insert.
const BULK_MAX: usize = 256 << 10;

/// Entries to be inserted into the hash table part by part. Each part fits the processor's cache,
/// which halves the time for a million entries.
#[derive(Debug)]
pub(crate) struct BulkInsert {
    /// Hashes and entry numbers.
    parts: [Vec<(u64, u32)>; PARTS],
    waiting: usize,
}

impl Default for BulkInsert {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| Vec::new()), waiting: 0 }
    }
}

/// State of a segment in the index.
#[derive(Debug)]
pub(crate) struct SegmentSlot {
    pub(crate) segment: Arc<Segment>,
    /// Offset up to which the segment has been read.
    pub(crate) end: u64,
    /// Size of the file when it was last measured, in bytes.
    pub(crate) len: u64,
    /// Hash of the bytes from `end` to `len`, which were no complete record when they were read.
    pub(crate) tail_hash: u64,
    /// Size of its index file in bytes.
    pub(crate) index_len: u64,
    /// Bytes of records that compaction must copy.
    pub(crate) live_bytes: u64,
    /// Earliest timestamp in it.
    pub(crate) timestamp_min: u64,
    /// Latest timestamp in it.
    pub(crate) timestamp_max: u64,
    /// Numbers of the entries that have pointed to it, past ones included.
    members: Vec<u32>,
    /// Whether it ends in a seal and will never grow.
    pub(crate) sealed: bool,
    /// Whether it was sealed when it was first read. Records appended later are verified more
    /// closely.
    pub(crate) sealed_at_first: bool,
    /// Whether its index file matches it.
    pub(crate) fits: bool,
    /// Whether the segment is missing and only its index file exists.
    pub(crate) orphan: bool,
    /// Offset up to which records are known to be on the disk.
    pub(crate) synced: u64,
    /// Whether this log writes it, so that it need not be read.
    pub(crate) own: bool,
    /// Whether its index file ends with a key table.
    pub(crate) has_table: bool,
}

/// A segment whose records are not in the index.
#[derive(Debug)]
pub(crate) struct UnreadSegment {
    pub(crate) slot: SlotId,
    pub(crate) segment: Arc<Segment>,
    pub(crate) table: KeyTable,
}

impl SegmentSlot {
    pub(crate) fn new(segment: Segment, len: u64) -> Self {
        Self {
            segment: Arc::new(segment),
            end: SEGMENT_HEADER_BYTES,
            len,
            tail_hash: 0,
            index_len: 0,
            live_bytes: 0,
            timestamp_min: u64::MAX,
            timestamp_max: 0,
            members: Vec::new(),
            sealed: false,
            sealed_at_first: false,
            fits: true,
            orphan: false,
            synced: 0,
            own: false,
            has_table: false,
        }
    }

    fn count(&mut self, entry: &Entry, op: fn(u64, u64) -> u64) {
        if entry.is_live() {
            self.live_bytes = op(self.live_bytes, entry.record_len());
        }
    }
}

/// Sums over all entries, updated with every change.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct IndexTotals {
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    pub(crate) deltas: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) raw_bytes: u64,
}

/// The index of a log.
#[derive(Debug)]
pub(crate) struct Index {
    /// Entry numbers by the hash of their keys.
    table: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    seed: u64,
    /// Segments by number, from `first_slot` on. The first one is in use.
    slots: VecDeque<Option<SegmentSlot>>,
    first_slot: SlotId,
    /// Number of deltas per base, by the hash of the base's key.
    bases: HashMap<u64, u32>,
    /// Dictionaries by id, with their timestamps.
    pub(crate) dictionaries: HashMap<u32, (RecordRef, u64)>,
    pub(crate) totals: IndexTotals,
    /// Latest timestamp seen.
    pub(crate) timestamp_max: u64,
    /// Segments whose records are not in the index. The list is replaced with every change, so that
    /// equal pointers mean equal lists.
    unread: Arc<Vec<Arc<UnreadSegment>>>,
    /// Hashes of keys whose records in these segments have been added.
    complete: HashSet<u64>,
}

impl Index {
    /// Creates an empty index. The random seed prevents keys chosen to collide.
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
            totals: IndexTotals::default(),
            timestamp_max: 0,
            unread: Arc::default(),
            complete: HashSet::new(),
        }
    }

    /// Reserves space for this many more entries.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let Self { table, entries, seed, .. } = self;
        entries.reserve(additional);
        table
            .reserve(additional, |number| xxh3_64_with_seed(entries[*number as usize].key.as_slice(), *seed));
    }

    /// Returns the newest record of a key, tombstones included.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        let number = self.table.find(self.hash(key), |number| self.key(*number) == key)?;
        Some(&self.entries[*number as usize])
    }

    /// Iterates over all entries, tombstones included.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.slot != NO_SLOT)
    }

    /// Iterates over the keys that have a value, in no order.
    pub(crate) fn live_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.entries().filter(|entry| !entry.tombstone).map(|entry| entry.key.as_slice())
    }

    /// Returns the number of places for keys, used ones and free ones.
    pub(crate) fn places(&self) -> usize {
        self.entries.len()
    }

    /// Returns the key in a place, if there is one that has a value.
    pub(crate) fn live_key_at(&self, place: usize) -> Option<&[u8]> {
        let entry = self.entries.get(place).filter(|entry| entry.slot != NO_SLOT && !entry.tombstone)?;
        Some(entry.key.as_slice())
    }

    /// Returns the entries that point to a segment, in the order of the file.
    pub(crate) fn entries_in(&self, slot: SlotId) -> Vec<Entry> {
        let Some(mut numbers) = self.try_slot(slot).map(|slot| slot.members.clone()) else {
            return Vec::new();
        };
        numbers.sort_unstable();
        numbers.dedup();
        let guard = numbers.into_iter().map(|number| &self.entries[number as usize]);
        let mut entries: Vec<Entry> = guard.filter(|entry| entry.slot == slot).cloned().collect();
        entries.sort_unstable_by_key(|entry| entry.offset);
        entries
    }

    /// Returns whether the value of this key may be the base of a delta.
    pub(crate) fn may_be_base(&self, key: &[u8]) -> bool {
        !self.bases.is_empty() && self.bases.contains_key(&self.hash(key))
    }

    /// Adds a segment.
    pub(crate) fn add(&mut self, slot: SegmentSlot) -> SlotId {
        let number = u32::try_from(self.slots.len()).ok().and_then(|len| self.first_slot.checked_add(len));
        let id = number.filter(|id| *id != NO_SLOT).expect("a log meets fewer than 2^32 segments");
        self.slots.push_back(Some(slot));
        id
    }

    /// Removes a segment, and every entry that still points to it. Does nothing if it was removed
    /// before.
    pub(crate) fn remove(&mut self, id: SlotId) {
        if self.try_slot(id).is_none() {
            return;
        }
        for entry in self.entries_in(id) {
            self.forget(entry.key.as_slice());
        }
        self.mark_read(id);
        self.dictionaries.retain(|_, (record, _)| record.location.slot != id);
        self.slots[(id - self.first_slot) as usize] = None;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first_slot += 1;
        }
    }

    /// Removes an entry that is no longer needed.
    pub(crate) fn forget(&mut self, key: &[u8]) {
        let hash = self.hash(key);
        let Self { table, entries, .. } = self;
        let Ok(found) = table.find_entry(hash, |number| entries[*number as usize].key.as_slice() == key)
        else {
            return;
        };
        let (number, _) = found.remove();
        let entry = self.vacate(number);
        self.count_out(&entry);
    }

    /// Returns a segment that an entry points to.
    pub(crate) fn slot(&self, id: SlotId) -> &SegmentSlot {
        self.try_slot(id).expect("entries name slots in use")
    }

    /// Returns a segment unless it was removed.
    pub(crate) fn try_slot(&self, id: SlotId) -> Option<&SegmentSlot> {
        self.slots.get(id.checked_sub(self.first_slot)? as usize)?.as_ref()
    }

    pub(crate) fn try_slot_mut(&mut self, id: SlotId) -> Option<&mut SegmentSlot> {
        slot_in(&mut self.slots, self.first_slot, id)
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (SlotId, &SegmentSlot)> {
        let numbered = (self.first_slot..).zip(&self.slots);
        numbered.filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// Returns the size of all segments and their index files in bytes.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.slots().map(|(_, slot)| slot.len + slot.index_len).sum()
    }

    /// Returns the earliest timestamp in all segments except one.
    pub(crate) fn timestamp_min_outside(&self, id: SlotId) -> u64 {
        let others = self.slots().filter(|(other, _)| *other != id);
        others.map(|(_, slot)| slot.timestamp_min).min().unwrap_or(u64::MAX)
    }

    /// Adds a sealed segment of this length without its records.
    pub(crate) fn add_unread(&mut self, segment: Segment, len: u64, table: KeyTable) -> SlotId {
        let mut slot = SegmentSlot::new(segment, len);
        (slot.sealed, slot.sealed_at_first, slot.has_table) = (true, true, true);
        (slot.end, slot.index_len) = (len, table.index_len);
        (slot.timestamp_min, slot.timestamp_max) = table.timestamps();
        self.timestamp_max = self.timestamp_max.max(slot.timestamp_max);
        let segment = slot.segment.clone();
        let id = self.add(slot);
        let added = Arc::new(UnreadSegment { slot: id, segment, table });
        self.unread = Arc::new(self.unread.iter().cloned().chain([added]).collect());
        self.complete.clear();
        id
    }

    /// Returns the segments whose records are not in the index.
    pub(crate) fn unread(&self) -> &Arc<Vec<Arc<UnreadSegment>>> {
        &self.unread
    }

    /// Records that all records of a segment have been added.
    pub(crate) fn mark_read(&mut self, id: SlotId) {
        if self.unread.iter().any(|unread| unread.slot == id) {
            self.unread = Arc::new(self.unread.iter().filter(|unread| unread.slot != id).cloned().collect());
        }
    }

    /// Returns whether segments that are not in the index may have records of this key.
    pub(crate) fn is_incomplete(&self, key: &[u8]) -> bool {
        !self.unread.is_empty() && !self.complete.contains(&self.hash(key))
    }

    /// Records that all records of a key in unread segments have been added.
    pub(crate) fn mark_complete(&mut self, key: &[u8]) {
        if self.complete.len() >= COMPLETE_MAX {
            self.complete.clear();
        }
        self.complete.insert(self.hash(key));
    }

    /// Returns sums over the records of unread segments.
    pub(crate) fn unread_totals(&self) -> TableTotals {
        self.unread.iter().fold(TableTotals::default(), |sum, unread| sum + unread.table.totals())
    }

    /// Adds a record.
    pub(crate) fn apply(&mut self, location: Location, record: &RecordInfo<'_>) {
        self.note_timestamp(location.slot, record.timestamp);
        match record.kind {
            RecordKind::Value | RecordKind::Tombstone => self.apply_entry(location, record),
            RecordKind::Dictionary => self.apply_dictionary(location, record),
            RecordKind::Seal => {}
        }
    }

    fn apply_dictionary(&mut self, location: Location, record: &RecordInfo<'_>) {
        if let Ok(id) = record.key.try_into().map(u32::from_le_bytes) {
            // All copies of a dictionary are equal, since its id is its hash.
            self.dictionaries
                .entry(id)
                .or_insert_with(|| (RecordRef::to(&Entry::new(location, record)), record.timestamp));
        }
    }

    fn apply_entry(&mut self, location: Location, record: &RecordInfo<'_>) {
        self.add_entry(Entry::new(location, record));
    }

    /// Adds an entry again that was forgotten although its segment remains.
    pub(crate) fn restore(&mut self, entry: &Entry) {
        if self.try_slot(entry.slot).is_some() && self.get(entry.key.as_slice()).is_none() {
            self.add_entry(entry.clone());
        }
    }

    fn add_entry(&mut self, new: Entry) {
        let hash = self.hash(new.key.as_slice());
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
        self.insert_entry(hash, number);
    }

    /// Adds many records of a segment, given with their offsets. The effect is that of
    /// [`apply`](Self::apply) for each, once [`finish`](Self::finish) has been called. The caller
    /// holds the index lock until then.
    pub(crate) fn apply_bulk<'a>(
        &mut self,
        bulk: &mut BulkInsert,
        slot: SlotId,
        records: impl Iterator<Item = (u64, RecordInfo<'a>)>,
    ) {
        // The lowest bits of a hash determine its position in the table.
        let shift = self.table.num_buckets().max(PARTS).ilog2() - PARTS.ilog2();
        for (offset, record) in records {
            let location = Location { slot, offset };
            if !matches!(record.kind, RecordKind::Value | RecordKind::Tombstone) {
                self.apply(location, &record);
                continue;
            }
            self.note_timestamp(slot, record.timestamp);
            let hash = self.hash(record.key);
            let number = u32::try_from(self.entries.len()).expect("fewer entries than 2^32");
            self.entries.push(Entry::new(location, &record));
            bulk.parts[(hash >> shift) as usize % PARTS].push((hash, number));
            bulk.waiting += 1;
        }
        if bulk.waiting >= BULK_MAX {
            self.finish(bulk);
        }
    }

    /// Inserts the remaining entries of a bulk insert into the table.
    pub(crate) fn finish(&mut self, bulk: &mut BulkInsert) {
        for part in &mut bulk.parts {
            for (hash, number) in part.drain(..) {
                self.insert_entry(hash, number);
            }
        }
        bulk.waiting = 0;
    }

    /// Inserts a new entry, or resolves it against the existing entry of its key.
    fn insert_entry(&mut self, hash: u64, number: u32) {
        let Self { table, entries, seed, .. } = self;
        let new = &entries[number as usize];
        let eq = |number: &u32| entries[*number as usize].key == new.key;
        let rehash = |number: &u32| xxh3_64_with_seed(entries[*number as usize].key.as_slice(), *seed);
        match table.entry(hash, eq, rehash) {
            TableEntry::Vacant(vacant) => {
                vacant.insert(number);
                self.count_in(number);
            }
            TableEntry::Occupied(occupied) => {
                let existing = *occupied.get();
                let new = self.vacate(number);
                self.resolve(existing, new);
            }
        }
    }

    /// Compares an entry with a new entry of the same key, and keeps the newer one.
    fn resolve(&mut self, number: u32, mut new: Entry) {
        let old = &mut self.entries[number as usize];
        let elsewhere = old.slot != new.slot;
        if new.supersedes(old) {
            new.shadows = old.shadows || elsewhere;
            let old = std::mem::replace(old, new);
            self.count_in(number);
            self.count_out(&old);
        } else if elsewhere && !old.shadows {
            // Counted again, since a tombstone is live only if it shadows a record.
            let was = old.clone();
            old.shadows = true;
            let is = old.clone();
            self.count(&was, u64::wrapping_sub);
            self.count(&is, u64::wrapping_add);
        }
    }

    /// Empties an entry and frees its number.
    fn vacate(&mut self, number: u32) -> Entry {
        let unused = Entry {
            key: Key::from(&[][..]),
            base: None,
            offset: 0,
            timestamp: 0,
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

    fn note_timestamp(&mut self, slot: SlotId, timestamp: u64) {
        self.timestamp_max = self.timestamp_max.max(timestamp);
        if let Some(slot) = self.try_slot_mut(slot) {
            slot.timestamp_min = slot.timestamp_min.min(timestamp);
            slot.timestamp_max = slot.timestamp_max.max(timestamp);
        }
    }

    /// Adds an entry to the totals.
    fn count_in(&mut self, number: u32) {
        let Self { entries, slots, first_slot, totals, bases, seed, .. } = self;
        let entry = &entries[number as usize];
        let slot = slot_in(slots, *first_slot, entry.slot).expect("entries name slots in use");
        slot.members.push(number);
        totals.count(entry, u64::wrapping_add);
        slot.count(entry, u64::wrapping_add);
        if let Some(base) = &entry.base {
            *bases.entry(xxh3_64_with_seed(base.as_slice(), *seed)).or_default() += 1;
        }
    }

    /// Subtracts an entry from the totals.
    fn count_out(&mut self, entry: &Entry) {
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

    /// Points a key to a copy of its record, unless the key has changed.
    pub(crate) fn relocate(&mut self, from: Location, to: Location, record: &RecordInfo<'_>) {
        self.note_timestamp(to.slot, record.timestamp);
        self.replace(from, record.key, |old| Entry { shadows: old.shadows, ..Entry::new(to, record) });
    }

    /// Marks the newest record of a key as unreadable. The key then has no value, and older records
    /// stay hidden.
    pub(crate) fn mark_lost(&mut self, key: &[u8], location: Location) {
        self.replace(location, key, |old| Entry {
            tombstone: true,
            lost: true,
            base: None,
            depth: 0,
            ..old.clone()
        });
    }

    /// Records that another record of the key exists in another segment.
    pub(crate) fn mark_shadowing(&mut self, key: &[u8]) {
        if let Some(location) = self.get(key).map(Entry::location) {
            self.replace(location, key, |old| Entry { shadows: true, ..old.clone() });
        }
    }

    /// Replaces the entry of a key if it is still the one at `location`.
    fn replace(&mut self, location: Location, key: &[u8], new: impl FnOnce(&Entry) -> Entry) {
        let hash = self.hash(key);
        let Some(number) = self.table.find(hash, |number| self.key(*number) == key).copied() else { return };
        let old = &self.entries[number as usize];
        if old.location() != location {
            return;
        }
        let new = new(old);
        let old = std::mem::replace(&mut self.entries[number as usize], new);
        self.count_in(number);
        self.count_out(&old);
    }

    /// Returns the dictionaries in a segment.
    pub(crate) fn dictionaries_in(&self, slot: SlotId) -> Vec<(u32, RecordRef)> {
        let guard = self.dictionaries.iter().filter(|(_, (record, _))| record.location.slot == slot);
        let mut guard: Vec<_> = guard.map(|(id, (record, _))| (*id, *record)).collect();
        guard.sort_unstable_by_key(|(id, _)| *id);
        guard
    }

    pub(crate) fn relocate_dictionary(&mut self, id: u32, to: Location) {
        if let Some((record, _)) = self.dictionaries.get_mut(&id) {
            record.location = to;
        }
    }

    /// Returns the deltas whose base is in `keys`. Takes time linear in the number of keys.
    pub(crate) fn dependents(&self, keys: &dyn Fn(&[u8]) -> bool) -> Vec<Entry> {
        let depending = |entry: &&Entry| entry.base.as_ref().is_some_and(|base| keys(base.as_slice()));
        self.entries().filter(depending).cloned().collect()
    }

    /// Returns the deltas whose base another process has removed or replaced without knowing about
    /// them. Takes time linear in the number of keys.
    pub(crate) fn stranded(&self) -> Vec<Entry> {
        if self.totals.deltas == 0 {
            return Vec::new();
        }
        let is_stranded = |entry: &&Entry| {
            entry
                .base
                .as_ref()
                .is_some_and(|base| !self.get(base.as_slice()).is_some_and(|current| base.matches(current)))
        };
        self.entries().filter(is_stranded).cloned().collect()
    }

    fn count(&mut self, entry: &Entry, op: fn(u64, u64) -> u64) {
        self.totals.count(entry, op);
        if let Some(slot) = self.try_slot_mut(entry.slot) {
            slot.count(entry, op);
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    fn key(&self, number: u32) -> &[u8] {
        self.entries[number as usize].key.as_slice()
    }
}

impl IndexTotals {
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

fn slot_in(slots: &mut VecDeque<Option<SegmentSlot>>, first: SlotId, id: SlotId) -> Option<&mut SegmentSlot> {
    slots.get_mut(id.checked_sub(first)? as usize)?.as_mut()
}
