//! Tests of `get_or_compute`: one computation per missing key, with errors, panics, drops and
//! invalidations.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_cache::{Cache, CacheOptions, ComputeError, EntryOptions, Lru};
use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::small;

/// Lets all other tasks run until they wait.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

/// Error of a computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failed;

fn failed<E>(error: E) -> ComputeError<E> {
    ComputeError::Failed(Arc::new(error))
}

type Caller<E> = (oneshot::Sender<u64>, tokio::task::JoinHandle<Result<u64, E>>);

/// Spawns a task that asks for key 1 and computes the value sent through the sender. Dropping the
/// sender fails the computation with an error that waiters share.
fn ask(cache: &Arc<Cache<u64, u64, Lru>>, runs: &Arc<AtomicUsize>) -> Caller<ComputeError<Failed>> {
    let (sender, receiver) = oneshot::channel();
    let (cache, runs) = (cache.clone(), runs.clone());
    let task = tokio::spawn(async move {
        let compute = || async move {
            runs.fetch_add(1, Ordering::Relaxed);
            receiver.await.map_err(|_| Failed)
        };
        cache.get_or_compute(1, compute).await
    });
    (sender, task)
}

/// Like [`ask`], but waiters compute themselves after an error.
fn ask_retrying(cache: &Arc<Cache<u64, u64, Lru>>, runs: &Arc<AtomicUsize>) -> Caller<Failed> {
    let (sender, receiver) = oneshot::channel();
    let (cache, runs) = (cache.clone(), runs.clone());
    let task = tokio::spawn(async move {
        let compute = || async move {
            runs.fetch_add(1, Ordering::Relaxed);
            receiver.await.map_err(|_| Failed)
        };
        cache.get_or_compute_retrying(1, &EntryOptions::default(), compute).await
    });
    (sender, task)
}

fn fresh() -> (Arc<Cache<u64, u64, Lru>>, Arc<AtomicUsize>) {
    (Arc::new(small(10)), Arc::default())
}

#[tokio::test]
async fn concurrent_callers_share_one_computation() {
    let (cache, runs) = fresh();
    let mut callers: Vec<_> = (0..50).map(|_| ask(&cache, &runs)).collect();
    settle().await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let (sender, first) = callers.remove(0);
    sender.send(7).unwrap();
    assert_eq!(first.await.unwrap(), Ok(7));
    for (_, task) in callers {
        assert_eq!(task.await.unwrap(), Ok(7));
    }
    assert_eq!((runs.load(Ordering::Relaxed), cache.get(&1)), (1, Some(7)));
}

#[tokio::test]
async fn all_waiters_get_the_error_of_the_computation() {
    let (cache, runs) = fresh();
    let mut callers: Vec<_> = (0..20).map(|_| ask(&cache, &runs)).collect();
    settle().await;
    let (sender, first) = callers.remove(0);
    drop(sender);
    let ComputeError::Failed(error) = first.await.unwrap().unwrap_err() else { panic!("not failed") };
    for (_sender, waiting) in callers {
        let ComputeError::Failed(shared) = waiting.await.unwrap().unwrap_err() else { panic!("not failed") };
        assert!(Arc::ptr_eq(&shared, &error));
    }
    assert_eq!((runs.load(Ordering::Relaxed), cache.get(&1)), (1, None));
    let (sender, later) = ask(&cache, &runs);
    sender.send(2).unwrap();
    assert_eq!(later.await.unwrap(), Ok(2), "an error is not cached");
}

#[tokio::test]
async fn callers_after_a_failure_do_not_get_its_error() {
    let (cache, runs) = fresh();
    let (first_sender, first) = ask(&cache, &runs);
    settle().await;
    // Waits for the first computation, then computes, and so leaves the shared computation pending.
    let (retry_sender, retrying) = ask_retrying(&cache, &runs);
    settle().await;
    drop(first_sender);
    assert_eq!(first.await.unwrap(), Err(failed(Failed)));
    settle().await;
    let (late_sender, late) = ask(&cache, &runs);
    settle().await;
    drop(retry_sender);
    assert_eq!(retrying.await.unwrap(), Err(Failed));
    late_sender.send(3).unwrap();
    assert_eq!(late.await.unwrap(), Ok(3));
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn errors_of_different_types_are_not_shared() {
    let (cache, runs) = fresh();
    let (sender, first) = ask(&cache, &runs);
    settle().await;
    let other = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_compute(1, async || Err::<u64, u8>(9)).await }
    });
    settle().await;
    drop(sender);
    assert_eq!(first.await.unwrap(), Err(failed(Failed)));
    assert_eq!(other.await.unwrap(), Err(failed(9)));
}

