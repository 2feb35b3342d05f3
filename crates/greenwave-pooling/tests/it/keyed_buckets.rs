//! Tests of `KeyedTokenBuckets`.

use std::time::Duration;

use greenwave_pooling::{KeyedTokenBuckets, Rate};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn per_second(units: u64, keys_max: usize) -> KeyedTokenBuckets<String, 1> {
    KeyedTokenBuckets::new([Rate { units, period: SECOND }], keys_max)
}

#[tokio::test(start_paused = true)]
async fn keys_are_limited_apart_and_clones_together() {
    let limits = per_second(2, 10);
    let started = Instant::now();
    for _ in 0..2 {
        limits.take("one", [1]).await;
        limits.clone().take("other", [1]).await;
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(!limits.try_take("one", [1]) && !limits.clone().try_take("other", [1]));
    limits.take("one", [1]).await;
    assert!(started.elapsed() >= SECOND / 2, "{:?}", started.elapsed());
    limits.remove("one");
    assert!(limits.try_take("one", [2]), "a removed key is new");
    let handle = limits.of("one");
    handle.correct([0], [4]);
    assert!(!limits.try_take("one", [1]) && limits.len() == 2 && !limits.is_empty());
}

#[tokio::test(start_paused = true)]
async fn full_keys_are_removed_first_and_then_those_used_least_recently() {
    let limits = per_second(1, 8);
    for key in 0..4 {
        assert!(limits.try_take(&format!("early {key}"), [1]));
    }
    sleep(2 * SECOND).await;
    for key in 0..4 {
        assert!(limits.try_take(&format!("late {key}"), [1]));
    }
    assert_eq!(limits.len(), 8);
    assert!(limits.try_take("new", [1]));
    // The early ones are full again.
    assert_eq!(limits.len(), 5);
    for key in 0..4 {
        assert!(!limits.try_take(&format!("late {key}"), [1]), "{key}");
    }
    let held = limits.of("late 0");
    for key in 0..3 {
        assert!(limits.try_take(&format!("newer {key}"), [1]));
    }
    assert_eq!(limits.len(), 8);
    // Two are removed, since none is full: those that were used first and that nobody holds.
    assert!(limits.try_take("newest", [1]));
    assert_eq!(limits.len(), 7);
    assert!(!limits.try_take("late 0", [1]) && !held.try_take([1]));
    assert!(!limits.try_take("late 3", [1]));
    assert!(limits.try_take("new", [1]), "used least recently");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_keys_stays_within_the_limit() {
    for keys_max in [0, 1, 2, 3, 100] {
        let limits = per_second(1, keys_max);
        for key in 0..1_000 {
            assert!(limits.try_take(&key.to_string(), [1]));
            assert!(limits.len() <= keys_max.max(1), "{keys_max}: {}", limits.len());
        }
        assert!(!limits.try_take("999", [1]));
    }
    let largest = per_second(u64::MAX, usize::MAX);
    assert!(largest.try_take("one", [u64::MAX]) && !format!("{largest:?}").is_empty());
}
