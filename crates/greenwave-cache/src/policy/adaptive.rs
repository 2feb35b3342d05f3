//! A policy that balances recency and frequency, and adapts the balance to the accesses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::regions::Regions;
use super::simulation::{NARROW, Simulation};
use super::{Candidate, Policy};
use crate::sync::Mutex;

/// Admits new entries to a window, and moves them to the main region only if they are accessed more
/// often than its next victim. Small simulations on a sample of the keys continuously choose the
/// size of the window. This is the default policy.
///
/// A hit is one relaxed load and at most one relaxed store. A small share of the keys also goes to
/// the simulation, unless another thread is using it. Uses 21 bytes of memory per entry, and about
/// 60 KB per cache for the simulations.
#[derive(Debug)]
pub struct Adaptive {
    regions: Regions,
    tuning: Arc<SharedTuning>,
    /// Number of the shared halvings that this shard has applied.
    halvings: u32,
    /// Number of entries that this shard has reported.
    reported_entries: usize,
}

/// Parameters shared by all shards of a cache.
#[derive(Debug)]
struct SharedTuning {
    /// Keys whose hash has none of these bits set are sampled.
    sample_mask: u64,
    simulation: Mutex<Simulation>,
    /// Share of the window, as the bits of an `f32`.
    share: AtomicU32,
    /// Total number of times that counts should have been halved.
    halvings: AtomicU32,
    /// Number of entries in all full shards.
    entries: AtomicUsize,
}

impl SharedTuning {
    fn new(entries: usize) -> Self {
        let simulation = Simulation::new(entries);
        // Uses none of the bits that choose the shard or the position in a table.
        let sample_mask = (simulation.rate() - 1) << 16;
        let share = AtomicU32::new(NARROW.to_bits());
        Self {
            sample_mask,
            simulation: Mutex::new(simulation),
            share,
            halvings: AtomicU32::new(0),
            entries: AtomicUsize::new(0),
        }
    }

    fn is_sampled(&self, hash: u64) -> bool {
        hash & self.sample_mask == 0
    }

    /// Feeds an access to the simulation. Does not wait for its lock: losing a sample is harmless.
    #[cold]
    fn read(&self, hash: u64) {
        let Some(mut simulation) = self.simulation.try_lock() else { return };
        let decision = simulation.read(hash);
        // Relaxed, and pairs with nothing: a shard may learn of the change a little later.
        if let Some(share) = decision.share {
            self.share.store(share.to_bits(), Ordering::Relaxed);
        }
        if decision.halvings > 0 {
            self.halvings.fetch_add(decision.halvings, Ordering::Relaxed);
            let entries = self.entries.load(Ordering::Relaxed);
            // With a weight limit, the number of entries is only known once the limit is reached.
            if entries > 0 {
                simulation.resize(entries);
            }
        }
    }
}

impl Adaptive {
    /// Applies the parameters that the simulations have chosen since the last call.
    fn apply_tuning(&mut self) {
        self.regions.set_share(f32::from_bits(self.tuning.share.load(Ordering::Relaxed)));
        let halvings = self.tuning.halvings.load(Ordering::Relaxed);
        let due = halvings.wrapping_sub(std::mem::replace(&mut self.halvings, halvings));
        if due > 0 {
            self.regions.age(due.min(u8::BITS - 1));
        }
    }

    /// Updates the total number of entries in all full shards.
    fn report_entries(&mut self) {
        let entries = self.regions.len();
        if entries.abs_diff(self.reported_entries) * 16 > entries {
            // The difference may be negative. The sum wraps like the shards' numbers, so it stays
            // correct.
            let change = entries.wrapping_sub(std::mem::replace(&mut self.reported_entries, entries));
            self.tuning.entries.fetch_add(change, Ordering::Relaxed);
        }
    }
}

impl Policy for Adaptive {
    fn shards(capacities: &[usize]) -> Vec<Self> {
        let tuning = Arc::new(SharedTuning::new(capacities.iter().sum()));
        let shard = |_| Self {
            regions: Regions::new(NARROW),
            tuning: tuning.clone(),
            halvings: 0,
            reported_entries: 0,
        };
        capacities.iter().map(shard).collect()
    }

    #[inline]
    fn hit(&self, slot: u32) {
        if self.regions.hit(slot) {
            self.tuning.read(self.regions.hash(slot));
        }
    }

    fn insert(&mut self, slot: u32, candidate: Candidate) {
        let hash = candidate.hash;
        let is_sampled = self.tuning.is_sampled(hash);
        self.regions.insert(slot, hash, candidate.heat, is_sampled);
        if is_sampled {
            self.tuning.read(hash);
        }
    }

    fn remove(&mut self, slot: u32) {
        self.regions.remove(slot);
    }

    fn victim(&mut self) -> Option<u32> {
        self.apply_tuning();
        self.report_entries();
        self.regions.victim()
    }

    fn ranking(&self) -> Vec<(u32, u8)> {
        self.regions.ranking().into_iter().map(|slot| (slot, self.regions.count(slot))).collect()
    }
}