#[tokio::test]
async fn waiters_count_as_hits_for_a_value_and_misses_for_an_error() {
    let (cache, runs) = fresh();
    let mut callers: Vec<_> = (0..50).map(|_| ask(&cache, &runs)).collect();
    settle().await;
    let dropped = callers.pop().unwrap();
    dropped.1.abort();
    let (sender, first) = callers.remove(0);
    sender.send(7).unwrap();
    assert_eq!(first.await.unwrap(), Ok(7));
    for (_sender, waiting) in callers {
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.saved), (48, 1, Duration::ZERO));

    let (cache, runs) = fresh();
    let mut callers: Vec<_> = (0..20).map(|_| ask(&cache, &runs)).collect();
    settle().await;
    drop(callers.remove(0).0);
    for (_sender, waiting) in callers {
        assert!(waiting.await.unwrap().is_err());
    }
    assert_eq!((cache.stats().hits, cache.stats().misses), (0, 20));
}

#[tokio::test]
async fn without_shared_errors_the_next_waiter_computes() {
    let (cache, runs) = fresh();
    let (first_sender, first) = ask_retrying(&cache, &runs);
    settle().await;
    let (second_sender, second) = ask_retrying(&cache, &runs);
    settle().await;
    drop(first_sender);
    assert_eq!(first.await.unwrap(), Err(Failed));
    assert_eq!(cache.get(&1), None);
    second_sender.send(2).unwrap();
    assert_eq!(second.await.unwrap(), Ok(2));
    assert_eq!((runs.load(Ordering::Relaxed), cache.get(&1)), (2, Some(2)));
}

#[tokio::test]
async fn after_a_drop_the_next_waiter_computes() {
    let (cache, runs) = fresh();
    let (_open, first) = ask(&cache, &runs);
    settle().await;
    let (second_sender, second) = ask(&cache, &runs);
    settle().await;
    first.abort();
    settle().await;
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    second_sender.send(2).unwrap();
    assert_eq!(second.await.unwrap(), Ok(2));
}

/// Spawns a task whose computation of key 1 panics once the sender has sent.
fn ask_panicking(cache: &Arc<Cache<u64, u64, Lru>>, is_retried: bool) -> Caller<ComputeError<Infallible>> {
    let (sender, receiver) = oneshot::channel();
    let cache = cache.clone();
    let task = tokio::spawn(async move {
        let compute = || async move {
            receiver.await.unwrap();
            panic!("the computation panics");
        };
        if is_retried {
            let options = EntryOptions::default();
            return cache.get_or_compute_retrying(1, &options, compute).await.map_err(failed);
        }
        cache.get_or_compute(1, compute).await
    });
    (sender, task)
}

#[tokio::test]
async fn all_waiters_learn_of_a_panic_and_the_next_caller_computes() {
    let (cache, runs) = fresh();
    let (go, panicking) = ask_panicking(&cache, false);
    settle().await;
    let waiting: Vec<_> = (0..20).map(|_| ask(&cache, &runs)).collect();
    let other = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_compute(1, async || Err::<u64, u8>(9)).await }
    });
    settle().await;
    go.send(0).unwrap();
    assert!(panicking.await.unwrap_err().is_panic());
    for (_sender, waiting) in waiting {
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the computation panicked: the computation panics");
    }
    assert_eq!(
        other.await.unwrap(),
        Err(ComputeError::Panicked { message: "the computation panics".into() })
    );
    assert_eq!((runs.load(Ordering::Relaxed), cache.get(&1)), (0, None));
    let (sender, later) = ask(&cache, &runs);
    sender.send(2).unwrap();
    assert_eq!(later.await.unwrap(), Ok(2), "a panic is not cached");
}

