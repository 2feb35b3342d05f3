//! Random use of a pool: checkouts, holds, drops, discards, cancellations, broken connections,
//! changes of its size, and connects that fail, are slow or hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_pooling::{Error, PoolOptions};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use crate::fake::{Connect, Fake};

/// One step of a task.
#[derive(Debug, Clone, Copy)]
enum Step {
    Hold {
        millis: u64,
    },
    Break,
    Discard,
    /// Cancels if not served in time. Zero cancels after the first poll.
    Cancel {
        millis: u64,
    },
    Pause {
        millis: u64,
    },
    Take,
    /// Closes all idle connections, or none.
    Retain {
        is_kept: bool,
    },
    /// Changes the maximum, up to the initial one.
    Resize {
        size_max: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u64..20).prop_map(|millis| Step::Hold { millis }),
        1 => Just(Step::Break),
        1 => Just(Step::Discard),
        2 => (0_u64..20).prop_map(|millis| Step::Cancel { millis }),
        1 => (0_u64..2000).prop_map(|millis| Step::Pause { millis }),
        1 => Just(Step::Take),
        1 => any::<bool>().prop_map(|is_kept| Step::Retain { is_kept }),
        1 => (1_usize..5).prop_map(|size_max| Step::Resize { size_max }),
    ];
    prop::collection::vec(step, 1..12)
}

fn connects() -> impl Strategy<Value = Vec<Connect>> {
    let millis = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
    let connect = prop_oneof![
        6 => millis(0..30).prop_map(Connect::Succeeds),
        2 => millis(0..30).prop_map(Connect::Fails),
        1 => Just(Connect::Hangs),
    ];
    prop::collection::vec(connect, 0..40)
}

async fn act(fake: &Fake, pool: &greenwave_pooling::Pool<Fake>, size: usize, step: Step, lent: &AtomicUsize) {
    let limit = match step {
        Step::Cancel { millis } => Duration::from_millis(millis),
        _ => Duration::from_secs(3600),
    };
    let mut lease = match timeout(limit, pool.get()).await {
        Ok(Ok(lease)) => lease,
        Ok(Err(Error::Connect { .. } | Error::ConnectTimeout { .. })) => return,
        Ok(Err(error)) => panic!("{error:?}"),
        Err(_) => {
            assert!(matches!(step, Step::Cancel { .. }), "somebody starved: {:?}", pool.stats());
            return;
        }
    };
    assert!(lent.fetch_add(1, Ordering::SeqCst) < size, "more connections lent than allowed");
    assert!(!lease.is_broken, "a broken connection was lent");
    match step {
        Step::Hold { millis } | Step::Pause { millis } => sleep(Duration::from_millis(millis)).await,
        Step::Break => lease.is_broken = true,
        Step::Retain { is_kept } => {
            pool.retain(|lease| {
                assert!(!lease.is_broken);
                is_kept
            });
        }
        Step::Resize { size_max } => pool.resize(0, size_max.min(size)),
        Step::Discard | Step::Cancel { .. } | Step::Take => {}
    }
    lent.fetch_sub(1, Ordering::SeqCst);
    match step {
        Step::Discard => lease.discard(),
        Step::Take => drop(lease.take()),
        _ => drop(lease),
    }
    if let Step::Pause { millis } = step {
        sleep(Duration::from_millis(millis)).await;
    }
    assert!(fake.counts.alive_peak.load(Ordering::SeqCst) <= size);
}

async fn run(options: PoolOptions, script: Vec<Connect>, tasks: Vec<Vec<Step>>) {
    let fake = Fake::scripted(script);
    let size = options.size_max;
    let pool = fake.pool(options);
    let lent = Arc::new(AtomicUsize::new(0));
    let running: Vec<_> = tasks
        .into_iter()
        .map(|steps| {
            let (fake, pool, lent) = (fake.clone(), pool.clone(), lent.clone());
            tokio::spawn(async move {
                for step in steps {
                    act(&fake, &pool, size, step, &lent).await;
                }
            })
        })
        .collect();
    for task in running {
        task.await.expect("a task failed");
    }
    let stats = pool.stats();
    assert_eq!((stats.in_use, stats.waiting), (0, 0), "{stats:?}");
    pool.close().await;
    let stats = pool.stats();
    assert_eq!((stats.size, fake.alive()), (0, 0), "something leaked: {stats:?}");
    assert_eq!(stats.created, stats.discarded, "{stats:?}");
    assert!(fake.counts.alive_peak.load(Ordering::SeqCst) <= size, "above the maximum");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_use_keeps_the_size_limit_and_starves_no_caller(
        size_min in 0_usize..3,
        size_max in 1_usize..5,
        seed in any::<u64>(),
        script in connects(),
        tasks in prop::collection::vec(steps(), 1..24),
    ) {
        let options = PoolOptions {
            size_min,
            size_max,
            idle_timeout: Some(Duration::from_millis(400)),
            max_lifetime: Some(Duration::from_millis(900)),
            lifetime_jitter: 0.5,
            checkout_timeout: None,
            connect_timeout: Some(Duration::from_millis(50)),
            check_after: Some(Duration::from_millis(5)),
            check_idle_every: Some(Duration::from_millis(60)),
            seed: Some(seed),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime can be made").block_on(run(options, script, tasks));
    }
}

/// Uses real threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_on_few_connections() {
    let fake = Fake::default();
    let pool = fake.pool(PoolOptions { size_min: 0, size_max: 8, ..PoolOptions::default() });
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for i in 0..200 {
                    if (task + i) % 7 == 0 {
                        // Cancels while waiting, or while a connection is being handed over.
                        let mut get = std::pin::pin!(pool.get());
                        let _polled = std::future::poll_fn(|cx| {
                            std::task::Poll::Ready(get.as_mut().poll(cx).is_ready())
                        })
                        .await;
                    }
                    let lease = pool.get().await.expect("the fake connects");
                    tokio::task::yield_now().await;
                    if (task + i) % 11 == 0 { lease.discard() } else { drop(lease) }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task fails");
    }
    let stats = pool.stats();
    assert_eq!((stats.in_use, stats.waiting), (0, 0), "{stats:?}");
    assert!(fake.counts.alive_peak.load(Ordering::SeqCst) <= 8);
    pool.close().await;
    assert_eq!(fake.alive(), 0);
}
