//! Tests of tiers: order, backfills, age, damage, and failing backends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_cache::{
    AccessMode, Backend, BoxError, Capabilities, Key, KeyBuilder, MemoryBackend, OnFailure, Predictor,
    Record, RecordError, Secret, Tier, Tiered, TieredOptions, Trail, WriteMode,
};

fn key(number: u64) -> Key {
    KeyBuilder::new("tiered", 1).number(number).finish()
}

fn record(payload: &'static str) -> Record {
    Record { schema: 1, created_ms: 0, cost: Duration::from_secs(2), tags: vec![], payload: payload.into() }
}

fn memory() -> Arc<MemoryBackend> {
    Arc::new(MemoryBackend::new(100, 1 << 20).unwrap())
}

fn tier(name: &str, backend: Arc<dyn Backend>) -> Tier {
    Tier::new(name, backend)
}

/// Options with a fixed clock, so that age depends only on the records.
fn options() -> TieredOptions {
    TieredOptions { clock: || 10_000, ..TieredOptions::new(1) }
}

#[tokio::test]
async fn a_hit_fills_the_faster_tiers() {
    let (fast, slow) = (memory(), memory());
    slow.put(&key(1), record("found").encode(&key(1)), None).await.unwrap();
    let tiered = Tiered::new(vec![tier("fast", fast.clone()), tier("slow", slow)], options());
    for _ in 0..3 {
        assert_eq!(tiered.get(&key(1)).await, Some(record("found")));
    }
    assert_eq!(tiered.get(&key(2)).await, None);
    let stats = tiered.stats();
    assert_eq!((stats.hits, stats.misses, stats.hit_rate()), (3, 1, 0.75));
    assert_eq!(stats.saved, Duration::from_secs(6));
    let [fast, slow] = &stats.tiers[..] else { panic!("{stats:?}") };
    assert_eq!((fast.hits, fast.misses, fast.backfills, fast.puts), (2, 2, 1, 0));
    assert_eq!((slow.hits, slow.misses), (1, 1));
}

#[tokio::test]
async fn a_read_only_tier_is_never_written_to() {
    let (first, shared) = (memory(), memory());
    let read_only = Tier { access: AccessMode::ReadOnly, ..tier("shared", shared.clone()) };
    let tiered = Tiered::new(vec![read_only, tier("own", first.clone())], options());
    tiered.put(&key(1), &record("mine")).await.unwrap();
    assert!(tiered.get(&key(1)).await.is_some());
    tiered.remove(&key(1)).await;
    assert_eq!((shared.stats().insertions, first.stats().insertions), (0, 1));
    assert_eq!(tiered.get(&key(1)).await, None);
}

#[tokio::test]
async fn a_record_of_another_schema_is_refused() {
    let fast = memory();
    let tiered = Tiered::new(vec![tier("fast", fast.clone())], options());
    let error = tiered.put(&key(1), &Record { schema: 2, ..record("new") }).await.unwrap_err();
    let expected = "invalid value 2 for schema: expected the schema in the options of the cache";
    assert_eq!(error.to_string(), expected);
    assert_eq!(fast.list().await.unwrap(), []);
}

#[tokio::test]
async fn invalid_records_are_skipped_and_removed() {
    let (fast, slow) = (memory(), memory());
    fast.put(&key(1), "garbage".into(), None).await.unwrap();
    slow.put(&key(1), record("good").encode(&key(1)), None).await.unwrap();
    fast.put(&key(2), record("stray").encode(&key(1)), None).await.unwrap();
    let other_schema = Record { schema: 2, ..record("new") };
    fast.put(&key(3), other_schema.encode(&key(3)), None).await.unwrap();
    let tiered = Tiered::new(vec![tier("fast", fast.clone()), tier("slow", slow)], options());
    assert_eq!(tiered.get(&key(1)).await, Some(record("good")));
    assert_eq!(tiered.get(&key(2)).await, None);
    assert_eq!(tiered.get(&key(3)).await, None);
    assert_eq!(tiered.stats().tiers[0].invalid_records, 3);
    assert_eq!(fast.list().await.unwrap(), [key(1)], "the valid record replaced the invalid one");
}