#[tokio::test]
async fn waiters_that_retry_compute_after_a_panic() {
    for is_retried in [false, true] {
        let (cache, runs) = fresh();
        let (go, panicking) = ask_panicking(&cache, is_retried);
        settle().await;
        let (sender, second) = ask_retrying(&cache, &runs);
        settle().await;
        go.send(0).unwrap();
        assert!(panicking.await.unwrap_err().is_panic());
        sender.send(2).unwrap();
        assert_eq!(second.await.unwrap(), Ok(2));
    }
}

#[tokio::test]
async fn a_computation_invalidated_meanwhile_is_not_cached() {
    type Change = fn(&Cache<u64, u64, Lru>);
    let changes: [(Change, Option<u64>); 4] = [
        (|cache| _ = cache.invalidate_all(), None),
        (|cache| _ = cache.invalidate_tag("any"), None),
        (|cache| _ = cache.remove(&1), None),
        (|cache| cache.insert(1, 9), Some(9)),
    ];
    for (change, expected) in changes {
        let (cache, runs) = fresh();
        let (sender, first) = ask(&cache, &runs);
        settle().await;
        let (_, waiting) = ask(&cache, &runs);
        settle().await;
        change(&cache);
        sender.send(7).unwrap();
        assert_eq!((first.await.unwrap(), waiting.await.unwrap()), (Ok(7), Ok(7)));
        assert_eq!(cache.get(&1), expected);
    }
}

#[tokio::test]
async fn callers_after_an_invalidation_compute_again() {
    let (cache, runs) = fresh();
    let (old_sender, old) = ask(&cache, &runs);
    settle().await;
    cache.invalidate_all();
    let (new_sender, new) = ask(&cache, &runs);
    settle().await;
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    new_sender.send(2).unwrap();
    assert_eq!(new.await.unwrap(), Ok(2));
    old_sender.send(1).unwrap();
    assert_eq!(old.await.unwrap(), Ok(1));
    assert_eq!(cache.get(&1), Some(2));
}

#[tokio::test]
async fn different_keys_do_not_wait_for_each_other() {
    let (cache, runs) = fresh();
    let (_open, _first) = ask(&cache, &runs);
    settle().await;
    let other = cache.get_or_compute(2, async || Ok::<_, Infallible>(2)).await;
    assert_eq!(other, Ok(2));
}

#[tokio::test]
async fn a_value_that_is_not_cached_still_reaches_all_waiters() {
    let cache = Arc::new(small(0));
    let runs = Arc::new(AtomicUsize::new(0));
    let (sender, first) = ask(&cache, &runs);
    settle().await;
    let (_, second) = ask(&cache, &runs);
    settle().await;
    sender.send(7).unwrap();
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(7), Ok(7)));
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn computations_of_a_key_never_overlap_on_several_threads() {
    let cache: Arc<Cache<u64, u64, Lru>> = Arc::new(small(4));
    let computing: Arc<Vec<AtomicUsize>> = Arc::new((0..8).map(|_| AtomicUsize::new(0)).collect());
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let (cache, computing) = (cache.clone(), computing.clone());
            tokio::spawn(async move {
                for round in 0..500_u64 {
                    let key = (round + task) % 8;
                    let compute = || async {
                        assert_eq!(computing[key as usize].fetch_add(1, Ordering::SeqCst), 0);
                        yield_now().await;
                        computing[key as usize].fetch_sub(1, Ordering::SeqCst);
                        if round % 7 == 0 { Err(()) } else { Ok(key) }
                    };
                    if let Ok(value) = cache.get_or_compute(key, compute).await {
                        assert_eq!(value, key);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn failed_computations_free_their_memory() {
    let cache: Cache<Arc<str>, u64> = Cache::new(CacheOptions::default()).unwrap();
    let key: Arc<str> = "key".into();
    for _ in 0..3 {
        let failing = || async { cache.get_or_compute(key.clone(), async || Err::<u64, _>(Failed)).await };
        assert_eq!(tokio::join!(failing(), failing()), (Err(failed(Failed)), Err(failed(Failed))));
    }
    assert_eq!(Arc::strong_count(&key), 1);
}
