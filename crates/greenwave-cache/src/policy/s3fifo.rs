//! S3-FIFO: three queues, of which two hold entries. After Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};

use super::Policy;

/// Hits that are remembered.
const HITS_MAX: u8 = 3;
/// The small queue gets one part in this many.
const SMALL_SHARE: usize = 10;
/// No neighbour.
const NONE: u32 = u32::MAX;

/// Lets entries prove themselves in a small queue before they get into the main one, and remembers the keys of those that did not. A hit is
/// one relaxed store; scans pass through the small queue without disturbing the rest.
#[derive(Debug)]
pub struct S3Fifo {
    hits: Vec<AtomicU8>,
    links: Vec<Link>,
    small: Queue,
    main: Queue,
    small_max: usize,
    ghosts: Ghosts,
}

/// A slot's neighbours, and which queue it is in.
#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
    hash: u64,
    in_small: bool,
}

#[derive(Debug)]
struct Queue {
    newest: u32,
    oldest: u32,
    len: usize,
}

impl Queue {
    const EMPTY: Self = Self { newest: NONE, oldest: NONE, len: 0 };

    fn push(&mut self, links: &mut [Link], slot: u32) {
        let older = std::mem::replace(&mut self.newest, slot);
        links[slot as usize].newer = NONE;
        links[slot as usize].older = older;
        match older {
            NONE => self.oldest = slot,
            older => links[older as usize].newer = slot,
        }
        self.len += 1;
    }

    fn unlink(&mut self, links: &mut [Link], slot: u32) {
        let Link { newer, older, .. } = links[slot as usize];
        match newer {
            NONE => self.newest = older,
            newer => links[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => links[older as usize].newer = newer,
        }
        self.len -= 1;
    }

    fn pop(&mut self, links: &mut [Link]) -> Option<u32> {
        let slot = self.oldest;
        if slot == NONE {
            return None;
        }
        self.unlink(links, slot);
        Some(slot)
    }
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

impl Policy for S3Fifo {
    fn new(capacity: usize) -> Self {
        let small_max = (capacity / SMALL_SHARE).max(1);
        let max = (capacity - small_max).max(1);
        Self {
            hits: Vec::new(),
            links: Vec::new(),
            small: Queue::EMPTY,
            main: Queue::EMPTY,
            small_max,
            ghosts: Ghosts { order: VecDeque::new(), known: HashSet::new(), max },
        }
    }

    fn hit(&self, slot: u32) {
        // Pairs with nothing: two hits at once may count as one.
        let hits = &self.hits[slot as usize];
        let seen = hits.load(Ordering::Relaxed);
        if seen < HITS_MAX {
            hits.store(seen + 1, Ordering::Relaxed);
        }
    }

    fn insert(&mut self, slot: u32, hash: u64) {
        let index = slot as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, Link { newer: NONE, older: NONE, hash: 0, in_small: false });
            self.hits.resize_with(index + 1, AtomicU8::default);
        }
        *self.hits[index].get_mut() = 0;
        let in_small = !self.ghosts.known.remove(&hash);
        self.links[index] = Link { newer: NONE, older: NONE, hash, in_small };
        let queue = if in_small { &mut self.small } else { &mut self.main };
        queue.push(&mut self.links, slot);
    }

    fn remove(&mut self, slot: u32) {
        let queue = if self.links[slot as usize].in_small { &mut self.small } else { &mut self.main };
        queue.unlink(&mut self.links, slot);
    }

    fn victim(&mut self) -> Option<u32> {
        loop {
            if self.small.len > self.small_max || self.main.len == 0 {
                let slot = self.small.pop(&mut self.links)?;
                let link = &mut self.links[slot as usize];
                if *self.hits[slot as usize].get_mut() < 2 {
                    self.ghosts.remember(link.hash);
                    return Some(slot);
                }
                *self.hits[slot as usize].get_mut() = 0;
                link.in_small = false;
                self.main.push(&mut self.links, slot);
            } else {
                let slot = self.main.pop(&mut self.links)?;
                let hits = self.hits[slot as usize].get_mut();
                if *hits == 0 {
                    return Some(slot);
                }
                // Each turn takes a hit away, so this ends.
                *hits -= 1;
                self.main.push(&mut self.links, slot);
            }
        }
    }
}
