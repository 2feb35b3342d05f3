//! A shard of a cache: entries in numbered slots, with indices by hash and by tag.
//!
//! Callers supply the current time. Removed entries are returned, never dropped here, so that the
//! caller can drop them outside the lock.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;

use crate::deadline::Deadline;
use crate::policy::{Candidate, Policy};
use crate::shard_policy::ShardPolicy;
use crate::weight_budget::WeightBudget;

/// Marks an entry whose weight is stored in [`Extra::weight`].
pub(crate) const WEIGHT_IN_EXTRA: u32 = u32::MAX;
/// Maximum weight of one entry. The sum over as many entries as threads insert at once fits into 64
/// bits.
pub(crate) const WEIGHT_MAX: u64 = 1 << 48;
/// Weight of an entry whose weigher panicked. Such an entry is not cached.
pub(crate) const UNWEIGHED: u64 = u64::MAX;

/// A time that is never reached.
pub(crate) const NEVER: u64 = u64::MAX;

/// A cached entry.
///
/// The fields that a hit reads come first. With a key of 32 bytes and a value of 8, an entry takes
/// 64 bytes: fewer cache lines make lookups faster.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Entry<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    /// Fields that few entries have, stored separately so that most entries stay small.
    pub(crate) extra: Option<Box<Extra>>,
    pub(crate) expires_at: Deadline,
    /// Weight of the entry, or [`WEIGHT_IN_EXTRA`] if it needs more than 32 bits.
    pub(crate) weight: u32,
    pub(crate) hash: u64,
}

/// Fields that few entries have. Times are in milliseconds since the cache was created.
#[derive(Debug)]
pub(crate) struct Extra {
    /// Maximum time between accesses.
    pub(crate) idle_ms: u64,
    /// Time of the last access. Relaxed: after two concurrent accesses either time is acceptable.
    pub(crate) read_at: AtomicU64,
    pub(crate) cost_us: u64,
    /// Weight of the entry, used if it needs more than 32 bits.
    pub(crate) weight: u64,
    pub(crate) heat: u8,
    /// Sorted, without duplicates.
    pub(crate) tags: Box<[Arc<str>]>,
}

impl<K, V> Entry<K, V> {
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_expired_at(now) || self.extra.as_ref().is_some_and(|extra| extra.is_idle(now))
    }

    /// Records an access at time `now`.
    pub(crate) fn record_access(&self, now: u64) {
        if let Some(extra) = self.extra.as_ref().filter(|extra| extra.idle_ms != NEVER) {
            extra.read_at.store(now, Ordering::Relaxed);
        }
    }

    /// Returns the time that it took to compute the value, in microseconds.
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

/// Entries that an insertion removed.
#[derive(Debug)]
pub(crate) struct Displaced<K, V> {
    /// Previous entry of the same key.
    pub(crate) replaced: Option<Entry<K, V>>,
    /// Entries evicted to make room.
    pub(crate) evicted: Evicted<Entry<K, V>>,
}

/// A list of usually no or one entry, for which it does not allocate.
#[derive(Debug)]
pub(crate) struct Evicted<T> {
    first: Option<T>,
    more: Vec<T>,
}

impl<K, V> Displaced<K, V> {
    pub(crate) const NONE: Self = Self { replaced: None, evicted: Evicted { first: None, more: Vec::new() } };
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
    policy: ShardPolicy<P>,
    /// Total weight. Without a limit, the sum can exceed 64 bits.
    pub(crate) weight: u128,
    /// Numbers of insertions and evictions, changed under the lock that an insertion holds anyway.
    pub(crate) insertions: u64,
    pub(crate) evictions: u64,
    entries_max: usize,
    /// Weight limit shared with the other shards, and this shard's index in it.
    budget: Option<Arc<WeightBudget>>,
    index: usize,
}

