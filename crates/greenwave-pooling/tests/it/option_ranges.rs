//! Extreme values of every option. None may panic, hang or overflow. The tests use paused time, so
//! a wait without end fails. `HttpCacheOptions` are tested in `http.rs`.

use std::time::Duration;

use greenwave_pooling::{
    BatchOptions, Batcher, CircuitBreaker, CircuitBreakerOptions, Cooldowns, Endpoints, Error, Hedge,
    LengthFraming, Limit, Limiter, Manager, Multiplexed, MultiplexedOptions, ObjectPool, Pool, PoolOptions,
    Rate, RetryBudget, TokenBuckets, async_trait,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const DURATIONS: [Duration; 4] =
    [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1), Duration::MAX];
const COUNTS: [usize; 3] = [0, 1, usize::MAX];
const FRACTIONS: [f64; 7] = [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, 0.5, 1.0, f64::INFINITY];
/// Longer than any wait that ends.
const YEARS: Duration = Duration::from_secs(3 * 365 * 24 * 3600);

#[derive(Debug)]
struct Units;

#[async_trait]
impl Manager for Units {
    type Connection = ();
    type Error = std::io::Error;

    async fn connect(&self) -> Result<(), std::io::Error> {
        Ok(())
    }

    async fn check(&self, (): &mut ()) -> Result<(), std::io::Error> {
        Ok(())
    }

    fn is_broken(&self, (): &mut ()) -> bool {
        false
    }
}

