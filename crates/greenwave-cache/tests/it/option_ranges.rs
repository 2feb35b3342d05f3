//! Tests of every public option with zero, one, the maximum, and inverted ranges: each value works
//! or is rejected with the name of the option and the expected range.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::{
    Adaptive, Backend, Cache, CacheOptions, EntryOptions, Error, Key, KeyBuilder, Lru, MemcachedBackend,
    MemoryBackend, Persist, Policy, Predictor, Record, RedisBackend, RemoteOptions, S3Fifo, SeededHasher,
    Tier, Tiered, TieredOptions, Trail, WarmEntry, WriteMode,
};
use tokio::time::advance;

const SECOND: Duration = Duration::from_secs(1);

fn key(number: u64) -> Key {
    KeyBuilder::new("numbers", u32::MAX).number(number).finish()
}

fn record() -> Record {
    let (created_ms, cost, tags) = (0, Duration::ZERO, vec![]);
    Record { schema: u32::MAX, created_ms, cost, tags, payload: "value".into() }
}

/// Expected effect of an option: how many of two entries of weight 3 are cached, or the name of the
/// rejected option.
type Expected = Result<usize, &'static str>;

/// Creates a cache, inserts two entries and reads them back.
fn check<P: Policy>(options: CacheOptions<u64, u64>, expected: Expected) {
    let shown = format!("{options:?}");
    let cache: Cache<u64, u64, P, SeededHasher> = match (Cache::with(options), expected) {
        (Ok(cache), Ok(_)) => cache,
        (Err(error), Err(option)) => return assert_rejected(&error, option),
        (made, _) => panic!("{shown}: got {made:?}, expected {expected:?}"),
    };
    cache.insert(1, 1);
    cache.insert(2, 2);
    let found = [1, 2].iter().filter(|key| cache.get(key).is_some()).count();
    assert_eq!(Ok(found), expected, "{shown}");
    assert_eq!(cache.hottest(0).len(), 0);
    assert_eq!(cache.hottest(usize::MAX).len(), found, "{shown}");
}

#[track_caller]
fn assert_rejected(error: &Error, name: &str) {
    let Error::InvalidOption { option, expected, .. } = error else { panic!("{error:?}") };
    assert_eq!(*option, name);
    assert!(!expected.is_empty());
}

#[tokio::test(start_paused = true)]
async fn options_of_a_cache() {
    let usual = || CacheOptions {
        weigher: Some(Arc::new(|_: &u64, _: &u64| 3)),
        ..CacheOptions::<u64, u64>::default()
    };
    let entries =
        [(0, Ok(0)), (1, Ok(1)), (2, Ok(2)), (u32::MAX as usize, Ok(2)), (usize::MAX, Err("entries_max"))];
    for (entries_max, expected) in entries {
        let options = || CacheOptions { entries_max, ..usual() };
        check::<Adaptive>(options(), expected);
        check::<S3Fifo>(options(), expected);
        check::<Lru>(options(), expected);
        if let Ok(expected) = expected {
            // More shards than entries cache just as much.
            check::<Lru>(CacheOptions { shards: Some(1), ..options() }, Ok(expected));
        }
    }
    for (weight_max, expected) in [(0, 0), (1, 0), (2, 0), (3, 1), (5, 1), (6, 2), (u64::MAX, 2)] {
        for shards in [None, Some(1), Some(16), Some(1024)] {
            check::<Lru>(CacheOptions { weight_max: Some(weight_max), shards, ..usual() }, Ok(expected));
        }
    }
    let shards = [
        (0, Err("shards")),
        (1, Ok(2)),
        (3, Ok(2)),
        (1024, Ok(2)),
        (1025, Err("shards")),
        (usize::MAX, Err("shards")),
    ];
    for (shards, expected) in shards {
        check::<Lru>(CacheOptions { shards: Some(shards), ..usual() }, expected);
    }
    check::<Lru>(CacheOptions { weigher: None, weight_max: Some(1), ..usual() }, Err("weigher"));
    for (life, expected) in [(Duration::ZERO, 0), (Duration::from_nanos(1), 2), (Duration::MAX, 2)] {
        check::<Lru>(CacheOptions { ttl: Some(life), ..usual() }, Ok(expected));
        check::<Lru>(CacheOptions { tti: Some(life), ..usual() }, Ok(expected));
    }
}

