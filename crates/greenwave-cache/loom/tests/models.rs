//! Every interleaving of a few threads, by loom: one computation for all who ask, whatever becomes of it, and shards that are handed over
//! while others read. The code is the cache's own; only its locks are loom's. Run by `cargo xtask loom`.
//!
//! tokio's lock, which passes a computation on, counts as one step here: tokio has models of its own. So do atomics of single bytes and
//! counts, which order nothing.

#![cfg(all(greenwave_loom, test))]

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU8;
use loom::thread;

use greenwave_cache::{Cache, EntryOptions, KeyHasher, Lru, CacheOptions};

type Modelled = Cache<u8, u8, Lru, Constant>;

/// The same bits for every key and in every execution: a model has to be able to repeat itself.
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
fn two_who_ask_share_one_computation() {
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
fn an_error_passes_the_computation_on() {
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
        // Whoever came first, the error is kept by nobody but, at most, the one whose it is.
        assert_eq!(computed, Ok(7));
        let failed = failing.join().unwrap();
        assert!(failed.is_err() || failed == Ok(7));
        assert_eq!(cache.get(&1), Some(7));
    });
}

#[test]
fn an_error_goes_to_those_who_waited_and_no_further() {
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
fn a_computation_that_is_dropped_passes_on() {
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

/// What was true when a computation began may not be so any more when it ends: after the change was announced, nobody is told of before.
fn nothing_of_before_is_kept(announce: fn(&Modelled)) {
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
        assert!(cache.get(&1).is_none_or(|kept| kept == 9), "the past came back");
    });
}

#[test]
fn what_is_put_meanwhile_is_not_overwritten() {
    nothing_of_before_is_kept(|cache| cache.insert(1, 9));
}

#[test]
fn what_is_removed_meanwhile_does_not_come_back() {
    nothing_of_before_is_kept(|cache| _ = cache.remove(&1));
}

#[test]
fn what_is_invalidated_meanwhile_does_not_come_back() {
    nothing_of_before_is_kept(|cache| _ = cache.invalidate_all());
}

#[test]
fn an_invalidation_leaves_nothing_of_before() {
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
fn a_reader_sees_a_shard_before_or_after_an_eviction() {
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

/// A computation may begin while an insertion is under way, too, which then has to wait for others' computations to be looked at. Three threads
/// have too many interleavings for all of them: those in which none is interrupted more than three times.
#[test]
fn what_begins_while_something_is_put_does_not_overwrite_it() {
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
