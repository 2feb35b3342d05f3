//! S3-FIFO: three queues, of which two hold entries. After Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};

use super::queue::{Link, Queue};
use super::{Candidate, Policy};

/// Hits that are remembered.
const HITS_MAX: u8 = 3;
/// The small queue gets one part in this many.
const SMALL_SHARE: usize = 10;

/// Lets entries prove themselves in a small queue before they get into the main one, and remembers the keys of those that did not. A hit is
/// one relaxed store; scans pass through the small queue without disturbing the rest.
#[derive(Debug)]
pub struct S3Fifo {
    slots: Vec<Slot>,
    links: Vec<Link>,
    small: Queue,
    main: Queue,
    small_max: usize,
    ghosts: Ghosts,
}

#[derive(Debug)]
struct Slot {
    hits: AtomicU8,
    in_small: bool,
}

/// Keys that were evicted from the small queue lately.
#[derive(Debug)]
struct Ghosts {
    order: VecDeque<u64>,
    known: HashSet<u64>,
    max: usize,
}

impl Ghosts {
    fn remember(&mut self, hash: u64) {
        if self.known.insert(hash) {
            self.order.push_back(hash);
        }
        // Those that came back left the set but not the order; they only make the memory a little shorter.
        while self.order.len() > self.max {
            let oldest = self.order.pop_front().expect("longer than the maximum");
            self.known.remove(&oldest);
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
            small: Queue::EMPTY,
            main: Queue::EMPTY,
            small_max,
            ghosts: Ghosts { order: VecDeque::new(), known: HashSet::new(), max },
        }
    }
}

impl Policy for S3Fifo {
    fn shards(capacities: &[usize]) -> Vec<Self> {
        capacities.iter().map(|capacity| Self::new(*capacity)).collect()
    }

    fn hit(&self, slot: u32) {
        // Pairs with nothing: two hits at once may count as one.
        let hits = &self.slots[slot as usize].hits;
        let seen = hits.load(Ordering::Relaxed);
        if seen < HITS_MAX {
            hits.store(seen + 1, Ordering::Relaxed);
        }
    }

    fn insert(&mut self, slot: u32, candidate: Candidate) {
        let (index, hash) = (slot as usize, candidate.hash);
        if index >= self.links.len() {
            self.links.resize(index + 1, Link::ALONE);
            let empty = || Slot { hits: AtomicU8::new(0), in_small: false };
            self.slots.resize_with(index + 1, empty);
        }
        let in_small = !self.ghosts.known.remove(&hash);
        let hits = AtomicU8::new(candidate.heat.min(HITS_MAX));
        self.slots[index] = Slot { hits, in_small };
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
                    self.ghosts.remember(self.links[number as usize].hash);
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
                // Each turn takes a hit away, so this ends.
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
