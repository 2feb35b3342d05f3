//! Counters of hits and misses, striped so that threads do not contend for a cache line. Each of
//! the first threads has a stripe to itself; the others share one.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Number of accesses after which a stripe records its hit count.
const BLOCK_READS: u64 = 128;
/// Number of recorded hit counts. Recent accesses are the last seven full blocks and the current
/// one.
const BLOCKS: u64 = 8;
/// Limits of the number of stripes: few enough to sum up quickly, and more than the threads that
/// run at once.
const STRIPES_MIN: usize = 8;
const STRIPES_MAX: usize = 64;

/// Hits and misses since the cache was created, and among recent accesses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AccessCounts {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) recent_hits: u64,
    pub(crate) recent_misses: u64,
    pub(crate) saved_us: u64,
}

#[derive(Debug)]
pub(crate) struct HitCounters {
    /// The last stripe is shared.
    stripes: Box<[Stripe]>,
}

/// Counters of one thread, on cache lines that no other thread writes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    hits: AtomicU64,
    misses: AtomicU64,
    saved_us: AtomicU64,
    /// Ring of the hit counts at the start of each block.
    block_start_hits: [AtomicU64; BLOCKS as usize],
}

impl HitCounters {
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(STRIPES_MIN, usize::from);
        let stripes = (4 * processors).clamp(STRIPES_MIN, STRIPES_MAX) + 1;
        Self { stripes: (0..stripes).map(|_| Stripe::default()).collect() }
    }

    #[inline]
    pub(crate) fn hit(&self, saved_us: u64) {
        let (stripe, is_exclusive) = self.stripe();
        let hits = add(&stripe.hits, 1, is_exclusive);
        if saved_us > 0 {
            add_saturating(&stripe.saved_us, saved_us, is_exclusive);
        }
        stripe.record_block(hits, stripe.misses.load(Ordering::Relaxed));
    }

    #[inline]
    pub(crate) fn miss(&self) {
        let (stripe, is_exclusive) = self.stripe();
        let misses = add(&stripe.misses, 1, is_exclusive);
        stripe.record_block(stripe.hits.load(Ordering::Relaxed), misses);
    }

    pub(crate) fn access_counts(&self) -> AccessCounts {
        let add = |sum: AccessCounts, stripe: &Stripe| {
            let (hits, misses) = (stripe.hits.load(Ordering::Relaxed), stripe.misses.load(Ordering::Relaxed));
            let (recent_hits, recent_misses) = stripe.recent(hits, misses);
            AccessCounts {
                hits: sum.hits + hits,
                misses: sum.misses + misses,
                recent_hits: sum.recent_hits + recent_hits,
                recent_misses: sum.recent_misses + recent_misses,
                saved_us: sum.saved_us.saturating_add(stripe.saved_us.load(Ordering::Relaxed)),
            }
        };
        self.stripes.iter().fold(AccessCounts::default(), add)
    }

    #[inline]
    fn stripe(&self) -> (&Stripe, bool) {
        let shared = self.stripes.len() - 1;
        let number = NUMBER.with(Cell::get);
        let number = if number == UNNUMBERED { number_this_thread() } else { number };
        (&self.stripes[number.min(shared)], number < shared)
    }
}

impl Stripe {
    #[inline]
    fn record_block(&self, hits: u64, misses: u64) {
        let reads = hits + misses;
        if reads.is_multiple_of(BLOCK_READS) {
            self.block_start_hits[(reads / BLOCK_READS % BLOCKS) as usize].store(hits, Ordering::Relaxed);
        }
    }

    /// Returns the hits and misses of the recent blocks.
    fn recent(&self, hits: u64, misses: u64) -> (u64, u64) {
        let block = (hits + misses) / BLOCK_READS;
        let Some(first) = (block + 1).checked_sub(BLOCKS) else { return (hits, misses) };
        let then = self.block_start_hits[(first % BLOCKS) as usize].load(Ordering::Relaxed);
        let recent_hits = hits.saturating_sub(then);
        (recent_hits, (hits + misses).saturating_sub(first * BLOCK_READS).saturating_sub(recent_hits))
    }
}

/// Adds to a counter, without a locked instruction if only this thread writes it. Relaxed: these
/// counters order nothing.
#[inline]
fn add(counter: &AtomicU64, n: u64, is_exclusive: bool) -> u64 {
    if is_exclusive {
        let sum = counter.load(Ordering::Relaxed) + n;
        counter.store(sum, Ordering::Relaxed);
        return sum;
    }
    counter.fetch_add(n, Ordering::Relaxed) + n
}

/// Like [`add`], without wrapping: callers can pass any number.
#[inline]
fn add_saturating(counter: &AtomicU64, n: u64, is_exclusive: bool) {
    if is_exclusive {
        counter.store(counter.load(Ordering::Relaxed).saturating_add(n), Ordering::Relaxed);
    } else {
        // The closure always returns `Some`.
        let sum = |old: u64| Some(old.saturating_add(n));
        let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
    }
}

const UNNUMBERED: usize = usize::MAX;

thread_local! {
    /// This thread's number: small, and unique among the running threads. Stored separately from
    /// its owner because a thread-local without a destructor is faster to read.
    static NUMBER: Cell<usize> = const { Cell::new(UNNUMBERED) };
    static OWNED_NUMBER: ThreadNumber = ThreadNumber::take();
}

/// Numbers that were given back, and the next number never used.
static FREE_NUMBERS: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

/// Owns a thread's number and gives it back when the thread ends. The lock also makes this thread's
/// counts visible to the next thread with the number.
struct ThreadNumber(usize);

impl ThreadNumber {
    fn take() -> Self {
        let (free, next) = &mut *FREE_NUMBERS.lock();
        Self(free.pop().unwrap_or_else(|| std::mem::replace(next, *next + 1)))
    }
}

impl Drop for ThreadNumber {
    fn drop(&mut self) {
        // Accesses in later destructors of this thread go to the shared stripe.
        NUMBER.with(|number| number.set(UNNUMBERED - 1));
        FREE_NUMBERS.lock().0.push(self.0);
    }
}

#[cold]
fn number_this_thread() -> usize {
    let number = OWNED_NUMBER.try_with(|owned| owned.0).unwrap_or(UNNUMBERED - 1);
    NUMBER.with(|own| own.set(number));
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_with_more_threads_than_stripes() {
        let counters = HitCounters::new();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES_MAX {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counters.hit(2);
                        counters.miss();
                    }
                });
            }
        });
        let reads = counters.access_counts();
        let expected = 2000 * STRIPES_MAX as u64;
        assert_eq!((reads.hits, reads.misses, reads.saved_us), (expected, expected, 2 * expected));
    }

    #[test]
    fn old_accesses_are_not_recent() {
        let counters = HitCounters::new();
        (0..10_000).for_each(|_| counters.miss());
        (0..1000).for_each(|_| counters.hit(0));
        let reads = counters.access_counts();
        let recent = reads.recent_hits + reads.recent_misses;
        assert!(reads.recent_hits == 1000 || reads.recent_misses == 0, "{reads:?}");
        assert!(((BLOCKS - 1) * BLOCK_READS..BLOCKS * BLOCK_READS).contains(&recent), "{reads:?}");
    }
}
