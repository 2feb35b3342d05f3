//! The policy that keeps what saves the most time for the room it takes.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Candidate, Policy};

/// Hits that are counted. More would keep what was popular long ago.
const HITS_MAX: u8 = 63;
/// Stale entries that the heap may hold beside as many as there are slots in use.
const STALE_MAX: usize = 64;

/// Evicts what saves least: hits times cost by weight, and what was not read for long sinks. For results whose cost and weight differ widely,
/// when time matters more than the share of hits. Needs [`cost`](crate::EntryOptions::cost), which
/// [`get_or_compute`](crate::Cache::get_or_compute) measures by itself, and a [`weigher`](crate::CacheOptions::weigher) for weights; entries
/// without either count as one microsecond or one unit.
///
/// GreedyDual-Size-Frequency (Cherkasova, HP Labs report 98-69R1), the heap mended when an entry comes up instead of at every hit: a hit is
/// one relaxed store, a victim takes logarithmic time and one step for each that was hit since it was looked at last.
#[derive(Debug, Default)]
pub struct CostAware {
    slots: Vec<Slot>,
    heap: BinaryHeap<Rank>,
    in_use: usize,
    /// Rises to the worth of whatever is evicted: what comes later starts above what was left behind.
    floor: f64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Cost by weight.
    density: f64,
    hits: AtomicU8,
    /// Goes up whenever the slot's place in the heap is no longer true.
    version: u32,
    is_used: bool,
}

impl Slot {
    fn worth(&self) -> f64 {
        (1.0 + f64::from(self.hits.load(Ordering::Relaxed))) * self.density
    }
}

/// A slot's place in the heap, as it was when it was entered.
#[derive(Debug, Clone, Copy)]
struct Rank {
    worth: f64,
    hits: u8,
    slot: u32,
    version: u32,
}

/// The least worth is the greatest, since the heap gives out the greatest.
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
    fn enter(&mut self, number: u32) {
        let slot = &self.slots[number as usize];
        let hits = slot.hits.load(Ordering::Relaxed);
        self.heap.push(Rank { worth: self.floor + slot.worth(), hits, slot: number, version: slot.version });
    }

    fn leave(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.version = slot.version.wrapping_add(1);
        slot.is_used = false;
        self.in_use -= 1;
    }

    /// Throws out what is stale when it is more than what is not.
    fn tidy(&mut self) {
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
        // Pairs with nothing: two hits at once may count as one.
        let hits = &self.slots[slot as usize].hits;
        let seen = hits.load(Ordering::Relaxed);
        if seen < HITS_MAX {
            hits.store(seen + 1, Ordering::Relaxed);
        }
    }

    fn insert(&mut self, number: u32, candidate: Candidate) {
        let index = number as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        slot.density = candidate.cost_us.max(1) as f64 / candidate.weight.max(1) as f64;
        *slot.hits.get_mut() = candidate.heat.min(HITS_MAX);
        slot.is_used = true;
        self.in_use += 1;
        self.enter(number);
        self.tidy();
    }

    fn remove(&mut self, slot: u32) {
        self.leave(slot);
    }

    fn victim(&mut self) -> Option<u32> {
        loop {
            let rank = self.heap.pop()?;
            let slot = &mut self.slots[rank.slot as usize];
            if slot.version != rank.version {
                continue;
            }
            if *slot.hits.get_mut() > rank.hits {
                // It was read since: it goes where it belongs now. Nobody can read meanwhile, so it is met again at most once. A count that
                // is at its end could not show the next read.
                if *slot.hits.get_mut() == HITS_MAX {
                    *slot.hits.get_mut() /= 2;
                }
                self.enter(rank.slot);
                continue;
            }
            self.floor = rank.worth;
            self.leave(rank.slot);
            return Some(rank.slot);
        }
    }

    fn ranking(&self) -> Vec<(u32, u8)> {
        let used = (0..).zip(&self.slots).filter(|(_, slot)| slot.is_used);
        let mut ranking: Vec<(u32, &Slot)> = used.collect();
        ranking.sort_by(|(_, a), (_, b)| a.worth().total_cmp(&b.worth()));
        ranking.into_iter().map(|(number, slot)| (number, slot.hits.load(Ordering::Relaxed))).collect()
    }
}
