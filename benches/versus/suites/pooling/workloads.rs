//! The work that all pools do.

use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::TASKS;
use crate::peer::{CONNECTIONS, Peer, PoolUnderTest};

/// Time after which a task counts as unfinished.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Returns the nanoseconds per checkout of a single task.
pub(crate) fn one_task<P: PoolUnderTest>(runtime: &Runtime, pool: &P) -> f64 {
    const TIMES: u32 = 100_000;
    let pool = pool.clone();
    let run = async move {
        drop(pool.lend().await);
        let begun = Instant::now();
        for _ in 0..TIMES {
            drop(black_box(pool.lend().await));
        }
        begun.elapsed().as_nanos() as f64 / f64::from(TIMES)
    };
    runtime.block_on(runtime.spawn(run)).expect("tasks do not panic")
}

/// Times of many tasks on few connections.
pub(crate) struct Crowd {
    pub(crate) each: Duration,
    waits: Vec<Duration>,
    pub(crate) unfinished: usize,
}

impl Crowd {
    /// Returns the wait that this many of a thousand checkouts do not exceed.
    pub(crate) fn wait(&self, per_mille: usize) -> Duration {
        self.waits[((self.waits.len() - 1) * per_mille) / 1000]
    }
}

/// Has many tasks check out connections, each of which they hold for some time.
pub(crate) fn crowd<P: PoolUnderTest>(runtime: &Runtime, pool: &P, times: usize, hold: Duration) -> Crowd {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let pool = pool.clone();
            runtime.spawn(async move {
                let mut waits = Vec::with_capacity(times);
                for _ in 0..times {
                    let asked = Instant::now();
                    let lease = pool.lend().await;
                    let lent = Instant::now();
                    waits.push(lent - asked);
                    tokio::task::yield_now().await;
                    while lent.elapsed() < hold {
                        tokio::task::yield_now().await;
                    }
                    drop(lease);
                }
                waits
            })
        })
        .collect();
    let (mut waits, mut unfinished) = (Vec::new(), 0);
    for task in tasks {
        let left = TIME_MAX.saturating_sub(begun.elapsed());
        let stop = task.abort_handle();
        match runtime.block_on(async { tokio::time::timeout(left, task).await }) {
            Ok(done) => waits.extend(done.expect("tasks do not panic")),
            Err(_) => {
                stop.abort();
                unfinished += 1;
            }
        }
    }
    let each = begun.elapsed() / (TASKS * times) as u32;
    waits.sort_unstable();
    if waits.is_empty() {
        waits.push(TIME_MAX);
    }
    Crowd { each, waits, unfinished }
}

/// Opens all connections, restarts the peer, and measures the time until every task was served.
pub(crate) fn storm<P: PoolUnderTest>(runtime: &Runtime, pool: &P, peer: &Peer) -> Duration {
    let mut leases = Vec::new();
    for _ in 0..CONNECTIONS {
        leases.push(runtime.block_on(async { pool.lend().await }));
    }
    peer.restarts.fetch_add(1, Ordering::Relaxed);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let pool = pool.clone();
            runtime.spawn(async move {
                let lease = pool.lend().await;
                tokio::task::yield_now().await;
                drop(lease);
            })
        })
        .collect();
    let _entered = runtime.enter();
    drop(leases);
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("tasks do not panic");
        }
    });
    begun.elapsed()
}
