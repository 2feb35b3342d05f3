//! The regions of W-TinyLFU: a window for new entries and a main region for popular ones, with a
//! given share for the window.

use std::sync::atomic::{AtomicU8, Ordering};

use super::queue::{QueueLink, SlotQueue};
use super::sketch::{COUNT_MAX, Sketch};

/// Maximum number of entries that one eviction moves out of a window that has shrunk. Moving all of
/// them at once would block readers.
const MOVES_MAX: usize = 32;

/// State of a slot in one byte, so that a hit is one load and at most one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SlotMark(u8);

impl SlotMark {
    const COUNT: u8 = COUNT_MAX;
    /// The slot is in the main region.
    const MAIN: u8 = 1 << 5;
    /// The simulation follows the slot's key.
    const SAMPLED: u8 = 1 << 6;
    /// The slot was accessed since the clock hand passed it.
    const READ: u8 = 1 << 7;

    fn count(self) -> u8 {
        self.0 & Self::COUNT
    }

    fn is(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    fn read(self) -> Self {
        Self((self.0 | Self::READ) + u8::from(self.count() < COUNT_MAX))
    }

    fn aged(self, halvings: u32) -> Self {
        Self(self.0 & !Self::COUNT | self.count() >> halvings)
    }
}

/// Window and main region of a cache.
///
/// Both regions are clocks (Corbató 1968): an entry that was accessed since the hand passed it gets
/// another round. An entry that leaves the window replaces the main region's next victim if it was
/// accessed clearly more often. This is W-TinyLFU (Einziger et al., "Adaptive software cache
/// management", Middleware 2018). The counts of cached entries are stored with the slots, so that
/// only evictions touch the sketch.
#[derive(Debug)]
pub(super) struct Regions {
    marks: Vec<AtomicU8>,
    links: Vec<QueueLink>,
    window: SlotQueue,
    main: SlotQueue,
    /// Share of the window in all entries, 0 to 1.
    share: f32,
    sketch: Sketch,
}

impl Regions {
    pub(super) fn new(share: f32) -> Self {
        Self {
            marks: Vec::new(),
            links: Vec::new(),
            window: SlotQueue::EMPTY,
            main: SlotQueue::EMPTY,
            share,
            sketch: Sketch::default(),
        }
    }

    pub(super) fn set_share(&mut self, share: f32) {
        self.share = share;
    }

    pub(super) fn len(&self) -> usize {
        self.window.len() + self.main.len()
    }

    pub(super) fn hash(&self, slot: u32) -> u64 {
        self.links[slot as usize].hash
    }

    pub(super) fn count(&self, slot: u32) -> u8 {
        SlotMark(self.marks[slot as usize].load(Ordering::Relaxed)).count()
    }

    /// Records a hit. Returns whether the simulation follows the slot's key.
    #[inline]
    pub(super) fn hit(&self, slot: u32) -> bool {
        // Relaxed, and pairs with nothing: two concurrent hits may count as one.
        let mark = &self.marks[slot as usize];
        let seen = SlotMark(mark.load(Ordering::Relaxed));
        if seen.read() != seen {
            mark.store(seen.read().0, Ordering::Relaxed);
        }
        seen.is(SlotMark::SAMPLED)
    }

    /// Inserts a slot into the window. `heat` is the access count from an earlier process.
    pub(super) fn insert(&mut self, slot: u32, hash: u64, heat: u8, is_sampled: bool) {
        let index = slot as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, QueueLink::UNLINKED);
            self.marks.resize_with(index + 1, AtomicU8::default);
        }
        let count = self.sketch.count(hash).max(heat).saturating_add(1).min(COUNT_MAX);
        *self.marks[index].get_mut() = count | if is_sampled { SlotMark::SAMPLED } else { 0 };
        self.links[index].hash = hash;
        self.window.push(&mut self.links, slot);
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let is_main = SlotMark(*self.marks[slot as usize].get_mut()).is(SlotMark::MAIN);
        let queue = if is_main { &mut self.main } else { &mut self.window };
        queue.unlink(&mut self.links, slot);
    }

    pub(super) fn victim(&mut self) -> Option<u32> {
        let window_max = ((self.len() as f32 * self.share) as usize).max(1);
        self.shrink(window_max);
        let defender = self.next(SlotMark::MAIN);
        if let Some(defender) = defender.filter(|_| self.window.len() < window_max) {
            return Some(self.evict(defender));
        }
        let Some(candidate) = self.next(0) else { return defender.map(|slot| self.evict(slot)) };
        let loser = match defender.filter(|defender| self.is_clearly_hotter(candidate, *defender)) {
            Some(defender) => {
                self.promote(candidate);
                defender
            }
            None => candidate,
        };
        Some(self.evict(loser))
    }

    /// Requires a difference of at least two. In a loop larger than the cache, the current entry
    /// has always been read once more than the next one. Admitting it would replace all entries in
    /// every round.
    fn is_clearly_hotter(&self, candidate: u32, defender: u32) -> bool {
        self.count(candidate) > self.count(defender) + 1
    }

    /// Halves all counts `halvings` times, so that past popularity fades.
    pub(super) fn age(&mut self, halvings: u32) {
        self.sketch.age(halvings);
        for mark in &mut self.marks {
            let mark = mark.get_mut();
            *mark = SlotMark(*mark).aged(halvings).0;
        }
    }

    /// Returns all slots in order of eviction.
    pub(super) fn ranking(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = self.window.iter(&self.links).chain(self.main.iter(&self.links)).collect();
        slots.sort_by_key(|slot| self.count(*slot));
        slots
    }

    /// Moves entries from a window that has shrunk to the main region, without comparing counts.
    fn shrink(&mut self, window_max: usize) {
        for _ in 0..self.window.len().saturating_sub(window_max).min(MOVES_MAX) {
            let Some(slot) = self.next(0) else { return };
            self.promote(slot);
        }
    }

    fn promote(&mut self, slot: u32) {
        self.window.unlink(&mut self.links, slot);
        *self.marks[slot as usize].get_mut() |= SlotMark::MAIN;
        self.main.push(&mut self.links, slot);
    }

    /// Returns the next slot to leave the window (0) or the main region ([`SlotMark::MAIN`]).
    /// Terminates because each step clears a mark.
    fn next(&mut self, region: u8) -> Option<u32> {
        let queue = if region == 0 { &mut self.window } else { &mut self.main };
        loop {
            let slot = queue.peek()?;
            let mark = self.marks[slot as usize].get_mut();
            if !SlotMark(*mark).is(SlotMark::READ) {
                return Some(slot);
            }
            *mark &= !SlotMark::READ;
            queue.unlink(&mut self.links, slot);
            queue.push(&mut self.links, slot);
        }
    }

    /// Removes a slot, and records its access count in the sketch.
    fn evict(&mut self, slot: u32) -> u32 {
        self.remove(slot);
        self.sketch.fit(self.len() + 1);
        self.sketch.raise(self.hash(slot), self.count(slot));
        slot
    }
}
