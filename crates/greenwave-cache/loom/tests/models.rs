//! Loom models that run every interleaving of a few threads through the cache: concurrent
//! computations of one key, and shards that change while others read them. The code is the cache's
//! own; only its locks are replaced by loom's. Run by `cargo xtask loom`.
//!
//! The tokio lock that passes on a computation counts as a single step, since tokio has models of
//! its own. So do byte-sized atomics and counters, which order nothing.

#![cfg(all(greenwave_loom, test))]

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU8;
use loom::thread;

use greenwave_cache::{Cache, CacheOptions, EntryOptions, KeyHasher, Lru};

type Modelled = Cache<u8, u8, Lru, Constant>;

/// Maps each key to the same bits in every execution, because a model must be repeatable.
#[derive(Default)]
struct Constant;

impl KeyHasher<u8> for Constant {
    fn hash_key(&self, key: &u8) -> u64 {
        u64::from(*key) << 32
    }
}

fn cache(entries_max: usize) -> Arc<Modelled> {
    Arc::new(Cache::with(CacheOptions { entries_max, shards: Some(1), ..CacheOptions::default() }).unwrap())
}

#[test]
fn concurrent_callers_share_one_computation() {
    loom::model(|| {
        let (cache, runs) = (cache(2), Arc::new(AtomicUsize::new(0)));
        let ask = |cache: Arc<Modelled>, runs: Arc<AtomicUsize>| {
            let compute = async || {
                runs.fetch_add(1, Ordering::Relaxed);
                Ok::<_, ()>(7)
            };
            assert_eq!(block_on(cache.get_or_compute(1, compute)), Ok(7));
        };
        let other = {
            let (cache, runs) = (cache.clone(), runs.clone());
            thread::spawn(move || ask(cache, runs))
        };
        ask(cache.clone(), runs.clone());
        other.join().unwrap();
        assert_eq!((runs.load(Ordering::Relaxed), cache.get(&1)), (1, Some(7)));
    });
}

#[test]
fn after_an_error_the_next_caller_computes() {
    loom::model(|| {
        let cache = cache(2);
        let failing = {
            let cache = cache.clone();
            thread::spawn(move || {
                block_on(cache.get_or_compute_retrying(1, &EntryOptions::default(), async || Err(())))
            })
        };
        let usual = EntryOptions::default();
        let computed = block_on(cache.get_or_compute_retrying(1, &usual, async || Ok::<_, ()>(7)));
        // In either order, only the caller whose computation failed can get the error.
        assert_eq!(computed, Ok(7));
        let failed = failing.join().unwrap();
        assert!(failed.is_err() || failed == Ok(7));
        assert_eq!(cache.get(&1), Some(7));
    });
}

#[test]
fn only_waiters_receive_the_error() {
    loom::model(|| {
        let (cache, runs) = (cache(2), Arc::new(AtomicUsize::new(0)));
        let fail = |cache: &Modelled, runs: &AtomicUsize| {
            let compute = async || {
                runs.fetch_add(1, Ordering::Relaxed);
                Err::<u8, ()>(())
            };
            assert!(block_on(cache.get_or_compute(1, compute)).is_err());
        };
        let other = {
            let (cache, runs) = (cache.clone(), runs.clone());
            thread::spawn(move || fail(&cache, &runs))
        };
        fail(&cache, &runs);
        other.join().unwrap();
        assert!((1..=2).contains(&runs.load(Ordering::Relaxed)));
        assert_eq!(block_on(cache.get_or_compute(1, async || Ok::<_, ()>(7))), Ok(7));
    });
}

#[test]
fn after_a_drop_the_next_caller_computes() {
    loom::model(|| {
        let cache = cache(2);
        let dropped = {
            let cache = cache.clone();
            thread::spawn(move || {
                let mut future = Box::pin(cache.get_or_compute(1, async || {
                    std::future::pending::<()>().await;
                    Ok::<u8, ()>(1)
                }));
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                let _ = future.as_mut().poll(&mut context);
            })
        };
        assert_eq!(block_on(cache.get_or_compute(1, async || Ok::<_, ()>(7))), Ok(7));
        dropped.join().unwrap();
        assert_eq!(cache.get(&1), Some(7));
    });
}

/// Tests that a computation which started before a change does not put its outdated value into the
/// cache. `announce` changes or removes the key.
fn check_no_outdated_value(announce: fn(&Modelled)) {
    loom::model(move || {
        let (cache, truth) = (cache(2), Arc::new(AtomicU8::new(7)));
        let computing = {
            let (cache, truth) = (cache.clone(), truth.clone());
            thread::spawn(move || {
                block_on(cache.get_or_compute(1, async || Ok::<_, ()>(truth.load(Ordering::SeqCst))))
            })
        };
        truth.store(9, Ordering::SeqCst);
        announce(&cache);
        let computed = computing.join().unwrap();
        assert!(matches!(computed, Ok(7 | 9)));
        assert!(cache.get(&1).is_none_or(|value| value == 9), "the cached value is outdated");
    });
}

#[test]
fn a_computation_does_not_overwrite_an_insertion() {
    check_no_outdated_value(|cache| cache.insert(1, 9));
}

#[test]
fn a_computation_does_not_undo_a_removal() {
    check_no_outdated_value(|cache| _ = cache.remove(&1));
}

#[test]
fn a_computation_does_not_undo_an_invalidation() {
    check_no_outdated_value(|cache| _ = cache.invalidate_all());
}

#[test]
fn lookups_after_an_invalidation_miss() {
    loom::model(|| {
        let cache = cache(2);
        cache.insert_with(1, 1, &EntryOptions { tags: &["old"], ..EntryOptions::default() });
        let reader = {
            let cache = cache.clone();
            thread::spawn(move || cache.get(&1))
        };
        assert_eq!(cache.invalidate_tag("old"), 1);
        assert_eq!(cache.get(&1), None);
        assert!(matches!(reader.join().unwrap(), None | Some(1)));
        assert!(cache.is_empty());
    });
}

#[test]
fn readers_see_an_eviction_completely_or_not_at_all() {
    loom::model(|| {
        let cache = cache(1);
        cache.insert(1, 1);
        let writer = {
            let cache = cache.clone();
            thread::spawn(move || cache.insert(2, 2))
        };
        let (one, two) = (cache.get(&1), cache.get(&2));
        assert!(matches!((one, two), (Some(1), None | Some(2)) | (None, Some(2))), "{one:?} {two:?}");
        writer.join().unwrap();
        assert_eq!((cache.len(), cache.get(&2)), (1, Some(2)));
    });
}

/// A computation can also start while an insertion is in progress. Three threads have too many
/// interleavings to try all, so the model is limited to three preemptions.
#[test]
fn a_computation_that_starts_during_an_insertion_does_not_overwrite_it() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let cache = cache(4);
        let compute = |key: u8| {
            let cache = cache.clone();
            thread::spawn(move || {
                let _ = block_on(cache.get_or_compute(key, async || Ok::<_, ()>(0)));
            })
        };
        let (other, same) = (compute(2), compute(1));
        cache.insert(1, 9);
        other.join().unwrap();
        same.join().unwrap();
        assert_eq!(cache.get(&1), Some(9));
    });
}
