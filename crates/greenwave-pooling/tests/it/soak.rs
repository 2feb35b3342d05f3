//! 64 tasks on 8 connections with random faults, on real threads. `GREENWAVE_POOL_CHECKOUTS` sets
//! the number of checkouts; a long run uses a million.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_pooling::{Manager, Pool, PoolOptions, async_trait};
use greenwave_testkit::random::Random;

const TASKS: u64 = 64;
const SIZE: usize = 8;

/// Returns a number that the seed and the step determine.
fn mix(seed: u64, step: u64) -> u64 {
    Random::new(seed.rotate_left(32) ^ step).next_u64()
}

#[derive(Debug, Default)]
struct Counts {
    alive: AtomicUsize,
    alive_peak: AtomicUsize,
    steps: AtomicU64,
}

#[derive(Debug)]
struct Faulty {
    seed: u64,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Connection {
    is_broken: bool,
    counts: Arc<Counts>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counts.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

#[async_trait]
impl Manager for Faulty {
    type Connection = Connection;
    type Error = Refused;

    async fn connect(&self) -> Result<Connection, Refused> {
        let alive = self.counts.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.counts.alive_peak.fetch_max(alive, Ordering::SeqCst);
        let connection = Connection { is_broken: false, counts: self.counts.clone() };
        let step = self.counts.steps.fetch_add(1, Ordering::Relaxed);
        match mix(self.seed, step) % 16 {
            0 | 1 => Err(Refused),
            2 => std::future::pending().await,
            3..8 => {
                tokio::task::yield_now().await;
                Ok(connection)
            }
            _ => Ok(connection),
        }
    }

    async fn check(&self, _: &mut Connection) -> Result<(), Refused> {
        let step = self.counts.steps.fetch_add(1, Ordering::Relaxed);
        if mix(self.seed, step).is_multiple_of(4) { Err(Refused) } else { Ok(()) }
    }

    fn is_broken(&self, connection: &mut Connection) -> bool {
        connection.is_broken
    }
}

/// Runs one task and returns the number of its checkouts.
async fn work(pool: Pool<Faulty>, seed: u64, times: u64, lent: Arc<AtomicUsize>) -> u64 {
    let (mut made, mut step) = (0, 0);
    while made < times {
        step += 1;
        let chance = mix(seed, step);
        if chance.is_multiple_of(32) {
            // Cancels while waiting, or while a connection is being handed over.
            let mut get = std::pin::pin!(pool.get());
            std::future::poll_fn(|cx| std::task::Poll::Ready(get.as_mut().poll(cx).is_ready())).await;
            continue;
        }
        let Ok(mut lease) = pool.get().await else { continue };
        made += 1;
        assert!(
            lent.fetch_add(1, Ordering::SeqCst) < SIZE,
            "more connections lent than allowed; seed {seed}"
        );
        assert!(!lease.is_broken, "a broken connection was lent; seed {seed}");
        if chance.is_multiple_of(3) {
            tokio::task::yield_now().await;
        }
        lease.is_broken = chance % 1024 == 1;
        lent.fetch_sub(1, Ordering::SeqCst);
        if chance % 1024 == 2 {
            lease.discard();
        } else {
            drop(lease);
        }
        if chance % 64 == 3 {
            tokio::task::yield_now().await;
        }
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_soak_keeps_the_size_limit_and_leaks_nothing() {
    let checkouts = std::env::var("GREENWAVE_POOL_CHECKOUTS");
    let checkouts: u64 = checkouts.map_or(20_000, |value| value.parse().unwrap());
    let seed = std::collections::hash_map::RandomState::new();
    let seed = std::hash::BuildHasher::hash_one(&seed, 0);
    println!("seed {seed}");
    let counts = Arc::new(Counts::default());
    let options = PoolOptions {
        size_min: 2,
        size_max: SIZE,
        idle_timeout: Some(Duration::from_millis(40)),
        max_lifetime: Some(Duration::from_millis(200)),
        lifetime_jitter: 0.5,
        checkout_timeout: None,
        connect_timeout: Some(Duration::from_millis(5)),
        check_after: Some(Duration::from_millis(20)),
        check_idle_every: Some(Duration::from_millis(20)),
        seed: Some(seed),
    };
    let pool = Pool::new(Faulty { seed, counts: counts.clone() }, options);
    let lent = Arc::new(AtomicUsize::new(0));
    let times = checkouts.div_ceil(TASKS);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| tokio::spawn(work(pool.clone(), mix(seed, task), times, lent.clone())))
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("a task failed"), times, "seed {seed}");
    }
    pool.close().await;
    let stats = pool.stats();
    println!("{stats:?}");
    assert_eq!((stats.size, stats.in_use, stats.waiting), (0, 0, 0), "seed {seed}");
    assert_eq!(stats.created, stats.discarded, "seed {seed}");
    assert_eq!(counts.alive.load(Ordering::SeqCst), 0, "something leaked; seed {seed}");
    assert!(counts.alive_peak.load(Ordering::SeqCst) <= SIZE, "above the maximum; seed {seed}");
}
