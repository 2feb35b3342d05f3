//! Tests of the weight limit, which does not depend on the number of shards.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use greenwave_testkit::random::Random;
use proptest::prelude::*;

use greenwave_cache::{
    Adaptive, Backend, Cache, CacheOptions, KeyBuilder, Lru, MemoryBackend, Policy, S3Fifo,
};

const MIB: u64 = 1 << 20;

/// Hashes a key the same way in every run, so that a measured hit rate is reproducible.
type FixedHasher = BuildHasherDefault<DefaultHasher>;

/// Creates a cache in which the weight of an entry is its value.
fn value_weighed<P: Policy>(weight_max: u64, shards: Option<usize>) -> Cache<u64, u64, P, FixedHasher> {
    let weigher = Some(Arc::new(|_: &u64, weight: &u64| *weight) as _);
    Cache::with(CacheOptions { weight_max: Some(weight_max), weigher, shards, ..CacheOptions::default() })
        .unwrap()
}

#[test]
fn entries_within_the_limit_fit_into_any_number_of_shards() {
    fn check<P: Policy>(shards: Option<usize>) {
        let cache = value_weighed::<P>(64 * MIB, shards);
        for weight in [13 * MIB, 33 * MIB, 64 * MIB] {
            cache.insert(weight, weight);
            assert_eq!(cache.get(&weight), Some(weight), "{shards:?}");
            assert!(cache.stats().weight <= 64 * MIB);
        }
        cache.insert(1, 64 * MIB + 1);
        assert_eq!((cache.get(&1), cache.get(&(64 * MIB))), (None, Some(64 * MIB)), "{shards:?}");
    }
    for shards in [None, Some(1), Some(8), Some(64), Some(1024)] {
        check::<Adaptive>(shards);
        check::<S3Fifo>(shards);
        check::<Lru>(shards);
    }
}

#[test]
fn a_heavy_entry_that_is_accessed_survives_many_light_ones() {
    let cache = value_weighed::<Lru>(64 * MIB, Some(16));
    cache.insert(0, 20 * MIB);
    for key in 1..20_000 {
        cache.insert(key, MIB / 64);
        assert!(cache.get(&0).is_some(), "evicted by entry {key}");
    }
    let stats = cache.stats();
    assert!(stats.weight > 63 * MIB && stats.weight <= 64 * MIB, "{stats:?}");
    for key in 20_000..40_000 {
        cache.insert(key, MIB / 64);
    }
    assert_eq!(cache.get(&0), None, "without accesses it is evicted");
}

#[test]
fn a_heavy_entry_evicts_from_all_shards_evenly() {
    let cache = value_weighed::<Lru>(1000, Some(8));
    (0..5000).for_each(|key| cache.insert(key, 1));
    cache.insert(5000, 500);
    // If one shard had made all the room, the last entries of that shard would be gone.
    let survivors = (4700..5000).filter(|key| cache.contains(key)).count();
    assert!(survivors > 250, "{survivors} of the newest 300");
    assert_eq!(cache.stats().weight, 1000);
}

#[test]
fn a_shared_limit_costs_no_hits() {
    fn hits<P: Policy>(shards: usize) -> usize {
        let cache = value_weighed::<P>(20_000, Some(shards));
        let mut random = Random::new(1);
        // A few keys are accessed often, most of them rarely.
        let mut key = || (random.fraction().powi(4) * 20_000.0) as u64;
        let hit = |key: u64| {
            let found = cache.get(&key).is_some();
            if !found {
                cache.insert(key, if key.is_multiple_of(50) { 400 } else { 5 + key % 13 });
            }
            found
        };
        (0..100_000).map(|_| hit(key())).filter(|hit| *hit).count()
    }
    fn check<P: Policy>() {
        let (one, many) = (hits::<P>(1), hits::<P>(16));
        assert!(many * 100 >= one * 97, "{many} hits in 16 shards, {one} in one");
    }
    check::<Adaptive>();
    check::<S3Fifo>();
    check::<Lru>();
}

#[test]
fn the_limit_holds_with_concurrent_threads() {
    let cache = value_weighed::<Adaptive>(1000, Some(8));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let cache = &cache;
            scope.spawn(move || {
                for round in 0..5_000_u64 {
                    let key = (round * 7 + thread * 13) % 300;
                    match round % 10 {
                        0 => _ = cache.remove(&key),
                        1 => cache.insert(key, 900),
                        _ => cache.insert(key, round % 40),
                    }
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(stats.weight <= 1000, "{stats:?}");
    assert_eq!(cache.iter().map(|(_, weight)| weight).sum::<u64>(), stats.weight);
    cache.invalidate_all();
    cache.insert(0, 1000);
    assert_eq!(cache.get(&0), Some(1000), "evicted entries leave no weight behind");
}

#[test]
fn weights_beyond_32_bits_are_exact() {
    let large = 5 << 32;
    let cache = value_weighed::<Lru>(3 * large, Some(4));
    (0..4).for_each(|key| cache.insert(key, large));
    assert_eq!((cache.len(), cache.stats().weight), (3, 3 * large));
    cache.insert(9, 3 * large + 1);
    assert_eq!(cache.get(&9), None);
}

#[tokio::test]
async fn a_memory_backend_accepts_values_up_to_its_limit() {
    let memory = MemoryBackend::new(1000, 64 << 20).unwrap();
    let key = KeyBuilder::new("heavy", 1).finish();
    memory.put(&key, vec![7; 40 << 20].into(), None).await.unwrap();
    assert_eq!(memory.get(&key).await.unwrap().map(|value| value.len()), Some(40 << 20));
    assert!(memory.capabilities().value_bytes_max >= Some(63 << 20));
}

proptest! {
    #[test]
    fn the_limit_holds_after_every_call(steps in proptest::collection::vec((0..24_u64, 0..120_u64, 0..8_u8), 0..200)) {
        check_limit::<Adaptive>(&steps)?;
        check_limit::<S3Fifo>(&steps)?;
        check_limit::<Lru>(&steps)?;
    }
}

fn check_limit<P: Policy>(steps: &[(u64, u64, u8)]) -> Result<(), TestCaseError> {
    let cache = value_weighed::<P>(100, Some(4));
    for &(key, weight, step) in steps {
        match step {
            0 => _ = cache.remove(&key),
            1 | 2 => _ = cache.get(&key),
            _ => {
                cache.insert(key, weight);
                prop_assert_eq!(cache.get(&key), (weight <= 100).then_some(weight));
            }
        }
        let weight: u64 = cache.iter().map(|(_, weight)| weight).sum();
        prop_assert_eq!(cache.stats().weight, weight);
        prop_assert!(weight <= 100);
    }
    Ok(())
}
