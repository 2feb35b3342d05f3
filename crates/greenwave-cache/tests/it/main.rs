//! Tests of the cache and its backends through the public interface.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

mod backends;
mod basics;
mod crash;
mod entry;
mod expiry;
mod keys;
mod leases;
mod liars;
mod load;
mod model;
mod option_ranges;
mod panics;
mod policies;
mod records;
mod remote;
mod reservations;
mod resize;
mod servers;
mod signatures;
mod stats;
mod tiered;
mod weight;
mod write_back;

use greenwave_cache::{Cache, CacheOptions, Lru};

/// Creates a cache with a single shard, where the eviction order is exact.
fn small<V>(entries_max: usize) -> Cache<u64, V, Lru> {
    Cache::with(CacheOptions { entries_max, ..CacheOptions::default() }).unwrap()
}
