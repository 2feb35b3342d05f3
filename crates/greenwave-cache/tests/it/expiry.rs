//! Tests of expiry, in paused time.

use std::time::Duration;

use greenwave_cache::{Cache, CacheOptions, EntryOptions};
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