impl<K: Eq, V, P: Policy> Shard<K, V, P> {
    pub(crate) fn new(
        policy: P,
        entries_max: usize,
        budget: Option<Arc<WeightBudget>>,
        index: usize,
    ) -> Self {
        Self {
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            tags: HashMap::new(),
            policy: ShardPolicy::new(policy),
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

    /// Returns the slot and entry of a key, even if it has expired.
    #[inline]
    pub(crate) fn find<Q: Eq + ?Sized>(&self, hash: u64, key: &Q) -> Option<(u32, &Entry<K, V>)>
    where
        K: Borrow<Q>,
    {
        let slot = *self.table.find(hash, |slot| self.entry(*slot).key.borrow() == key)?;
        Some((slot, self.entry(slot)))
    }

    /// Reports a hit to the policy.
    #[inline]
    pub(crate) fn hit(&self, slot: u32) {
        self.policy.hit(slot);
    }

    /// Inserts an entry, and evicts others until it fits or until other shards must make room; in
    /// the latter case the budget stays exceeded. An entry that can never fit is evicted itself.
    ///
    /// Displaced entries are added to `displaced`: as a return value they would be copied at every
    /// step.
    #[inline]
    pub(crate) fn insert(&mut self, entry: Entry<K, V>, displaced: &mut Displaced<K, V>) {
        self.insertions += 1;
        if self.policy.has_failed() {
            self.start_over(displaced);
        }
        let found = self.find(entry.hash, &entry.key).map(|(slot, _)| slot);
        let weight = entry.weight();
        let is_too_heavy = self.budget.as_ref().is_some_and(|budget| weight > budget.weight_max());
        let is_refused = is_too_heavy || weight == UNWEIGHED || !self.policy.exists();
        if is_refused || self.entries_max == 0 {
            displaced.replaced = found.map(|slot| self.remove_slot(slot));
            self.evictions += 1;
            return displaced.evicted.push(entry);
        }
        if let Some(slot) = found {
            // With another cost or weight the entry is new to the policy. Otherwise it keeps its
            // rank.
            if self.entry(slot).candidate() == entry.candidate() {
                displaced.replaced = Some(self.replace_entry(slot, entry));
                return;
            }
            displaced.replaced = Some(self.remove_slot(slot));
        }
        while self.table.len() >= self.entries_max {
            self.evict(displaced);
        }
        self.reserve(entry.hash, weight, displaced);
        self.store_entry(entry);
        if self.policy.has_failed() || !self.policy.exists() {
            self.start_over(displaced);
        }
    }

    /// Evicts entries of this shard to make room for a new one, unless other shards must evict.
    #[inline]
    fn reserve(&mut self, hash: u64, weight: u64, displaced: &mut Displaced<K, V>) {
        let Some(budget) = &self.budget else { return };
        budget.add(self.index, self.len() + 1, weight);
        while self.exceeds_budget() && !self.defers_eviction(hash, weight) {
            self.evict(displaced);
        }
        if let Some(budget) = &self.budget {
            // Evictions did not count the new entry.
            budget.count(self.index, self.len() + 1);
        }
    }

    /// Returns whether other shards evict to make room for an entry of this weight. True only if
    /// they can make all the room: once the entry is inserted, this shard might evict that very
    /// entry.
    fn defers_eviction(&self, hash: u64, weight: u64) -> bool {
        let Some(budget) = &self.budget else { return true };
        let fits = self.weight + u128::from(weight) <= u128::from(budget.weight_max());
        fits && budget.can_defer_to_others(self.index, self.len(), hash)
    }

    #[inline]
    fn exceeds_budget(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.is_exceeded())
    }

    /// Evicts up to an eighth of the entries while the total weight of all shards exceeds the
    /// limit.
    pub(crate) fn shrink(&mut self, displaced: &mut Displaced<K, V>) {
        for _ in 0..self.len().div_ceil(8) {
            if !self.exceeds_budget() {
                return;
            }
            self.evict(displaced);
        }
    }

    #[inline]
    fn evict(&mut self, displaced: &mut Displaced<K, V>) {
        let slots = &self.slots;
        let is_used = |slot: u32| slots.get(slot as usize).is_some_and(Option::is_some);
        let Some(victim) = self.policy.victim(is_used) else { return self.start_over(displaced) };
        self.evictions += 1;
        displaced.evicted.push(self.clear_slot(victim));
    }

    /// Evicts all entries and replaces the policy, which has failed.
    #[cold]
    fn start_over(&mut self, displaced: &mut Displaced<K, V>) {
        let used = (0..).zip(&self.slots).filter(|(_, entry)| entry.is_some());
        let used: Vec<u32> = used.map(|(slot, _)| slot).collect();
        for slot in used {
            self.evictions += 1;
            displaced.evicted.push(self.clear_slot(slot));
        }
        self.policy.replace(self.entries_max);
    }

    /// Changes the maximum number of entries, evicts the surplus, and replaces the policy. The new
    /// one gets the entries in the order of eviction of the old one.
    pub(crate) fn resize(&mut self, entries_max: usize, policy: P, displaced: &mut Displaced<K, V>) {
        let is_used = |slot: &u32| self.slots.get(*slot as usize).is_some_and(Option::is_some);
        let ranking = self.policy.ranking().into_iter().filter(|(slot, _)| is_used(slot));
        let mut ranking: VecDeque<(u32, u8)> = ranking.collect();
        self.entries_max = entries_max;
        if ranking.len() != self.len() {
            // The policy has failed.
            self.start_over(displaced);
            ranking.clear();
        }
        self.policy = ShardPolicy::new(policy);
        while ranking.len() > entries_max {
            let Some((slot, _)) = ranking.pop_front() else { break };
            self.evictions += 1;
            displaced.evicted.push(self.clear_slot(slot));
        }
        for (slot, heat) in ranking {
            let candidate = Candidate { heat, ..self.entry(slot).candidate() };
            self.policy.insert(slot, candidate);
        }
        if self.policy.has_failed() {
            self.start_over(displaced);
        }
    }

    /// Removes the entry of a key.
    pub(crate) fn remove<Q: Eq + ?Sized>(&mut self, hash: u64, key: &Q) -> Option<Entry<K, V>>
    where
        K: Borrow<Q>,
    {
        let (slot, _) = self.find(hash, key)?;
        Some(self.remove_slot(slot))
    }

    /// Removes all entries with a tag. Takes time proportional to their number.
    pub(crate) fn remove_tag(&mut self, tag: &str) -> Vec<Entry<K, V>> {
        let slots: Vec<u32> = self.tags.get(tag).into_iter().flatten().copied().collect();
        slots.into_iter().map(|slot| self.remove_slot(slot)).collect()
    }

    /// Removes all entries for which `predicate` returns true. Scans the whole shard.
    pub(crate) fn remove_where(&mut self, predicate: impl Fn(&Entry<K, V>) -> bool) -> Vec<Entry<K, V>> {
        let slots = (0..).zip(&self.slots).filter(|(_, entry)| entry.as_ref().is_some_and(&predicate));
        let slots: Vec<u32> = slots.map(|(slot, _)| slot).collect();
        slots.into_iter().map(|slot| self.remove_slot(slot)).collect()
    }

    /// Iterates over all entries, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<K, V>> {
        self.slots.iter().flatten()
    }

