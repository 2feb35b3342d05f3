//! Tests of callbacks that panic: calls fail with a named error or continue without the callback,
//! and state stays consistent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_cache::{
    Backend, BoxError, Cache, CacheOptions, Candidate, Capabilities, EntryOptions, Error, Key, KeyBuilder,
    Lease, Leases, Lru, MemoryBackend, OnFailure, Persist, Policy, Record, RemovalListener, Tier, Tiered,
    TieredOptions, WarmEntry, WriteMode,
};

fn key(number: u64) -> Key {
    KeyBuilder::new("panics", 1).number(number).finish()
}

fn record() -> Record {
    Record { schema: 1, created_ms: 0, cost: Duration::ZERO, tags: vec![], payload: "value".into() }
}

#[test]
fn a_panicking_listener_fails_no_call() {
    let listener: RemovalListener<u64, u64> = Arc::new(|_, _, _| panic!("listener"));
    let listener = Some(listener);
    let cache: Cache<u64, u64, Lru> =
        Cache::with(CacheOptions { entries_max: 2, listener, ..CacheOptions::default() }).unwrap();
    for key in 0..5 {
        cache.insert(key, key);
    }
    cache.insert(4, 40);
    assert_eq!((cache.len(), cache.get(&4), cache.remove(&4)), (2, Some(40), Some(40)));
    cache.warm((10..20).map(|key| WarmEntry { key, value: key, heat: 0 }));
    assert_eq!((cache.len(), cache.invalidate_all(), cache.len()), (2, 2, 0));
}

#[tokio::test]
async fn an_entry_whose_weigher_panics_is_not_cached() {
    let weigh = |_: &u64, value: &u64| if *value == 13 { panic!("weigher") } else { 1 };
    for weight_max in [Some(100), None] {
        let options = CacheOptions { weight_max, weigher: Some(Arc::new(weigh)), ..CacheOptions::default() };
        let cache = Cache::new(options).unwrap();
        cache.insert(1, 1);
        cache.insert(1, 13);
        assert_eq!(cache.get(&1), None, "the old value is gone too, because it was replaced");
        let computed = cache.get_or_compute(2, async || Ok::<u64, ()>(13)).await;
        assert_eq!((computed, cache.get(&2)), (Ok(13), None));
        cache.warm([WarmEntry { key: 3, value: 13, heat: 0 }]);
        cache.insert(2, 2);
        let stats = cache.stats();
        assert_eq!((cache.keys(), stats.entries, stats.weight), (vec![2], 1, 1));
    }
}

/// A backend that panics in every call.
#[derive(Debug)]
struct Panicking;

#[async_trait]
impl Backend for Panicking {
    async fn get(&self, _: &Key) -> Result<Option<Bytes>, BoxError> {
        panic!("get")
    }

    async fn get_many(&self, _: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        panic!("get_many")
    }

    async fn put(&self, _: &Key, _: Bytes, _: Option<Duration>) -> Result<(), BoxError> {
        panic!("put")
    }

    async fn remove(&self, _: &Key) -> Result<(), BoxError> {
        panic!("remove")
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        panic!("list")
    }

    async fn flush(&self) -> Result<(), BoxError> {
        panic!("flush")
    }

    async fn close(&self) -> Result<(), BoxError> {
        panic!("close")
    }

    fn capabilities(&self) -> Capabilities {
        panic!("capabilities")
    }
}

#[tokio::test]
async fn a_panicking_backend_counts_as_a_failed_tier() {
    for writes in [WriteMode::Through, WriteMode::Back { queued_max: 10 }] {
        let broken =
            Tier { writes, on_failure: OnFailure::Report, ..Tier::new("broken", Arc::new(Panicking)) };
        let memory = Tier::new("memory", Arc::new(MemoryBackend::new(10, 1 << 20).unwrap()));
        let tiered = Tiered::new(vec![broken, memory], TieredOptions::new(1));
        let put = tiered.put(&key(1), &record()).await;
        if writes == WriteMode::Through {
            let Err(Error::Backend { source, .. }) = put else { panic!("{put:?}") };
            let panicked: &Error = source.downcast_ref().unwrap();
            assert_eq!(panicked.to_string(), "backend panicked: put");
        }
        assert_eq!(tiered.get(&key(1)).await, Some(record()));
        assert_eq!(tiered.get_many(&[key(1), key(2)]).await, [Some(record()), None]);
        tiered.remove(&key(1)).await;
        assert_eq!(tiered.get(&key(1)).await, None);
        tiered.clear().await;
        assert!(!tiered.flush().await);
        assert!(!tiered.close().await);
        assert!(tiered.stats().tiers[0].errors >= 7, "{:?}", tiered.stats());
    }
}

