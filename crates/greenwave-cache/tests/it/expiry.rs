//! Tests of expiry, in paused time.

use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::{Cache, CacheOptions, EntryOptions, Expiry};
use tokio::time::advance;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn an_entry_expires_after_its_ttl() {
    let cache = Cache::new(CacheOptions { ttl: Some(10 * SECOND), ..CacheOptions::default() }).unwrap();
    cache.insert(1, "default");
    cache.insert_with(2, "longer", &EntryOptions { ttl: Some(20 * SECOND), ..EntryOptions::default() });
    advance(9 * SECOND).await;
    assert_eq!((cache.get(&1), cache.get(&2)), (Some("default"), Some("longer")));
    advance(SECOND).await;
    assert_eq!((cache.get(&1), cache.get(&2)), (None, Some("longer")));
    assert_eq!((cache.stats().expirations, cache.len()), (1, 1));
    advance(10 * SECOND).await;
    assert!(!cache.contains(&2));
    assert_eq!(cache.keys(), Vec::<i32>::new());
    assert_eq!(cache.remove(&2), None);
}

#[tokio::test(start_paused = true)]
async fn accesses_extend_the_idle_time_but_not_the_ttl() {
    let options = CacheOptions { tti: Some(3 * SECOND), ttl: Some(10 * SECOND), ..CacheOptions::default() };
    let cache = Cache::new(options).unwrap();
    cache.insert("read", ());
    cache.insert("idle", ());
    for _ in 0..4 {
        advance(2 * SECOND).await;
        assert!(cache.get(&"read").is_some());
    }
    assert!(cache.get(&"idle").is_none());
    advance(2 * SECOND).await;
    assert!(cache.get(&"read").is_none());
}

#[tokio::test(start_paused = true)]
async fn entries_with_and_without_ttl_can_be_mixed() {
    let cache = Cache::new(CacheOptions::default()).unwrap();
    cache.insert(1, ());
    advance(5 * SECOND).await;
    cache.insert_with(2, (), &EntryOptions { ttl: Some(SECOND), ..EntryOptions::default() });
    advance(1000 * SECOND).await;
    assert!(cache.contains(&1) && !cache.contains(&2));
    assert_eq!(cache.purge_expired(), 1);
    assert_eq!(cache.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn replacing_an_entry_restarts_its_ttl() {
    let cache = Cache::new(CacheOptions { ttl: Some(10 * SECOND), ..CacheOptions::default() }).unwrap();
    cache.insert(1, 'a');
    advance(9 * SECOND).await;
    cache.insert(1, 'b');
    advance(9 * SECOND).await;
    assert_eq!(cache.get(&1), Some('b'));
}

/// Even values live 10 seconds after they were created, and 5 after an update; a read leaves at
/// least 3. Odd ones do not expire.
struct Parity;

impl Expiry<u64, u64> for Parity {
    fn after_create(&self, _: &u64, value: &u64) -> Option<Duration> {
        value.is_multiple_of(2).then_some(10 * SECOND)
    }

    fn after_update(&self, _: &u64, value: &u64, left: Option<Duration>) -> Option<Duration> {
        assert!(left.is_none_or(|left| left <= 10 * SECOND));
        value.is_multiple_of(2).then_some(5 * SECOND)
    }

    fn after_read(&self, _: &u64, _: &u64, left: Option<Duration>) -> Option<Duration> {
        left.map(|left| left.max(3 * SECOND))
    }
}

fn by_parity() -> Cache<u64, u64> {
    Cache::new(CacheOptions { expiry: Some(Arc::new(Parity)), ..CacheOptions::default() }).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_expiry_depends_on_the_value_and_on_updates() {
    let cache = by_parity();
    cache.insert(1, 1);
    cache.insert(2, 2);
    cache.insert(3, 2);
    advance(4 * SECOND).await;
    cache.insert(3, 4);
    cache.entry(2).and_update(|value| value + 2);
    advance(4 * SECOND).await;
    assert!(cache.contains(&2) && cache.contains(&3));
    advance(2 * SECOND).await;
    assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (Some(1), None, None));
    // A new entry after an expired one is created, not updated.
    cache.insert(3, 6);
    advance(9 * SECOND).await;
    assert!(cache.contains(&3));
    advance(10_000 * SECOND).await;
    assert_eq!(cache.get(&1), Some(1));
}

#[tokio::test(start_paused = true)]
async fn reads_extend_a_life() {
    let cache = by_parity();
    cache.insert(2, 2);
    for _ in 0..10 {
        advance(2 * SECOND).await;
        assert_eq!(cache.get(&2), Some(2));
    }
    advance(3 * SECOND).await;
    assert_eq!(cache.get(&2), None);
}

#[tokio::test(start_paused = true)]
async fn a_time_to_live_replaces_the_decision_at_creation() {
    let cache = by_parity();
    cache.insert_with(2, 2, &EntryOptions { ttl: Some(SECOND), ..EntryOptions::default() });
    advance(SECOND).await;
    assert_eq!(cache.get(&2), None);
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_panics_fails_no_call() {
    struct Panics;
    impl Expiry<u64, u64> for Panics {
        fn after_create(&self, _: &u64, _: &u64) -> Option<Duration> {
            panic!("after_create")
        }

        fn after_read(&self, _: &u64, _: &u64, _: Option<Duration>) -> Option<Duration> {
            panic!("after_read")
        }
    }
    let cache =
        Cache::new(CacheOptions { expiry: Some(Arc::new(Panics)), ..CacheOptions::default() }).unwrap();
    cache.insert(1, 1);
    cache.insert(1, 2);
    assert_eq!(cache.get(&1), Some(2));
    advance(10_000 * SECOND).await;
    assert_eq!(cache.get(&1), Some(2));
}
