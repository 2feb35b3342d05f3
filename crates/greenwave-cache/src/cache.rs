//! The cache in memory: shards, time, and what callers see. Computing missing values stands in `load.rs`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::contained::contained;
use crate::hashing::{KeyHasher, SeededHasher};
use crate::load::Listed;
use crate::policy::{Adaptive, Policy};
use crate::shard::{
    Budget, Deadline, Displaced, Entry, Extra, NEVER, Shard, UNWEIGHED, WEIGHT_IN_EXTRA, WEIGHT_MAX,
};
use crate::stats::{Counter, TagStats, TagTally};
use crate::sync::{AtomicUsize, Mutex, RwLock};
use crate::tally::Tally;
use crate::{CacheStats, Error};

/// Says what an entry weighs, in any unit: bytes, mostly. Called once per insertion. If it panics, that
/// is logged, and the entry is not cached.
pub type Weigher<K, V> = Arc<dyn Fn(&K, &V) -> u64 + Send + Sync>;
/// Hears of every entry that leaves, after the fact and under no lock, on the thread that made it leave.
/// If it panics, that is logged, and the call that made the entry leave goes on.
pub type RemovalListener<K, V> = Arc<dyn Fn(&K, &V, RemovalCause) + Send + Sync>;

/// Fewer entries than this are not worth a shard: the policy sees too little of the whole.
const SHARD_ENTRIES_MIN: usize = 512;
/// Nor is less weight, in what is mostly bytes.
const SHARD_WEIGHT_MIN: u64 = 1 << 20;
/// More shards only cost memory.
const SHARDS_MAX: usize = 1024;

/// How a [`Cache`] behaves.
pub struct CacheOptions<K, V> {
    /// Most entries held. With 0 nothing is kept. Default 10 000.
    pub entries_max: usize,
    /// Most weight held by all shards together, which needs a [`weigher`](Self::weigher). An entry of up
    /// to this weight is cached, whatever the number of shards or processors; a heavier one is not, and
    /// counts as evicted. Threads that insert at the same time may exceed it for a moment by what they
    /// insert. Default: no limit; above 2^63 it means 2^63.
    pub weight_max: Option<u64>,
    /// What an entry weighs: more than 2^48 means 2^48. Default: nothing.
    pub weigher: Option<Weigher<K, V>>,
    /// How long an entry lives, unless it says otherwise itself; rounded up to a tenth of a second. Zero
    /// is no time at all; an end more than 13 years after the cache was made is never reached.
    pub ttl: Option<Duration>,
    /// How long an entry lives unread, unless it says otherwise itself; rounded up to a millisecond. Zero
    /// is no time at all.
    pub tti: Option<Duration>,
    /// Who hears of entries that leave.
    pub listener: Option<RemovalListener<K, V>>,
    /// Into how many parts the cache is divided so that threads do not wait for each other: 1 to 1024,
    /// rounded up to a power of two, and at most one per entry. By default four per processor, as long
    /// as each has enough to be worth it. Each part holds its share of `entries_max`; the weight is
    /// limited for all together.
    pub shards: Option<usize>,
}

impl<K, V> Default for CacheOptions<K, V> {
    fn default() -> Self {
        Self {
            entries_max: 10_000,
            weight_max: None,
            weigher: None,
            ttl: None,
            tti: None,
            listener: None,
            shards: None,
        }
    }
}

impl<K, V> fmt::Debug for CacheOptions<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries_max, weight_max, ttl, tti, shards, .. } = self;
        let mut debug = f.debug_struct("CacheOptions");
        debug.field("entries_max", entries_max).field("weight_max", weight_max);
        debug.field("ttl", ttl).field("tti", tti).field("shards", shards).finish_non_exhaustive()
    }
}

/// What one entry wants otherwise than the cache's options.
#[derive(Debug, Clone, Default)]
pub struct EntryOptions<'a> {
    /// How long it lives.
    pub ttl: Option<Duration>,
    /// How long it lives unread.
    pub tti: Option<Duration>,
    /// What it can be invalidated by: a feature, a file.
    pub tags: &'a [&'a str],
    /// How long it took to make, which every hit saves. `get_or_compute` measures it if it is `None`.
    pub cost: Option<Duration>,
    /// How often it was read before, in another life of the cache: see [`Cache::hottest`].
    pub heat: u8,
}

