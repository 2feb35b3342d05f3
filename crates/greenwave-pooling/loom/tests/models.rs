//! Models of the pool's hand-offs, in which loom tries every interleaving of a few threads: a
//! connection changes hands, a waiter is dropped, the pool closes. The code is the pool's; only its
//! mutex is replaced by loom's. Run by `cargo xtask loom`.
//!
//! Nothing connects: pools start with existing connections, and a connect without a runtime fails
//! its waiter with `ConnectAborted`.

#![cfg(all(greenwave_loom, test))]

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

use greenwave_pooling::{Error, Manager, Pool, PoolOptions, async_trait};

#[derive(Debug)]
struct Numbers;

#[async_trait]
impl Manager for Numbers {
    type Connection = u32;
    type Error = Infallible;

    async fn connect(&self) -> Result<u32, Infallible> {
        Ok(0)
    }

    async fn check(&self, _: &mut u32) -> Result<(), Infallible> {
        Ok(())
    }

    fn is_broken(&self, number: &mut u32) -> bool {
        *number == 0
    }
}

fn pool(size_max: usize) -> Arc<Pool<Numbers>> {
    let options = PoolOptions {
        size_min: 0,
        size_max,
        idle_timeout: None,
        max_lifetime: None,
        checkout_timeout: None,
        connect_timeout: None,
        check_after: None,
        ..PoolOptions::default()
    };
    Arc::new(Pool::with_connections(Numbers, options, 1..=size_max as u32))
}

/// Polls a checkout once and drops it.
fn poll_once(pool: &Pool<Numbers>) {
    block_on(async {
        let mut get = pin!(pool.get());
        std::future::poll_fn(|cx| Poll::Ready(get.as_mut().poll(cx).is_ready())).await;
    });
}

fn assert_whole(pool: &Pool<Numbers>, size: usize) {
    let stats = pool.stats();
    assert_eq!((stats.size, stats.idle, stats.waiting, stats.in_use), (size, size, 0, 0));
}

#[test]
fn a_connection_serves_every_caller_one_at_a_time() {
    loom::model(|| {
        let (pool, lent) = (pool(1), Arc::new(AtomicUsize::new(0)));
        let borrow = |pool: &Pool<Numbers>, lent: &AtomicUsize| {
            let lease = block_on(pool.get()).unwrap();
            assert_eq!(lent.fetch_add(1, Ordering::Relaxed), 0);
            thread::yield_now();
            lent.fetch_sub(1, Ordering::Relaxed);
            drop(lease);
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (pool, lent) = (pool.clone(), lent.clone());
                thread::spawn(move || borrow(&pool, &lent))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_whole(&pool, 1);
    });
}

#[test]
fn a_cancelled_waiter_leaks_nothing_and_the_next_is_served() {
    loom::model(|| {
        let pool = pool(1);
        let lease = block_on(pool.get()).unwrap();
        let gone = {
            let pool = pool.clone();
            thread::spawn(move || poll_once(&pool))
        };
        let served = {
            let pool = pool.clone();
            thread::spawn(move || drop(block_on(pool.get()).unwrap()))
        };
        drop(lease);
        gone.join().unwrap();
        served.join().unwrap();
        assert_whole(&pool, 1);
    });
}

#[test]
fn closing_fails_waiters_and_ends_when_all_are_returned() {
    loom::model(|| {
        let pool = pool(1);
        let lease = block_on(pool.get()).unwrap();
        let waiting = {
            let pool = pool.clone();
            thread::spawn(move || match block_on(pool.get()) {
                Ok(lease) => drop(lease),
                Err(error) => assert!(matches!(error, Error::Closed)),
            })
        };
        let closing = {
            let pool = pool.clone();
            thread::spawn(move || block_on(pool.close()))
        };
        drop(lease);
        waiting.join().unwrap();
        closing.join().unwrap();
        assert_whole(&pool, 0);
    });
}

#[test]
fn a_broken_connection_leaves_no_waiter_behind() {
    loom::model(|| {
        let pool = pool(1);
        let mut lease = block_on(pool.get()).unwrap();
        let waiting = {
            let pool = pool.clone();
            thread::spawn(move || block_on(pool.get()).map(drop))
        };
        *lease = 0;
        drop(lease);
        assert!(matches!(waiting.join().unwrap(), Err(Error::ConnectAborted)));
        assert_whole(&pool, 0);
    });
}
