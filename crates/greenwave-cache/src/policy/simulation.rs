//! Simulates small caches on a sample of the keys, to find the best parameters for the real cache.

use hashbrown::HashTable;

use super::regions::Regions;

/// Shares of the window that are simulated: almost nothing, where frequency decides, and almost
/// everything, where recency decides. In measurements no share between them beat the better of the
/// two by more than the noise of a sample.
pub(super) const NARROW: f32 = 0.01;
pub(super) const WIDE: f32 = 0.99;

/// A cache is simulated at the smallest scale, a power of two, that leaves this many entries.
const ENTRIES_MIN: usize = 1024;
/// Number of accesses, in simulated capacities, after which past hits count half.
const HALF_LIFE: f64 = 0.5;
/// Decisions per simulated capacity of accesses.
const DECISIONS: usize = 8;
/// Minimum number of accesses between two decisions.
const READS_MIN: usize = 16;
/// Minimum advantage of the other window, in standard deviations of a fair coin. A lower value
/// makes the choice oscillate.
const MARGIN: f64 = 0.5;
/// Minimum advantage of the fast-aging cache, in the same unit.
const MARGIN_FAST: f64 = 1.5;
/// Number of accesses, in capacities, after which counts are halved.
const AGE: usize = 10;
/// Like [`AGE`], in the fast-aging cache.
const AGE_FAST: usize = 1;
/// Number of halvings when the fast-aging cache performs better: a count of 15 becomes 1.
const DISCARD_HALVINGS: u32 = 3;
/// Number of decisions before counts can be discarded again.
const DISCARD_PAUSE: u32 = 16;

/// Parameter changes for the real cache.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct TuningDecision {
    /// New share of the window.
    pub(super) share: Option<f32>,
    /// Number of times to halve all counts.
    pub(super) halvings: u32,
}

/// Mini-simulation (Waldspurger et al., "Cache modeling and optimization using miniature
/// simulations", USENIX ATC 2017): follows one of every `rate` keys, in caches that are smaller by
/// the same factor.
///
/// Two caches simulate the two windows. A third has the narrow window and ages its counts fast. If
/// it performs better than the first, past popularity has become irrelevant, and all counts are
/// discarded.
#[derive(Debug)]
pub(super) struct Simulation {
    narrow: ShadowCache,
    wide: ShadowCache,
    fast_aging: ShadowCache,
    rate: u64,
    is_wide: bool,
    /// Number of accesses since the last decision, since counts were halved last, and in total,
    /// with past accesses counting less.
    reads_since_decision: usize,
    since_aged: usize,
    reads: f64,
    pause: u32,
}

impl Simulation {
    pub(super) fn new(entries: usize) -> Self {
        let rate = (entries / ENTRIES_MIN).max(1);
        let rate = 1 << rate.ilog2();
        let shadow = |share| ShadowCache::new(share, entries / rate);
        Self {
            narrow: shadow(NARROW),
            wide: shadow(WIDE),
            fast_aging: shadow(NARROW),
            rate: rate as u64,
            is_wide: false,
            reads_since_decision: 0,
            since_aged: 0,
            reads: 0.0,
            pause: 0,
        }
    }

    /// Returns the sampling rate, a power of two: one of this many keys should be fed to the
    /// simulation.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// Adjusts the simulation to a new maximum number of entries of the real cache.
    pub(super) fn resize(&mut self, entries: usize) {
        let entries = entries / self.rate as usize;
        self.shadows().into_iter().for_each(|shadow| shadow.resize(entries));
    }

    /// Simulates an access to one of the sampled keys.
    pub(super) fn read(&mut self, hash: u64) -> TuningDecision {
        self.shadows().into_iter().for_each(|shadow| shadow.read(hash));
        self.reads += 1.0;
        self.reads_since_decision += 1;
        if self.reads_since_decision < (self.capacity() / DECISIONS).max(READS_MIN) {
            return TuningDecision::default();
        }
        let mut halvings = self.discard_history();
        let share = self.choose();
        self.since_aged += self.reads_since_decision;
        if self.since_aged >= AGE * self.capacity() {
            self.since_aged = 0;
            halvings += 1;
        }
        for shadow in [&mut self.narrow, &mut self.wide] {
            shadow.regions.age(halvings);
        }
        self.decay();
        TuningDecision { share, halvings }
    }

    fn capacity(&self) -> usize {
        self.narrow.capacity
    }

    fn shadows(&mut self) -> [&mut ShadowCache; 3] {
        [&mut self.narrow, &mut self.wide, &mut self.fast_aging]
    }

    fn choose(&mut self) -> Option<f32> {
        let (now, other) = if self.is_wide { (&self.wide, &self.narrow) } else { (&self.narrow, &self.wide) };
        if other.hits <= now.hits + MARGIN * self.reads.sqrt() {
            return None;
        }
        self.is_wide = !self.is_wide;
        Some(if self.is_wide { WIDE } else { NARROW })
    }

    fn discard_history(&mut self) -> u32 {
        self.pause = self.pause.saturating_sub(1);
        if self.pause > 0 || self.fast_aging.hits <= self.narrow.hits + MARGIN_FAST * self.reads.sqrt() {
            return 0;
        }
        self.pause = DISCARD_PAUSE;
        DISCARD_HALVINGS
    }

    /// Reduces the weight of past accesses.
    fn decay(&mut self) {
        let factor = 0.5_f64.powf(self.reads_since_decision as f64 / (self.capacity() as f64 * HALF_LIFE));
        let (reads_since_decision, age) =
            (std::mem::take(&mut self.reads_since_decision), AGE_FAST * self.capacity());
        self.reads *= factor;
        self.shadows().into_iter().for_each(|shadow| shadow.hits *= factor);
        self.fast_aging.since_aged += reads_since_decision;
        if self.fast_aging.since_aged >= age {
            self.fast_aging.since_aged = 0;
            self.fast_aging.regions.age(1);
        }
    }
}

/// A cache that stores hashes only.
#[derive(Debug)]
struct ShadowCache {
    table: HashTable<u32>,
    regions: Regions,
    free: Vec<u32>,
    capacity: usize,
    hits: f64,
    since_aged: usize,
}

impl ShadowCache {
    fn new(share: f32, capacity: usize) -> Self {
        Self {
            table: HashTable::new(),
            regions: Regions::new(share),
            free: Vec::new(),
            capacity: capacity.max(1),
            hits: 0.0,
            since_aged: 0,
        }
    }

    fn resize(&mut self, capacity: usize) {
        self.capacity = capacity.max(1);
    }

    fn read(&mut self, hash: u64) {
        if let Some(slot) = self.table.find(hash, |slot| self.regions.hash(*slot) == hash) {
            self.regions.hit(*slot);
            self.hits += 1.0;
            return;
        }
        while self.table.len() >= self.capacity {
            let Some(victim) = self.regions.victim() else { break };
            self.drop_slot(victim);
        }
        let new = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        let slot = self.free.pop().unwrap_or(new);
        self.regions.insert(slot, hash, 0, false);
        let regions = &self.regions;
        self.table.insert_unique(hash, slot, |slot| regions.hash(*slot));
    }

    fn drop_slot(&mut self, slot: u32) {
        if let Ok(found) = self.table.find_entry(self.regions.hash(slot), |other| *other == slot) {
            found.remove();
        }
        self.free.push(slot);
    }
}
