//! Tests of `TokenBuckets` and `Cooldowns`.

use std::time::Duration;

use greenwave_pooling::{Cooldowns, Rate, TokenBuckets};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn all_units_must_be_available() {
    let buckets = TokenBuckets::new([Rate::per_minute(60), Rate::per_minute(6000)]);
    let started = Instant::now();
    buckets.take([1, 6000]).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(!buckets.try_take([1, 100]), "requests are available, tokens are not");
    buckets.take([1, 1000]).await;
    let waited = started.elapsed();
    assert!((10 * SECOND..11 * SECOND).contains(&waited), "a sixth of a minute: {waited:?}");
    buckets.correct([1, 1000], [1, 400]);
    assert!(buckets.try_take([1, 500]), "unused units are returned");
}

#[tokio::test(start_paused = true)]
async fn the_rate_holds_over_time() {
    let buckets = TokenBuckets::new([Rate { units: 10, period: SECOND }]);
    let started = Instant::now();
    for _ in 0..110 {
        buckets.take([1]).await;
    }
    let waited = started.elapsed();
    assert!((10 * SECOND..12 * SECOND).contains(&waited), "ten at once, and then ten a second: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn large_requests_are_not_overtaken_and_cancelled_ones_take_nothing() {
    let buckets = TokenBuckets::new([Rate { units: 10, period: SECOND }]);
    buckets.take([10]).await;
    let large = tokio::spawn({
        let buckets = buckets.clone();
        async move { buckets.take([100]).await }
    });
    tokio::task::yield_now().await;
    sleep(SECOND / 2).await;
    assert!(!buckets.try_take([1]), "a caller waits");
    assert!(timeout(SECOND / 4, buckets.take([1])).await.is_err());
    large.await.unwrap();
    let started = Instant::now();
    buckets.take([1]).await;
    let waited = started.elapsed();
    assert!((8 * SECOND..10 * SECOND).contains(&waited), "the debt is paid first: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn pauses_are_shared_by_all_callers() {
    let cooldowns = Cooldowns::new(2);
    let other = cooldowns.clone();
    cooldowns.start("a", 5 * SECOND);
    cooldowns.start("a", 2 * SECOND);
    assert_eq!((other.remaining("a"), other.remaining("b")), (5 * SECOND, Duration::ZERO));
    let waiting = tokio::spawn(async move {
        other.wait("a").await;
        Instant::now()
    });
    tokio::task::yield_now().await;
    let started = Instant::now();
    sleep(SECOND).await;
    cooldowns.start("a", 9 * SECOND);
    assert_eq!(waiting.await.unwrap() - started, 10 * SECOND, "the pause was extended");
    for host in ["b", "c", "d"] {
        cooldowns.start(host, 5 * SECOND);
    }
    let left = ["b", "c", "d"].iter().filter(|host| !cooldowns.remaining(host).is_zero()).count();
    assert_eq!(left, 2, "at most the maximum");
}
