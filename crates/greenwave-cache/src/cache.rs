//! The in-memory cache: lookups, insertions and invalidation across shards.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use crate::catch_panic::catch_panic;
use crate::deadline::Deadline;
use crate::hashing::{KeyHasher, SeededHasher};
use crate::hit_counters::HitCounters;
use crate::locked_shard::LockedShard;
use crate::options::{CacheOptions, EntryOptions, RemovalCause, millis};
use crate::policy::{Adaptive, Policy};
use crate::shard::{Displaced, Entry, Shard, UNWEIGHED, WEIGHT_IN_EXTRA, WEIGHT_MAX};
use crate::stats::{TagCounters, TagStats};
use crate::sync::Mutex;
use crate::weight_budget::WeightBudget;
use crate::{CacheStats, Error};

/// A concurrent in-memory map with limits, which evicts the entries that are least likely to be
/// used again.
///
/// Threads and tasks share it by reference, or by clones, which are handles of the same cache. No
/// call waits longer than for a short lock. Values are dropped, and the listener is called, outside
/// of all locks. Time is tokio's clock, so tests can pause and advance it.
///
/// As in a `HashMap`, keys are looked up in any borrowed form, such as `&str` for a `String`, whose
/// hash and equality are those of the key.
///
/// `P` is the eviction policy. `S` hashes the keys; use [`IdentityHasher`](crate::IdentityHasher)
/// for keys of type [`Key`](crate::Key).
pub struct Cache<K, V, P = Adaptive, S = SeededHasher> {
    pub(crate) shards: Arc<[LockedShard<K, V, P>]>,
    pub(crate) hashing: S,
    pub(crate) state: Arc<CacheState<K, V>>,
}

/// Fields that all handles of a cache share, apart from the shards.
pub(crate) struct CacheState<K, V> {
    /// Weight limit shared by all shards, if there is a limit.
    pub(crate) budget: Option<Arc<WeightBudget>>,
    pub(crate) options: CacheOptions<K, V>,
    start: Instant,
    /// Whether any entry ever had a limited life. Reading the clock costs more than the rest of a
    /// lookup.
    timed: AtomicBool,
    counters: HitCounters,
    /// Locked while the limits change.
    pub(crate) resizing: Mutex<()>,
}

impl<K: Eq, V> Cache<K, V>
where
    SeededHasher: KeyHasher<K>,
{
    /// Creates an empty cache with the default policy and hasher.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if an option is out of range.
    pub fn new(options: CacheOptions<K, V>) -> Result<Self, Error> {
        Self::with(options)
    }
}

impl<K: Eq, V, P: Policy, S: KeyHasher<K> + Default> Cache<K, V, P, S> {
    /// Creates an empty cache with the policy and hasher given by its type.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if an option is out of range or the policy's constructor
    /// does not return one policy per shard, and [`Error::Panicked`] if it panics.
    pub fn with(options: CacheOptions<K, V>) -> Result<Self, Error> {
        let shards = options.shard_count()?;
        let capacities = capacities(options.entries_max, shards);
        let budget = options.weight_max.map(|max| Arc::new(WeightBudget::new(max, shards)));
        let locked = |(index, (policy, capacity))| {
            LockedShard::new(Shard::new(policy, capacity, budget.clone(), index))
        };
        let policies = catch_panic("policy", || P::shards(&capacities))?;
        if policies.len() != shards {
            let value = format!("{} for {shards} shards", policies.len());
            return Err(Error::InvalidOption { option: "policies", value, expected: "one per shard" });
        }
        let locked_shards = policies.into_iter().zip(capacities).enumerate().map(locked).collect();
        let is_timed = options.ttl.is_some() || options.tti.is_some() || options.expiry.is_some();
        let (start, timed) = (Instant::now(), AtomicBool::new(is_timed));
        let (counters, resizing) = (HitCounters::new(), Mutex::default());
        let state = Arc::new(CacheState { budget, options, start, timed, counters, resizing });
        Ok(Self { shards: locked_shards, hashing: S::default(), state })
    }
}

impl<K: Eq, V, P: Policy, S: KeyHasher<K>> Cache<K, V, P, S> {
    /// Returns a clone of the value of `key`.
    pub fn get<Q: Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        S: KeyHasher<Q>,
        V: Clone,
    {
        self.find(key, |_, value| value.clone())
    }

    /// Calls `read` with the value of `key` and returns its result. `read` runs under a lock: it
    /// must be short, and must not insert or remove entries.
    ///
    /// # Panics
    /// Panics if `read` inserts or removes an entry in the part of the cache that is locked.
    pub fn get_with<Q: Eq + ?Sized, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        S: KeyHasher<Q>,
    {
        self.find(key, |locked, value| {
            let _reading = locked.reading();
            read(value)
        })
    }

