//! Results in memory, within a budget of bytes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Backend, Capabilities};
use crate::{
    Adaptive, BoxError, Cache, CacheOptions, CacheStats, EntryOptions, Error, IdentityHasher, Key, WarmEntry,
};

/// What an entry occupies besides its bytes: slot (88), table, links and sketch (40), the shared count of [`Bytes`], allocations' headers.
const OVERHEAD_BYTES: u64 = 192;

/// Of a smaller part the policy would see too little.
const PART_BYTES_MIN: u64 = 16 << 20;
/// As many threads as this hardly wait for each other.
const PARTS_MAX: u64 = 32;

/// Keeps results in memory, those read last the longest.
#[derive(Debug)]
pub struct MemoryBackend {
    cache: Cache<Key, Bytes, Adaptive, IdentityHasher>,
    value_bytes_max: u64,
}

impl MemoryBackend {
    /// At most so many entries, and so many bytes, bookkeeping included.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`].
    pub fn new(entries_max: usize, bytes_max: u64) -> Result<Self, Error> {
        let weigher = |_: &Key, value: &Bytes| value.len() as u64 + OVERHEAD_BYTES;
        let parts = (bytes_max / PART_BYTES_MIN).clamp(1, PARTS_MAX);
        // Rounded down to a power of two, so that the cache does not round up.
        let parts = 1 << parts.ilog2();
        let options = CacheOptions {
            entries_max,
            weight_max: Some(bytes_max),
            weigher: Some(Arc::new(weigher)),
            shards: Some(usize::try_from(parts).expect("at most PARTS_MAX")),
            ..CacheOptions::default()
        };
        let value_bytes_max = bytes_max.saturating_sub(OVERHEAD_BYTES);
        Ok(Self { cache: Cache::with(options)?, value_bytes_max })
    }

    /// The at most so many keys that would be kept longest, the best last, each with how often it was read lately.
    pub fn heat(&self, entries_max: usize) -> Vec<(Key, u8)> {
        self.cache.hottest(entries_max).into_iter().map(|warm| (warm.key, warm.heat)).collect()
    }

    /// Puts many entries in at once, as hot as they say; returns how many. What is there already stays.
    pub fn warm(&self, entries: Vec<WarmEntry<Key, Bytes>>) -> usize {
        let count = entries.len();
        self.cache.warm(entries);
        count
    }

    /// What it holds and has done. The weight is in bytes.
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
        // A copy: the bytes may be a small part of a large buffer, which would be kept whole and weighed as the part.
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
