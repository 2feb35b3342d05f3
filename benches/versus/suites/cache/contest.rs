//! The work that all caches do.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use greenwave_cache::Key;

const RESIDENT: usize = 50_000;
/// Number of keys of rows with misses.
pub(crate) const UNIVERSE: usize = 1_000_000;

/// A value of a cache.
pub(crate) type Value = Arc<[u8; 256]>;

/// The common interface of the caches.
pub(crate) trait CacheUnderTest: Sync {
    fn name(&self) -> &'static str;
    fn get(&self, key: &Key) -> Option<Value>;
    fn put(&self, key: Key, value: Value);
}

/// A mix of operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mix {
    Hits,
    Reads,
    Mixed,
}

impl Mix {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hits => "hits",
            Self::Reads => "reads",
            Self::Mixed => "mixed",
        }
    }

    pub(crate) fn universe(self) -> usize {
        if self == Self::Hits { RESIDENT } else { UNIVERSE }
    }
}

/// Runs work on a cache whose type is static, so that the measured code makes no virtual calls.
pub(crate) trait Contestant {
    fn name(&self) -> &'static str;
    fn fill(&self, work: &Work);
    /// Returns the nanoseconds per operation, of all threads together.
    fn run(&self, work: &Work, mix: Mix) -> f64;
}

/// The keys and values of a row.
pub(crate) struct Work {
    pub(crate) keys: Vec<Key>,
    /// One value per key: threads would contend for the reference count of a shared one.
    pub(crate) values: Vec<Value>,
    /// Indices of the keys that each thread reads.
    pub(crate) threads: Vec<Vec<u32>>,
}

impl<C: CacheUnderTest> Contestant for C {
    fn name(&self) -> &'static str {
        CacheUnderTest::name(self)
    }

    fn fill(&self, work: &Work) {
        work.keys[..RESIDENT].iter().zip(&work.values).for_each(|(key, value)| self.put(*key, value.clone()));
        let cached = work.keys[..RESIDENT].iter().filter(|key| self.get(key).is_some()).count();
        assert!(cached * 100 > RESIDENT * 98, "{} holds {cached} of {RESIDENT}", CacheUnderTest::name(self));
    }

    fn run(&self, work: &Work, mix: Mix) -> f64 {
        let barrier = Barrier::new(work.threads.len());
        let thread = |chosen: &Vec<u32>| {
            barrier.wait();
            let begun = Instant::now();
            operate(self, work, chosen, mix);
            (begun, Instant::now())
        };
        let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
            let threads = work.threads.iter().map(|chosen| scope.spawn(|| thread(chosen)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().expect("threads do not panic")).collect()
        });
        let first = spans.iter().map(|(begun, _)| begun).min().expect("there is at least one thread");
        let last = spans.iter().map(|(_, ended)| ended).max().expect("there is at least one thread");
        let operations: usize = work.threads.iter().map(Vec::len).sum();
        last.duration_since(*first).as_nanos() as f64 / operations as f64
    }
}

#[inline(never)]
fn operate<C: CacheUnderTest>(cache: &C, work: &Work, chosen: &[u32], mix: Mix) {
    for (number, chosen) in chosen.iter().enumerate() {
        let (key, value) = (&work.keys[*chosen as usize], &work.values[*chosen as usize]);
        match mix {
            Mix::Hits => _ = black_box(cache.get(key)),
            Mix::Mixed if number % 10 == 0 => cache.put(*key, value.clone()),
            _ => {
                if black_box(cache.get(key)).is_none() {
                    cache.put(*key, value.clone());
                }
            }
        }
    }
}