    /// Calls `read` with the value of `key` and its locked shard, and counts the access.
    fn find<Q: Eq + ?Sized, R>(&self, key: &Q, read: impl FnOnce(&LockedShard<K, V, P>, &V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        S: KeyHasher<Q>,
    {
        let hash = self.hashing.hash_key(key);
        let locked = self.shard_for(hash);
        let found = self.lookup(locked, hash, key, |entry| (read(locked, &entry.value), entry.cost_us()));
        match &found {
            Some((_, saved_us)) => self.state.counters.hit(*saved_us),
            None => self.state.counters.miss(),
        }
        Some(found?.0)
    }

    /// Like [`get`](Self::get), and counts the access for each tag, as shown by
    /// [`tag_stats`](Self::tag_stats). Takes a lock to count, which `get` does not.
    pub fn get_tagged<Q: Eq + ?Sized>(&self, key: &Q, tags: &[&str]) -> Option<V>
    where
        K: Borrow<Q>,
        S: KeyHasher<Q>,
        V: Clone,
    {
        let found = self.get(key);
        if !tags.is_empty() {
            self.count_tags(self.hashing.hash_key(key), tags, found.is_some());
        }
        found
    }

    /// Returns whether `key` has an unexpired value. Does not count as an access.
    pub fn contains<Q: Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        S: KeyHasher<Q>,
    {
        let hash = self.hashing.hash_key(key);
        let shard = self.shard_for(hash).read();
        let now = self.now();
        shard.find(hash, key).is_some_and(|(_, entry)| !is_expired_at(entry, now))
    }

    /// Inserts `value` under `key`.
    pub fn insert(&self, key: K, value: V) {
        self.insert_with(key, value, &EntryOptions::default());
    }

    /// Inserts `value` under `key`, with options for the entry.
    pub fn insert_with(&self, key: K, value: V, options: &EntryOptions<'_>) {
        let entry = self.new_entry(key, value, options);
        let shard_index = self.shard_index(entry.hash);
        let locked = &self.shards[shard_index];
        let mut displaced = Displaced::NONE;
        let mut shard = locked.write();
        if locked.has_pending() {
            drop(shard);
            locked.with_pending(|pending| {
                pending.retain(|pending| pending.key != entry.key);
                self.insert_locked(locked, &mut locked.write(), entry, &mut displaced);
            });
        } else {
            self.insert_locked(locked, &mut shard, entry, &mut displaced);
            drop(shard);
        }
        self.evict_over_budget(shard_index, &mut displaced);
        self.notify_displaced(&displaced);
    }

    /// Removes `key` and returns its value, unless it had expired.
    pub fn remove<Q: Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        S: KeyHasher<Q>,
    {
        let hash = self.hashing.hash_key(key);
        let locked = self.shard_for(hash);
        let mut shard = locked.write();
        let removed = if locked.has_pending() {
            drop(shard);
            locked.with_pending(|pending| {
                pending.retain(|pending| pending.key.borrow() != key);
                locked.write().remove(hash, key)
            })
        } else {
            let removed = shard.remove(hash, key);
            drop(shard);
            removed
        };
        let removed = removed?;
        locked.removals.add(1);
        self.notify(&removed, RemovalCause::Removed);
        (!is_expired_at(&removed, self.now())).then_some(removed.value)
    }

    /// Removes every entry with the tag and returns their number. Takes time proportional to that
    /// number.
    pub fn invalidate_tag(&self, tag: &str) -> usize {
        self.invalidate(|_, shard| shard.remove_tag(tag))
    }

    /// Removes all entries and returns their number.
    pub fn invalidate_all(&self) -> usize {
        self.invalidate(|_, shard| shard.remove_where(|_| true))
    }

    /// Removes every entry for which `predicate` returns true, and returns their number. Looks at
    /// all entries; use a tag to invalidate few entries of many. `predicate` runs under a lock: it
    /// must be short, and must not insert or remove entries.
    ///
    /// Values that are being computed meanwhile are returned to their callers, and not cached.
    ///
    /// # Panics
    /// Panics if `predicate` inserts or removes an entry in the part of the cache that is locked.
    pub fn invalidate_if(&self, predicate: impl Fn(&K, &V) -> bool) -> usize {
        self.invalidate(|locked, shard| {
            let _reading = locked.reading();
            shard.remove_where(|entry| predicate(&entry.key, &entry.value))
        })
    }

    /// Removes all expired entries and returns their number. Without this call, an expired entry is
    /// removed when it is next looked up or evicted.
    pub fn purge_expired(&self) -> usize {
        let now = self.now();
        let purge = |locked: &LockedShard<K, V, P>| {
            let expired = locked.write().remove_where(|entry| is_expired_at(entry, now));
            locked.expirations.add(expired.len() as u64);
            expired.iter().for_each(|entry| self.notify(entry, RemovalCause::Expired));
            expired.len()
        };
        self.shards.iter().map(purge).sum()
    }

    /// Returns a snapshot of the cache's size and counters.
    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats::of(self.state.counters.access_counts());
        let mut weight = 0_u128;
        for locked in self.shards.iter() {
            let shard = locked.read();
            stats.entries += shard.len() as u64;
            weight += shard.weight;
            stats.insertions += shard.insertions;
            stats.evictions += shard.evictions;
            drop(shard);
            stats.expirations += locked.expirations.get();
            stats.removals += locked.removals.get();
        }
        stats.weight = u64::try_from(weight).unwrap_or(u64::MAX);
        stats
    }

    /// Returns the accesses by tag, sorted by tag. Counts those made with
    /// [`get_tagged`](Self::get_tagged), and with `get_or_compute_with` and tags.
    pub fn tag_stats(&self) -> Vec<TagStats> {
        let mut sum = TagCounters::default();
        self.shards.iter().for_each(|locked| sum.merge(&locked.tags.lock()));
        sum.into_stats()
    }

    /// Returns a clone of the value of `key`. Counts a hit, also for the tags, but not a miss.
    pub(crate) fn get_counting_hits<Q: Eq + ?Sized>(&self, key: &Q, tags: &[&str]) -> Option<V>
    where
        K: Borrow<Q>,
        S: KeyHasher<Q>,
        V: Clone,
    {
        let hash = self.hashing.hash_key(key);
        let read = |entry: &Entry<K, V>| (entry.value.clone(), entry.cost_us());
        let (value, saved_us) = self.lookup(self.shard_for(hash), hash, key, read)?;
        self.state.counters.hit(saved_us);
        self.count_tags(hash, tags, true);
        Some(value)
    }

    /// Counts an access to `key`: a hit that saved `saved_us` microseconds, or a miss.
    pub(crate) fn count_access<Q: ?Sized>(&self, key: &Q, tags: &[&str], saved_us: Option<u64>)
    where
        S: KeyHasher<Q>,
    {
        match saved_us {
            Some(saved_us) => self.state.counters.hit(saved_us),
            None => self.state.counters.miss(),
        }
        if !tags.is_empty() {
            self.count_tags(self.hashing.hash_key(key), tags, saved_us.is_some());
        }
    }

    #[inline]
    fn count_tags(&self, hash: u64, tags: &[&str], is_hit: bool) {
        if !tags.is_empty() {
            self.shard_for(hash).tags.lock().add(tags, is_hit);
        }
    }

    pub(crate) fn shard_for(&self, hash: u64) -> &LockedShard<K, V, P> {
        &self.shards[self.shard_index(hash)]
    }

    pub(crate) fn shard_index(&self, hash: u64) -> usize {
        // Uses other bits than the table, which takes the lowest and the highest seven.
        (hash >> 40) as usize & (self.shards.len() - 1)
    }

    pub(crate) fn new_entry(&self, key: K, value: V, options: &EntryOptions<'_>) -> Entry<K, V> {
        let ttl = options.ttl.or(self.state.options.ttl);
        let tti = options.tti.or(self.state.options.tti);
        if ttl.or(tti).is_some() {
            // Relaxed: a reader that does not see the store yet could as well have run before the
            // insertion.
            self.state.timed.store(true, Ordering::Relaxed);
        }
        let now = self.now().unwrap_or(0);
        let undecided =
            || if self.state.options.expiry.is_some() { Deadline::undecided() } else { Deadline::never() };
        let weight = self.weigh(&key, &value);
        Entry {
            hash: self.hashing.hash_key(&key),
            weight: u32::try_from(weight).unwrap_or(WEIGHT_IN_EXTRA),
            expires_at: ttl.map_or_else(undecided, |ttl| Deadline::after(now, millis(ttl))),
            extra: options.extra(tti, now, weight),
            key,
            value,
        }
    }

    fn weigh(&self, key: &K, value: &V) -> u64 {
        let Some(weigh) = &self.state.options.weigher else { return 0 };
        catch_panic("weigher", || weigh(key, value)).map_or(UNWEIGHED, |weight| weight.min(WEIGHT_MAX))
    }

    /// Inserts an entry. The caller must pass the displaced entries to
    /// [`evict_over_budget`](Self::evict_over_budget), and drop them outside of all locks.
    pub(crate) fn insert_entry(&self, entry: Entry<K, V>) -> Displaced<K, V> {
        let mut displaced = Displaced::NONE;
        let locked = self.shard_for(entry.hash);
        self.insert_locked(locked, &mut locked.write(), entry, &mut displaced);
        displaced
    }

    /// Inserts an entry into the shard `shard`, which is that of `locked`.
    #[inline]
    pub(crate) fn insert_locked(
        &self,
        locked: &LockedShard<K, V, P>,
        shard: &mut Shard<K, V, P>,
        mut entry: Entry<K, V>,
        displaced: &mut Displaced<K, V>,
    ) {
        if self.state.options.expiry.is_some() {
            self.begin_life(locked, shard, &mut entry);
        }
        shard.insert(entry, displaced);
    }

    /// Evicts entries from other shards until the total weight is within the limit again, after an
    /// insertion into the shard `shard_index`. The caller must not hold a lock.
    #[inline]
    pub(crate) fn evict_over_budget(&self, shard_index: usize, displaced: &mut Displaced<K, V>) {
        let Some(budget) = &self.state.budget else { return };
        while budget.is_exceeded() {
            let fullest = &self.shards[budget.fullest(shard_index)];
            fullest.write().shrink(displaced);
        }
    }

    /// Calls the listener with the displaced entries. The caller drops them afterwards.
    pub(crate) fn notify_displaced(&self, displaced: &Displaced<K, V>) {
        let Displaced { replaced, evicted } = displaced;
        replaced.iter().for_each(|entry| self.notify(entry, RemovalCause::Replaced));
        evicted.iter().for_each(|entry| self.notify(entry, RemovalCause::Evicted));
    }

    #[inline]
    fn lookup<Q: Eq + ?Sized, R>(
        &self,
        locked: &LockedShard<K, V, P>,
        hash: u64,
        key: &Q,
        read: impl FnOnce(&Entry<K, V>) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
    {
        let now = self.now();
        let shard = locked.read();
        let (slot, entry) = shard.find(hash, key)?;
        if let Some(now) = now {
            if entry.is_expired(now) {
                drop(shard);
                self.expire(locked, hash, key, now);
                return None;
            }
            entry.record_access(now);
            self.extend_life(locked, entry, now);
        }
        shard.hit(slot);
        Some(read(entry))
    }

    fn expire<Q: Eq + ?Sized>(&self, locked: &LockedShard<K, V, P>, hash: u64, key: &Q, now: u64)
    where
        K: Borrow<Q>,
    {
        let mut shard = locked.write();
        // Another thread may have inserted the key again between the two locks.
        let expired = shard.find(hash, key).is_some_and(|(_, entry)| entry.is_expired(now));
        let removed = if expired { shard.remove(hash, key) } else { None };
        drop(shard);
        if let Some(entry) = removed {
            locked.expirations.add(1);
            self.notify(&entry, RemovalCause::Expired);
        }
    }

    fn invalidate(
        &self,
        remove: impl Fn(&LockedShard<K, V, P>, &mut Shard<K, V, P>) -> Vec<Entry<K, V>>,
    ) -> usize {
        let one = |locked: &LockedShard<K, V, P>| {
            // A computation in progress may depend on an invalidated entry.
            let (removed, cancelled) = locked.with_pending(|pending| {
                let removed = remove(locked, &mut locked.write());
                (removed, std::mem::take(pending))
            });
            drop(cancelled);
            locked.removals.add(removed.len() as u64);
            removed.iter().for_each(|entry| self.notify(entry, RemovalCause::Removed));
            removed.len()
        };
        self.shards.iter().map(one).sum()
    }

    pub(crate) fn notify(&self, entry: &Entry<K, V>, cause: RemovalCause) {
        if let Some(listener) = &self.state.options.listener {
            // `catch_panic` has logged the panic. It must not fail the caller.
            let _ = catch_panic("listener", || listener(&entry.key, &entry.value, cause));
        }
    }

    /// Returns the milliseconds since the cache was created, or `None` while no entry can expire.
    #[inline]
    pub(crate) fn now(&self) -> Option<u64> {
        self.state.timed.load(Ordering::Relaxed).then(|| millis(self.state.start.elapsed()))
    }
}

impl<K, V, P, S: Clone> Clone for Cache<K, V, P, S> {
    /// Returns another handle of the same cache.
    fn clone(&self) -> Self {
        let (shards, state) = (Arc::clone(&self.shards), Arc::clone(&self.state));
        Self { shards, hashing: self.hashing.clone(), state }
    }
}

impl<K, V, P, S> fmt::Debug for Cache<K, V, P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("options", &self.state.options).finish_non_exhaustive()
    }
}

/// Returns the maximum number of entries of each shard. Together they are never more than
/// `entries_max`.
pub(crate) fn capacities(entries_max: usize, shards: usize) -> Vec<usize> {
    let capacity = |index: usize| entries_max / shards + usize::from(index < entries_max % shards);
    (0..shards).map(capacity).collect()
}

/// Returns whether the entry has expired. Without a clock value, no entry has.
pub(crate) fn is_expired_at<K, V>(entry: &Entry<K, V>, now: Option<u64>) -> bool {
    now.is_some_and(|now| entry.is_expired(now))
}
