//! Tests of pools whose size changes, and of connections that leave them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenwave_pooling::{CloseReason, Error, Lease, Pool, PoolEvent, PoolOptions};
use tokio::time::{Instant, advance};

use crate::fake::{Fake, OutOfOrder};

fn options(size_max: usize) -> PoolOptions {
    PoolOptions { size_min: 0, size_max, ..PoolOptions::default() }
}

async fn leases(pool: &Pool<Fake>, count: usize) -> Vec<Lease<Fake>> {
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(pool.get().await.unwrap());
    }
    leases
}

#[tokio::test(start_paused = true)]
async fn a_smaller_pool_closes_idle_connections_now_and_lent_ones_when_returned() {
    let fake = Fake::default();
    let pool = fake.pool(options(4));
    let mut lent = leases(&pool, 4).await;
    drop(lent.pop());
    pool.resize(0, 2);
    assert_eq!((fake.alive(), pool.stats().size), (3, 3));
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { drop(pool.get().await.unwrap()) }
    });
    tokio::task::yield_now().await;
    drop(lent.pop());
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "the surplus connection was lent");
    assert_eq!(fake.alive(), 2);
    drop(lent.pop());
    waiting.await.unwrap();
    drop(lent);
    assert_eq!((fake.alive(), pool.stats().idle), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_larger_pool_serves_those_who_wait() {
    let pool = Fake::default().pool(options(1));
    let first = pool.get().await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.unwrap() }
    });
    tokio::task::yield_now().await;
    pool.resize(3, usize::MAX);
    let second = waiting.await.unwrap();
    pool.warm_up().await.unwrap();
    assert_eq!(pool.stats().size, 3);
    drop((first, second));
    pool.resize(usize::MAX, 0);
    assert_eq!(pool.stats().size, 1, "at least one");
}

#[tokio::test(start_paused = true)]
async fn a_taken_connection_belongs_to_the_caller() {
    let fake = Fake::default();
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let observer = move |event: &PoolEvent<'_>| {
        if let PoolEvent::Closed { reason } = event {
            log.lock().unwrap().push(*reason);
        }
    };
    let pool = Pool::with_observer(fake.clone(), options(1), observer);
    let taken = pool.get().await.unwrap().take();
    assert_eq!((fake.alive(), pool.stats().size), (1, 0));
    let lent = pool.get().await.unwrap();
    assert_eq!(fake.alive(), 2);
    drop((taken, lent));
    assert_eq!((fake.alive(), pool.stats().idle), (1, 1));
    assert_eq!(*events.lock().unwrap(), [CloseReason::Taken]);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_retained_by_a_predicate() {
    let fake = Fake::default();
    let pool = fake.pool(options(4));
    let mut lent = leases(&pool, 4).await;
    let kept = lent.pop();
    for lease in lent {
        drop(lease);
        advance(Duration::from_millis(100)).await;
    }
    assert_eq!(pool.retain(|lease| lease.age() > Duration::from_secs(9)), 3);
    assert_eq!((fake.alive(), pool.stats().idle, pool.stats().in_use), (1, 0, 1));
    drop(kept);
    assert_eq!(pool.retain(|_| true), 0);
    assert_eq!(pool.stats().idle, 1);
    let panics = || pool.retain(|_| panic!("predicate"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    assert_eq!((pool.stats().idle, fake.alive()), (1, 1));
    drop(pool.get().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_call_has_its_own_time_limit() {
    let pool = Fake::default().pool(options(1));
    let lent = pool.get().await.unwrap();
    let started = Instant::now();
    let error = pool.get_timeout(Duration::from_millis(250)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { after } if after == Duration::from_millis(250)), "{error:?}");
    assert_eq!(started.elapsed(), Duration::from_millis(250));
    drop(lent);
    for limit in [Duration::ZERO, Duration::MAX] {
        drop(pool.get_timeout(limit).await.unwrap());
    }
}

#[derive(Debug, thiserror::Error)]
enum QueryError {
    #[error("no connection")]
    Pool(#[from] Error),
    #[error("query")]
    Query(#[from] OutOfOrder),
}

#[tokio::test(start_paused = true)]
async fn the_errors_of_pool_and_work_become_one() {
    let pool = Fake::default().pool(options(1));
    let worked = pool.run(async |connection| {
        assert!(!connection.is_broken);
        Ok::<_, QueryError>(7)
    });
    assert_eq!(worked.await.unwrap(), 7);
    let failed = pool.run(async |connection| {
        connection.is_broken = true;
        Err::<(), QueryError>(OutOfOrder.into())
    });
    assert!(matches!(failed.await, Err(QueryError::Query(_))));
    assert_eq!(pool.stats().discarded, 1);
    pool.close().await;
    let closed = pool.run(async |_| Ok::<_, QueryError>(7));
    assert!(matches!(closed.await, Err(QueryError::Pool(Error::Closed))));
    // The future can be spawned.
    let pool = Fake::default().pool(options(1));
    let spawned = tokio::spawn(async move { pool.run(async |_| Ok::<_, QueryError>(8)).await });
    assert_eq!(spawned.await.unwrap().unwrap(), 8);
}
