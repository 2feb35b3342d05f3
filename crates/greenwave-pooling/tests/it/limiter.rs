//! Permits.

use std::sync::Arc;
use std::time::Duration;

use greenwave_pooling::{Limit, Limiter};
use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn permits_go_to_who_came_first() {
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
    assert_eq!(limiter.stats().waiting, 10, "who went away does not wait");
    drop(held);
    assert!(limiter.try_acquire().is_none(), "nobody overtakes");
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*served.lock(), (0..10).collect::<Vec<_>>());
    assert_eq!((limiter.stats().in_flight, limiter.stats().admitted), (0, 11));
}

#[tokio::test(start_paused = true)]
async fn a_permit_granted_to_one_who_went_away_comes_back() {
    let limiter = Limiter::new(Limit::Fixed(1));
    let held = limiter.acquire().await;
    let mut gone = Box::pin(limiter.acquire());
    assert!(timeout(SECOND, &mut gone).await.is_err());
    drop(held);
    drop(gone);
    assert!(limiter.try_acquire().is_some());
}

#[tokio::test(start_paused = true)]
async fn it_learns_what_is_borne() {
    // The other side bears 8 at once.
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
async fn many_signals_of_one_overload_count_once() {
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
async fn nothing_is_lent_while_the_other_side_wants_to_be_left_alone() {
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
