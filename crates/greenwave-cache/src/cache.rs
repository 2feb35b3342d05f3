//! The cache in memory: shards, time, and what callers see. Computing missing values stands in `load.rs`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::hashing::{Hashing, Seeded};
use crate::load::Listed;
use crate::policy::{Lru, Policy};
use crate::shard::{Displaced, Entry, NEVER, Shard};
use crate::stats::Counter;
use crate::{Error, Stats};

/// Says what an entry weighs, in any unit: bytes, mostly. Called once per insertion.
pub type Weigher<K, V> = Arc<dyn Fn(&K, &V) -> u64 + Send + Sync>;
/// Hears of every entry that leaves, after the fact and under no lock, on the thread that made it leave.
pub type Listener<K, V> = Arc<dyn Fn(&K, &V, Cause) + Send + Sync>;

/// Fewer entries than this are not worth a shard: the policy sees too little of the whole.
const SHARD_ENTRIES_MIN: usize = 512;
/// Nor is less weight, in what is mostly bytes.
const SHARD_WEIGHT_MIN: u64 = 1 << 20;
/// More shards only cost memory.
const SHARDS_MAX: usize = 1024;

/// How a [`Cache`] behaves.
pub struct Options<K, V> {
    /// Most entries held. With 0 nothing is kept. Default 10 000.
    pub entries_max: usize,
    /// Most weight held, which needs a [`weigher`](Self::weigher). An entry heavier than one shard's part is not kept.
    pub weight_max: Option<u64>,
    /// What an entry weighs; without it, nothing.
    pub weigher: Option<Weigher<K, V>>,
    /// How long an entry lives, unless it says otherwise itself.
    pub ttl: Option<Duration>,
    /// How long an entry lives unread, unless it says otherwise itself.
    pub tti: Option<Duration>,
    /// Who hears of entries that leave.
    pub listener: Option<Listener<K, V>>,
    /// Into how many parts the cache is divided so that threads do not wait for each other; rounded up to a power of two. By default four
    /// per processor, as long as each has enough to be worth it.
    pub shards: Option<usize>,
}

impl<K, V> Default for Options<K, V> {
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

impl<K, V> fmt::Debug for Options<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries_max, weight_max, ttl, tti, shards, .. } = self;
        let mut debug = f.debug_struct("Options");
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
}

/// Why an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
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
/// `P` decides what is evicted; `S` spreads the keys, [`Identity`](crate::Identity) being the right one for [`Key`](crate::Key)s.
pub struct Cache<K, V, P = Lru, S = Seeded> {
    pub(crate) shards: Box<[Part<K, V, P>]>,
    pub(crate) hashing: S,
    options: Options<K, V>,
    start: Instant,
    /// Whether any entry ever had a limited life: the clock costs more than the rest of a read.
    timed: AtomicBool,
}

/// A shard with its lock and counters, on cache lines of its own.
#[repr(align(128))]
pub(crate) struct Part<K, V, P> {
    shard: RwLock<Shard<K, V, P>>,
    /// Computations that are under way.
    pub(crate) flights: Mutex<Vec<Listed<K, V>>>,
    hits: Counter,
    misses: Counter,
    insertions: Counter,
    evictions: Counter,
    expirations: Counter,
    removals: Counter,
}

impl<K: Eq, V> Cache<K, V>
where
    Seeded: Hashing<K>,
{
    /// An empty cache with the usual policy and hash.
    ///
    /// # Errors
    ///
    /// [`Error::Option`].
    pub fn new(options: Options<K, V>) -> Result<Self, Error> {
        Self::with(options)
    }
}

impl<K: Eq, V, P: Policy, S: Hashing<K> + Default> Cache<K, V, P, S> {
    /// An empty cache with the policy and the hash that its type names.
    ///
    /// # Errors
    ///
    /// [`Error::Option`].
    pub fn with(options: Options<K, V>) -> Result<Self, Error> {
        let shards = options.shard_count()?;
        // Rounded so that the parts never add up to more than the whole.
        let share =
            |index: usize| options.entries_max / shards + usize::from(index < options.entries_max % shards);
        let weight_max = options.weight_max.map_or(u64::MAX, |max| max / shards as u64);
        let parts = (0..shards).map(|index| Part::new(share(index), weight_max)).collect();
        let timed = AtomicBool::new(options.ttl.is_some() || options.tti.is_some());
        Ok(Self { shards: parts, hashing: S::default(), options, start: Instant::now(), timed })
    }
}

