//! The cache through its public interface, and the backends through their contract.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod backends;
mod basics;
mod crash;
mod expiry;
mod figures;
mod keys;
mod leases;
mod load;
mod model;
mod numbers;
mod panics;
mod policies;
mod records;
mod remote;
mod servers;
mod tiered;
mod weight;

use greenwave_cache::{Cache, CacheOptions, Lru};

/// A cache of so many entries, in one shard, where order is exact.
fn small<V>(entries_max: usize) -> Cache<u64, V, Lru> {
    Cache::with(CacheOptions { entries_max, ..CacheOptions::default() }).unwrap()
}
