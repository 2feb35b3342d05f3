//! What a cache reports of itself. Snapshots, not live values.

use std::sync::atomic::{AtomicU64, Ordering};

/// What an in-memory cache holds and has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Entries held, those that expired unnoticed included.
    pub entries: u64,
    /// Their weight.
    pub weight: u64,
    /// Reads answered.
    pub hits: u64,
    /// Reads not answered.
    pub misses: u64,
    /// Entries put, replacements included.
    pub insertions: u64,
    /// Entries that had to go for others.
    pub evictions: u64,
    /// Entries found too old.
    pub expirations: u64,
    /// Entries removed or invalidated by the caller.
    pub removals: u64,
}

impl Stats {
    /// The share of reads that were answered, 0 to 1; 0 when nothing was read.
    pub fn hit_rate(&self) -> f64 {
        rate(self.hits, self.misses)
    }
}

/// Hits among all, 0 if there were none at all.
pub(crate) fn rate(hits: u64, misses: u64) -> f64 {
    if hits == 0 { 0.0 } else { hits as f64 / (hits as f64 + misses as f64) }
}

/// A count that orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
