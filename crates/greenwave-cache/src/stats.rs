//! What a cache reports of itself. Snapshots, not live values.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::tally::Reads;

/// Tags that each shard counts reads for. Those that come later are not counted.
const TAGS_MAX: usize = 1024;

/// What an in-memory cache holds and has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheStats {
    /// Entries held, those that expired unnoticed included.
    pub entries: u64,
    /// Their weight.
    pub weight: u64,
    /// Reads answered: by a cached value, or by a computation of another task that they waited for.
    pub hits: u64,
    /// Reads not answered: by `get`, by the task that computes the value, and by those that got its
    /// error.
    pub misses: u64,
    /// Entries put, replacements included.
    pub insertions: u64,
    /// Entries that had to go for others.
    pub evictions: u64,
    /// Entries found too old.
    pub expirations: u64,
    /// Entries removed or invalidated by the caller.
    pub removals: u64,
    /// Of the last thousand reads or so of each thread, those answered.
    pub recent_hits: u64,
    /// Of the same, those not answered.
    pub recent_misses: u64,
    /// Time that the hits saved: the sum of what the entries read had cost to make. Those that waited
    /// for a computation saved none.
    pub saved: Duration,
}

impl CacheStats {
    pub(crate) fn of(reads: Reads) -> Self {
        Self {
            hits: reads.hits,
            misses: reads.misses,
            recent_hits: reads.recent_hits,
            recent_misses: reads.recent_misses,
            saved: Duration::from_micros(reads.saved_us),
            ..Self::default()
        }
    }

    /// The share of recent reads that were answered, 0 to 1; 0 when nothing was read.
    pub fn recent_hit_rate(&self) -> f64 {
        rate(self.recent_hits, self.recent_misses)
    }

    /// The share of reads that were answered, 0 to 1; 0 when nothing was read.
    pub fn hit_rate(&self) -> f64 {
        rate(self.hits, self.misses)
    }
}

/// Reads of what has a tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TagStats {
    /// The tag.
    pub tag: String,
    /// Reads answered.
    pub hits: u64,
    /// Reads not answered.
    pub misses: u64,
}

impl TagStats {
    /// The share of reads that were answered, 0 to 1; 0 when nothing was read.
    pub fn hit_rate(&self) -> f64 {
        rate(self.hits, self.misses)
    }
}

/// Hits and misses by tag, of one shard.
#[derive(Debug, Default)]
pub(crate) struct TagTally(BTreeMap<String, (u64, u64)>);

impl TagTally {
    pub(crate) fn add(&mut self, tags: &[&str], is_hit: bool) {
        for tag in tags {
            if !self.0.contains_key(*tag) && self.0.len() == TAGS_MAX {
                continue;
            }
            let (hits, misses) = self.0.entry((*tag).to_owned()).or_default();
            *(if is_hit { hits } else { misses }) += 1;
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (tag, (hits, misses)) in &other.0 {
            let count = self.0.entry(tag.clone()).or_default();
            *count = (count.0 + hits, count.1 + misses);
        }
    }

    pub(crate) fn into_stats(self) -> Vec<TagStats> {
        self.0.into_iter().map(|(tag, (hits, misses))| TagStats { tag, hits, misses }).collect()
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

    /// For sums of what callers say, which may be any numbers.
    pub(crate) fn add_saturating(&self, n: u64) {
        let sum = |old: u64| Some(old.saturating_add(n));
        // It always gives a sum.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
