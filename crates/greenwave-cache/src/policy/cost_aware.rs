//! A policy that maximizes the time saved per unit of weight.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Candidate, Policy};

/// Maximum hit count. Higher counts would retain entries that were popular long ago.
const HITS_MAX: u8 = 63;
/// Number of stale ranks that the heap may hold in addition to one per used slot.
const STALE_MAX: usize = 64;

/// Evicts the entry with the lowest value, which is hits times cost divided by weight. The value of
/// an entry that is not accessed falls in relation to the others.
///
/// Use it when costs and weights vary widely and time saved matters more than the hit rate. It
/// needs a [`cost`](crate::EntryOptions::cost), which
/// [`get_or_compute`](crate::Cache::get_or_compute) measures, and a
/// [`weigher`](crate::CacheOptions::weigher). Without them, an entry counts as one microsecond and
/// one unit.
///
/// Implements GreedyDual-Size-Frequency (Cherkasova, HP Labs report 98-69R1), but updates the heap
/// when an entry comes up for eviction instead of at every hit. A hit is one relaxed store. An
/// eviction takes logarithmic time per entry that it examines, and examines each entry that was hit
/// since the last time.
#[derive(Debug, Default)]
pub struct CostAware {
    slots: Vec<CostSlot>,
    heap: BinaryHeap<Rank>,
    in_use: usize,
    /// Value of the last evicted entry. New entries start from it, so that old values lose weight.
    inflation: f64,
}

#[derive(Debug, Default)]
struct CostSlot {
    /// Cost divided by weight.
    density: f64,
    hits: AtomicU8,
    /// Incremented when the slot's rank in the heap becomes stale.
    version: u32,
    is_used: bool,
}

impl CostSlot {
    fn worth(&self) -> f64 {
        (1.0 + f64::from(self.hits.load(Ordering::Relaxed))) * self.density
    }
}

/// Rank of a slot in the heap at the time it was pushed.
#[derive(Debug, Clone, Copy)]
struct Rank {
    worth: f64,
    hits: u8,
    slot: u32,
    version: u32,
}

/// Reversed, because the heap pops the greatest element and the least value must go first.
impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Order {
        other.worth.total_cmp(&self.worth).then(other.slot.cmp(&self.slot))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Rank {}

impl CostAware {
    fn push_rank(&mut self, number: u32) {
        let slot = &self.slots[number as usize];
        let hits = slot.hits.load(Ordering::Relaxed);
        self.heap.push(Rank {
            worth: self.inflation + slot.worth(),
            hits,
            slot: number,
            version: slot.version,
        });
    }

    fn release(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.version = slot.version.wrapping_add(1);
        slot.is_used = false;
        self.in_use -= 1;
    }

    /// Removes stale ranks once they outnumber the others.
    fn drop_stale_ranks(&mut self) {
        if self.heap.len() > 2 * self.in_use + STALE_MAX {
            let slots = &self.slots;
            self.heap.retain(|rank| slots[rank.slot as usize].version == rank.version);
        }
    }
}

impl Policy for CostAware {
    fn shards(capacities: &[usize]) -> Vec<Self> {
        capacities.iter().map(|_| Self::default()).collect()
    }

    fn hit(&self, slot: u32) {
        // Relaxed, and pairs with nothing: two concurrent hits may count as one.
        let hits = &self.slots[slot as usize].hits;
        let seen = hits.load(Ordering::Relaxed);
        if seen < HITS_MAX {
            hits.store(seen + 1, Ordering::Relaxed);
        }
    }

    fn insert(&mut self, number: u32, candidate: Candidate) {
        let index = number as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, CostSlot::default);
        }
        let slot = &mut self.slots[index];
        slot.density = candidate.cost_us.max(1) as f64 / candidate.weight.max(1) as f64;
        *slot.hits.get_mut() = candidate.heat.min(HITS_MAX);
        slot.is_used = true;
        self.in_use += 1;
        self.push_rank(number);
        self.drop_stale_ranks();
    }

    fn remove(&mut self, slot: u32) {
        self.release(slot);
    }

    fn victim(&mut self) -> Option<u32> {
        loop {
            let rank = self.heap.pop()?;
            let slot = &mut self.slots[rank.slot as usize];
            if slot.version != rank.version {
                continue;
            }
            if *slot.hits.get_mut() > rank.hits {
                // The slot was hit since its rank was pushed, so its rank is updated. Hits cannot
                // happen during this call, so each slot is updated at most once. A count at the
                // maximum is halved, because it could not show the next hit.
                if *slot.hits.get_mut() == HITS_MAX {
                    *slot.hits.get_mut() /= 2;
                }
                self.push_rank(rank.slot);
                continue;
            }
            self.inflation = rank.worth;
            self.release(rank.slot);
            return Some(rank.slot);
        }
    }

    fn ranking(&self) -> Vec<(u32, u8)> {
        let used = (0..).zip(&self.slots).filter(|(_, slot)| slot.is_used);
        let mut ranking: Vec<(u32, &CostSlot)> = used.collect();
        ranking.sort_by(|(_, a), (_, b)| a.worth().total_cmp(&b.worth()));
        ranking.into_iter().map(|(number, slot)| (number, slot.hits.load(Ordering::Relaxed))).collect()
    }
}