#[derive(Debug)]
struct NoLeases;

#[async_trait]
impl Leases for NoLeases {
    async fn acquire(&self, _: &Key) -> Result<Lease, BoxError> {
        panic!("no lease")
    }
}

#[tokio::test]
async fn panicking_leases_and_clocks_are_ignored() {
    let options = TieredOptions {
        leases: Some(Arc::new(NoLeases)),
        clock: || panic!("no clock"),
        age_max: Some(Duration::MAX),
        ..TieredOptions::new(1)
    };
    let memory = Tier::new("memory", Arc::new(MemoryBackend::new(10, 1 << 20).unwrap()));
    let tiered = Tiered::new(vec![memory], options);
    let computed = tiered.get_or_compute(&key(1), async || Ok::<_, ()>((record(), Persist::Yes))).await;
    assert_eq!(computed, Ok(record()));
    assert_eq!(tiered.get(&key(1)).await, Some(record()));
    assert_eq!(tiered.stats().lease_failures, 1);
}

#[tokio::test]
async fn after_a_panic_the_key_can_be_computed_again() {
    let cache: Arc<Cache<u64, u64>> = Arc::new(Cache::new(CacheOptions::default()).unwrap());
    let panicked = Arc::new(AtomicBool::new(false));
    let task = tokio::spawn({
        let (cache, panicked) = (cache.clone(), panicked.clone());
        async move {
            let compute = || -> std::future::Ready<Result<u64, ()>> {
                panicked.store(true, Ordering::Relaxed);
                panic!("before the future is created")
            };
            cache.get_or_compute(1, compute).await
        }
    });
    assert!(task.await.unwrap_err().is_panic() && panicked.load(Ordering::Relaxed));
    assert_eq!(cache.get_or_compute(1, async || Ok::<_, ()>(2)).await, Ok(2));
}

/// The method in which a policy misbehaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Hit,
    Insert,
    Remove,
    Victim,
    NoVictim,
    UnusedVictim,
    Ranking,
    /// `Insert`, and then the creation of another policy.
    Shards,
}