/// An entry to [`warm`](Cache::warm) a cache with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmEntry<K, V> {
    /// Its key.
    pub key: K,
    /// Its value.
    pub value: V,
    /// How often it was read lately, as [`hottest`](Cache::hottest) has it.
    pub heat: u8,
}

/// Why an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalCause {
    /// The cache was full.
    Evicted,
    /// It was too old.
    Expired,
    /// Its key was put again.
    Replaced,
    /// The caller removed or invalidated it.
    Removed,
}

/// A map in memory that keeps what is likely to be wanted again, within limits.
///
/// Threads and tasks share it by reference. No call waits for more than a short lock; values, and the listener's calls, are dropped and made
/// outside of it. Times follow tokio's clock, so a test that pauses it decides what time it is.
///
/// `P` decides what is evicted; `S` spreads the keys, [`IdentityHasher`](crate::IdentityHasher) being the right one for [`Key`](crate::Key)s.
pub struct Cache<K, V, P = Adaptive, S = SeededHasher> {
    pub(crate) shards: Box<[Part<K, V, P>]>,
    pub(crate) hashing: S,
    /// What the shards may weigh together, if that is limited.
    budget: Option<Arc<Budget>>,
    options: CacheOptions<K, V>,
    start: Instant,
    /// Whether any entry ever had a limited life: the clock costs more than the rest of a read.
    timed: AtomicBool,
    tally: Tally,
}

/// A shard with its lock and counters, on cache lines of its own.
#[repr(align(128))]
pub(crate) struct Part<K, V, P> {
    shard: RwLock<Shard<K, V, P>>,
    /// Computations that are under way.
    flights: Mutex<Vec<Listed<K, V>>>,
    /// How many: an insertion need not lock the list when it is empty.
    flying: AtomicUsize,
    tags: Mutex<TagTally>,
    expirations: Counter,
    removals: Counter,
}

impl<K: Eq, V> Cache<K, V>
where
    SeededHasher: KeyHasher<K>,
{
    /// An empty cache with the usual policy and hash.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`].
    pub fn new(options: CacheOptions<K, V>) -> Result<Self, Error> {
        Self::with(options)
    }
}

impl<K: Eq, V, P: Policy, S: KeyHasher<K> + Default> Cache<K, V, P, S> {
    /// An empty cache with the policy and the hash that its type names.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`].
    pub fn with(options: CacheOptions<K, V>) -> Result<Self, Error> {
        let shards = options.shard_count()?;
        // Rounded so that the parts never add up to more than the whole.
        let share =
            |index: usize| options.entries_max / shards + usize::from(index < options.entries_max % shards);
        let capacities: Vec<usize> = (0..shards).map(share).collect();
        let budget = options.weight_max.map(|max| Arc::new(Budget::new(max, shards)));
        let part =
            |(index, (policy, capacity))| Part::new(Shard::new(policy, capacity, budget.clone(), index));
        let parts = P::shards(&capacities).into_iter().zip(capacities).enumerate().map(part).collect();
        let timed = AtomicBool::new(options.ttl.is_some() || options.tti.is_some());
        let (hashing, start, tally) = (S::default(), Instant::now(), Tally::new());
        Ok(Self { shards: parts, hashing, budget, options, start, timed, tally })
    }
}

impl<K: Eq, V, P: Policy, S: KeyHasher<K>> Cache<K, V, P, S> {
    /// A copy of the value of `key`.
    pub fn get(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        self.get_with(key, V::clone)
    }

    /// What `read` makes of the value of `key`. It runs under a lock: short, and without calling this cache.
    pub fn get_with<R>(&self, key: &K, read: impl FnOnce(&V) -> R) -> Option<R> {
        let hash = self.hashing.hash_key(key);
        let part = self.part(hash);
        let found = self.look(part, hash, key, |entry| (read(&entry.value), entry.cost_us()));
        match &found {
            Some((_, saved_us)) => self.tally.hit(*saved_us),
            None => self.tally.miss(),
        }
        Some(found?.0)
    }

