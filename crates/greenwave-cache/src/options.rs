//! Options of the in-memory cache and of its entries.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::Error;
use crate::expiry::Expiry;
use crate::shard::{Extra, NEVER, WEIGHT_IN_EXTRA};

/// Returns the weight of an entry, in any unit (usually bytes). Called once per insertion. If it
/// panics, the panic is logged and the entry is not cached.
pub type Weigher<K, V> = Arc<dyn Fn(&K, &V) -> u64 + Send + Sync>;
/// Called with every entry that leaves the cache: after the removal, without any lock held, and on
/// the thread that caused the removal. If it panics, the panic is logged and the call continues.
pub type RemovalListener<K, V> = Arc<dyn Fn(&K, &V, RemovalCause) + Send + Sync>;

/// Minimum entries per shard. In a smaller shard the policy sees too little of the whole.
const SHARD_ENTRIES_MIN: usize = 512;
/// Minimum weight per shard, assuming that weights are bytes.
const SHARD_WEIGHT_MIN: u64 = 1 << 20;
/// Maximum number of shards. More of them only cost memory.
const SHARDS_MAX: usize = 1024;

/// Configuration of a [`Cache`](crate::Cache).
pub struct CacheOptions<K, V> {
    /// Maximum number of entries. 0 disables caching. Default: 10 000.
    pub entries_max: usize,
    /// Maximum weight of all shards together. Requires a [`weigher`](Self::weigher). An entry up to
    /// this weight is cached regardless of the number of shards or processors; a heavier one is
    /// not, and counts as evicted. Concurrent insertions can exceed the limit briefly, by the
    /// weight of the entries being inserted. Values above 2^63 are treated as 2^63. Default: no
    /// limit.
    pub weight_max: Option<u64>,
    /// Computes the weight of an entry. Weights above 2^48 are treated as 2^48. Default: none, and
    /// every entry weighs nothing.
    pub weigher: Option<Weigher<K, V>>,
    /// Time to live: maximum age of an entry, unless its [`EntryOptions`] set another. Rounded up
    /// to a tenth of a second. With zero, entries expire at once. An expiry time more than 13 years
    /// after the cache was created is never reached. Default: none.
    pub ttl: Option<Duration>,
    /// Time to idle: maximum time between accesses, unless the entry's [`EntryOptions`] set
    /// another. Rounded up to a millisecond. With zero, entries expire at once. Default: none.
    pub tti: Option<Duration>,
    /// Decides how long an entry lives after it was created, updated or read. A time to live in the
    /// entry's [`EntryOptions`], or `ttl`, replaces the decisions after creation and update.
    /// Default: none.
    pub expiry: Option<Arc<dyn Expiry<K, V>>>,
    /// Called with every entry that leaves the cache. [`removal_channel`](crate::removal_channel)
    /// creates one that hands the entries to a task. Default: none.
    pub listener: Option<RemovalListener<K, V>>,
    /// Number of independently locked shards, 1 to 1024, rounded up to a power of two and limited
    /// to one per entry. Each shard holds its share of `entries_max`; the weight limit applies to
    /// all of them together. Default: four per processor, as long as each is large enough.
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
            expiry: None,
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

impl<K, V> CacheOptions<K, V> {
    /// Checks the options and returns the number of shards, a power of two.
    pub(crate) fn shard_count(&self) -> Result<usize, Error> {
        let refuse = |option, value: String, expected| Err(Error::InvalidOption { option, value, expected });
        if u32::try_from(self.entries_max).is_err() {
            return refuse("entries_max", self.entries_max.to_string(), "at most 4294967295");
        }
        if self.weight_max.is_some() && self.weigher.is_none() {
            return refuse("weigher", "None".to_owned(), "a function, because weight_max is set");
        }
        match self.shards {
            Some(0) => refuse("shards", "0".to_owned(), "1 to 1024"),
            Some(shards) if shards > SHARDS_MAX => refuse("shards", shards.to_string(), "1 to 1024"),
            // A shard without room for a single entry would cache nothing.
            Some(shards) => Ok(shards.next_power_of_two().min(1 << self.entries_max.max(1).ilog2())),
            None => Ok(self.default_shard_count()),
        }
    }

    fn default_shard_count(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(4, usize::from);
        let by_entries = self.entries_max / SHARD_ENTRIES_MIN;
        let by_weight = self.weight_max.map_or(SHARDS_MAX as u64, |max| max / SHARD_WEIGHT_MIN);
        let shards = (4 * processors).min(by_entries).min(usize::try_from(by_weight).unwrap_or(SHARDS_MAX));
        // Rounded down, so that every shard reaches the minimum size.
        let shards = shards.clamp(1, SHARDS_MAX);
        1 << shards.ilog2()
    }
}

/// Options of one entry, which override those of the cache.
#[derive(Debug, Clone, Default)]
pub struct EntryOptions<'a> {
    /// Time to live. Default: [`CacheOptions::ttl`].
    pub ttl: Option<Duration>,
    /// Time to idle. Default: [`CacheOptions::tti`].
    pub tti: Option<Duration>,
    /// Tags by which the entry can be invalidated, such as the name of a feature or a file.
    pub tags: &'a [&'a str],
    /// Time that it took to compute the value, and that every hit saves. If it is `None`,
    /// `get_or_compute` measures it.
    pub cost: Option<Duration>,
    /// Access count from an earlier process, as returned by
    /// [`Cache::hottest`](crate::Cache::hottest).
    pub heat: u8,
}

impl EntryOptions<'_> {
    /// Returns the fields that few entries have, or `None` if this entry has none of them.
    pub(crate) fn extra(&self, tti: Option<Duration>, now: u64, weight: u64) -> Option<Box<Extra>> {
        let is_plain = tti.is_none() && self.tags.is_empty() && self.cost.is_none() && self.heat == 0;
        if is_plain && weight < u64::from(WEIGHT_IN_EXTRA) {
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

/// An entry for [`Cache::warm`](crate::Cache::warm).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmEntry<K, V> {
    /// Key of the entry.
    pub key: K,
    /// Value of the entry.
    pub value: V,
    /// Recent access count, as returned by [`Cache::hottest`](crate::Cache::hottest).
    pub heat: u8,
}

/// Reason why an entry left the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalCause {
    /// The cache was full.
    Evicted,
    /// The entry exceeded its time to live or its time to idle.
    Expired,
    /// A new value was inserted under the same key.
    Replaced,
    /// The caller removed or invalidated the entry.
    Removed,
}

/// Converts to whole milliseconds, rounded up so that a short but nonzero time is at least one.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(NEVER)
}