#[test]
fn every_key_is_cacheable_with_more_shards_than_entries() {
    let cache =
        Cache::new(CacheOptions { entries_max: 2, shards: Some(1024), ..CacheOptions::default() }).unwrap();
    for key in 0..1000 {
        cache.insert(key, key);
        assert_eq!(cache.get(&key), Some(key));
        assert!(cache.len() <= 2);
    }
}

#[test]
fn extreme_weights_add_up() {
    for weight_max in [Some(u64::MAX), None] {
        let weigher = Some(Arc::new(|_: &u64, weight: &u64| *weight) as _);
        let cache: Cache<u64, u64> =
            Cache::new(CacheOptions { weight_max, weigher, ..CacheOptions::default() }).unwrap();
        for key in 0..100 {
            cache.insert(key, u64::MAX);
        }
        assert_eq!((cache.len(), cache.stats().weight), (100, 100 << 48));
        cache.invalidate_all();
        assert_eq!(cache.stats().weight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn options_of_an_entry() {
    async fn check<P: Policy>() {
        for (life, lives) in [(Duration::ZERO, false), (Duration::from_nanos(1), true), (Duration::MAX, true)]
        {
            let cache: Cache<u64, u64, P, SeededHasher> = Cache::with(CacheOptions::default()).unwrap();
            cache.insert_with(1, 1, &EntryOptions { ttl: Some(life), ..EntryOptions::default() });
            cache.insert_with(2, 2, &EntryOptions { tti: Some(life), ..EntryOptions::default() });
            assert_eq!((cache.contains(&1), cache.get(&2).is_some()), (lives, lives), "{life:?}");
            advance(1000 * SECOND).await;
            assert_eq!(cache.contains(&1), life == Duration::MAX);
            assert_eq!(cache.get(&2).is_some(), life == Duration::MAX);
        }
        for (cost, heat) in [(Duration::ZERO, 0), (Duration::from_nanos(1), 1), (Duration::MAX, u8::MAX)] {
            let cache: Cache<u64, u64, P, SeededHasher> =
                Cache::with(CacheOptions { entries_max: 4, ..CacheOptions::default() }).unwrap();
            let options = EntryOptions { cost: Some(cost), heat, ..EntryOptions::default() };
            for key in 0..20 {
                cache.insert_with(key, key, &options);
                assert_eq!(cache.get(&key), Some(key));
                cache.warm([WarmEntry { key: key + 100, value: key, heat }]);
            }
            let computed = cache.get_or_compute_with(50, &options, async || Ok::<_, ()>(50)).await;
            assert_eq!((computed, cache.len()), (Ok(50), 4));
            let saved = if cost == Duration::MAX { Duration::from_micros(u64::MAX) } else { Duration::ZERO };
            assert_eq!(cache.stats().saved, saved, "the sum saturates");
        }
    }
    check::<Adaptive>().await;
    check::<S3Fifo>().await;
    check::<Lru>().await;
}

#[tokio::test]
async fn sizes_of_a_memory_backend() {
    let sizes = [
        (0, u64::MAX, Ok(false)),
        (1, u64::MAX, Ok(true)),
        (u32::MAX as usize, u64::MAX, Ok(true)),
        (usize::MAX, u64::MAX, Err("entries_max")),
        (10, 0, Ok(false)),
        (10, 1, Ok(false)),
        (10, 1000, Ok(true)),
    ];
    for (entries_max, bytes_max, expected) in sizes {
        match (MemoryBackend::new(entries_max, bytes_max), expected) {
            (Ok(memory), Ok(is_cached)) => {
                memory.put(&key(1), "value".into(), Some(Duration::MAX)).await.unwrap();
                assert_eq!(
                    memory.get(&key(1)).await.unwrap().is_some(),
                    is_cached,
                    "{entries_max}, {bytes_max}"
                );
                assert_eq!(memory.heat(usize::MAX).len(), usize::from(is_cached));
                memory.put(&key(1), "value".into(), Some(Duration::ZERO)).await.unwrap();
                assert_eq!(memory.get(&key(1)).await.unwrap(), None);
            }
            (Err(error), Err(option)) => assert_rejected(&error, option),
            (made, _) => panic!("got {made:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn sizes_of_a_predictor() {
    let sizes = [
        (0, 1, None),
        (1, 8, None),
        (u32::MAX as usize, 1, None),
        (usize::MAX, 1, Some("keys_max")),
        (1, 0, Some("ahead")),
        (1, 9, Some("ahead")),
        (1, usize::MAX, Some("ahead")),
    ];
    for (keys_max, ahead, rejected) in sizes {
        match (Predictor::new(keys_max, ahead), rejected) {
            (Ok(predictor), None) => {
                assert_eq!(predictor.observe(&mut Trail::default(), &key(1)), []);
            }
            (Err(error), Some(option)) => assert_rejected(&error, option),
            (made, _) => panic!("{made:?} of {keys_max}, {ahead}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn options_of_tiers() {
    async fn check(change: impl FnOnce(&mut Tier, &mut TieredOptions), is_cached: bool) {
        let mut tier = Tier::new("memory", Arc::new(MemoryBackend::new(10, 1 << 20).unwrap()));
        let mut options = TieredOptions { clock: || 0, ..TieredOptions::new(u32::MAX) };
        change(&mut tier, &mut options);
        let tiered = Tiered::new(vec![tier], options);
        let compute = async || Ok::<_, ()>((record(), Persist::Yes));
        assert_eq!(tiered.get_or_compute(&key(1), compute).await, Ok(record()));
        assert!(tiered.flush().await);
        assert_eq!(tiered.get(&key(1)).await.is_some(), is_cached);
        assert_eq!(tiered.get_many(&[key(1); 3]).await, vec![is_cached.then(record); 3]);
    }
    check(|tier, _| tier.ttl_max = Some(Duration::ZERO), false).await;
    check(|tier, _| tier.ttl_max = Some(Duration::MAX), true).await;
    // A memory tier responds without waiting, so even a timeout of zero suffices.
    check(|tier, _| tier.timeout = Some(Duration::ZERO), true).await;
    check(|tier, _| tier.timeout = Some(Duration::MAX), true).await;
    for queued_max in [0, 1, usize::MAX] {
        check(|tier, _| tier.writes = WriteMode::Back { queued_max }, true).await;
    }
    check(|_, options| options.age_max = Some(Duration::ZERO), false).await;
    check(|_, options| options.age_max = Some(Duration::MAX), true).await;
    check(|_, options| options.lease_wait_max = Duration::ZERO, true).await;
    check(|_, options| options.lease_wait_max = Duration::MAX, true).await;
    let unlimited = |_: &mut Tier, options: &mut TieredOptions| {
        options.age_max = Some(Duration::MAX);
        options.clock = || u64::MAX;
    };
    check(unlimited, true).await;
}

#[tokio::test]
async fn any_number_of_records_can_be_warmed() {
    for (records_max, expected) in [(0, 0), (1, 1), (usize::MAX, 2)] {
        let disk = Arc::new(MemoryBackend::new(10, 1 << 20).unwrap());
        let [memory, fresh] = [0; 2].map(|_| Arc::new(MemoryBackend::new(10, 1 << 20).unwrap()));
        let tiers = |memory: &Arc<MemoryBackend>| {
            vec![Tier::new("memory", memory.clone()), Tier::new("disk", disk.clone())]
        };
        let before = Tiered::new(tiers(&memory), TieredOptions::new(u32::MAX));
        for number in 0..2 {
            before.put(&key(number), &record()).await.unwrap();
        }
        before.save_heat(&memory, records_max).await.unwrap();
        let after = Tiered::new(tiers(&fresh), TieredOptions::new(u32::MAX));
        assert_eq!(after.warm(&fresh).await, expected);
    }
}

#[tokio::test]
async fn saved_time_saturates() {
    let tiered = Tiered::new(
        vec![Tier::new("memory", Arc::new(MemoryBackend::new(10, 1 << 20).unwrap()))],
        TieredOptions::new(u32::MAX),
    );
    tiered.put(&key(1), &Record { cost: Duration::MAX, created_ms: u64::MAX, ..record() }).await.unwrap();
    for _ in 0..3 {
        assert!(tiered.get(&key(1)).await.is_some());
    }
    assert_eq!(tiered.stats().saved, Duration::from_micros(u64::MAX));
}

#[tokio::test]
async fn options_of_servers() {
    let usual = RemoteOptions::default;
    let cases: [(RemoteOptions, Option<&str>); 13] = [
        (RemoteOptions { ttl: Some(Duration::ZERO), ..usual() }, None),
        (RemoteOptions { ttl: Some(Duration::MAX), ..usual() }, None),
        (RemoteOptions { timeout: Duration::ZERO, ..usual() }, Some("timeout")),
        (RemoteOptions { timeout: Duration::MAX, ..usual() }, None),
        (RemoteOptions { answer_bytes_max: 0, ..usual() }, Some("answer_bytes_max")),
        (RemoteOptions { answer_bytes_max: u64::MAX, ..usual() }, None),
        (RemoteOptions { backoff_min: Duration::ZERO, ..usual() }, Some("backoff_min")),
        (RemoteOptions { backoff_min: Duration::MAX, ..usual() }, Some("backoff_min")),
        (RemoteOptions { backoff_max: Duration::ZERO, ..usual() }, Some("backoff_min")),
        (RemoteOptions { backoff_min: Duration::MAX, backoff_max: Duration::MAX, ..usual() }, None),
        (RemoteOptions { seed: Some(0), ..usual() }, None),
        (RemoteOptions { seed: Some(u64::MAX), ..usual() }, None),
        (RemoteOptions { prefix: "x".repeat(129), ..usual() }, Some("prefix")),
    ];
    fn verify<T: Debug>(made: Result<T, Error>, rejected: Option<&str>) {
        match (made, rejected) {
            (Ok(_), None) => {}
            (Err(error), Some(option)) => assert_rejected(&error, option),
            (made, _) => panic!("got {made:?}, expected {rejected:?}"),
        }
    }
    for (options, rejected) in cases {
        verify(MemcachedBackend::new("127.0.0.1:9", options.clone()), rejected);
        let redis = RedisBackend::new("redis://127.0.0.1:9/", options);
        if let Ok(redis) = &redis {
            for life in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
                let _ = redis.leases(life);
            }
        }
        verify(redis, rejected);
    }
}

#[cfg(feature = "disk")]
#[tokio::test]
async fn options_of_a_disk_backend() {
    use greenwave_cache::{DiskBackend, DiskOptions};
    for disk_bytes_max in [None, Some(0), Some(1), Some((16 << 10) - 1), Some(16 << 10), Some(u64::MAX)] {
        for compress in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let opened = DiskBackend::open(dir.path(), DiskOptions { disk_bytes_max, compress });
            if disk_bytes_max.is_some_and(|max| max < 16 << 10) {
                assert_rejected(&opened.unwrap_err(), "disk_bytes_max");
                continue;
            }
            let backend = opened.unwrap();
            for number in 0..100 {
                backend.put(&key(number), vec![7; 1000].into(), None).await.unwrap();
                let found = backend.get(&key(number)).await.unwrap();
                assert_eq!(found.unwrap(), vec![7; 1000], "{disk_bytes_max:?}");
            }
        }
    }
}
