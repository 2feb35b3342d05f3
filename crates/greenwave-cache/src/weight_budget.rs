//! The weight limit that all shards of a cache share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Weight of all shards of a cache together, and its limit.
///
/// The weight is a single number, so whether an entry fits does not depend on the number of shards.
/// Which shard evicts depends on the shards' entry counts rather than on their weights. Because
/// keys are spread evenly, shards with equal counts let each entry live as long as it would in a
/// single shard.
#[derive(Debug)]
pub(crate) struct WeightBudget {
    weight: AtomicU64,
    weight_max: AtomicU64,
    entries: Box<[EntryCount]>,
}

/// An entry count that does not share its cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct EntryCount(AtomicUsize);

impl WeightBudget {
    /// Largest supported limit: far above the weight of any set of entries, and far enough below
    /// 2^64 for concurrent additions.
    const MAX: u64 = 1 << 63;

    pub(crate) fn new(weight_max: u64, shards: usize) -> Self {
        let entries = (0..shards).map(|_| EntryCount::default()).collect();
        let weight_max = AtomicU64::new(weight_max.min(Self::MAX));
        Self { weight: AtomicU64::new(0), weight_max, entries }
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        // Acquire pairs with the release in `add`, so that the entry counts are visible too.
        self.weight.load(Ordering::Acquire) > self.weight_max()
    }

    pub(crate) fn weight_max(&self) -> u64 {
        self.weight_max.load(Ordering::Relaxed)
    }

    /// Changes the limit. Insertions that run at the same time may still respect the old one.
    pub(crate) fn set_weight_max(&self, weight_max: u64) {
        self.weight_max.store(weight_max.min(Self::MAX), Ordering::Relaxed);
    }

    /// Returns the shard with the most entries. Returns `own` only if all others are empty.
    pub(crate) fn fullest(&self, own: usize) -> usize {
        let others = (0..self.entries.len()).filter(|index| *index != own);
        let fullest = others.max_by_key(|index| self.entries(*index));
        fullest.filter(|index| self.entries(*index) > 0).unwrap_or(own)
    }

    /// Returns whether other shards should evict instead of the shard `own` with this many entries:
    /// because it is empty, or because another shard, picked by the new entry's hash, has clearly
    /// more.
    pub(crate) fn can_defer_to_others(&self, own: usize, entries: usize, hash: u64) -> bool {
        let other = (hash >> 20) as usize % self.entries.len();
        entries == 0 || other != own && self.entries(other) > entries + entries / 4 + 1
    }

    fn entries(&self, index: usize) -> usize {
        self.entries[index].0.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, index: usize, entries: usize) {
        self.entries[index].0.store(entries, Ordering::Relaxed);
    }

    /// Adds an entry's weight. Called under the shard's lock, before the entry is inserted: a
    /// thread that sees the weight and locks the shard finds the entry.
    pub(crate) fn add(&self, index: usize, entries: usize, weight: u64) {
        self.count(index, entries);
        self.weight.fetch_add(weight, Ordering::AcqRel);
    }

    pub(crate) fn subtract(&self, index: usize, entries: usize, weight: u64) {
        self.count(index, entries);
        self.weight.fetch_sub(weight, Ordering::AcqRel);
    }
}
