//! Counts of reads that threads do not fight over: each of the first threads has a lane of its own, and the rest share one. Knows nothing of
//! what is read.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Reads after which a lane notes how many were hits.
const BLOCK_READS: u64 = 128;
/// Notes that a lane keeps: the recent past is the last seven blocks and the one under way.
const BLOCKS: u64 = 8;
/// Lanes of a tally: few enough to be summed in a moment, more than the threads that read at once.
const LANES_MIN: usize = 8;
const LANES_MAX: usize = 64;

/// Reads since a cache was made, and of late.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reads {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) recent_hits: u64,
    pub(crate) recent_misses: u64,
    pub(crate) saved_us: u64,
}

#[derive(Debug)]
pub(crate) struct Tally {
    /// The last is the one that is shared.
    lanes: Box<[Lane]>,
}

/// What one thread counts, on cache lines that no other writes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    hits: AtomicU64,
    misses: AtomicU64,
    saved_us: AtomicU64,
    /// The hits when each block began, in a ring.
    notes: [AtomicU64; BLOCKS as usize],
}

impl Tally {
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(LANES_MIN, usize::from);
        let lanes = (4 * processors).clamp(LANES_MIN, LANES_MAX) + 1;
        Self { lanes: (0..lanes).map(|_| Lane::default()).collect() }
    }

    #[inline]
    pub(crate) fn hit(&self, saved_us: u64) {
        let (lane, is_own) = self.lane();
        let hits = add(&lane.hits, 1, is_own);
        if saved_us > 0 {
            add_saturating(&lane.saved_us, saved_us, is_own);
        }
        lane.note(hits, lane.misses.load(Ordering::Relaxed));
    }

    #[inline]
    pub(crate) fn miss(&self) {
        let (lane, is_own) = self.lane();
        let misses = add(&lane.misses, 1, is_own);
        lane.note(lane.hits.load(Ordering::Relaxed), misses);
    }

    pub(crate) fn reads(&self) -> Reads {
        let add = |sum: Reads, lane: &Lane| {
            let (hits, misses) = (lane.hits.load(Ordering::Relaxed), lane.misses.load(Ordering::Relaxed));
            let (recent_hits, recent_misses) = lane.recent(hits, misses);
            Reads {
                hits: sum.hits + hits,
                misses: sum.misses + misses,
                recent_hits: sum.recent_hits + recent_hits,
                recent_misses: sum.recent_misses + recent_misses,
                saved_us: sum.saved_us.saturating_add(lane.saved_us.load(Ordering::Relaxed)),
            }
        };
        self.lanes.iter().fold(Reads::default(), add)
    }

    #[inline]
    fn lane(&self) -> (&Lane, bool) {
        let shared = self.lanes.len() - 1;
        let number = NUMBER.with(Cell::get);
        let number = if number == UNNUMBERED { number_this_thread() } else { number };
        (&self.lanes[number.min(shared)], number < shared)
    }
}

impl Lane {
    #[inline]
    fn note(&self, hits: u64, misses: u64) {
        let reads = hits + misses;
        if reads.is_multiple_of(BLOCK_READS) {
            self.notes[(reads / BLOCK_READS % BLOCKS) as usize].store(hits, Ordering::Relaxed);
        }
    }

    /// Hits and misses of the last blocks.
    fn recent(&self, hits: u64, misses: u64) -> (u64, u64) {
        let block = (hits + misses) / BLOCK_READS;
        let Some(first) = (block + 1).checked_sub(BLOCKS) else { return (hits, misses) };
        let then = self.notes[(first % BLOCKS) as usize].load(Ordering::Relaxed);
        let recent_hits = hits.saturating_sub(then);
        (recent_hits, (hits + misses).saturating_sub(first * BLOCK_READS).saturating_sub(recent_hits))
    }
}

/// Adds without a locked instruction where one thread alone writes. Relaxed: these counts order nothing.
#[inline]
fn add(counter: &AtomicU64, n: u64, is_own: bool) -> u64 {
    if is_own {
        let sum = counter.load(Ordering::Relaxed) + n;
        counter.store(sum, Ordering::Relaxed);
        return sum;
    }
    counter.fetch_add(n, Ordering::Relaxed) + n
}

/// The same for what callers say, which may be any numbers.
#[inline]
fn add_saturating(counter: &AtomicU64, n: u64, is_own: bool) {
    if is_own {
        counter.store(counter.load(Ordering::Relaxed).saturating_add(n), Ordering::Relaxed);
    } else {
        // The closure always gives a sum.
        let sum = |old: u64| Some(old.saturating_add(n));
        let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
    }
}

const UNNUMBERED: usize = usize::MAX;

thread_local! {
    /// This thread's number: small, and nobody else's while it lives. Beside its keeper, because a value without a destructor is read faster.
    static NUMBER: Cell<usize> = const { Cell::new(UNNUMBERED) };
    static KEEPER: Keeper = Keeper::take();
}

/// Numbers that no thread has, and the first that none ever had.
static FREE: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

/// Gives a thread's number back when the thread ends. The lock also makes what it counted visible to the next with that number.
struct Keeper(usize);

impl Keeper {
    fn take() -> Self {
        let (free, next) = &mut *FREE.lock();
        Self(free.pop().unwrap_or_else(|| std::mem::replace(next, *next + 1)))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // What is read in later destructors of this thread goes to the shared lane.
        NUMBER.with(|number| number.set(UNNUMBERED - 1));
        FREE.lock().0.push(self.0);
    }
}

#[cold]
fn number_this_thread() -> usize {
    let number = KEEPER.try_with(|keeper| keeper.0).unwrap_or(UNNUMBERED - 1);
    NUMBER.with(|own| own.set(number));
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_lanes_lose_no_count() {
        let tally = Tally::new();
        std::thread::scope(|scope| {
            for _ in 0..2 * LANES_MAX {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        tally.hit(2);
                        tally.miss();
                    }
                });
            }
        });
        let reads = tally.reads();
        let expected = 2000 * LANES_MAX as u64;
        assert_eq!((reads.hits, reads.misses, reads.saved_us), (expected, expected, 2 * expected));
    }

    #[test]
    fn what_is_long_ago_is_not_recent() {
        let tally = Tally::new();
        (0..10_000).for_each(|_| tally.miss());
        (0..1000).for_each(|_| tally.hit(0));
        let reads = tally.reads();
        let recent = reads.recent_hits + reads.recent_misses;
        assert!(reads.recent_hits == 1000 || reads.recent_misses == 0, "{reads:?}");
        assert!(((BLOCKS - 1) * BLOCK_READS..BLOCKS * BLOCK_READS).contains(&recent), "{reads:?}");
    }
}