impl<K: Eq, V, P: Policy, S: Hashing<K>> Cache<K, V, P, S> {
    /// A copy of the value of `key`.
    pub fn get(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        self.get_with(key, V::clone)
    }

    /// What `read` makes of the value of `key`. It runs under a lock: short, and without calling this cache.
    pub fn get_with<R>(&self, key: &K, read: impl FnOnce(&V) -> R) -> Option<R> {
        let hash = self.hashing.bits(key);
        let part = self.part(hash);
        let found = self.look(part, hash, key, read);
        let counter = if found.is_some() { &part.hits } else { &part.misses };
        counter.add(1);
        found
    }

    /// Whether `key` has a value that is not too old. Counts as no read.
    pub fn contains(&self, key: &K) -> bool {
        let hash = self.hashing.bits(key);
        let shard = self.part(hash).shard.read();
        shard.find(hash, key).is_some_and(|(_, entry)| !entry.is_expired(self.now()))
    }

    /// Sets `key` to `value`.
    pub fn insert(&self, key: K, value: V) {
        self.insert_with(key, value, &EntryOptions::default());
    }

    /// Sets `key` to `value`, with a life and tags of its own.
    pub fn insert_with(&self, key: K, value: V, options: &EntryOptions<'_>) {
        let entry = self.entry(key, value, options);
        let part = self.part(entry.hash);
        // A computation that began before must not overwrite this when it ends.
        part.flights.lock().retain(|listed| listed.key != entry.key);
        let displaced = self.enter(entry);
        self.let_go(displaced);
    }

