//! Small caches of a sample of the keys, which find out what would be best for the large one. Knows nothing of what that one holds.

use hashbrown::HashTable;

use super::regions::Regions;

/// The windows that are tried: next to nothing (frequency decides), and next to everything (recency decides). What lies between them never
/// did better than the better of the two by more than the noise of a sample; see the page of results for the traces.
pub(super) const NARROW: f32 = 0.01;
pub(super) const WIDE: f32 = 0.99;

/// A cache is simulated at the smallest scale, a power of two, at which it still has as many entries as this.
const ENTRIES_MIN: usize = 1024;
/// How many simulated capacities' worth of reads make the past count for half.
const HALF_LIFE: f64 = 0.5;
/// Reads between two decisions, as a part of the simulated capacity.
const DECISIONS: usize = 8;
/// Fewer reads than this decide nothing.
const READS_MIN: usize = 16;
/// By how many standard deviations of a coin's throws the other window has to be better. Less makes it flutter.
const MARGIN: f64 = 0.5;
/// The same for the one that forgets.
const MARGIN_FORGET: f64 = 1.5;
/// Reads, in capacities, after which counts are halved.
const AGE: usize = 10;
/// The same for the one that forgets.
const AGE_FORGET: usize = 1;
/// What is popular is forgotten so far when the one that forgets does better: 15 becomes 1.
const FORGET_HALVINGS: u32 = 3;
/// Decisions after that until it may happen again.
const FORGET_PAUSE: u32 = 16;

/// What the cache should do now.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Verdict {
    /// The window's share from now on.
    pub(super) share: Option<f32>,
    /// How often to halve all counts.
    pub(super) halvings: u32,
}

/// Mini-simulation (Waldspurger et al., "Cache modeling and optimization using miniature simulations", USENIX ATC 2017): of every `rate` keys
/// one is followed, in caches smaller by the same factor.
///
/// Two of them try the windows. A third has the narrow window and forgets fast; when it does better than the one that does not, what was
/// popular belongs to a past that is over, and everybody forgets.
#[derive(Debug)]
pub(super) struct Simulation {
    narrow: Shadow,
    wide: Shadow,
    forgetful: Shadow,
    rate: u64,
    is_wide: bool,
    /// Reads since the last decision, since counts were halved last, and in all, of which the past counts for less.
    fresh: usize,
    since_aged: usize,
    reads: f64,
    pause: u32,
}

impl Simulation {
    pub(super) fn new(entries: usize) -> Self {
        let rate = (entries / ENTRIES_MIN).max(1);
        let rate = 1 << rate.ilog2();
        let shadow = |share| Shadow::new(share, entries / rate);
        Self {
            narrow: shadow(NARROW),
            wide: shadow(WIDE),
            forgetful: shadow(NARROW),
            rate: rate as u64,
            is_wide: false,
            fresh: 0,
            since_aged: 0,
            reads: 0.0,
            pause: 0,
        }
    }

    /// One in so many keys is to be told; a power of two.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// Follows a cache whose number of entries is limited otherwise than was said.
    pub(super) fn resize(&mut self, entries: usize) {
        let entries = entries / self.rate as usize;
        self.shadows().into_iter().for_each(|shadow| shadow.resize(entries));
    }

    /// Reads one of the sampled keys.
    pub(super) fn read(&mut self, hash: u64) -> Verdict {
        self.shadows().into_iter().for_each(|shadow| shadow.read(hash));
        self.reads += 1.0;
        self.fresh += 1;
        if self.fresh < (self.capacity() / DECISIONS).max(READS_MIN) {
            return Verdict::default();
        }
        let mut halvings = self.forget();
        let share = self.choose();
        self.since_aged += self.fresh;
        if self.since_aged >= AGE * self.capacity() {
            self.since_aged = 0;
            halvings += 1;
        }
        for shadow in [&mut self.narrow, &mut self.wide] {
            shadow.regions.age(halvings);
        }
        self.fade();
        Verdict { share, halvings }
    }

    fn capacity(&self) -> usize {
        self.narrow.capacity
    }

    fn shadows(&mut self) -> [&mut Shadow; 3] {
        [&mut self.narrow, &mut self.wide, &mut self.forgetful]
    }

    fn choose(&mut self) -> Option<f32> {
        let (now, other) = if self.is_wide { (&self.wide, &self.narrow) } else { (&self.narrow, &self.wide) };
        if other.hits <= now.hits + MARGIN * self.reads.sqrt() {
            return None;
        }
        self.is_wide = !self.is_wide;
        Some(if self.is_wide { WIDE } else { NARROW })
    }

    fn forget(&mut self) -> u32 {
        self.pause = self.pause.saturating_sub(1);
        if self.pause > 0 || self.forgetful.hits <= self.narrow.hits + MARGIN_FORGET * self.reads.sqrt() {
            return 0;
        }
        self.pause = FORGET_PAUSE;
        FORGET_HALVINGS
    }

    /// Makes the past count for less.
    fn fade(&mut self) {
        let keep = 0.5_f64.powf(self.fresh as f64 / (self.capacity() as f64 * HALF_LIFE));
        let (fresh, age) = (std::mem::take(&mut self.fresh), AGE_FORGET * self.capacity());
        self.reads *= keep;
        self.shadows().into_iter().for_each(|shadow| shadow.hits *= keep);
        self.forgetful.since_aged += fresh;
        if self.forgetful.since_aged >= age {
            self.forgetful.since_aged = 0;
            self.forgetful.regions.age(1);
        }
    }
}

/// A cache of hashes alone.
#[derive(Debug)]
struct Shadow {
    table: HashTable<u32>,
    regions: Regions,
    free: Vec<u32>,
    capacity: usize,
    hits: f64,
    since_aged: usize,
}

impl Shadow {
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