#[tokio::test]
async fn records_older_than_the_maximum_are_misses() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let options = TieredOptions {
        age_max: Some(Duration::from_secs(5)),
        clock: || NOW.load(Ordering::Relaxed),
        ..TieredOptions::new(1)
    };
    let tiered = Tiered::new(vec![tier("memory", memory())], options);
    tiered.put(&key(1), &record("young")).await.unwrap();
    NOW.store(4_999, Ordering::Relaxed);
    assert!(tiered.get(&key(1)).await.is_some());
    NOW.store(5_000, Ordering::Relaxed);
    assert_eq!(tiered.get(&key(1)).await, None);
}

/// A backend that always fails.
#[derive(Debug)]
struct Dead;

#[async_trait]
impl Backend for Dead {
    async fn get(&self, _: &Key) -> Result<Option<Bytes>, BoxError> {
        Err("gone".into())
    }
    async fn get_many(&self, _: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        Err("gone".into())
    }
    async fn put(&self, _: &Key, _: Bytes, _: Option<Duration>) -> Result<(), BoxError> {
        Err("gone".into())
    }
    async fn remove(&self, _: &Key) -> Result<(), BoxError> {
        Err("gone".into())
    }
    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        Err("gone".into())
    }
    async fn flush(&self) -> Result<(), BoxError> {
        Err("gone".into())
    }
    async fn close(&self) -> Result<(), BoxError> {
        Err("gone".into())
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

#[tokio::test]
async fn a_failing_tier_fails_no_caller() {
    let tiered = Tiered::new(vec![tier("dead", Arc::new(Dead)), tier("memory", memory())], options());
    tiered.put(&key(1), &record("value")).await.unwrap();
    assert_eq!(tiered.get(&key(1)).await, Some(record("value")));
    assert_eq!(tiered.get(&key(2)).await, None);
    tiered.remove(&key(1)).await;
    assert!(!tiered.flush().await);
    assert!(!tiered.close().await);
    let stats = tiered.stats();
    assert_eq!((stats.hits, stats.misses), (1, 1));
    assert_eq!((stats.tiers[0].errors, stats.tiers[1].errors), (7, 0));
}

#[tokio::test]
async fn a_cache_without_tiers_always_misses() {
    let tiered = Tiered::new(vec![], options());
    tiered.put(&key(1), &record("lost")).await.unwrap();
    assert_eq!(tiered.get(&key(1)).await, None);
    assert!(tiered.flush().await && tiered.close().await);
}

/// A backend whose puts wait for a permit.
#[derive(Debug)]
struct Slow {
    memory: Arc<MemoryBackend>,
    permits: tokio::sync::Semaphore,
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Self { memory: memory(), permits: tokio::sync::Semaphore::new(0) })
    }
}

#[async_trait]
impl Backend for Slow {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        self.memory.get(key).await
    }
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        self.memory.get_many(keys).await
    }
    async fn put(&self, key: &Key, value: Bytes, ttl: Option<Duration>) -> Result<(), BoxError> {
        self.permits.acquire().await?.forget();
        self.memory.put(key, value, ttl).await
    }
    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        self.memory.remove(key).await
    }
    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        self.memory.list().await
    }
    async fn flush(&self) -> Result<(), BoxError> {
        Ok(())
    }
    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }
}

#[tokio::test]
async fn queued_writes_return_at_once_and_stay_in_order() {
    let slow = Slow::new();
    let back = Tier { writes: WriteMode::Back { queued_max: 2 }, ..tier("slow", slow.clone()) };
    let tiered = Tiered::new(vec![tier("fast", memory()), back], options());
    tiered.put(&key(1), &record("one")).await.unwrap();
    tiered.put(&key(2), &record("two")).await.unwrap();
    tiered.put(&key(1), &record("uno")).await.unwrap();
    tiered.put(&key(9), &record("ignored")).await.unwrap();
    let dropped = tiered.stats().tiers[1].dropped;
    assert!((1..=2).contains(&dropped), "{dropped} were dropped");
    assert_eq!(slow.memory.stats().entries, 0);
    slow.permits.add_permits(10);
    tiered.remove(&key(2)).await;
    assert!(tiered.flush().await);
    assert_eq!(slow.memory.get(&key(2)).await.unwrap(), None, "the removal came after the put");
    assert_eq!(slow.memory.stats().entries, 1);
    assert!(tiered.close().await);
}

