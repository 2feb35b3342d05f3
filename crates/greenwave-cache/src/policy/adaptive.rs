//! The policy that finds out by itself whether recency or frequency serves better, and changes its mind when that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::regions::Regions;
use super::simulation::{NARROW, Simulation};
use super::{Candidate, Policy};
use crate::sync::Mutex;

/// A window for what is new and a main region that only lets in what is asked for more often, the window's size chosen all the time by
/// small simulations of a sample of the keys. The default.
///
/// A hit is one relaxed load and at most one relaxed store; one key in many also goes to the simulation, unless another thread is just
/// there. Memory beside the entries: 21 bytes for each, and about 60 KB for the simulations of a cache.
#[derive(Debug)]
pub struct Adaptive {
    regions: Regions,
    tuning: Arc<Tuning>,
    /// How many of the tuning's halvings were done here.
    halvings: u32,
    /// Entries that the tuning was told this shard has.
    told: usize,
}

/// What all shards of a cache go by.
#[derive(Debug)]
struct Tuning {
    /// Keys whose hash has none of these bits are sampled.
    sample_mask: u64,
    simulation: Mutex<Simulation>,
    /// The window's share, as the bits of an `f32`.
    share: AtomicU32,
    /// How often counts are to be halved, in all.
    halvings: AtomicU32,
    /// Entries of the shards that are full.
    entries: AtomicUsize,
}

impl Tuning {
    fn new(entries: usize) -> Self {
        let simulation = Simulation::new(entries);
        // Other bits than those that choose the shard or the place in a table.
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

    /// Tells the simulation of a read. Nobody waits for it: a sample that is lost is no harm.
    #[cold]
    fn read(&self, hash: u64) {
        let Some(mut simulation) = self.simulation.try_lock() else { return };
        let verdict = simulation.read(hash);
        // All relaxed, and pair with nothing: a shard that hears of it a little later is as good.
        if let Some(share) = verdict.share {
            self.share.store(share.to_bits(), Ordering::Relaxed);
        }
        if verdict.halvings > 0 {
            self.halvings.fetch_add(verdict.halvings, Ordering::Relaxed);
            let entries = self.entries.load(Ordering::Relaxed);
            // With a limit of weight the number of entries shows only when it is reached.
            if entries > 0 {
                simulation.resize(entries);
            }
        }
    }
}

impl Adaptive {
    /// Does what the simulations found best since this shard was written to last.
    fn follow(&mut self) {
        self.regions.set_share(f32::from_bits(self.tuning.share.load(Ordering::Relaxed)));
        let halvings = self.tuning.halvings.load(Ordering::Relaxed);
        let due = halvings.wrapping_sub(std::mem::replace(&mut self.halvings, halvings));
        if due > 0 {
            self.regions.age(due.min(u8::BITS - 1));
        }
    }

    /// Keeps the sum over all full shards up to date.
    fn tell_entries(&mut self) {
        let entries = self.regions.len();
        if entries.abs_diff(self.told) * 16 > entries {
            // The difference may be negative: the sum wraps as the shards' numbers do, and comes out right.
            let change = entries.wrapping_sub(std::mem::replace(&mut self.told, entries));
            self.tuning.entries.fetch_add(change, Ordering::Relaxed);
        }
    }
}

impl Policy for Adaptive {
    fn shards(capacities: &[usize]) -> Vec<Self> {
        let tuning = Arc::new(Tuning::new(capacities.iter().sum()));
        let shard = |_| Self { regions: Regions::new(NARROW), tuning: tuning.clone(), halvings: 0, told: 0 };
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
        self.follow();
        self.tell_entries();
        self.regions.victim()
    }

    fn ranking(&self) -> Vec<(u32, u8)> {
        self.regions.ranking().into_iter().map(|slot| (slot, self.regions.count(slot))).collect()
    }
}
