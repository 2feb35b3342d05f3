//! A part of a cache: entries in numbered slots, a table from hashes to slots, and an index from tags to slots. Decides nothing about time:
//! callers say what time it is. Nothing is dropped here; whatever leaves is handed back, to be dropped outside the lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;

use crate::policy::{Candidate, Policy};

/// Never.
pub(crate) const NEVER: u64 = u64::MAX;

/// Something held, with what is needed to let it go. What a hit reads stands first, and all of it with a key of 32 bytes and a value of 8
/// takes 64: the fewer cache lines, the faster.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Entry<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    /// What few entries have stands apart, so that most are small.
    pub(crate) extra: Option<Box<Extra>>,
    pub(crate) expires_at: Deadline,
    pub(crate) weight: u32,
    pub(crate) hash: u64,
}

/// When a life ends, in tenths of seconds since the cache was made: more than 13 years in 4 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(u32);

impl Deadline {
    pub(crate) const NEVER: Self = Self(u32::MAX);
    const UNIT_MS: u64 = 100;

    /// So long after a time, in milliseconds; rounded up, but what is to live for no time at all does not begin.
    pub(crate) fn after(now: u64, life: u64) -> Self {
        let end = now.saturating_add(life).div_ceil(Self::UNIT_MS);
        Self(if life == 0 { 0 } else { u32::try_from(end).unwrap_or(u32::MAX) })
    }

    fn is_over(self, now: u64) -> bool {
        self.0 != u32::MAX && now >= u64::from(self.0) * Self::UNIT_MS
    }
}

/// What an entry has beyond the usual. Times are milliseconds since the cache was made.
#[derive(Debug)]
pub(crate) struct Extra {
    /// How long it may go unread.
    pub(crate) idle_ms: u64,
    /// When it was last read. Relaxed: of two reads at once either time will do.
    pub(crate) read_at: AtomicU64,
    pub(crate) cost_us: u64,
    pub(crate) heat: u8,
    /// Sorted, without doubles.
    pub(crate) tags: Box<[Arc<str>]>,
}

impl<K, V> Entry<K, V> {
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_over(now) || self.extra.as_ref().is_some_and(|extra| extra.is_idle(now))
    }

    /// Takes note of a read at a time.
    pub(crate) fn read_at(&self, now: u64) {
        if let Some(extra) = self.extra.as_ref().filter(|extra| extra.idle_ms != NEVER) {
            extra.read_at.store(now, Ordering::Relaxed);
        }
    }

    /// What it cost to make, in microseconds.
    pub(crate) fn cost_us(&self) -> u64 {
        self.extra.as_ref().map_or(0, |extra| extra.cost_us)
    }

    fn tags(&self) -> &[Arc<str>] {
        self.extra.as_ref().map_or(&[], |extra| &extra.tags)
    }

    fn candidate(&self) -> Candidate {
        let heat = self.extra.as_ref().map_or(0, |extra| extra.heat);
        Candidate { hash: self.hash, weight: u64::from(self.weight), cost_us: self.cost_us(), heat }
    }
}

impl Extra {
    fn is_idle(&self, now: u64) -> bool {
        now >= self.read_at.load(Ordering::Relaxed).saturating_add(self.idle_ms)
    }
}

/// What an insertion pushed out.
#[derive(Debug)]
pub(crate) struct Displaced<K, V> {
    /// What stood under the same key.
    pub(crate) replaced: Option<Entry<K, V>>,
    /// What had to go for it.
    pub(crate) evicted: Evicted<Entry<K, V>>,
}

/// Mostly none or one, for which nothing is allocated.
#[derive(Debug)]
pub(crate) struct Evicted<T> {
    first: Option<T>,
    more: Vec<T>,
}

impl<K, V> Displaced<K, V> {
    pub(crate) const NOTHING: Self =
        Self { replaced: None, evicted: Evicted { first: None, more: Vec::new() } };
}

impl<T> Evicted<T> {
    #[inline]
    fn push(&mut self, entry: T) {
        match &self.first {
            None => self.first = Some(entry),
            Some(_) => self.more.push(entry),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.more)
    }
}

#[derive(Debug)]
pub(crate) struct Shard<K, V, P> {
    table: HashTable<u32>,
    slots: Vec<Option<Entry<K, V>>>,
    free: Vec<u32>,
    tags: HashMap<Arc<str>, HashSet<u32>>,
    policy: P,
    pub(crate) weight: u64,
    /// Entries put in, and those that had to go for them. Under the lock that an insertion has anyway.
    pub(crate) insertions: u64,
    pub(crate) evictions: u64,
    entries_max: usize,
    weight_max: u64,
}

