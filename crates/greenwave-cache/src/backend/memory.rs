//! A backend in memory, within a budget of bytes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Backend, Capabilities};
use crate::{
    Adaptive, BoxError, Cache, CacheOptions, CacheStats, EntryOptions, Error, IdentityHasher, Key, WarmEntry,
};

/// Memory of an entry in addition to its bytes: slot (88), table, links and sketch (40), the
/// reference count of [`Bytes`], and allocator headers.
const OVERHEAD_BYTES: u64 = 192;

/// Minimum size of a shard. In a smaller one the policy would see too little of the whole.
const SHARD_BYTES_MIN: u64 = 16 << 20;
/// Number of shards with which threads hardly contend.
const SHARDS_MAX: u64 = 32;

/// Stores results in memory, and evicts with the [`Adaptive`] policy.
#[derive(Debug)]
pub struct MemoryBackend {
    cache: Cache<Key, Bytes, Adaptive, IdentityHasher>,
    value_bytes_max: u64,
}

impl MemoryBackend {
    /// Creates a backend for at most `entries_max` entries and `bytes_max` bytes, including
    /// overhead.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if a value is out of range.
    pub fn new(entries_max: usize, bytes_max: u64) -> Result<Self, Error> {
        let weigher = |_: &Key, value: &Bytes| value.len() as u64 + OVERHEAD_BYTES;
        let shards = (bytes_max / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        // Rounded down to a power of two, because the cache would round up.
        let shards = 1 << shards.ilog2();
        let options = CacheOptions {
            entries_max,
            weight_max: Some(bytes_max),
            weigher: Some(Arc::new(weigher)),
            shards: Some(usize::try_from(shards).expect("at most SHARDS_MAX")),
            ..CacheOptions::default()
        };
        let value_bytes_max = bytes_max.saturating_sub(OVERHEAD_BYTES);
        Ok(Self { cache: Cache::with(options)?, value_bytes_max })
    }

    /// Returns up to `entries_max` keys that would be evicted last, the most valuable last, each
    /// with its recent access count.
    pub fn heat(&self, entries_max: usize) -> Vec<(Key, u8)> {
        self.cache.hottest(entries_max).into_iter().map(|warm| (warm.key, warm.heat)).collect()
    }

    /// Inserts many entries with their access counts, and returns their number. Keys that are
    /// already cached keep their value.
    pub fn warm(&self, entries: Vec<WarmEntry<Key, Bytes>>) -> usize {
        let count = entries.len();
        self.cache.warm(entries);
        count
    }

    /// Returns a snapshot of the statistics. Weights are in bytes.
    pub fn stats(&self) -> CacheStats {
        self.cache.stats()
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        Ok(self.cache.get(key))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        Ok(keys.iter().map(|key| self.cache.get(key)).collect())
    }

    async fn put(&self, key: &Key, value: Bytes, ttl: Option<Duration>) -> Result<(), BoxError> {
        // Copied, because the bytes may be a small slice of a large buffer, which would stay
        // allocated but be weighed as the slice.
        let value = Bytes::copy_from_slice(&value);
        self.cache.insert_with(*key, value, &EntryOptions { ttl, ..EntryOptions::default() });
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        self.cache.remove(key);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        Ok(self.cache.keys())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            list: true,
            ttl: true,
            shared: false,
            durable: false,
            value_bytes_max: Some(self.value_bytes_max),
        }
    }
}
