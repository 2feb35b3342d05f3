//! Tests of `Lazy` and `LazyMap`.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use greenwave_pooling::{Lazy, LazyMap, LoadError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn errors_are_not_cached() {
    let loads = AtomicU32::new(0);
    let lazy = Lazy::new(async || match loads.fetch_add(1, Ordering::SeqCst) {
        0 => Err("not yet"),
        n => Ok(n),
    });
    assert_eq!(lazy.loaded(), None);
    assert_eq!(lazy.get().await, Err(LoadError::Failed(Arc::new("not yet"))));
    assert_eq!(lazy.get().await, Ok(&1));
    assert_eq!(lazy.get().await, Ok(&1));
}

#[tokio::test(start_paused = true)]
async fn each_key_is_loaded_once_and_a_failure_leaves_nothing() {
    let map = LazyMap::new();
    let loads = AtomicU32::new(0);
    let load = async || {
        loads.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_secs(1)).await;
        Ok::<_, ()>("value")
    };
    let (a, b, c) =
        tokio::join!(map.get_or_load(&1, load), map.get_or_load(&1, load), map.get_or_load(&2, load));
    assert_eq!((a, b, c), (Ok("value"), Ok("value"), Ok("value")));
    assert_eq!((loads.load(Ordering::SeqCst), map.len()), (2, 2));

    assert_eq!(map.get_or_load_retrying(&3, async || Err("bad")).await, Err("bad"));
    let failed = map.get_or_load(&3, async || Err("bad")).await;
    assert_eq!(failed, Err(LoadError::Failed(Arc::new("bad"))));
    let cancelled = map.get_or_load(&4, async || std::future::pending::<Result<&str, ()>>().await);
    assert!(timeout(Duration::from_secs(1), cancelled).await.is_err());
    assert_eq!((map.len(), map.loaded(&3)), (2, None));
    map.remove(&1);
    assert_eq!((map.loaded(&1), map.loaded(&2)), (None, Some("value")));
}

/// Counts its loads, each of which takes a second and fails as `failure` says.
#[derive(Debug, Default)]
struct Loads {
    count: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Failure {
    Error,
    Panic,
}

impl Loads {
    async fn load(&self, failure: Failure) -> Result<u32, u32> {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_secs(1)).await;
        assert!(failure == Failure::Error, "boom");
        Err(number)
    }

    fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }
}

type Calling<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs 20 callers at once and returns their outcomes, `None` for a panic, and the time it took.
async fn twenty<T: Send + 'static>(call: impl Fn() -> Calling<T>) -> (Vec<Option<T>>, Duration) {
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        callers.spawn(call());
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = callers.join_next().await {
        outcomes.push(outcome.ok());
    }
    (outcomes, started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_share_the_error_of_a_failed_load() {
    let (loads, map) = (Arc::new(Loads::default()), Arc::new(LazyMap::<u8, u32>::new()));
    let (outcomes, took) = twenty(|| {
        let (loads, map) = (loads.clone(), map.clone());
        Box::pin(async move { map.get_or_load(&1, || loads.load(Failure::Error)).await })
    })
    .await;
    assert_eq!(outcomes, vec![Some(Err(LoadError::Failed(Arc::new(0)))); 20]);
    assert_eq!((loads.count(), took, map.len()), (1, Duration::from_secs(1), 0));

    let lazy = Arc::new(Lazy::new({
        let loads = loads.clone();
        move || {
            let loads = loads.clone();
            async move { loads.load(Failure::Error).await }
        }
    }));
    let (outcomes, _) = twenty(|| {
        let lazy = lazy.clone();
        Box::pin(async move { lazy.get().await.copied() })
    })
    .await;
    assert_eq!(outcomes, vec![Some(Err(LoadError::Failed(Arc::new(1)))); 20]);
    // A caller that asks after the failure loads again.
    assert_eq!(lazy.get().await, Err(LoadError::Failed(Arc::new(2))));
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_learn_of_a_panic() {
    let (loads, map) = (Arc::new(Loads::default()), Arc::new(LazyMap::<u8, u32>::new()));
    let (outcomes, _) = twenty(|| {
        let (loads, map) = (loads.clone(), map.clone());
        Box::pin(async move { map.get_or_load(&1, || loads.load(Failure::Panic)).await })
    })
    .await;
    let expected = Err(LoadError::Panicked { message: "boom".into() });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_none()).count(), 1);
    assert_eq!(outcomes.iter().flatten().filter(|outcome| **outcome == expected).count(), 19);
    assert_eq!((loads.count(), map.len()), (1, 0));
    assert_eq!(map.get_or_load(&1, async || Ok::<_, ()>(7)).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_that_retry_load_in_turn() {
    for failure in [Failure::Error, Failure::Panic] {
        let (loads, map) = (Arc::new(Loads::default()), Arc::new(LazyMap::<u8, u32>::new()));
        let (outcomes, took) = twenty(|| {
            let (loads, map) = (loads.clone(), map.clone());
            Box::pin(async move { map.get_or_load_retrying(&1, || loads.load(failure)).await })
        })
        .await;
        assert_eq!((loads.count(), took, map.len()), (20, Duration::from_secs(20), 0), "{failure:?}");
        let numbers: Vec<u32> = outcomes.into_iter().flatten().map(Result::unwrap_err).collect();
        let expected: Vec<u32> = if failure == Failure::Error { (0..20).collect() } else { Vec::new() };
        assert_eq!(numbers, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_of_a_cell_is_tried_again_by_a_waiting_caller() {
    let loads = AtomicU32::new(0);
    let lazy = Lazy::new(async || {
        let number = loads.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_secs(1)).await;
        if number == 0 { Err("not yet") } else { Ok(number) }
    });
    let started = Instant::now();
    let (first, second, third) = tokio::join!(lazy.get_retrying(), lazy.get_retrying(), lazy.get_retrying());
    assert_eq!((first, second, third), (Err("not yet"), Ok(&1), Ok(&1)));
    assert_eq!((loads.load(Ordering::SeqCst), started.elapsed()), (2, Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn callers_that_share_and_callers_that_retry_never_load_at_once() {
    let map = Arc::new(LazyMap::<u8, u32>::new());
    let running = Arc::new(AtomicU32::new(0));
    let mut callers = JoinSet::new();
    for number in 0..40 {
        let (map, running) = (map.clone(), running.clone());
        callers.spawn(async move {
            sleep(Duration::from_millis(number * 37 % 300)).await;
            let load = async || {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two loads at once");
                sleep(Duration::from_millis(50)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Err::<u32, _>(())
            };
            if number % 2 == 0 {
                map.get_or_load(&1, load).await.is_err()
            } else {
                map.get_or_load_retrying(&1, load).await.is_err()
            }
        });
    }
    while let Some(failed) = callers.join_next().await {
        assert!(failed.unwrap());
    }
    assert!(map.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_error_is_dropped_with_the_last_caller() {
    let lazy = Lazy::new(async || Err::<(), _>(Arc::new("big")));
    let error: Weak<&str> = match lazy.get().await {
        Err(LoadError::Failed(error)) => Arc::downgrade(&error),
        other => panic!("{other:?}"),
    };
    assert_eq!(error.strong_count(), 0);
}
