//! Tests of statistics (by tag, recent, time saved) and of warming another cache.

use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::{
    Adaptive, Cache, CacheOptions, ComputeError, EntryOptions, Lru, Policy, S3Fifo, SeededHasher, WarmEntry,
};
use tokio::time::advance;

use crate::small;

fn tagged<'a>(tags: &'a [&'a str]) -> EntryOptions<'a> {
    EntryOptions { tags, ..EntryOptions::default() }
}

#[tokio::test]
async fn accesses_are_counted_by_tag() {
    let cache = small(10);
    for key in [1, 1, 2, 1] {
        let options = tagged(&["parser", "all"]);
        let computed = cache.get_or_compute_with(key, &options, async || Ok::<_, ()>(key)).await;
        assert_eq!(computed, Ok(key));
    }
    assert_eq!(cache.get_tagged(&9, &["lexer", "all"]), None);
    let stats = cache.tag_stats();
    let counts: Vec<_> = stats.iter().map(|of| (of.tag.as_str(), of.hits, of.misses)).collect();
    assert_eq!(counts, [("all", 2, 3), ("lexer", 0, 1), ("parser", 2, 2)]);
    assert_eq!(stats[2].hit_rate(), 0.5);
}

#[test]
fn the_number_of_counted_tags_is_limited() {
    let cache = small::<()>(10);
    for tag in 0..5_000 {
        cache.get_tagged(&1, &[&tag.to_string()]);
    }
    assert_eq!(cache.tag_stats().len(), 1024);
}

#[test]
fn the_recent_rate_ignores_old_accesses() {
    let cache = small(10);
    cache.insert(1, ());
    (0..5_000).for_each(|_| _ = cache.get(&2));
    (0..1_000).for_each(|_| _ = cache.get(&1));
    let stats = cache.stats();
    assert!((0.16..0.17).contains(&stats.hit_rate()), "{stats:?}");
    assert!(stats.recent_hit_rate() > 0.95, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn hits_save_the_time_of_the_computation() {
    let cache = small(10);
    let slow = async || {
        advance(Duration::from_secs(3)).await;
        Ok::<_, ()>("computed")
    };
    for _ in 0..5 {
        assert_eq!(cache.get_or_compute(1, slow).await, Ok("computed"));
    }
    assert_eq!(cache.stats().saved, Duration::from_secs(4 * 3));
}

#[test]
fn blocking_callers_share_one_computation() {
    let cache = Arc::new(small(10));
    let (begun, started) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let shared = cache.clone();
        scope.spawn(move || {
            let slow = || {
                begun.send(()).unwrap();
                wait.recv().unwrap();
                Ok::<_, ()>(7)
            };
            assert_eq!(shared.get_or_compute_blocking(1, &EntryOptions::default(), slow), Ok(7));
        });
        started.recv().unwrap();
        for _ in 0..4 {
            let shared = cache.clone();
            scope.spawn(move || {
                let never = || -> Result<u64, ()> { panic!("another thread computes") };
                assert_eq!(shared.get_or_compute_blocking(1, &EntryOptions::default(), never), Ok(7));
            });
        }
        go.send(()).unwrap();
    });
    let failed = cache.get_or_compute_blocking(2, &EntryOptions::default(), || Err("failed"));
    assert_eq!((failed, cache.get(&2)), (Err(ComputeError::Failed(Arc::new("failed"))), None));
}

fn check_survives_a_restart<P: Policy>() {
    let make = |entries_max| -> Cache<u64, u64, P, SeededHasher> {
        Cache::with(CacheOptions { entries_max, shards: Some(1), ..CacheOptions::default() }).unwrap()
    };
    let before = make(100);
    for key in 0..100 {
        before.insert(key, key * 2);
    }
    // Accessed often and recently, so hot to every policy.
    (0..5).for_each(|_| (40..60).for_each(|key| _ = before.get(&key)));
    let hottest = before.hottest(20);
    let mut keys: Vec<u64> = hottest.iter().map(|warm| warm.key).collect();
    keys.sort_unstable();
    assert_eq!(keys, (40..60).collect::<Vec<_>>());
    let after = make(40);
    after.insert(50, 7);
    after.warm(hottest.clone());
    assert_eq!((after.len(), after.get(&50), after.get(&41)), (20, Some(7), Some(82)));
    // Warmed entries are as hot as before, so single insertions do not evict them. LRU has no such
    // notion.
    (1000..1030).for_each(|key| after.insert(key, 0));
    let survivors = (40..60).filter(|key| after.contains(key)).count();
    assert!(survivors >= 10, "{survivors} of {hottest:?}");
}

#[test]
fn hot_entries_survive_a_restart() {
    check_survives_a_restart::<Adaptive>();
    check_survives_a_restart::<S3Fifo>();
    check_survives_a_restart::<Lru>();
}

#[test]
fn warming_respects_the_limits_and_notifies_once() {
    let cache = small(10);
    cache.warm((0..100).map(|key| WarmEntry { key, value: key, heat: 1 }));
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.insertions, stats.evictions), (10, 100, 90));
    assert_eq!(cache.iter().map(|(key, value)| assert_eq!(key, value)).count(), 10);
}