/// Checks out a connection twice, with a pause in between.
async fn check_pool(options: PoolOptions) {
    let shown = format!("{options:?}");
    let pool = Pool::new(Units, options.clone());
    for _ in 0..2 {
        match pool.get().await {
            Ok(lease) => drop(lease),
            // A limit of zero leaves no time to connect.
            Err(Error::Timeout { .. }) => assert!(options.checkout_timeout < Some(Duration::from_secs(1))),
            Err(Error::ConnectTimeout { .. }) => {
                assert!(options.connect_timeout < Some(Duration::from_secs(1)), "{shown}");
            }
            Err(other) => panic!("{other}: {shown}"),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert!(pool.stats().created < 1000, "{:?}: {shown}", pool.stats());
    pool.close().await;
}

#[tokio::test(start_paused = true)]
async fn pools_of_any_size_and_limit() {
    let plain = PoolOptions { size_min: 0, ..PoolOptions::default() };
    for size_min in COUNTS {
        for size_max in [0, 1, 100] {
            check_pool(PoolOptions { size_min, size_max, ..plain.clone() }).await;
        }
    }
    check_pool(PoolOptions { size_max: usize::MAX, ..plain.clone() }).await;
    for limit in DURATIONS.map(Some).into_iter().chain([None]) {
        check_pool(PoolOptions { idle_timeout: limit, size_min: 1, ..plain.clone() }).await;
        check_pool(PoolOptions { checkout_timeout: limit, ..plain.clone() }).await;
        check_pool(PoolOptions { connect_timeout: limit, ..plain.clone() }).await;
        check_pool(PoolOptions { check_after: limit, ..plain.clone() }).await;
        check_pool(PoolOptions { check_idle_every: limit, ..plain.clone() }).await;
        for lifetime_jitter in FRACTIONS {
            check_pool(PoolOptions { max_lifetime: limit, lifetime_jitter, ..plain.clone() }).await;
        }
    }
    for seed in [None, Some(0), Some(u64::MAX)] {
        check_pool(PoolOptions { seed, ..plain.clone() }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_minimum_above_the_maximum_counts_as_the_maximum() {
    let pool = Pool::new(Units, PoolOptions { size_min: usize::MAX, size_max: 5, ..PoolOptions::default() });
    pool.warm_up().await.unwrap();
    assert_eq!(pool.stats().idle, 5);
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_any_minimum_has_at_most_65536_connections() {
    let options = PoolOptions { size_min: usize::MAX, size_max: usize::MAX, ..PoolOptions::default() };
    let pool = Pool::new(Units, options);
    pool.warm_up().await.unwrap();
    assert_eq!(pool.stats().size, 1 << 16);
    pool.close().await;
    assert_eq!(pool.stats().size, 0);
}

#[tokio::test(start_paused = true)]
async fn batches_of_any_size_and_delay() {
    for delay_max in DURATIONS {
        for number in COUNTS {
            for other in COUNTS {
                let options = BatchOptions {
                    items_max: number,
                    bytes_max: other,
                    delay_max,
                    queue_max: number,
                    in_flight_max: other,
                };
                let batcher = Batcher::with_weigher(
                    options,
                    |weight| *weight,
                    async |weights: Vec<usize>| {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        weights
                    },
                );
                let all = [1, usize::MAX, 0].map(|weight| batcher.submit(weight));
                let [a, b, c] = all;
                let (a, b, c) = timeout(YEARS, async { tokio::join!(a, b, c) }).await.unwrap();
                assert_eq!([a.unwrap(), b.unwrap(), c.unwrap()], [1, usize::MAX, 0], "{options:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn circuit_breakers_with_any_options_open_and_close() {
    for cooldown in DURATIONS {
        for failure_rate_max in FRACTIONS.map(Some).into_iter().chain([None]) {
            for number in [0, 1, u32::MAX] {
                for probes in [0, 1, u32::MAX] {
                    let options = CircuitBreakerOptions {
                        failures_max: number,
                        failure_rate_max,
                        window: number,
                        cooldown,
                        probes,
                    };
                    let breaker = CircuitBreaker::new(options);
                    for _ in 0..200 {
                        if let Ok(trial) = breaker.admit() {
                            trial.failed();
                        }
                    }
                    let is_open = !breaker.is_closed();
                    let has_limit = number < u32::MAX || failure_rate_max.is_some_and(|rate| rate <= 1.0);
                    assert_eq!(is_open, has_limit, "{options:?}");
                    tokio::time::sleep(YEARS).await;
                    breaker.admit().unwrap().succeeded();
                    assert_eq!(breaker.is_closed(), !is_open || probes < 2, "{options:?}");
                    let endpoints = Endpoints::new(number as usize, options);
                    assert!(endpoints.closed_count() == endpoints.closed_count().clamp(1, 1 << 16));
                }
            }
        }
    }
    assert_eq!(Endpoints::new(usize::MAX, CircuitBreakerOptions::default()).closed_count(), 1 << 16);
}

#[tokio::test(start_paused = true)]
async fn buckets_of_any_rate_serve_every_request_eventually() {
    for period in DURATIONS {
        for units in [0, 1, u64::MAX] {
            assert_eq!(Rate::per_minute(units).units, units);
            for wanted in [0, 1, u64::MAX] {
                let buckets = TokenBuckets::new([Rate { units, period }]);
                timeout(YEARS, buckets.take([wanted])).await.expect("there are as many at first");
                buckets.correct([wanted], [0]);
                buckets.correct([0], [u64::MAX]);
                buckets.correct([u64::MAX], [0]);
                assert!(buckets.available()[0] <= units.max(1));
                let again = timeout(Duration::from_secs(2), buckets.take([wanted])).await;
                assert!(
                    again.is_ok() || period == Duration::MAX || wanted == u64::MAX,
                    "{period:?} {units} {wanted}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn limiters_with_any_bounds() {
    for min in COUNTS {
        for max in COUNTS {
            for initial in COUNTS {
                let limiter = Limiter::new(Limit::Adaptive { min, max, initial });
                let limit = limiter.stats().limit;
                assert!((1..=max.max(1)).contains(&limit), "{min} {max} {initial}: {limit}");
                limiter.acquire().await.overloaded(None);
                limiter.acquire().await.succeeded();
                assert!((1..=max.max(1)).contains(&limiter.stats().limit));
            }
        }
        assert_eq!(Limiter::new(Limit::Fixed(min)).stats().limit, min.max(1));
    }
    assert_eq!(Limiter::new(Limit::Adaptive { min: 9, max: 3, initial: 5 }).stats().limit, 3);
}

#[tokio::test(start_paused = true)]
async fn pauses_of_any_length_end() {
    for pause in DURATIONS {
        for pause_max in DURATIONS {
            let limiter = Limiter::new(Limit::Fixed(1)).with_pause_max(pause_max);
            limiter.acquire().await.overloaded(Some(pause));
            let expected = pause.min(pause_max);
            assert!(limiter.stats().paused <= expected);
            assert_eq!(limiter.try_acquire().is_none(), !expected.is_zero(), "{pause:?} {pause_max:?}");
            drop(timeout(YEARS, limiter.acquire()).await.expect("it ends"));
            for hosts_max in COUNTS {
                let hosts = Cooldowns::new(hosts_max).with_pause_max(pause_max);
                hosts.start("a", pause);
                assert_eq!(hosts.remaining("a").is_zero(), expected.is_zero());
                tokio::time::sleep(YEARS).await;
                assert!(hosts.remaining("a").is_zero());
            }
        }
    }
    let limiter = Limiter::new(Limit::Fixed(1));
    limiter.acquire().await.overloaded(Some(Duration::MAX));
    assert_eq!(limiter.stats().paused, Duration::from_secs(600), "no century");
}

#[tokio::test(start_paused = true)]
async fn hedges_with_any_delay() {
    for after in DURATIONS {
        for fraction in FRACTIONS {
            for tokens_max in [0, 1, u32::MAX] {
                let hedge = Hedge::new(after, RetryBudget::new(fraction, tokens_max));
                let answer = hedge.run(async |attempt| {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok::<_, ()>(attempt)
                });
                assert_eq!(timeout(YEARS, answer).await.unwrap(), Ok(1));
            }
        }
    }
}

#[test]
fn object_pools_of_any_size() {
    for shards in COUNTS {
        for idle_max in COUNTS {
            let objects = ObjectPool::sharded(shards, idle_max, || 1, |_| true);
            drop(objects.get());
            assert!(objects.stats().idle <= idle_max);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connections_with_any_number_of_requests_and_frame_size() {
    const FRAME_BYTES: usize = 4 + 8 + 3;
    for in_flight_max in COUNTS {
        for frame_bytes_max in [0, 1, FRAME_BYTES - 1, FRAME_BYTES, usize::MAX] {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            let options = MultiplexedOptions { in_flight_max, frame_bytes_max };
            let line = Multiplexed::new(near, LengthFraming, options);
            let requests = async { tokio::join!(line.request(vec![1; 3]), line.request(vec![2; 3])) };
            let echo = async {
                let mut frame = [0; FRAME_BYTES];
                while far.read_exact(&mut frame).await.is_ok() && far.write_all(&frame).await.is_ok() {}
                std::future::pending::<()>().await;
            };
            let (one, two) = tokio::select! {
                answers = timeout(YEARS, requests) => answers.expect("they end"),
                () = echo => unreachable!(),
            };
            let expected = frame_bytes_max >= FRAME_BYTES;
            assert_eq!((one.is_ok(), two.is_ok()), (expected, expected), "{options:?}: {one:?} {two:?}");
        }
    }
}
