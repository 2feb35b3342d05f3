//! Tiers: order, back-fill, age, damage, and backends that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_cache::{
    Access, Backend, BoxError, Capabilities, Key, KeyBuilder, MemoryBackend, Record, Tier, Tiered,
    TieredOptions,
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
    Tier { name: name.to_owned(), backend, access: Access::ReadWrite }
}

/// Always the same instant, so that age depends on nothing else.
fn options() -> TieredOptions {
    TieredOptions { clock: || 10_000, ..TieredOptions::new(1) }
}

#[tokio::test]
async fn a_hit_fills_the_tiers_before() {
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
    let read_only = Tier { access: Access::ReadOnly, ..tier("shared", shared.clone()) };
    let tiered = Tiered::new(vec![read_only, tier("own", first.clone())], options());
    tiered.put(&key(1), &record("mine")).await;
    assert!(tiered.get(&key(1)).await.is_some());
    tiered.remove(&key(1)).await;
    assert_eq!((shared.stats().insertions, first.stats().insertions), (0, 1));
    assert_eq!(tiered.get(&key(1)).await, None);
}

#[tokio::test]
async fn what_does_not_verify_is_passed_over_and_forgotten() {
    let (fast, slow) = (memory(), memory());
    fast.put(&key(1), "rubbish".into(), None).await.unwrap();
    slow.put(&key(1), record("good").encode(&key(1)), None).await.unwrap();
    fast.put(&key(2), record("stray").encode(&key(1)), None).await.unwrap();
    let other_schema = Record { schema: 2, ..record("new") };
    fast.put(&key(3), other_schema.encode(&key(3)), None).await.unwrap();
    let tiered = Tiered::new(vec![tier("fast", fast.clone()), tier("slow", slow)], options());
    assert_eq!(tiered.get(&key(1)).await, Some(record("good")));
    assert_eq!(tiered.get(&key(2)).await, None);
    assert_eq!(tiered.get(&key(3)).await, None);
    assert_eq!(tiered.stats().tiers[0].bad_records, 3);
    assert_eq!(fast.list().await.unwrap(), [key(1)], "and the good one took the bad one's place");
}

#[tokio::test]
async fn a_record_grows_too_old() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let options = TieredOptions {
        age_max: Some(Duration::from_secs(5)),
        clock: || NOW.load(Ordering::Relaxed),
        ..TieredOptions::new(1)
    };
    let tiered = Tiered::new(vec![tier("memory", memory())], options);
    tiered.put(&key(1), &record("young")).await;
    NOW.store(4_999, Ordering::Relaxed);
    assert!(tiered.get(&key(1)).await.is_some());
    NOW.store(5_000, Ordering::Relaxed);
    assert_eq!(tiered.get(&key(1)).await, None);
}

/// Fails always.
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
async fn a_tier_that_fails_fails_no_caller() {
    let tiered = Tiered::new(vec![tier("dead", Arc::new(Dead)), tier("memory", memory())], options());
    tiered.put(&key(1), &record("kept")).await;
    assert_eq!(tiered.get(&key(1)).await, Some(record("kept")));
    assert_eq!(tiered.get(&key(2)).await, None);
    tiered.remove(&key(1)).await;
    assert!(!tiered.flush().await);
    assert!(!tiered.close().await);
    let stats = tiered.stats();
    assert_eq!((stats.hits, stats.misses), (1, 1));
    assert_eq!((stats.tiers[0].errors, stats.tiers[1].errors), (7, 0));
}

#[tokio::test]
async fn no_tiers_is_a_cache_that_is_off() {
    let tiered = Tiered::new(vec![], options());
    tiered.put(&key(1), &record("lost")).await;
    assert_eq!(tiered.get(&key(1)).await, None);
    assert!(tiered.flush().await && tiered.close().await);
}