    /// A copy of the value of `key`, the read counted for each of these tags, which is what [`tag_stats`](Self::tag_stats) shows. Takes a
    /// lock for that, which [`get`](Self::get) does not.
    pub fn get_tagged(&self, key: &K, tags: &[&str]) -> Option<V>
    where
        V: Clone,
    {
        let found = self.get(key);
        if !tags.is_empty() {
            self.count_tags(self.hashing.hash_key(key), tags, found.is_some());
        }
        found
    }

    /// Whether `key` has a value that is not too old. Counts as no read.
    pub fn contains(&self, key: &K) -> bool {
        let hash = self.hashing.hash_key(key);
        let shard = self.part(hash).shard.read();
        let now = self.now();
        shard.find(hash, key).is_some_and(|(_, entry)| !is_over(entry, now))
    }

    /// Sets `key` to `value`.
    pub fn insert(&self, key: K, value: V) {
        self.insert_with(key, value, &EntryOptions::default());
    }

    /// Sets `key` to `value`, with a life and tags of its own.
    pub fn insert_with(&self, key: K, value: V, options: &EntryOptions<'_>) {
        let entry = self.entry(key, value, options);
        let part_number = self.part_number(entry.hash);
        let part = &self.shards[part_number];
        let mut displaced = Displaced::NOTHING;
        let mut shard = part.shard.write();
        if part.is_flying() {
            drop(shard);
            part.with_flights(|flights| {
                flights.retain(|listed| listed.key != entry.key);
                part.shard.write().insert(entry, &mut displaced);
            });
        } else {
            shard.insert(entry, &mut displaced);
            drop(shard);
        }
        self.trim(part_number, &mut displaced);
        self.let_go(&displaced);
    }

    /// Takes `key` out, and says what it was.
    pub fn remove(&self, key: &K) -> Option<V> {
        let hash = self.hashing.hash_key(key);
        let part = self.part(hash);
        let mut shard = part.shard.write();
        let removed = if part.is_flying() {
            drop(shard);
            part.with_flights(|flights| {
                flights.retain(|listed| listed.key != *key);
                part.shard.write().remove(hash, key)
            })
        } else {
            let removed = shard.remove(hash, key);
            drop(shard);
            removed
        };
        let removed = removed?;
        part.removals.add(1);
        self.tell(&removed, RemovalCause::Removed);
        (!is_over(&removed, self.now())).then_some(removed.value)
    }

    /// Takes out every entry with this tag; returns how many. The time it takes is in proportion to that.
    pub fn invalidate_tag(&self, tag: &str) -> usize {
        self.invalidate(|shard| shard.remove_tag(tag))
    }

    /// Takes out everything.
    pub fn invalidate_all(&self) -> usize {
        self.invalidate(|shard| shard.remove_where(|_| true))
    }

    /// Takes out everything that is too old, which otherwise happens when it is met; returns how many.
    pub fn purge_expired(&self) -> usize {
        let now = self.now();
        let purge = |part: &Part<K, V, P>| {
            let expired = part.shard.write().remove_where(|entry| is_over(entry, now));
            part.expirations.add(expired.len() as u64);
            expired.iter().for_each(|entry| self.tell(entry, RemovalCause::Expired));
            expired.len()
        };
        self.shards.iter().map(purge).sum()
    }

    /// Entries held, those that expired unnoticed included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|part| part.shard.read().len()).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys whose values are not too old, in no order; each shard's at one instant.
    pub fn keys(&self) -> Vec<K>
    where
        K: Clone,
    {
        let now = self.now();
        let mut keys = Vec::with_capacity(self.len());
        for part in &self.shards {
            let shard = part.shard.read();
            keys.extend(shard.iter().filter(|entry| !is_over(entry, now)).map(|entry| entry.key.clone()));
        }
        keys
    }

    /// Copies of all entries that are not too old, in no order; each shard's at one instant, which is when the iterator comes to it.
    pub fn iter(&self) -> impl Iterator<Item = (K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.shards.iter().flat_map(|part| {
            let (now, shard) = (self.now(), part.shard.read());
            let held = shard.iter().filter(|entry| !is_over(entry, now));
            held.map(|entry| (entry.key.clone(), entry.value.clone())).collect::<Vec<_>>()
        })
    }

