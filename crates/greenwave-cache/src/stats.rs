//! Statistics of a cache, as snapshots.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::hit_counters::AccessCounts;

/// Maximum number of tags that a shard counts. Accesses with further tags are not counted.
const TAGS_MAX: usize = 1024;

/// Size of an in-memory cache, and its counters since it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheStats {
    /// Number of entries, including expired ones that have not been removed yet.
    pub entries: u64,
    /// Total weight of the entries.
    pub weight: u64,
    /// Accesses that found a cached value, or waited for another task that computed it.
    pub hits: u64,
    /// Accesses that found nothing: by `get`, by the task that computes the value, and by tasks
    /// that received its error.
    pub misses: u64,
    /// Insertions, including replacements.
    pub insertions: u64,
    /// Entries evicted to make room.
    pub evictions: u64,
    /// Expired entries that were removed.
    pub expirations: u64,
    /// Entries removed or invalidated by the caller.
    pub removals: u64,
    /// Hits among the last thousand or so accesses of each thread.
    pub recent_hits: u64,
    /// Misses among the same accesses.
    pub recent_misses: u64,
    /// Time saved by hits: the sum of the costs of the entries found. Tasks that waited for a
    /// computation saved none.
    pub saved: Duration,
}

impl CacheStats {
    pub(crate) fn of(reads: AccessCounts) -> Self {
        Self {
            hits: reads.hits,
            misses: reads.misses,
            recent_hits: reads.recent_hits,
            recent_misses: reads.recent_misses,
            saved: Duration::from_micros(reads.saved_us),
            ..Self::default()
        }
    }

    /// Returns the share of recent accesses that were hits, from 0 to 1. Returns 0 without
    /// accesses.
    pub fn recent_hit_rate(&self) -> f64 {
        rate(self.recent_hits, self.recent_misses)
    }

    /// Returns the share of accesses that were hits, from 0 to 1. Returns 0 without accesses.
    pub fn hit_rate(&self) -> f64 {
        rate(self.hits, self.misses)
    }
}

/// Accesses to the entries with one tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TagStats {
    /// Name of the tag.
    pub tag: String,
    /// Number of hits.
    pub hits: u64,
    /// Number of misses.
    pub misses: u64,
}

impl TagStats {
    /// Returns the share of accesses that were hits, from 0 to 1. Returns 0 without accesses.
    pub fn hit_rate(&self) -> f64 {
        rate(self.hits, self.misses)
    }
}

/// Hits and misses of one shard by tag.
#[derive(Debug, Default)]
pub(crate) struct TagCounters(BTreeMap<String, (u64, u64)>);

impl TagCounters {
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

/// Returns the share of hits, or 0 without accesses.
pub(crate) fn rate(hits: u64, misses: u64) -> f64 {
    if hits == 0 { 0.0 } else { hits as f64 / (hits as f64 + misses as f64) }
}

/// A relaxed counter. It orders no other memory access.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds without wrapping: callers can pass any number.
    pub(crate) fn add_saturating(&self, n: u64) {
        let sum = |old: u64| Some(old.saturating_add(n));
        // The closure always returns `Some`.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
