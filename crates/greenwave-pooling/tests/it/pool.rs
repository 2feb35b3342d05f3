//! Tests of the promises of `Pool`, in paused time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use greenwave_pooling::{Error, PoolOptions};
use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::fake::{Connect, Fake};

const SECOND: Duration = Duration::from_secs(1);

/// Options with at most `size_max` connections and no minimum.
fn up_to(size_max: usize) -> PoolOptions {
    PoolOptions { size_min: 0, size_max, ..PoolOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn the_most_recently_used_connection_is_lent_first() {
    let pool = Fake::default().pool(up_to(3));
    let leases = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    assert_eq!(pool.stats().in_use, 2);
    let [first, second] = leases;
    drop(second);
    sleep(SECOND / 4).await;
    drop(first);
    let again = pool.get().await.unwrap();
    assert_eq!((again.uses(), pool.stats().created, pool.stats().reused), (1, 2, 1));
    let other = pool.get().await.unwrap();
    assert!(again.age() == other.age());
    assert_eq!(pool.stats().created, 2);
}

#[tokio::test(start_paused = true)]
async fn callers_are_served_in_order_without_barging() {
    let pool = Fake::default().pool(up_to(1));
    let lease = pool.get().await.unwrap();
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for i in 0..20 {
        let (pool, served) = (pool.clone(), served.clone());
        tasks.push(tokio::spawn(async move {
            let lease = pool.get().await.unwrap();
            served.lock().push(i);
            yield_now().await;
            drop(lease);
        }));
        yield_now().await;
    }
    assert_eq!(pool.stats().waiting, 20);
    drop(lease);
    assert!(pool.try_get().is_none(), "the connection is reserved for the first in line");
    let last = pool.get().await.unwrap();
    served.lock().push(99);
    drop(last);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*served.lock(), (0..20).chain([99]).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_leaks_nothing() {
    let pool = Fake::default().pool(up_to(1));
    let lease = pool.get().await.unwrap();
    let mut gone = Box::pin(pool.get());
    assert!(timeout(SECOND, &mut gone).await.is_err());
    assert_eq!(pool.stats().waiting, 1);
    // The connection is granted to the waiter, which is dropped before it collects the connection.
    drop(lease);
    drop(gone);
    assert_eq!((pool.stats().idle, pool.stats().waiting), (1, 0));

    let lease = pool.get().await.unwrap();
    drop(timeout(SECOND, pool.get()).await);
    assert_eq!(pool.stats().waiting, 0, "the cancelled caller left the queue");
    drop(lease);
    assert!(pool.get().await.is_ok());
    assert_eq!(pool.stats().created, 1);
}

#[tokio::test(start_paused = true)]
async fn a_returned_connection_serves_before_a_new_one() {
    let connects = [Connect::Succeeds(Duration::ZERO), Connect::Succeeds(10 * SECOND)];
    let pool = Fake::scripted(connects).pool(up_to(2));
    let lease = pool.get().await.unwrap();
    let started = Instant::now();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(|lease| lease.uses()) }
    });
    sleep(SECOND).await;
    assert_eq!(pool.stats().connecting, 1);
    drop(lease);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    assert_eq!(started.elapsed(), SECOND);
    sleep(10 * SECOND).await;
    assert_eq!((pool.stats().idle, pool.stats().connecting), (2, 0), "the new connection is idle");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_wastes_no_connect() {
    let pool = Fake::scripted([Connect::Succeeds(5 * SECOND)]).pool(up_to(1));
    assert!(timeout(SECOND, pool.get()).await.is_err());
    sleep(5 * SECOND).await;
    assert_eq!(pool.stats().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_connect_fails_one_caller_and_serves_the_next() {
    let fake =
        Fake::scripted([Connect::Fails(SECOND), Connect::Panics, Connect::Hangs, Connect::Succeeds(SECOND)]);
    let pool = fake.pool(PoolOptions { connect_timeout: Some(2 * SECOND), ..up_to(1) });
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.get().await })
        })
        .collect();
    let mut outcomes = Vec::new();
    for caller in callers {
        outcomes.push(caller.await.unwrap());
    }
    assert!(matches!(outcomes[0], Err(Error::Connect { .. })), "{outcomes:?}");
    assert!(matches!(outcomes[1], Err(Error::Panicked { .. })), "{outcomes:?}");
    assert!(matches!(outcomes[2], Err(Error::ConnectTimeout { .. })), "{outcomes:?}");
    assert!(outcomes[3].is_ok(), "{outcomes:?}");
    assert_eq!((pool.stats().connect_failures, fake.alive()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn checkout_times_out() {
    let pool = Fake::default().pool(PoolOptions { checkout_timeout: Some(3 * SECOND), ..up_to(1) });
    let _lease = pool.get().await.unwrap();
    let started = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { after } if after == 3 * SECOND), "{error:?}");
    assert_eq!(started.elapsed(), 3 * SECOND);
    let stats = pool.stats();
    assert_eq!((stats.timeouts, stats.waiting, stats.wait_max), (1, 0, 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn broken_and_discarded_connections_are_replaced() {
    let fake = Fake::default();
    let pool = fake.pool(up_to(1));
    let mut lease = pool.get().await.unwrap();
    lease.is_broken = true;
    drop(lease);
    assert_eq!((pool.stats().size, fake.alive()), (0, 0));
    let lease = pool.get().await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.map(|lease| lease.uses()) }
    });
    yield_now().await;
    lease.discard();
    assert_eq!(waiting.await.unwrap().unwrap(), 0, "another connect serves the waiting caller");
    assert_eq!(pool.stats().discarded, 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_checked_before_use() {
    let fake = Fake::default();
    let pool = fake.pool(PoolOptions { check_after: Some(SECOND), ..up_to(1) });
    drop(pool.get().await.unwrap());
    drop(pool.get().await.unwrap());
    assert_eq!(fake.counts.checks.load(Ordering::SeqCst), 0, "a recently used connection needs no check");
    sleep(2 * SECOND).await;
    drop(pool.get().await.unwrap());
    assert_eq!(fake.counts.checks.load(Ordering::SeqCst), 1);

    sleep(2 * SECOND).await;
    fake.checks_fail.store(true, Ordering::SeqCst);
    drop(pool.get().await.unwrap());
    assert_eq!(
        (pool.stats().created, pool.stats().discarded),
        (2, 1),
        "a connection that failed its check is replaced"
    );

    sleep(2 * SECOND).await;
    fake.checks_hang.store(true, Ordering::SeqCst);
    assert!(timeout(SECOND, pool.get()).await.is_err());
    assert_eq!(pool.stats().size, 0, "a connection under check is closed");
}

#[tokio::test(start_paused = true)]
async fn the_sweep_closes_the_oldest_down_to_the_minimum() {
    let options =
        PoolOptions { size_min: 1, size_max: 4, idle_timeout: Some(10 * SECOND), ..PoolOptions::default() };
    let fake = Fake::default();
    let pool = fake.pool(options);
    let leases = [pool.get().await.unwrap(), pool.get().await.unwrap(), pool.get().await.unwrap()];
    drop(leases);
    assert_eq!(pool.stats().idle, 3);
    sleep(9 * SECOND).await;
    assert_eq!(pool.stats().idle, 3);
    sleep(5 * SECOND).await;
    assert_eq!((pool.stats().idle, fake.alive()), (1, 1));
    sleep(60 * SECOND).await;
    assert_eq!((pool.stats().idle, pool.stats().created), (1, 3), "the minimum is preserved");
}

#[tokio::test(start_paused = true)]
async fn an_expired_connection_is_replaced_even_below_the_minimum() {
    let options = PoolOptions {
        size_min: 2,
        size_max: 2,
        max_lifetime: Some(100 * SECOND),
        lifetime_jitter: 0.5,
        idle_timeout: None,
        ..PoolOptions::default()
    };
    let fake = Fake::default();
    let pool = fake.pool(options);
    pool.warm_up().await.unwrap();
    assert_eq!(pool.stats().idle, 2);
    sleep(49 * SECOND).await;
    assert_eq!(pool.stats().created, 2, "no lifetime is shortened by more than the jitter");
    sleep(85 * SECOND).await;
    let stats = pool.stats();
    assert_eq!(stats.size, 2);
    assert!(stats.discarded >= 2 && stats.created == stats.discarded + 2, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn an_expired_connection_is_not_lent() {
    let options = PoolOptions { max_lifetime: Some(10 * SECOND), lifetime_jitter: 0.0, ..up_to(1) };
    let pool = Fake::default().pool(options);
    let lease = pool.get().await.unwrap();
    sleep(11 * SECOND).await;
    drop(lease);
    assert_eq!((pool.stats().size, pool.stats().discarded), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn warm_up_fills_to_the_minimum_or_fails() {
    let options = PoolOptions { size_min: 2, size_max: 4, ..PoolOptions::default() };
    let pool =
        Fake::scripted([Connect::Succeeds(SECOND), Connect::Succeeds(2 * SECOND)]).pool(options.clone());
    pool.warm_up().await.unwrap();
    assert_eq!(pool.stats().idle, 2);
    let pool = Fake::scripted([Connect::Succeeds(SECOND), Connect::Fails(2 * SECOND)]).pool(options);
    assert!(matches!(pool.warm_up().await, Err(Error::Connect { .. })));
    pool.warm_up().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_drains() {
    let fake = Fake::scripted([Connect::Succeeds(Duration::ZERO); 2]);
    let pool = fake.pool(up_to(2));
    let (lent, idle) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(idle);
    let again = pool.get().await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await }
    });
    yield_now().await;
    drop(again);
    let waiting_again = {
        let served = waiting.await.unwrap().unwrap();
        let pool = pool.clone();
        let waiting = tokio::spawn(async move { pool.get().await });
        yield_now().await;
        (served, waiting)
    };
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close().await }
    });
    yield_now().await;
    assert!(matches!(waiting_again.1.await.unwrap(), Err(Error::Closed)));
    assert!(matches!(pool.get().await, Err(Error::Closed)));
    assert!(pool.is_closed() && !closing.is_finished());
    drop(waiting_again.0);
    drop(lent);
    closing.await.unwrap();
    assert_eq!((pool.stats().size, fake.alive()), (0, 0));
    pool.close().await;
}

#[tokio::test(start_paused = true)]
async fn closing_while_connecting_waits_for_it() {
    let fake = Fake::scripted([Connect::Succeeds(5 * SECOND)]);
    let pool = fake.pool(up_to(1));
    assert!(timeout(SECOND, pool.get()).await.is_err());
    pool.close().await;
    assert_eq!(fake.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pool_closes_idle_and_then_returned_connections() {
    let fake = Fake::default();
    let pool = fake.pool(up_to(2));
    let (lent, idle) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(idle);
    drop(pool);
    assert_eq!(fake.alive(), 1, "idle connections are closed, lent ones are not");
    drop(lent);
    assert_eq!(fake.alive(), 0);
}

#[test]
fn a_lease_may_be_dropped_outside_any_runtime() {
    let fake = Fake::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let pool = fake.pool(up_to(1));
    let lease = runtime.block_on(pool.get()).unwrap();
    drop(runtime);
    drop(lease);
    assert_eq!(pool.stats().idle, 1);
}

#[test]
fn shutting_down_a_runtime_fails_its_callers() {
    let pool = Fake::scripted([Connect::Hangs]).pool(up_to(1));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let first = runtime();
    assert!(first.block_on(async { timeout(Duration::from_millis(1), pool.get()).await }).is_err());
    drop(first);
    assert_eq!(pool.stats().size, 0, "the capacity is free again");
    assert!(runtime().block_on(pool.get()).is_ok());
}
