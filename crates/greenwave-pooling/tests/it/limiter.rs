//! Tests of `Limiter`.

use std::sync::Arc;
use std::time::Duration;

use greenwave_pooling::{Limit, Limiter};
use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn permits_are_granted_in_order() {
    let limiter = Limiter::new(Limit::Fixed(1));
    let held = limiter.acquire().await;
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for i in 0..10 {
        let (limiter, served) = (limiter.clone(), served.clone());
        tasks.push(tokio::spawn(async move {
            let _permit = limiter.acquire().await;
            served.lock().push(i);
        }));
        yield_now().await;
    }
    assert!(timeout(SECOND, limiter.acquire()).await.is_err());
    assert_eq!(limiter.stats().waiting, 10, "the cancelled caller left the queue");
    drop(held);
    assert!(limiter.try_acquire().is_none(), "callers are served in order");
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*served.lock(), (0..10).collect::<Vec<_>>());
    assert_eq!((limiter.stats().in_flight, limiter.stats().admitted), (0, 11));
}

#[tokio::test(start_paused = true)]
async fn a_permit_granted_to_a_cancelled_waiter_is_returned() {
    let limiter = Limiter::new(Limit::Fixed(1));
    let held = limiter.acquire().await;
    let mut gone = Box::pin(limiter.acquire());
    assert!(timeout(SECOND, &mut gone).await.is_err());
    drop(held);
    drop(gone);
    assert!(limiter.try_acquire().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_converges_to_the_capacity() {
    // The server handles 8 calls at once.
    let limiter = Limiter::new(Limit::Adaptive { min: 1, max: 100, initial: 1 });
    let mut seen = Vec::new();
    for _ in 0..200 {
        let mut permits = Vec::new();
        while let Some(permit) = limiter.try_acquire() {
            permits.push(permit);
        }
        seen.push(permits.len());
        let overloads = permits.len() > 8;
        for permit in permits {
            if overloads { permit.overloaded(None) } else { permit.succeeded() }
        }
    }
    let later = &seen[50..];
    assert!(later.iter().all(|limit| (4..=9).contains(limit)), "{later:?}");
    let mean = later.iter().sum::<usize>() as f64 / later.len() as f64;
    assert!(mean > 5.5, "{mean}");
}

#[tokio::test(start_paused = true)]
async fn concurrent_signals_of_overload_count_once() {
    let limiter = Limiter::new(Limit::Adaptive { min: 2, max: 64, initial: 64 });
    let permits: Vec<_> = std::iter::from_fn(|| limiter.try_acquire()).collect();
    permits.into_iter().for_each(|permit| permit.overloaded(None));
    assert_eq!((limiter.stats().limit, limiter.stats().overloads), (32, 64));
    for _ in 0..10 {
        limiter.acquire().await.overloaded(None);
    }
    assert_eq!(limiter.stats().limit, 2);
}

#[tokio::test(start_paused = true)]
async fn no_permits_are_granted_during_a_pause() {
    let limiter = Limiter::new(Limit::Fixed(2));
    let started = Instant::now();
    let other = limiter.acquire().await;
    limiter.acquire().await.overloaded(Some(5 * SECOND));
    assert!(limiter.try_acquire().is_none());
    assert_eq!(limiter.stats().paused, 5 * SECOND);
    let waiting = tokio::spawn({
        let limiter = limiter.clone();
        async move {
            drop(limiter.acquire().await);
            Instant::now()
        }
    });
    sleep(SECOND).await;
    other.succeeded();
    assert_eq!(waiting.await.unwrap() - started, 5 * SECOND);
}