#[tokio::test]
async fn failed_writes_are_reported_if_requested() {
    let report = |backend| Tier { on_failure: OnFailure::Report, ..tier("reported", backend) };
    let tiered = Tiered::new(vec![report(Arc::new(Dead)), tier("memory", memory())], options());
    let error = tiered.put(&key(1), &record("value")).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot write to tier reported");
    assert_eq!(tiered.get(&key(1)).await, Some(record("value")), "from the tier that did not fail");
    let slow = Slow::new();
    let back = Tier { writes: WriteMode::Back { queued_max: 1 }, ..report(slow) };
    let tiered = Tiered::new(vec![back], options());
    let mut refused = 0;
    for _ in 0..3 {
        refused += usize::from(tiered.put(&key(1), &record("value")).await.is_err());
    }
    assert!((1..=2).contains(&refused), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_exceeds_the_timeout_fails() {
    let second = Duration::from_secs(1);
    let limited = Tier { timeout: Some(second), ..tier("slow", Slow::new()) };
    let tiered = Tiered::new(vec![limited, tier("memory", memory())], options());
    let started = tokio::time::Instant::now();
    tiered.put(&key(1), &record("value")).await.unwrap();
    assert_eq!(started.elapsed(), second);
    assert_eq!(tiered.stats().tiers[0].errors, 1);
    assert_eq!(tiered.get(&key(1)).await, Some(record("value")));
}

#[tokio::test(start_paused = true)]
async fn a_tier_drops_records_after_its_maximum_ttl() {
    let fast = memory();
    let limited = Tier { ttl_max: Some(Duration::from_secs(5)), ..tier("fast", fast.clone()) };
    let tiered = Tiered::new(vec![limited, tier("slow", memory())], options());
    tiered.put(&key(1), &record("value")).await.unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(fast.get(&key(1)).await.unwrap(), None);
    assert_eq!(tiered.get(&key(1)).await, Some(record("value")));
    assert_eq!(tiered.stats().tiers[0].backfills, 1);
}

#[tokio::test]
async fn an_oversized_record_is_dropped_without_an_error() {
    let small = Arc::new(MemoryBackend::new(10, 1000).unwrap());
    let tiered = Tiered::new(vec![tier("small", small.clone()), tier("large", memory())], options());
    let large = Record { payload: vec![7; 5000].into(), ..record("") };
    tiered.put(&key(1), &large).await.unwrap();
    assert_eq!(tiered.get(&key(1)).await, Some(large));
    let stats = &tiered.stats().tiers[0];
    assert_eq!((stats.dropped, stats.errors, small.stats().insertions), (2, 0, 0));
}

#[tokio::test]
async fn forged_records_in_a_shared_tier_are_rejected() {
    let shared = memory();
    let sealed = TieredOptions { secret: Some(Secret::new(b"ours")), ..options() };
    let tiered = Tiered::new(vec![tier("shared", shared.clone())], sealed.clone());
    tiered.put(&key(1), &record("passed")).await.unwrap();
    assert_eq!(tiered.get(&key(1)).await, Some(record("passed")));
    // Writes by an attacker: a record without a seal, one with another seal, and one of our records
    // under another key.
    shared.put(&key(2), record("forged").encode(&key(2)), None).await.unwrap();
    shared.put(&key(3), record("forged").seal(&key(3), &Secret::new(b"his")), None).await.unwrap();
    let ours = shared.get(&key(1)).await.unwrap().unwrap();
    shared.put(&key(4), ours, None).await.unwrap();
    for number in 2..5 {
        assert_eq!(tiered.get(&key(number)).await, None);
    }
    let reasons: Vec<_> = tiered.quarantined().into_iter().map(|bad| (bad.key, bad.reason)).collect();
    let expected = [
        (key(2), RecordError::Untrusted { sealed: false }),
        (key(3), RecordError::Corrupt),
        (key(4), RecordError::Corrupt),
    ];
    assert_eq!(reasons, expected);
    assert_eq!(shared.list().await.unwrap(), [key(1)], "invalid records are removed");
}

#[tokio::test]
async fn each_tier_has_its_own_secrets_which_can_be_replaced() {
    let (local, server) = (memory(), memory());
    let open = |secrets: &[&str]| {
        let secrets = secrets.iter().map(|secret| Secret::new(secret.as_bytes())).collect();
        let tiers = vec![tier("local", local.clone()), Tier { secrets, ..tier("server", server.clone()) }];
        Tiered::new(tiers, options())
    };
    let old = open(&["old"]);
    old.put(&key(1), &record("one")).await.unwrap();
    old.put(&key(2), &record("two")).await.unwrap();
    let stored = server.get(&key(1)).await.unwrap().unwrap();
    assert_eq!(Record::unseal(&key(1), &stored, 1, &Secret::new(b"old")), Ok(record("one")));
    let stored = local.get(&key(1)).await.unwrap().unwrap();
    assert_eq!(Record::decode(&key(1), &stored, 1), Ok(record("one")), "the local tier has no secret");
    // Both secrets are accepted, and the new one seals. What is found is copied without a seal.
    local.remove(&key(1)).await.unwrap();
    let both = open(&["new", "old"]);
    assert_eq!(both.get(&key(1)).await, Some(record("one")));
    let copied = local.get(&key(1)).await.unwrap().unwrap();
    assert_eq!(Record::decode(&key(1), &copied, 1), Ok(record("one")));
    both.put(&key(3), &record("three")).await.unwrap();
    // A user without the secret of a record misses it, and leaves it to others.
    for number in 1..=3 {
        local.remove(&key(number)).await.unwrap();
    }
    server.put(&key(4), record("forged").encode(&key(4)), None).await.unwrap();
    let new = open(&["new"]);
    let found = new.get_many(&[key(1), key(3), key(4)]).await;
    assert_eq!(found, [None, Some(record("three")), None]);
    assert_eq!(old.get(&key(3)).await, Some(record("three")), "from the local tier");
    local.remove(&key(3)).await.unwrap();
    assert_eq!(old.get(&key(3)).await, None);
    assert_eq!(server.stats().entries, 4, "untrusted records stay");
    let stats = new.stats();
    assert_eq!((stats.tiers[1].untrusted_records, stats.tiers[1].invalid_records), (2, 2));
    assert_eq!(stats.tiers[0].untrusted_records, 0);
}

#[tokio::test]
async fn invalid_records_of_a_read_only_tier_are_read_once() {
    let shared = memory();
    shared.put(&key(1), "garbage".into(), None).await.unwrap();
    let read_only = Tier { access: AccessMode::ReadOnly, ..tier("shared", shared.clone()) };
    let tiered = Tiered::new(vec![read_only], options());
    for _ in 0..3 {
        assert_eq!(tiered.get(&key(1)).await, None);
    }
    assert_eq!(tiered.get_many(&[key(1)]).await, [None]);
    let stats = tiered.stats();
    assert_eq!(
        (stats.tiers[0].invalid_records, stats.tiers[0].misses, tiered.quarantined().len()),
        (1, 4, 1)
    );
    assert_eq!(tiered.quarantined()[0].bytes, "garbage");
}

#[tokio::test]
async fn get_many_reads_each_record_from_the_tier_that_has_it() {
    let (fast, slow) = (memory(), memory());
    fast.put(&key(1), record("fast").encode(&key(1)), None).await.unwrap();
    slow.put(&key(2), record("slow").encode(&key(2)), None).await.unwrap();
    slow.put(&key(3), "garbage".into(), None).await.unwrap();
    let tiered = Tiered::new(vec![tier("fast", fast.clone()), tier("slow", slow)], options());
    let found = tiered.get_many(&[key(3), key(2), key(1), key(4)]).await;
    assert_eq!(found, [None, Some(record("slow")), Some(record("fast")), None]);
    let stats = tiered.stats();
    assert_eq!((stats.hits, stats.misses, stats.tiers[0].backfills), (2, 2, 1));
    assert!(fast.get(&key(2)).await.unwrap().is_some());
}

#[tokio::test]
async fn clear_removes_all_listed_records() {
    let (one, two) = (memory(), memory());
    let tiered = Tiered::new(vec![tier("one", one.clone()), tier("two", two.clone())], options());
    for number in 0..5 {
        tiered.put(&key(number), &record("old")).await.unwrap();
    }
    assert_eq!(tiered.clear().await, 10);
    assert_eq!((one.stats().entries, two.stats().entries), (0, 0));
}

#[tokio::test]
async fn hot_records_are_restored_with_their_heat() {
    let durable = memory();
    let open = |memory: &Arc<MemoryBackend>| {
        let tiers = vec![tier("memory", memory.clone()), tier("durable", durable.clone())];
        Tiered::new(tiers, TieredOptions { secret: Some(Secret::new(b"ours")), ..options() })
    };
    let before = memory();
    let tiered = open(&before);
    for number in 0..20 {
        tiered.put(&key(number), &record("value")).await.unwrap();
    }
    for number in [3, 5, 7, 3, 5, 7] {
        tiered.get(&key(number)).await.unwrap();
    }
    tiered.save_heat(&before, 3).await.unwrap();
    let heat = before.heat(3);
    let after = memory();
    let restarted = open(&after);
    assert_eq!(restarted.warm(&after).await, 3);
    let mut keys: Vec<Key> = after.list().await.unwrap();
    keys.retain(|listed| (0..20).any(|number| key(number) == *listed));
    keys.sort_unstable();
    let mut expected = [key(3), key(5), key(7)];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    let warmed = after.heat(3);
    assert!(
        heat.iter().all(|(key, heat)| warmed.iter().any(|(other, now)| other == key && now >= heat)),
        "{heat:?} {warmed:?}"
    );
    let slow_before = restarted.stats().tiers[1].hits;
    assert_eq!(restarted.get(&key(5)).await, Some(record("value")));
    assert_eq!(restarted.stats().tiers[1].hits, slow_before, "from memory");
    assert_eq!(Tiered::new(vec![], options()).warm(&memory()).await, 0);
}

#[tokio::test]
async fn predicted_records_are_prefetched() {
    let slow = memory();
    for number in 0..50 {
        slow.put(&key(number), record("slow").encode(&key(number)), None).await.unwrap();
    }
    let predictor = Some(Arc::new(Predictor::new(1000, 4).unwrap()));
    let fast = memory();
    let tiers = || vec![tier("fast", fast.clone()), tier("slow", slow.clone())];
    let tiered = Tiered::new(tiers(), TieredOptions { predictor, ..options() });
    let mut trail = Trail::default();
    for round in 0..4 {
        for number in 0..50 {
            assert_eq!(tiered.get_with_trail(&mut trail, &key(number)).await, Some(record("slow")));
            // With a single thread, yielding lets the prefetch finish before the next read.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        // Emptied, as if the fast tier had evicted everything.
        if round < 3 {
            for number in 0..50 {
                fast.remove(&key(number)).await.unwrap();
            }
        }
    }
    let stats = tiered.stats();
    // Nothing can be predicted in the first two rounds.
    assert!(stats.prefetched >= 60 && stats.prefetch_hits >= 60, "{stats:?}");
    assert!(stats.prefetched - stats.prefetch_hits <= 8, "too many prefetches were wasted: {stats:?}");
    assert!(stats.tiers[0].hits >= 60, "{stats:?}");
}