    /// Copies of the at most so many entries that the policy would keep longest, the best last: what to [`warm`](Self::warm) another cache
    /// with, after a restart say.
    pub fn hottest(&self, entries_max: usize) -> Vec<WarmEntry<K, V>>
    where
        K: Clone,
        V: Clone,
    {
        let now = self.now();
        let mut ranked: Vec<(usize, WarmEntry<K, V>)> = Vec::new();
        for part in &self.shards {
            let shard = part.shard.read();
            // Shards are about equal: what has so many better than it in its own has as many shares of that in all.
            let better = (0..shard.len()).rev();
            let kept = shard.ranking().zip(better).filter(|((entry, _), _)| !is_over(entry, now));
            ranked.extend(kept.map(|((entry, heat), better)| {
                (better, WarmEntry { key: entry.key.clone(), value: entry.value.clone(), heat })
            }));
        }
        ranked.sort_by_key(|(better, warm)| (warm.heat, std::cmp::Reverse(*better)));
        let surplus = ranked.len().saturating_sub(entries_max);
        ranked.into_iter().skip(surplus).map(|(_, warm)| warm).collect()
    }

    /// Puts many entries in, the last of them as the newest. What is there already is newer, and stays.
    pub fn warm(&self, entries: impl IntoIterator<Item = WarmEntry<K, V>>) {
        for WarmEntry { key, value, heat } in entries {
            let entry = self.entry(key, value, &EntryOptions { heat, ..EntryOptions::default() });
            let part_number = self.part_number(entry.hash);
            let mut displaced = Displaced::NOTHING;
            let mut shard = self.shards[part_number].shard.write();
            if shard.find(entry.hash, &entry.key).is_none() {
                shard.insert(entry, &mut displaced);
            }
            drop(shard);
            self.trim(part_number, &mut displaced);
            self.let_go(&displaced);
        }
    }