    /// Iterates over all entries with their heat, in order of eviction.
    pub(crate) fn ranking(&self) -> impl Iterator<Item = (&Entry<K, V>, u8)> {
        let entry = |slot: u32| self.slots.get(slot as usize)?.as_ref();
        self.policy.ranking().into_iter().filter_map(move |(slot, heat)| Some((entry(slot)?, heat)))
    }

    fn remove_slot(&mut self, slot: u32) -> Entry<K, V> {
        self.policy.remove(slot);
        self.clear_slot(slot)
    }

    #[inline]
    fn entry(&self, slot: u32) -> &Entry<K, V> {
        self.slots[slot as usize].as_ref().expect("the table lists used slots only")
    }

    #[inline]
    fn store_entry(&mut self, entry: Entry<K, V>) {
        let (hash, candidate) = (entry.hash, entry.candidate());
        self.weight += u128::from(entry.weight());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("entries_max is 32 bits")
        });
        self.index_tags(slot, &entry);
        self.slots[slot as usize] = Some(entry);
        let slots = &self.slots;
        let rehash =
            |slot: &u32| slots[*slot as usize].as_ref().expect("the table lists used slots only").hash;
        self.table.insert_unique(hash, slot, rehash);
        self.policy.insert(slot, candidate);
    }

    /// Replaces the entry in a slot by one with the same key and weight.
    fn replace_entry(&mut self, slot: u32, entry: Entry<K, V>) -> Entry<K, V> {
        self.index_tags(slot, &entry);
        let old = self.slots[slot as usize].replace(entry).expect("the table lists used slots only");
        let new = self.entry(slot).tags().to_vec();
        let gone = old.tags().iter().filter(|tag| new.binary_search(tag).is_err());
        gone.for_each(|tag| unindex_tag(&mut self.tags, slot, tag));
        self.policy.hit(slot);
        old
    }

    /// Empties a slot that the policy no longer tracks.
    #[inline]
    fn clear_slot(&mut self, slot: u32) -> Entry<K, V> {
        let entry = self.slots[slot as usize].take().expect("the table lists used slots only");
        let found = self.table.find_entry(entry.hash, |other| *other == slot);
        found.expect("every used slot is in the table").remove();
        entry.tags().iter().for_each(|tag| unindex_tag(&mut self.tags, slot, tag));
        let weight = entry.weight();
        self.weight -= u128::from(weight);
        if let Some(budget) = &self.budget {
            budget.subtract(self.index, self.table.len(), weight);
        }
        self.free.push(slot);
        entry
    }

    fn index_tags(&mut self, slot: u32, entry: &Entry<K, V>) {
        for tag in entry.tags() {
            self.tags.entry(tag.clone()).or_default().insert(slot);
        }
    }
}

fn unindex_tag(tags: &mut HashMap<Arc<str>, HashSet<u32>>, slot: u32, tag: &str) {
    let slots = tags.get_mut(tag).expect("every used tag is in the index");
    slots.remove(&slot);
    if slots.is_empty() {
        tags.remove(tag);
    }
}
