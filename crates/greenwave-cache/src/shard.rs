//! A part of a cache: entries in numbered slots, a table from hashes to slots, and an index from tags to slots. Decides nothing about time:
//! callers say what time it is. Nothing is dropped here; whatever leaves is handed back, to be dropped outside the lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashTable;

use crate::policy::{Candidate, Policy};

/// Says that an entry's weight is in [`Extra::weight`].
pub(crate) const WEIGHT_IN_EXTRA: u32 = u32::MAX;
/// The most that an entry weighs: as many of these as threads insert at a time fit into 64 bits.
pub(crate) const WEIGHT_MAX: u64 = 1 << 48;
/// The weight of what nobody could weigh: it is not cached.
pub(crate) const UNWEIGHED: u64 = u64::MAX;

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
    /// [`WEIGHT_IN_EXTRA`] if it does not fit here.
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
    /// What it weighs, if that needs more than 32 bits.
    pub(crate) weight: u64,
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

    #[inline]
    fn weight(&self) -> u64 {
        match &self.extra {
            Some(extra) if self.weight == WEIGHT_IN_EXTRA => extra.weight,
            _ => u64::from(self.weight),
        }
    }

    fn tags(&self) -> &[Arc<str>] {
        self.extra.as_ref().map_or(&[], |extra| &extra.tags)
    }

    fn candidate(&self) -> Candidate {
        let heat = self.extra.as_ref().map_or(0, |extra| extra.heat);
        Candidate { hash: self.hash, weight: self.weight(), cost_us: self.cost_us(), heat }
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

/// How much all shards of a cache weigh together, and may.
///
/// The weight is one number, so what fits does not depend on how many shards there are. Which shard
/// evicts depends on their numbers of entries and not on their weights: keys are spread evenly, so
/// shards of equal numbers let each entry stay for as long as one shard for all would.
#[derive(Debug)]
pub(crate) struct Budget {
    weight: AtomicU64,
    weight_max: u64,
    entries: Box<[Count]>,
}

/// On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Count(AtomicUsize);

impl Budget {
    /// At most this: far above what entries can weigh, and far enough below what 64 bits hold.
    const MAX: u64 = 1 << 63;

    pub(crate) fn new(weight_max: u64, shards: usize) -> Self {
        let entries = (0..shards).map(|_| Count::default()).collect();
        Self { weight: AtomicU64::new(0), weight_max: weight_max.min(Self::MAX), entries }
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        // Acquire, with the release in `add`: the number of entries is seen as well.
        self.weight.load(Ordering::Acquire) > self.weight_max
    }

    /// The shard that has the most entries, `own` only if no other has any.
    pub(crate) fn fullest(&self, own: usize) -> usize {
        let others = (0..self.entries.len()).filter(|index| *index != own);
        let fullest = others.max_by_key(|index| self.entries(*index));
        fullest.filter(|index| self.entries(*index) > 0).unwrap_or(own)
    }

    /// Whether others evict instead of a shard with so many entries: it has none, or one of the others,
    /// which the hash of the new entry chooses, has clearly more.
    fn spares(&self, own: usize, entries: usize, hash: u64) -> bool {
        let other = (hash >> 20) as usize % self.entries.len();
        entries == 0 || other != own && self.entries(other) > entries + entries / 4 + 1
    }

    fn entries(&self, index: usize) -> usize {
        self.entries[index].0.load(Ordering::Relaxed)
    }

    fn count(&self, index: usize, entries: usize) {
        self.entries[index].0.store(entries, Ordering::Relaxed);
    }

    /// Called under the shard's lock, before its entry is in: who sees the weight and locks the shard
    /// finds the entry.
    fn add(&self, index: usize, entries: usize, weight: u64) {
        self.count(index, entries);
        self.weight.fetch_add(weight, Ordering::AcqRel);
    }

    fn subtract(&self, index: usize, entries: usize, weight: u64) {
        self.count(index, entries);
        self.weight.fetch_sub(weight, Ordering::AcqRel);
    }
}

#[derive(Debug)]
pub(crate) struct Shard<K, V, P> {
    table: HashTable<u32>,
    slots: Vec<Option<Entry<K, V>>>,
    free: Vec<u32>,
    tags: HashMap<Arc<str>, HashSet<u32>>,
    policy: P,
    /// Without a limit, entries of any weight may add up to more than 64 bits hold.
    pub(crate) weight: u128,
    /// Entries put in, and those that had to go for them. Under the lock that an insertion has anyway.
    pub(crate) insertions: u64,
    pub(crate) evictions: u64,
    entries_max: usize,
    /// Shared with the other shards, and this one's number there.
    budget: Option<Arc<Budget>>,
    index: usize,
}

impl<K: Eq, V, P: Policy> Shard<K, V, P> {
    pub(crate) fn new(policy: P, entries_max: usize, budget: Option<Arc<Budget>>, index: usize) -> Self {
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
            budget,
            index,
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

    /// Puts an entry in, and lets others go until it fits, or until it is up to other shards to make
    /// room: then the budget is exceeded. One that never fits is evicted itself. What has to go is
    /// added to `displaced`: returned, it would be copied at every step of the way.
    #[inline]
    pub(crate) fn insert(&mut self, entry: Entry<K, V>, displaced: &mut Displaced<K, V>) {
        self.insertions += 1;
        let found = self.find(entry.hash, &entry.key).map(|(slot, _)| slot);
        let weight = entry.weight();
        let is_too_heavy = self.budget.as_ref().is_some_and(|budget| weight > budget.weight_max);
        if is_too_heavy || weight == UNWEIGHED || self.entries_max == 0 {
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
        while self.table.len() >= self.entries_max {
            self.evict(displaced);
        }
        self.reserve(entry.hash, weight, displaced);
        self.place(entry);
    }

    /// Makes room for an entry as far as that is up to this shard.
    #[inline]
    fn reserve(&mut self, hash: u64, weight: u64, displaced: &mut Displaced<K, V>) {
        let Some(budget) = &self.budget else { return };
        budget.add(self.index, self.len() + 1, weight);
        while self.is_over_budget() && !self.is_spared(hash, weight) {
            self.evict(displaced);
        }
        if let Some(budget) = &self.budget {
            // Evictions did not count the new entry.
            budget.count(self.index, self.len() + 1);
        }
    }

    /// Whether others evict for an entry of this weight instead of this shard. Only if they can make all
    /// the room: what this shard evicts once the entry is in may be the entry.
    fn is_spared(&self, hash: u64, weight: u64) -> bool {
        let Some(budget) = &self.budget else { return true };
        let fits = self.weight + u128::from(weight) <= u128::from(budget.weight_max);
        fits && budget.spares(self.index, self.len(), hash)
    }

    #[inline]
    fn is_over_budget(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.is_exceeded())
    }

    /// Lets up to an eighth of the entries go while all shards together are too heavy.
    pub(crate) fn shrink(&mut self, displaced: &mut Displaced<K, V>) {
        for _ in 0..self.len().div_ceil(8) {
            if !self.is_over_budget() {
                return;
            }
            self.evict(displaced);
        }
    }

    #[inline]
    fn evict(&mut self, displaced: &mut Displaced<K, V>) {
        let victim = self.policy.victim().expect("a shard that is full holds something");
        self.evictions += 1;
        displaced.evicted.push(self.take(victim));
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
        self.weight += u128::from(entry.weight());
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
        let weight = entry.weight();
        self.weight -= u128::from(weight);
        if let Some(budget) = &self.budget {
            budget.subtract(self.index, self.table.len(), weight);
        }
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