    /// Takes `key` out, and says what it was.
    pub fn remove(&self, key: &K) -> Option<V> {
        let hash = self.hashing.bits(key);
        let part = self.part(hash);
        part.flights.lock().retain(|listed| listed.key != *key);
        let removed = part.shard.write().remove(hash, key)?;
        part.removals.add(1);
        self.tell(&removed, Cause::Removed);
        (!removed.is_expired(self.now())).then_some(removed.value)
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
            let expired = part.shard.write().remove_where(|entry| entry.is_expired(now));
            part.expirations.add(expired.len() as u64);
            expired.iter().for_each(|entry| self.tell(entry, Cause::Expired));
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
            keys.extend(shard.iter().filter(|entry| !entry.is_expired(now)).map(|entry| entry.key.clone()));
        }
        keys
    }

    /// What the cache holds and has done.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for part in &self.shards {
            let shard = part.shard.read();
            stats.entries += shard.len() as u64;
            stats.weight += shard.weight;
            drop(shard);
            stats.hits += part.hits.get();
            stats.misses += part.misses.get();
            stats.insertions += part.insertions.get();
            stats.evictions += part.evictions.get();
            stats.expirations += part.expirations.get();
            stats.removals += part.removals.get();
        }
        stats
    }

    /// The value of `key`, counted as nothing.
    pub(crate) fn peek(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        let hash = self.hashing.bits(key);
        self.look(self.part(hash), hash, key, V::clone)
    }

    pub(crate) fn part(&self, hash: u64) -> &Part<K, V, P> {
        // Other bits than the table's, which are the lowest and the highest seven.
        let shard = (hash >> 40) as usize & (self.shards.len() - 1);
        &self.shards[shard]
    }

    pub(crate) fn entry(&self, key: K, value: V, options: &EntryOptions<'_>) -> Entry<K, V> {
        let ttl = options.ttl.or(self.options.ttl);
        let tti = options.tti.or(self.options.tti);
        if ttl.or(tti).is_some() {
            // Relaxed: a reader that does not see it yet could as well have come before the insertion.
            self.timed.store(true, Ordering::Relaxed);
        }
        let now = self.now();
        let mut tags: Vec<Arc<str>> = options.tags.iter().map(|tag| Arc::from(*tag)).collect();
        tags.sort_unstable();
        tags.dedup();
        Entry {
            hash: self.hashing.bits(&key),
            weight: self.options.weigher.as_ref().map_or(0, |weigh| weigh(&key, &value)),
            expires_at: ttl.map_or(NEVER, |ttl| now.saturating_add(millis(ttl))),
            idle_ms: tti.map_or(NEVER, millis),
            read_at: AtomicU64::new(now),
            tags: tags.into(),
            key,
            value,
        }
    }

    /// Puts an entry in. What it displaces is to be let go outside of all locks.
    pub(crate) fn enter(&self, entry: Entry<K, V>) -> Displaced<K, V> {
        let part = self.part(entry.hash);
        part.insertions.add(1);
        let displaced = part.shard.write().insert(entry);
        part.evictions.add(displaced.evicted.len() as u64);
        displaced
    }

    pub(crate) fn let_go(&self, displaced: Displaced<K, V>) {
        let Displaced { replaced, evicted } = displaced;
        replaced.iter().for_each(|entry| self.tell(entry, Cause::Replaced));
        evicted.iter().for_each(|entry| self.tell(entry, Cause::Evicted));
    }

    fn look<R>(&self, part: &Part<K, V, P>, hash: u64, key: &K, read: impl FnOnce(&V) -> R) -> Option<R> {
        let now = self.now();
        let shard = part.shard.read();
        let (slot, entry) = shard.find(hash, key)?;
        if entry.is_expired(now) {
            drop(shard);
            self.expire(part, hash, key, now);
            return None;
        }
        if entry.idle_ms != NEVER {
            entry.read_at.store(now, Ordering::Relaxed);
        }
        shard.hit(slot);
        Some(read(&entry.value))
    }

    fn expire(&self, part: &Part<K, V, P>, hash: u64, key: &K, now: u64) {
        let mut shard = part.shard.write();
        // Between the two locks someone may have put it again.
        let expired = shard.find(hash, key).is_some_and(|(_, entry)| entry.is_expired(now));
        let removed = if expired { shard.remove(hash, key) } else { None };
        drop(shard);
        if let Some(entry) = removed {
            part.expirations.add(1);
            self.tell(&entry, Cause::Expired);
        }
    }

    fn invalidate(&self, remove: impl Fn(&mut Shard<K, V, P>) -> Vec<Entry<K, V>>) -> usize {
        let one = |part: &Part<K, V, P>| {
            // What is being computed now may rest on what is invalid.
            let grounded = std::mem::take(&mut *part.flights.lock());
            let removed = remove(&mut part.shard.write());
            drop(grounded);
            part.removals.add(removed.len() as u64);
            removed.iter().for_each(|entry| self.tell(entry, Cause::Removed));
            removed.len()
        };
        self.shards.iter().map(one).sum()
    }

    fn tell(&self, entry: &Entry<K, V>, cause: Cause) {
        if let Some(listener) = &self.options.listener {
            listener(&entry.key, &entry.value, cause);
        }
    }

    /// Milliseconds since the cache was made, or 0 while nothing depends on it.
    fn now(&self) -> u64 {
        if self.timed.load(Ordering::Relaxed) { millis(self.start.elapsed()) } else { 0 }
    }
}

impl<K, V, P: Policy> Part<K, V, P>
where
    K: Eq,
{
    fn new(entries_max: usize, weight_max: u64) -> Self {
        Self {
            shard: RwLock::new(Shard::new(entries_max, weight_max)),
            flights: Mutex::default(),
            hits: Counter::default(),
            misses: Counter::default(),
            insertions: Counter::default(),
            evictions: Counter::default(),
            expirations: Counter::default(),
            removals: Counter::default(),
        }
    }
}

impl<K, V> Options<K, V> {
    fn shard_count(&self) -> Result<usize, Error> {
        let refuse = |option, value: String, accepted| Err(Error::Option { option, value, accepted });
        if u32::try_from(self.entries_max).is_err() {
            return refuse("entries_max", self.entries_max.to_string(), "at most 4294967295");
        }
        if self.weight_max.is_some() && self.weigher.is_none() {
            return refuse("weigher", "missing".to_owned(), "a function, since weight_max is set");
        }
        match self.shards {
            Some(0) => refuse("shards", "0".to_owned(), "1 to 1024"),
            Some(shards) if shards > SHARDS_MAX => refuse("shards", shards.to_string(), "1 to 1024"),
            Some(shards) => Ok(shards.next_power_of_two()),
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

/// Rounded up: what is to live for less than a millisecond lives for one.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(NEVER)
}
