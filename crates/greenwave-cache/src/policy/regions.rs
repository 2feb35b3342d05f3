//! A window for what is new and a main region for what proved popular: which entry goes, given the window's share. Knows nothing of how
//! that share is chosen.

use std::sync::atomic::{AtomicU8, Ordering};

use super::queue::{Link, Queue};
use super::sketch::{COUNT_MAX, Sketch};

/// Entries that one eviction may move from a window that became too large: moving all at once would keep readers waiting.
const MOVES_MAX: usize = 32;

/// What is remembered of a slot, in one byte, so that a hit is one load and at most one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(u8);

impl Mark {
    const COUNT: u8 = COUNT_MAX;
    /// Stands in the main region.
    const MAIN: u8 = 1 << 5;
    /// Is told to the simulation.
    const SAMPLED: u8 = 1 << 6;
    /// Was read since the hand of the clock passed.
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

/// Both regions are clocks (Corbató 1968): what was read since the hand passed gets another round. What falls out of the window takes the
/// place of the main region's next if it was asked for clearly more often: W-TinyLFU (Einziger et al., "Adaptive software cache management",
/// Middleware 2018), with the counts of what is held beside the entries, so that only evictions touch the sketch.
#[derive(Debug)]
pub(super) struct Regions {
    marks: Vec<AtomicU8>,
    links: Vec<Link>,
    window: Queue,
    main: Queue,
    /// The window's part of all entries, 0 to 1.
    share: f32,
    sketch: Sketch,
}

impl Regions {
    pub(super) fn new(share: f32) -> Self {
        Self {
            marks: Vec::new(),
            links: Vec::new(),
            window: Queue::EMPTY,
            main: Queue::EMPTY,
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
        Mark(self.marks[slot as usize].load(Ordering::Relaxed)).count()
    }

    /// Takes note of a read; says whether the simulation wants to hear of it.
    #[inline]
    pub(super) fn hit(&self, slot: u32) -> bool {
        // Pairs with nothing: two hits at once may count as one.
        let mark = &self.marks[slot as usize];
        let seen = Mark(mark.load(Ordering::Relaxed));
        if seen.read() != seen {
            mark.store(seen.read().0, Ordering::Relaxed);
        }
        seen.is(Mark::SAMPLED)
    }

    /// Puts a slot into the window. `heat` is how often it was asked for before, as far as the caller knows.
    pub(super) fn insert(&mut self, slot: u32, hash: u64, heat: u8, is_sampled: bool) {
        let index = slot as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, Link::ALONE);
            self.marks.resize_with(index + 1, AtomicU8::default);
        }
        let count = self.sketch.count(hash).max(heat).saturating_add(1).min(COUNT_MAX);
        *self.marks[index].get_mut() = count | if is_sampled { Mark::SAMPLED } else { 0 };
        self.links[index].hash = hash;
        self.window.push(&mut self.links, slot);
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let is_main = Mark(*self.marks[slot as usize].get_mut()).is(Mark::MAIN);
        let queue = if is_main { &mut self.main } else { &mut self.window };
        queue.unlink(&mut self.links, slot);
    }

    pub(super) fn victim(&mut self) -> Option<u32> {
        let window_max = ((self.len() as f32 * self.share) as usize).max(1);
        self.shrink(window_max);
        let defender = self.next(Mark::MAIN);
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

    /// It takes two more. In a loop that is larger than the cache, what comes now was read once more than what comes next, and letting it
    /// in for that would replace everything in every round.
    fn is_clearly_hotter(&self, candidate: u32, defender: u32) -> bool {
        self.count(candidate) > self.count(defender) + 1
    }

    /// Halves all counts, so often: what was popular once is not so for ever.
    pub(super) fn age(&mut self, halvings: u32) {
        self.sketch.age(halvings);
        for mark in &mut self.marks {
            let mark = mark.get_mut();
            *mark = Mark(*mark).aged(halvings).0;
        }
    }

    /// All slots, those that go next first.
    pub(super) fn ranking(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = self.window.iter(&self.links).chain(self.main.iter(&self.links)).collect();
        slots.sort_by_key(|slot| self.count(*slot));
        slots
    }

    /// Hands what a window that became smaller has too much of to the main region, without a contest.
    fn shrink(&mut self, window_max: usize) {
        for _ in 0..self.window.len().saturating_sub(window_max).min(MOVES_MAX) {
            let Some(slot) = self.next(0) else { return };
            self.promote(slot);
        }
    }

    fn promote(&mut self, slot: u32) {
        self.window.unlink(&mut self.links, slot);
        *self.marks[slot as usize].get_mut() |= Mark::MAIN;
        self.main.push(&mut self.links, slot);
    }

    /// The next that would go from the window (0) or the main region ([`Mark::MAIN`]). Each round clears what keeps an entry, so this ends.
    fn next(&mut self, region: u8) -> Option<u32> {
        let queue = if region == 0 { &mut self.window } else { &mut self.main };
        loop {
            let slot = queue.peek()?;
            let mark = self.marks[slot as usize].get_mut();
            if !Mark(*mark).is(Mark::READ) {
                return Some(slot);
            }
            *mark &= !Mark::READ;
            queue.unlink(&mut self.links, slot);
            queue.push(&mut self.links, slot);
        }
    }

    /// Takes a slot out and forgets it, but for how often its key was asked for.
    fn evict(&mut self, slot: u32) -> u32 {
        self.remove(slot);
        self.sketch.fit(self.len() + 1);
        self.sketch.raise(self.hash(slot), self.count(slot));
        slot
    }
}