    /// What the cache holds and has done.
    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats::of(self.tally.reads());
        let mut weight = 0_u128;
        for part in &self.shards {
            let shard = part.shard.read();
            stats.entries += shard.len() as u64;
            weight += shard.weight;
            stats.insertions += shard.insertions;
            stats.evictions += shard.evictions;
            drop(shard);
            stats.expirations += part.expirations.get();
            stats.removals += part.removals.get();
        }
        stats.weight = u64::try_from(weight).unwrap_or(u64::MAX);
        stats
    }

    /// Reads by tag: those made with [`get_tagged`](Self::get_tagged), or by `get_or_compute_with` with tags. In the order of tags.
    pub fn tag_stats(&self) -> Vec<TagStats> {
        let mut sum = TagTally::default();
        self.shards.iter().for_each(|part| sum.merge(&part.tags.lock()));
        sum.into_stats()
    }

    /// A copy of the value of `key`; a hit is counted, for the tags as well, and a miss is not.
    pub(crate) fn read_counted(&self, key: &K, tags: &[&str]) -> Option<V>
    where
        V: Clone,
    {
        let hash = self.hashing.hash_key(key);
        let read = |entry: &Entry<K, V>| (entry.value.clone(), entry.cost_us());
        let (value, saved_us) = self.look(self.part(hash), hash, key, read)?;
        self.tally.hit(saved_us);
        self.count_tags(hash, tags, true);
        Some(value)
    }

    /// Counts a read of `key`: a hit that saved so many microseconds, or a miss.
    pub(crate) fn count(&self, key: &K, tags: &[&str], saved_us: Option<u64>) {
        match saved_us {
            Some(saved_us) => self.tally.hit(saved_us),
            None => self.tally.miss(),
        }
        if !tags.is_empty() {
            self.count_tags(self.hashing.hash_key(key), tags, saved_us.is_some());
        }
    }

    #[inline]
    fn count_tags(&self, hash: u64, tags: &[&str], is_hit: bool) {
        if !tags.is_empty() {
            self.part(hash).tags.lock().add(tags, is_hit);
        }
    }

    pub(crate) fn part(&self, hash: u64) -> &Part<K, V, P> {
        &self.shards[self.part_number(hash)]
    }

    pub(crate) fn part_number(&self, hash: u64) -> usize {
        // Other bits than the table's, which are the lowest and the highest seven.
        (hash >> 40) as usize & (self.shards.len() - 1)
    }

    pub(crate) fn entry(&self, key: K, value: V, options: &EntryOptions<'_>) -> Entry<K, V> {
        let ttl = options.ttl.or(self.options.ttl);
        let tti = options.tti.or(self.options.tti);
        if ttl.or(tti).is_some() {
            // Relaxed: a reader that does not see it yet could as well have come before the insertion.
            self.timed.store(true, Ordering::Relaxed);
        }
        let now = self.now().unwrap_or(0);
        let weight = self.weigh(&key, &value);
        Entry {
            hash: self.hashing.hash_key(&key),
            weight: u32::try_from(weight).unwrap_or(WEIGHT_IN_EXTRA),
            expires_at: ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(now, millis(ttl))),
            extra: options.extra(tti, now, weight),
            key,
            value,
        }
    }

    fn weigh(&self, key: &K, value: &V) -> u64 {
        let Some(weigh) = &self.options.weigher else { return 0 };
        contained("weigher", || weigh(key, value)).map_or(UNWEIGHED, |weight| weight.min(WEIGHT_MAX))
    }

    /// Puts an entry in. What it displaces is to be let go outside of all locks, after
    /// [`trim`](Self::trim).
    pub(crate) fn enter(&self, entry: Entry<K, V>) -> Displaced<K, V> {
        let mut displaced = Displaced::NOTHING;
        self.part(entry.hash).shard.write().insert(entry, &mut displaced);
        displaced
    }

    /// Evicts from other shards than the one of this number what an insertion there left to them. No
    /// lock may be held.
    #[inline]
    pub(crate) fn trim(&self, part_number: usize, displaced: &mut Displaced<K, V>) {
        let Some(budget) = &self.budget else { return };
        while budget.is_exceeded() {
            let fullest = &self.shards[budget.fullest(part_number)];
            fullest.shard.write().shrink(displaced);
        }
    }

    /// Tells the listener of what went; the values go when the caller drops them.
    pub(crate) fn let_go(&self, displaced: &Displaced<K, V>) {
        let Displaced { replaced, evicted } = displaced;
        replaced.iter().for_each(|entry| self.tell(entry, RemovalCause::Replaced));
        evicted.iter().for_each(|entry| self.tell(entry, RemovalCause::Evicted));
    }

    #[inline]
    fn look<R>(
        &self,
        part: &Part<K, V, P>,
        hash: u64,
        key: &K,
        read: impl FnOnce(&Entry<K, V>) -> R,
    ) -> Option<R> {
        let now = self.now();
        let shard = part.shard.read();
        let (slot, entry) = shard.find(hash, key)?;
        if let Some(now) = now {
            if entry.is_expired(now) {
                drop(shard);
                self.expire(part, hash, key, now);
                return None;
            }
            entry.read_at(now);
        }
        shard.hit(slot);
        Some(read(entry))
    }

    fn expire(&self, part: &Part<K, V, P>, hash: u64, key: &K, now: u64) {
        let mut shard = part.shard.write();
        // Between the two locks someone may have put it again.
        let expired = shard.find(hash, key).is_some_and(|(_, entry)| entry.is_expired(now));
        let removed = if expired { shard.remove(hash, key) } else { None };
        drop(shard);
        if let Some(entry) = removed {
            part.expirations.add(1);
            self.tell(&entry, RemovalCause::Expired);
        }
    }

    fn invalidate(&self, remove: impl Fn(&mut Shard<K, V, P>) -> Vec<Entry<K, V>>) -> usize {
        let one = |part: &Part<K, V, P>| {
            // What is being computed now may rest on what is invalid.
            let (grounded, removed) =
                part.with_flights(|flights| (std::mem::take(flights), remove(&mut part.shard.write())));
            drop(grounded);
            part.removals.add(removed.len() as u64);
            removed.iter().for_each(|entry| self.tell(entry, RemovalCause::Removed));
            removed.len()
        };
        self.shards.iter().map(one).sum()
    }

    fn tell(&self, entry: &Entry<K, V>, cause: RemovalCause) {
        if let Some(listener) = &self.options.listener {
            // A panic is logged, and is not the caller's.
            let _ = contained("listener", || listener(&entry.key, &entry.value, cause));
        }
    }

    /// Milliseconds since the cache was made, or nothing while nothing depends on it.
    #[inline]
    fn now(&self) -> Option<u64> {
        self.timed.load(Ordering::Relaxed).then(|| millis(self.start.elapsed()))
    }
}

