//! Tests of limits that change while a cache is in use.

use std::sync::{Arc, Mutex};

use greenwave_cache::{Adaptive, Cache, CacheOptions, Error, Lru, Policy, S3Fifo, SeededHasher};

use crate::small;

fn check_resize<P: Policy>() {
    let cache: Cache<u64, u64, P, SeededHasher> =
        Cache::with(CacheOptions { entries_max: 4000, ..CacheOptions::default() }).unwrap();
    for key in 0..4000 {
        cache.insert(key, key);
    }
    let before = cache.len();
    cache.set_entries_max(1000).unwrap();
    assert!(cache.len() <= 1000 && cache.len() > 900, "{}", cache.len());
    assert_eq!(cache.stats().evictions, 4000 - cache.len() as u64);
    for key in 4000..8000 {
        cache.insert(key, key);
        assert_eq!(cache.get(&key), Some(key));
        assert!(cache.len() <= 1000);
    }
    cache.set_entries_max(5000).unwrap();
    for key in 8000..14_000 {
        cache.insert(key, key);
    }
    assert!(cache.len() > before.min(4000) && cache.len() <= 5000, "{}", cache.len());
    cache.set_entries_max(0).unwrap();
    cache.insert(1, 1);
    assert!(cache.is_empty());
}

#[test]
fn a_cache_shrinks_and_grows_with_every_policy() {
    check_resize::<Adaptive>();
    check_resize::<S3Fifo>();
    check_resize::<Lru>();
}

#[test]
fn the_least_valuable_entries_are_evicted_first() {
    let cache = small(6);
    for key in 0..6 {
        cache.insert(key, ());
    }
    cache.get(&0);
    cache.get(&1);
    cache.set_entries_max(3).unwrap();
    let mut keys = cache.keys();
    keys.sort_unstable();
    assert_eq!(keys, [0, 1, 5]);
    // The order is that of before: 5 is the oldest.
    cache.insert(9, ());
    assert!(!cache.contains(&5) && cache.contains(&0) && cache.contains(&1));
}

#[test]
fn the_weight_limit_changes() {
    let evicted = Arc::new(Mutex::new(0));
    let count = evicted.clone();
    let options = CacheOptions {
        weight_max: Some(1000),
        weigher: Some(Arc::new(|_: &u64, _: &u64| 10)),
        listener: Some(Arc::new(move |_: &u64, _: &u64, _| *count.lock().unwrap() += 1)),
        shards: Some(8),
        ..CacheOptions::default()
    };
    let cache: Cache<u64, u64> = Cache::new(options).unwrap();
    for key in 0..100 {
        cache.insert(key, key);
    }
    cache.set_weight_max(250).unwrap();
    assert_eq!((cache.stats().weight, *evicted.lock().unwrap()), (250, 75));
    cache.set_weight_max(u64::MAX).unwrap();
    for key in 0..200 {
        cache.insert(key, key);
    }
    assert_eq!(cache.stats().weight, 2000);
    cache.set_weight_max(0).unwrap();
    assert!(cache.is_empty());
}

#[test]
fn limits_out_of_range_change_nothing() {
    let options = CacheOptions { entries_max: 64, shards: Some(8), ..CacheOptions::default() };
    let cache: Cache<u64, u64> = Cache::new(options).unwrap();
    cache.insert(1, 1);
    for entries_max in [7, usize::MAX] {
        let error = cache.set_entries_max(entries_max).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { option: "entries_max", .. }), "{error:?}");
    }
    let error = cache.set_weight_max(1).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { option: "weight_max", .. }), "{error:?}");
    assert_eq!(cache.get(&1), Some(1));
}

#[test]
fn a_cache_is_resized_while_it_is_used() {
    let cache: Cache<u64, u64> =
        Cache::new(CacheOptions { entries_max: 512, shards: Some(4), ..CacheOptions::default() }).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for key in 0..20_000 {
                cache.insert(key % 1500, key);
                cache.get(&(key % 700));
            }
        });
        let mut entries_max = 16;
        while !writer.is_finished() {
            cache.set_entries_max(entries_max).unwrap();
            entries_max = if entries_max == 16 { 2000 } else { 16 };
        }
    });
    cache.set_entries_max(16).unwrap();
    assert!(cache.len() <= 16);
    assert_eq!(cache.iter().count(), cache.len());
}
