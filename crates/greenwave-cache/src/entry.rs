//! Changes that depend on the value that a key has, in one step.

use std::fmt;

use crate::cache::Cache;
use crate::hashing::{KeyHasher, SeededHasher};
use crate::locked_shard::LockedShard;
use crate::options::{EntryOptions, RemovalCause};
use crate::policy::{Adaptive, Policy};
use crate::shard::{Displaced, Entry, Shard};

/// Decision of a function passed to [`CacheEntry::compute`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<V> {
    /// Leaves the entry as it is. Counts as a read.
    Keep,
    /// Inserts the value, or replaces the current one.
    Insert(V),
    /// Removes the entry, if there is one.
    Remove,
}

/// A key of a cache, to be changed depending on its value. [`Cache::entry`] returns it.
///
/// No other thread reads or changes the key between the lookup of its value and the change. The
/// functions run under a lock, as does the cache's weigher: they must be short, and must not insert
/// or remove entries, which panics. Values that take long to compute belong into
/// [`Cache::get_or_compute`].
///
/// Each call counts as a hit if the key has a value, and else as a miss. A value that is being
/// computed for the key meanwhile is not cached if the call changes the key.
///
/// ```
/// use greenwave_cache::{Cache, CacheOptions, Change};
///
/// let stock: Cache<String, u32> = Cache::new(CacheOptions::default())?;
/// assert_eq!(stock.entry("apples".into()).or_insert(3), 3);
/// assert_eq!(stock.entry("apples".into()).or_insert(9), 3);
/// assert_eq!(stock.entry("apples".into()).upsert_with(|count| count.unwrap_or(&0) + 1), 4);
///
/// // Sells the last one, and then forgets it.
/// let sell = |count: Option<&u32>| match count {
///     Some(1) | None => Change::Remove,
///     Some(count) => Change::Insert(count - 1),
/// };
/// assert_eq!(stock.entry("apples".into()).compute(sell), Some(3));
/// # Ok::<(), greenwave_cache::Error>(())
/// ```
#[must_use = "an entry does nothing by itself"]
pub struct CacheEntry<'a, K, V, P = Adaptive, S = SeededHasher> {
    cache: &'a Cache<K, V, P, S>,
    key: K,
    options: EntryOptions<'a>,
}

impl<K: Eq, V, P: Policy, S: KeyHasher<K>> Cache<K, V, P, S> {
    /// Returns the entry of `key`, to be changed depending on its value.
    pub fn entry(&self, key: K) -> CacheEntry<'_, K, V, P, S> {
        CacheEntry { cache: self, key, options: EntryOptions::default() }
    }
}

impl<'a, K: Eq, V: Clone, P: Policy, S: KeyHasher<K>> CacheEntry<'a, K, V, P, S> {
    /// Sets the options of the value that is inserted. The access counts for no tags.
    pub fn with_options(self, options: EntryOptions<'a>) -> Self {
        Self { options, ..self }
    }

    /// Returns the value of the key, after inserting `value` if it has none.
    pub fn or_insert(self, value: V) -> V {
        // A value that is not needed is dropped after the lock was released.
        let mut value = Some(value);
        let current = self.change(|current| match current {
            None => value.take().map_or(Change::Keep, Change::Insert),
            Some(_) => Change::Keep,
        });
        current.expect("an entry that did not exist was inserted")
    }

    /// Returns the value of the key, after inserting the value of `create` if it has none.
    pub fn or_insert_with(self, create: impl FnOnce() -> V) -> V {
        let current = self.change(|current| match current {
            None => Change::Insert(create()),
            Some(_) => Change::Keep,
        });
        current.expect("an entry that did not exist was inserted")
    }

    /// Replaces the value of the key by that of `update`, and returns the new one. Returns `None`
    /// if the key has no value.
    pub fn and_update(self, update: impl FnOnce(&V) -> V) -> Option<V> {
        self.change(|current| current.map_or(Change::Keep, |current| Change::Insert(update(current))))
    }