impl<K: Eq, V, P: Policy> Shard<K, V, P> {
    pub(crate) fn new(policy: P, entries_max: usize, weight_max: u64) -> Self {
        Self {
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            tags: HashMap::new(),
            policy,
            weight: 0,
            insertions: 0,
            evictions: 0,
            entries_max,
            weight_max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The entry of a key, whatever its age.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &K) -> Option<(u32, &Entry<K, V>)> {
        let slot = *self.table.find(hash, |slot| self.entry(*slot).key == *key)?;
        Some((slot, self.entry(slot)))
    }

    /// Takes note of a read.
    #[inline]
    pub(crate) fn hit(&self, slot: u32) {
        self.policy.hit(slot);
    }

    /// Puts an entry in, and lets others go until it fits. One that never fits is evicted itself. What has to go is added to `displaced`:
    /// returned, it would be copied at every step of the way.
    #[inline]
    pub(crate) fn insert(&mut self, entry: Entry<K, V>, displaced: &mut Displaced<K, V>) {
        self.insertions += 1;
        let found = self.find(entry.hash, &entry.key).map(|(slot, _)| slot);
        let weight = u64::from(entry.weight);
        if weight > self.weight_max || self.entries_max == 0 {
            displaced.replaced = found.map(|slot| self.remove_slot(slot));
            self.evictions += 1;
            return displaced.evicted.push(entry);
        }
        if let Some(slot) = found {
            // What may cost more or less than before is new to the policy. Otherwise the key keeps its standing.
            if self.entry(slot).candidate() == entry.candidate() {
                displaced.replaced = Some(self.swap(slot, entry));
                return;
            }
            displaced.replaced = Some(self.remove_slot(slot));
        }
        while self.table.len() >= self.entries_max || self.weight + weight > self.weight_max {
            let victim = self.policy.victim().expect("a shard that is full holds something");
            self.evictions += 1;
            displaced.evicted.push(self.take(victim));
        }
        self.place(entry);
    }

    /// Takes the entry of a key out.
    pub(crate) fn remove(&mut self, hash: u64, key: &K) -> Option<Entry<K, V>> {
        let (slot, _) = self.find(hash, key)?;
        Some(self.remove_slot(slot))
    }

    /// Takes out all entries with a tag. Costs as much as they are many.
    pub(crate) fn remove_tag(&mut self, tag: &str) -> Vec<Entry<K, V>> {
        let slots: Vec<u32> = self.tags.get(tag).into_iter().flatten().copied().collect();
        slots.into_iter().map(|slot| self.remove_slot(slot)).collect()
    }

    /// Takes out all entries of which `unwanted` says so. Looks at every one.
    pub(crate) fn remove_where(&mut self, unwanted: impl Fn(&Entry<K, V>) -> bool) -> Vec<Entry<K, V>> {
        let slots = (0..).zip(&self.slots).filter(|(_, entry)| entry.as_ref().is_some_and(&unwanted));
        let slots: Vec<u32> = slots.map(|(slot, _)| slot).collect();
        slots.into_iter().map(|slot| self.remove_slot(slot)).collect()
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<K, V>> {
        self.slots.iter().flatten()
    }

    /// All entries, those that would go first at the beginning, each with its heat.
    pub(crate) fn ranking(&self) -> impl Iterator<Item = (&Entry<K, V>, u8)> {
        self.policy.ranking().into_iter().map(|(slot, heat)| (self.entry(slot), heat))
    }

    fn remove_slot(&mut self, slot: u32) -> Entry<K, V> {
        self.policy.remove(slot);
        self.take(slot)
    }

    #[inline]
    fn entry(&self, slot: u32) -> &Entry<K, V> {
        self.slots[slot as usize].as_ref().expect("tables name slots in use")
    }

    #[inline]
    fn place(&mut self, entry: Entry<K, V>) {
        let (hash, candidate) = (entry.hash, entry.candidate());
        self.weight += u64::from(entry.weight);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("entries_max is 32 bits")
        });
        self.enter_tags(slot, &entry);
        self.slots[slot as usize] = Some(entry);
        let slots = &self.slots;
        let rehash = |slot: &u32| slots[*slot as usize].as_ref().expect("tables name slots in use").hash;
        self.table.insert_unique(hash, slot, rehash);
        self.policy.insert(slot, candidate);
    }

    /// Puts an entry where the one of the same key and weight was.
    fn swap(&mut self, slot: u32, entry: Entry<K, V>) -> Entry<K, V> {
        self.enter_tags(slot, &entry);
        let old = self.slots[slot as usize].replace(entry).expect("tables name slots in use");
        let new = self.entry(slot).tags().to_vec();
        let gone = old.tags().iter().filter(|tag| new.binary_search(tag).is_err());
        gone.for_each(|tag| leave_tag(&mut self.tags, slot, tag));
        self.policy.hit(slot);
        old
    }

    /// Empties a slot that the policy has forgotten.
    #[inline]
    fn take(&mut self, slot: u32) -> Entry<K, V> {
        let entry = self.slots[slot as usize].take().expect("tables name slots in use");
        let found = self.table.find_entry(entry.hash, |other| *other == slot);
        found.expect("every slot in use is in the table").remove();
        entry.tags().iter().for_each(|tag| leave_tag(&mut self.tags, slot, tag));
        self.weight -= u64::from(entry.weight);
        self.free.push(slot);
        entry
    }

    fn enter_tags(&mut self, slot: u32, entry: &Entry<K, V>) {
        for tag in entry.tags() {
            self.tags.entry(tag.clone()).or_default().insert(slot);
        }
    }
}

fn leave_tag(tags: &mut HashMap<Arc<str>, HashSet<u32>>, slot: u32, tag: &str) {
    let slots = tags.get_mut(tag).expect("every tag in use is in the index");
    slots.remove(&slot);
    if slots.is_empty() {
        tags.remove(tag);
    }
}