thread_local! {
    static FAULT: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// A policy that evicts in order of insertion, and misbehaves while `FAULT` says so.
#[derive(Debug, Default)]
struct Faulty {
    slots: Vec<u32>,
}

impl Faulty {
    fn check(faults: &[Fault]) {
        let fault = FAULT.get();
        assert!(!fault.is_some_and(|fault| faults.contains(&fault)), "a bad policy");
    }
}

impl Policy for Faulty {
    fn shards(capacities: &[usize]) -> Vec<Self> {
        Self::check(&[Fault::Shards]);
        capacities.iter().map(|_| Self::default()).collect()
    }

    fn hit(&self, _: u32) {
        Self::check(&[Fault::Hit]);
    }

    fn insert(&mut self, slot: u32, _: Candidate) {
        // After the slot is tracked, so that the policy knows a slot that the shard frees.
        self.slots.push(slot);
        Self::check(&[Fault::Insert, Fault::Shards]);
    }

    fn remove(&mut self, slot: u32) {
        Self::check(&[Fault::Remove]);
        self.slots.retain(|tracked| *tracked != slot);
    }

    fn victim(&mut self) -> Option<u32> {
        Self::check(&[Fault::Victim]);
        match FAULT.get() {
            Some(Fault::NoVictim) => None,
            Some(Fault::UnusedVictim) => Some(1000),
            _ => (!self.slots.is_empty()).then(|| self.slots.remove(0)),
        }
    }

    fn ranking(&self) -> Vec<(u32, u8)> {
        Self::check(&[Fault::Ranking]);
        self.slots.iter().map(|slot| (*slot, 0)).chain([(1000, 0)]).collect()
    }
}

#[test]
fn a_faulty_policy_costs_entries_but_no_call() {
    use Fault::{Hit, Insert, NoVictim, Ranking, Remove, Shards, UnusedVictim, Victim};
    for fault in [Hit, Insert, Remove, Victim, NoVictim, UnusedVictim, Ranking, Shards] {
        let weigh = |_: &u64, value: &u64| *value;
        let options = CacheOptions {
            entries_max: 8,
            weight_max: Some(20),
            weigher: Some(Arc::new(weigh)),
            shards: Some(2),
            ..CacheOptions::default()
        };
        let cache: Cache<u64, u64, Faulty> = Cache::with(options).unwrap();
        for round in 0..3 {
            FAULT.set(Some(fault));
            for key in 0..40 {
                cache.insert_with(
                    key,
                    1 + key % 5,
                    &EntryOptions { tags: &["a"], ..EntryOptions::default() },
                );
                let found = cache.get(&key);
                assert!(found.is_none_or(|value| value == 1 + key % 5), "{fault:?}");
                cache.remove(&(key / 2));
            }
            cache.invalidate_tag("a");
            cache.hottest(10);
            FAULT.set(None);
            // One more insertion per shard replaces a policy that has failed.
            (100..120).for_each(|key| cache.insert(key, 1));
            cache.invalidate_all();
            let stats = cache.stats();
            assert_eq!((stats.entries, stats.weight), (0, 0), "{fault:?}, round {round}: {stats:?}");
            (100..120).for_each(|key| cache.insert(key, 2));
            let expected = if fault == Shards { 0 } else { 8 };
            assert_eq!((cache.len(), cache.hottest(20).len()), (expected, expected), "{fault:?}");
        }
    }
}

#[test]
fn a_policy_that_cannot_be_created_is_an_error() {
    FAULT.set(Some(Fault::Shards));
    let error = Cache::<u64, u64, Faulty>::with(CacheOptions::default()).unwrap_err();
    FAULT.set(None);
    assert_eq!(error.to_string(), "policy panicked: a bad policy");
}

#[test]
fn a_reader_that_changes_its_cache_panics() {
    let cache: Cache<u64, u64, Lru> =
        Cache::with(CacheOptions { shards: Some(1), ..CacheOptions::default() }).unwrap();
    cache.insert(1, 1);
    type Change = fn(&Cache<u64, u64, Lru>);
    let changes: [Change; 3] = [
        |cache| {
            cache.insert(2, 2);
        },
        |cache| {
            cache.remove(&1);
        },
        |cache| {
            cache.invalidate_all();
        },
    ];
    for change in changes {
        let reader = || cache.get_with(&1, |_| change(&cache));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(reader)).unwrap_err();
        let message = panic.downcast_ref::<&str>().copied().unwrap_or_default();
        assert_eq!(message, "the reader of `Cache::get_with` changed the cache");
        assert_eq!((cache.get(&1), cache.len()), (Some(1), 1), "unchanged");
    }
    cache.insert(2, 2);
    assert_eq!(cache.get(&2), Some(2), "the lock is free again");
}

#[test]
fn a_reader_can_read_its_cache_and_change_another() {
    let fresh = || Cache::<u64, u64, Lru>::with(CacheOptions { shards: Some(1), ..CacheOptions::default() });
    let (cache, other) = (fresh().unwrap(), fresh().unwrap());
    cache.insert(1, 1);
    let started = AtomicBool::new(false);
    std::thread::scope(|scope| {
        cache.get_with(&1, |value| {
            scope.spawn(|| {
                started.store(true, Ordering::Relaxed);
                cache.insert(2, 2);
            });
            while !started.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            // The other thread is soon waiting for this reader.
            for _ in 0..1000 {
                assert_eq!(cache.get(&1), Some(*value));
                std::thread::yield_now();
            }
            other.insert(1, *value);
        });
    });
    assert_eq!((other.get(&1), cache.get(&2)), (Some(1), Some(2)));
}