    /// Inserts or replaces the value of the key by that of `upsert`, and returns it.
    pub fn upsert_with(self, upsert: impl FnOnce(Option<&V>) -> V) -> V {
        let current = self.change(|current| Change::Insert(upsert(current)));
        current.expect("the entry was inserted")
    }

    /// Applies the decision of `decide`, and returns the value that the key has then.
    pub fn compute(self, decide: impl FnOnce(Option<&V>) -> Change<V>) -> Option<V> {
        self.change(decide)
    }

    fn change(self, decide: impl FnOnce(Option<&V>) -> Change<V>) -> Option<V> {
        let (cache, hash) = (self.cache, self.cache.hashing.hash_key(&self.key));
        let shard_index = cache.shard_index(hash);
        let locked = &cache.shards[shard_index];
        let mut shard = locked.write();
        let mut changed = if locked.has_pending() {
            drop(shard);
            locked
                .with_pending(|pending| {
                    let position = pending.iter().position(|pending| pending.key == self.key);
                    let changed = self.change_locked(locked, &mut locked.write(), hash, decide);
                    let cancelled = position.filter(|_| changed.is_changed);
                    let cancelled = cancelled.map(|position| pending.swap_remove(position));
                    (changed, cancelled)
                })
                .0
        } else {
            let changed = self.change_locked(locked, &mut shard, hash, decide);
            drop(shard);
            changed
        };
        cache.evict_over_budget(shard_index, &mut changed.displaced);
        if let Some(entry) = &changed.expired {
            locked.expirations.add(1);
            cache.notify(entry, RemovalCause::Expired);
        }
        if let Some(entry) = &changed.removed {
            locked.removals.add(1);
            cache.notify(entry, RemovalCause::Removed);
        }
        cache.notify_displaced(&changed.displaced);
        changed.value
    }

    fn change_locked(
        self,
        locked: &LockedShard<K, V, P>,
        shard: &mut Shard<K, V, P>,
        hash: u64,
        decide: impl FnOnce(Option<&V>) -> Change<V>,
    ) -> Changed<K, V> {
        let Self { cache, key, options } = self;
        let mut changed = Changed::default();
        let now = cache.now();
        let has_expired =
            shard.find(hash, &key).is_some_and(|(_, entry)| now.is_some_and(|now| entry.is_expired(now)));
        if has_expired {
            changed.expired = shard.remove(hash, &key);
        }
        let found = shard.find(hash, &key);
        let saved_us = found.map(|(_, entry)| entry.cost_us());
        cache.count_access(&key, &[], saved_us);
        let reading = locked.reading();
        match decide(found.map(|(_, entry)| &entry.value)) {
            Change::Keep => {
                if let Some((slot, entry)) = found {
                    if let Some(now) = now {
                        entry.record_access(now);
                        cache.extend_life(locked, entry, now);
                    }
                    shard.hit(slot);
                    changed.value = Some(entry.value.clone());
                }
            }
            Change::Insert(value) => {
                changed.is_changed = true;
                changed.value = Some(value.clone());
                let entry = cache.new_entry(key, value, &options);
                drop(reading);
                cache.insert_locked(locked, shard, entry, &mut changed.displaced);
            }
            Change::Remove => {
                changed.is_changed = true;
                changed.removed = shard.remove(hash, &key);
            }
        }
        changed
    }
}

/// Effects of a change, which are reported without a lock.
struct Changed<K, V> {
    /// Value after the change.
    value: Option<V>,
    is_changed: bool,
    expired: Option<Entry<K, V>>,
    removed: Option<Entry<K, V>>,
    displaced: Displaced<K, V>,
}

impl<K, V> Default for Changed<K, V> {
    fn default() -> Self {
        Self { value: None, is_changed: false, expired: None, removed: None, displaced: Displaced::NONE }
    }
}

impl<K: fmt::Debug, V, P, S> fmt::Debug for CacheEntry<'_, K, V, P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("CacheEntry");
        debug.field("key", &self.key).field("options", &self.options).finish_non_exhaustive()
    }
}