impl<K, V, P> Part<K, V, P> {
    /// Looks at the computations under way, or changes them.
    pub(crate) fn with_flights<R>(&self, change: impl FnOnce(&mut Vec<Listed<K, V>>) -> R) -> R {
        let mut flights = self.flights.lock();
        let result = change(&mut flights);
        // Relaxed: see `is_flying`.
        self.flying.store(flights.len(), Ordering::Relaxed);
        result
    }

    /// Whether anything is being computed, as far as it matters to a caller who holds the shard's lock for writing. If so, whoever changes a key
    /// takes its computation off the list first, and keeps the list locked until the key is changed: a computation that began in between
    /// would begin from what was there before, and overwrite the change when it ends.
    ///
    /// Relaxed, because the shard's lock orders it: who computes looks into the shard after boarding. If that was before our turn with the
    /// lock, its number is seen here; if it is after, what we do is seen there, and computed from.
    fn is_flying(&self) -> bool {
        self.flying.load(Ordering::Relaxed) > 0
    }
}

impl<K, V, P: Policy> Part<K, V, P>
where
    K: Eq,
{
    fn new(shard: Shard<K, V, P>) -> Self {
        Self {
            shard: RwLock::new(shard),
            flights: Mutex::default(),
            flying: AtomicUsize::new(0),
            tags: Mutex::default(),
            expirations: Counter::default(),
            removals: Counter::default(),
        }
    }
}

impl<K, V> CacheOptions<K, V> {
    fn shard_count(&self) -> Result<usize, Error> {
        let refuse = |option, value: String, expected| Err(Error::InvalidOption { option, value, expected });
        if u32::try_from(self.entries_max).is_err() {
            return refuse("entries_max", self.entries_max.to_string(), "at most 4294967295");
        }
        if self.weight_max.is_some() && self.weigher.is_none() {
            return refuse("weigher", "missing".to_owned(), "a function, since weight_max is set");
        }
        match self.shards {
            Some(0) => refuse("shards", "0".to_owned(), "1 to 1024"),
            Some(shards) if shards > SHARDS_MAX => refuse("shards", shards.to_string(), "1 to 1024"),
            // A shard without a single entry would cache nothing.
            Some(shards) => Ok(shards.next_power_of_two().min(1 << self.entries_max.max(1).ilog2())),
            None => Ok(self.worthwhile_shards()),
        }
    }

    fn worthwhile_shards(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(4, usize::from);
        let by_entries = self.entries_max / SHARD_ENTRIES_MIN;
        let by_weight = self.weight_max.map_or(SHARDS_MAX as u64, |max| max / SHARD_WEIGHT_MIN);
        let shards = (4 * processors).min(by_entries).min(usize::try_from(by_weight).unwrap_or(SHARDS_MAX));
        // Rounded down: each part is then at least as large as it has to be.
        let shards = shards.clamp(1, SHARDS_MAX);
        1 << shards.ilog2()
    }
}

impl<K, V, P, S> fmt::Debug for Cache<K, V, P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("options", &self.options).finish_non_exhaustive()
    }
}

impl EntryOptions<'_> {
    fn extra(&self, tti: Option<Duration>, now: u64, weight: u64) -> Option<Box<Extra>> {
        let is_usual = tti.is_none() && self.tags.is_empty() && self.cost.is_none() && self.heat == 0;
        let is_usual = is_usual && weight < u64::from(WEIGHT_IN_EXTRA);
        if is_usual {
            return None;
        }
        let mut tags: Vec<Arc<str>> = self.tags.iter().map(|tag| Arc::from(*tag)).collect();
        tags.sort_unstable();
        tags.dedup();
        Some(Box::new(Extra {
            idle_ms: tti.map_or(NEVER, millis),
            read_at: AtomicU64::new(now),
            cost_us: self.cost.map_or(0, |cost| u64::try_from(cost.as_micros()).unwrap_or(u64::MAX)),
            weight,
            heat: self.heat,
            tags: tags.into(),
        }))
    }
}

/// Whether an entry's time is up. Where nobody reads the clock, no entry's is.
fn is_over<K, V>(entry: &Entry<K, V>, now: Option<u64>) -> bool {
    now.is_some_and(|now| entry.is_expired(now))
}

/// Rounded up: what is to live for less than a millisecond lives for one.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(NEVER)
}
