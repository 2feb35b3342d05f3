//! All entries of a cache: their number, iteration, and the transfer to another cache.

use crate::cache::{Cache, is_expired_at};
use crate::hashing::KeyHasher;
use crate::options::{EntryOptions, WarmEntry};
use crate::policy::Policy;
use crate::shard::Displaced;

impl<K: Eq, V, P: Policy, S: KeyHasher<K>> Cache<K, V, P, S> {
    /// Returns the number of entries, including expired ones that have not been removed yet.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|locked| locked.read().len()).sum()
    }

    /// Returns whether the cache has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the keys of all unexpired entries, in no particular order. Each shard is read at a
    /// single instant.
    pub fn keys(&self) -> Vec<K>
    where
        K: Clone,
    {
        let now = self.now();
        let mut keys = Vec::with_capacity(self.len());
        for locked in self.shards.iter() {
            let shard = locked.read();
            keys.extend(
                shard.iter().filter(|entry| !is_expired_at(entry, now)).map(|entry| entry.key.clone()),
            );
        }
        keys
    }

    /// Iterates over clones of all unexpired entries, in no particular order. Each shard is read at
    /// a single instant, when the iterator reaches it.
    pub fn iter(&self) -> impl Iterator<Item = (K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.shards.iter().flat_map(|locked| {
            let (now, shard) = (self.now(), locked.read());
            let unexpired = shard.iter().filter(|entry| !is_expired_at(entry, now));
            unexpired.map(|entry| (entry.key.clone(), entry.value.clone())).collect::<Vec<_>>()
        })
    }

    /// Returns clones of up to `entries_max` entries that the policy would evict last, the most
    /// valuable last. Use them to [`warm`](Self::warm) another cache, for example after a restart.
    pub fn hottest(&self, entries_max: usize) -> Vec<WarmEntry<K, V>>
    where
        K: Clone,
        V: Clone,
    {
        let now = self.now();
        let mut ranked: Vec<(usize, WarmEntry<K, V>)> = Vec::new();
        for locked in self.shards.iter() {
            let shard = locked.read();
            // Shards are about equal, so an entry's rank in its shard predicts its rank in the
            // whole cache.
            let better = (0..shard.len()).rev();
            let unexpired = shard.ranking().zip(better).filter(|((entry, _), _)| !is_expired_at(entry, now));
            ranked.extend(unexpired.map(|((entry, heat), better)| {
                (better, WarmEntry { key: entry.key.clone(), value: entry.value.clone(), heat })
            }));
        }
        ranked.sort_by_key(|(better, warm)| (warm.heat, std::cmp::Reverse(*better)));
        let surplus = ranked.len().saturating_sub(entries_max);
        ranked.into_iter().skip(surplus).map(|(_, warm)| warm).collect()
    }

    /// Inserts many entries, the last one as the newest. Keys that are already cached keep their
    /// value.
    pub fn warm(&self, entries: impl IntoIterator<Item = WarmEntry<K, V>>) {
        for WarmEntry { key, value, heat } in entries {
            let entry = self.new_entry(key, value, &EntryOptions { heat, ..EntryOptions::default() });
            let shard_index = self.shard_index(entry.hash);
            let mut displaced = Displaced::NONE;
            let locked = &self.shards[shard_index];
            let mut shard = locked.write();
            if shard.find(entry.hash, &entry.key).is_none() {
                self.insert_locked(locked, &mut shard, entry, &mut displaced);
            }
            drop(shard);
            self.evict_over_budget(shard_index, &mut displaced);
            self.notify_displaced(&displaced);
        }
    }
}
