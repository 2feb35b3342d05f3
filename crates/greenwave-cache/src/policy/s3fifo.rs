//! S3-FIFO: two queues of entries and one of evicted keys (Yang et al., "FIFO queues are all you
//! need for cache eviction", SOSP 2023).

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};

use super::queue::{QueueLink, SlotQueue};
use super::{Candidate, Policy};

/// Maximum hit count.
const HITS_MAX: u8 = 3;
/// The small queue holds one part in this many of all entries.
const SMALL_SHARE: usize = 10;

/// Admits entries to a small queue, moves those that are accessed again to the main queue, and
/// records the keys of the others. A hit is one relaxed store. Scans pass through the small queue
/// without affecting the main one.
#[derive(Debug)]
pub struct S3Fifo {
    slots: Vec<FifoSlot>,
    links: Vec<QueueLink>,
    small: SlotQueue,
    main: SlotQueue,
    small_max: usize,
    ghosts: Ghosts,
}

#[derive(Debug)]
struct FifoSlot {
    hits: AtomicU8,
    in_small: bool,
}

/// Hashes of keys that were evicted from the small queue recently.
#[derive(Debug)]
struct Ghosts {
    order: VecDeque<u64>,
    hashes: HashSet<u64>,
    max: usize,
}

impl Ghosts {
    fn insert(&mut self, hash: u64) {
        if self.hashes.insert(hash) {
            self.order.push_back(hash);
        }
        // Hashes of keys that came back are removed from the set but not from the order. They only
        // shorten it a little.
        while self.order.len() > self.max {
            let oldest = self.order.pop_front().expect("longer than the maximum");
            self.hashes.remove(&oldest);
        }
    }
}

impl S3Fifo {
    fn new(capacity: usize) -> Self {
        let small_max = (capacity / SMALL_SHARE).max(1);
        let max = capacity.saturating_sub(small_max).max(1);
        Self {
            slots: Vec::new(),
            links: Vec::new(),
            small: SlotQueue::EMPTY,
            main: SlotQueue::EMPTY,
            small_max,
            ghosts: Ghosts { order: VecDeque::new(), hashes: HashSet::new(), max },
        }
    }
}

impl Policy for S3Fifo {
    fn shards(capacities: &[usize]) -> Vec<Self> {
        capacities.iter().map(|capacity| Self::new(*capacity)).collect()
    }

    fn hit(&self, slot: u32) {
        // Relaxed, and pairs with nothing: two concurrent hits may count as one.
        let hits = &self.slots[slot as usize].hits;
        let seen = hits.load(Ordering::Relaxed);
        if seen < HITS_MAX {
            hits.store(seen + 1, Ordering::Relaxed);
        }
    }

    fn insert(&mut self, slot: u32, candidate: Candidate) {
        let (index, hash) = (slot as usize, candidate.hash);
        if index >= self.links.len() {
            self.links.resize(index + 1, QueueLink::UNLINKED);
            let empty = || FifoSlot { hits: AtomicU8::new(0), in_small: false };
            self.slots.resize_with(index + 1, empty);
        }
        let in_small = !self.ghosts.hashes.remove(&hash);
        let hits = AtomicU8::new(candidate.heat.min(HITS_MAX));
        self.slots[index] = FifoSlot { hits, in_small };
        self.links[index].hash = hash;
        let queue = if in_small { &mut self.small } else { &mut self.main };
        queue.push(&mut self.links, slot);
    }

    fn remove(&mut self, slot: u32) {
        let queue = if self.slots[slot as usize].in_small { &mut self.small } else { &mut self.main };
        queue.unlink(&mut self.links, slot);
    }

    fn victim(&mut self) -> Option<u32> {
        loop {
            if self.small.len() > self.small_max || self.main.len() == 0 {
                let number = self.small.pop(&mut self.links)?;
                let slot = &mut self.slots[number as usize];
                if *slot.hits.get_mut() < 2 {
                    self.ghosts.insert(self.links[number as usize].hash);
                    return Some(number);
                }
                *slot.hits.get_mut() = 0;
                slot.in_small = false;
                self.main.push(&mut self.links, number);
            } else {
                let number = self.main.pop(&mut self.links)?;
                let hits = self.slots[number as usize].hits.get_mut();
                if *hits == 0 {
                    return Some(number);
                }
                // Terminates because each step uses up a hit.
                *hits -= 1;
                self.main.push(&mut self.links, number);
            }
        }
    }

    fn ranking(&self) -> Vec<(u32, u8)> {
        let slots = self.small.iter(&self.links).chain(self.main.iter(&self.links));
        let hits = |slot: u32| self.slots[slot as usize].hits.load(Ordering::Relaxed);
        let mut ranking: Vec<(u32, u8)> = slots.map(|slot| (slot, hits(slot))).collect();
        ranking.sort_by_key(|(_, hits)| *hits);
        ranking
    }
}
