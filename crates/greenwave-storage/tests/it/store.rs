//! Tests of names, contents, the memory budget, and failing cold tiers.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_storage::{
    BlobId, BoxError, ColdEntry, ColdTier, ColdTierStats, Error, MemoryColdTier, NAME_BYTES_MAX,
    SharedColdTier, Store, StoreOptions,
};

use crate::{contents, on_disk, small, small_options};

#[tokio::test]
async fn equal_contents_are_stored_once() {
    let store = small(Arc::default());
    let one = store.put("one", contents(1, 1000)).await.unwrap();
    let used = store.stats().memory_bytes_used;
    let two = store.put("two", contents(1, 1000)).await.unwrap();
    assert_eq!(one, two);
    assert_eq!(one, BlobId::of(&contents(1, 1000)));
    assert_eq!(store.stats().hot_blobs, 1);
    assert!(store.stats().memory_bytes_used - used < 300);
}

#[tokio::test]
async fn names_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = on_disk(dir.path());
    let id = store.put("päth/ünïcode 🚦", contents(1, 500)).await.unwrap();
    store.put("gone", contents(2, 500)).await.unwrap();
    store.link("also", id).await.unwrap();
    store.flush().await.unwrap();
    assert!(store.remove("gone").await.unwrap());
    assert!(!store.remove("gone").await.unwrap());
    store.close().await.unwrap();
    drop(store);

    let store = on_disk(dir.path());
    assert_eq!(store.list("").await.unwrap(), ["also", "päth/ünïcode 🚦"]);
    assert_eq!(store.get("also").await.unwrap().unwrap(), contents(1, 500));
    assert_eq!(store.resolve("päth/ünïcode 🚦").await.unwrap(), Some(id));
    assert_eq!(store.get("gone").await.unwrap(), None);
}

#[tokio::test]
async fn memory_stays_within_its_budget_and_everything_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = on_disk(dir.path());
    let mut ids = Vec::new();
    for number in 0..300 {
        ids.push(store.put(&format!("name {number}"), contents(number, 1000)).await.unwrap());
        let stats = store.stats();
        assert!(stats.memory_bytes_used <= stats.memory_bytes_max, "{stats:?}");
    }
    let stats = store.stats();
    assert!(stats.spillover_active && stats.spilled_blobs > 200, "{stats:?}");
    // Overhead of one put: the contents, the name, and the bookkeeping of both.
    assert!(stats.memory_bytes_peak <= stats.memory_bytes_max + 1500, "{stats:?}");
    for number in 0..300 {
        assert_eq!(store.get(&format!("name {number}")).await.unwrap().unwrap(), contents(number, 1000));
    }
    let many = store.get_many(&ids).await.unwrap();
    assert!(many.iter().zip(0..).all(|(found, number)| *found == Some(contents(number, 1000))));
    assert!(store.stats().memory_bytes_used <= store.stats().memory_bytes_max);
}

#[tokio::test]
async fn names_stay_within_their_share_of_memory() {
    let store = small(Arc::default());
    store.put("hot", contents(1, 30_000)).await.unwrap();
    for number in 0..2_000 {
        store.put(&format!("name {number}"), Bytes::from_static(b"same")).await.unwrap();
        store.get("hot").await.unwrap().unwrap();
    }
    let stats = store.stats();
    assert!(stats.memory_bytes_used <= stats.memory_bytes_max, "{stats:?}");
    assert_eq!(stats.cold_hits, 0, "names pushed hot contents out");
    assert_eq!(store.list("name 199").await.unwrap().len(), 11);
    assert_eq!(store.get("name 0").await.unwrap().unwrap(), "same");
}

#[tokio::test]
async fn a_scan_does_not_replace_the_contents_of_memory() {
    let cold = Arc::new(MemoryColdTier::new());
    let filler = small(cold.clone());
    let mut ids = Vec::new();
    for number in 0..200 {
        ids.push(filler.put_blob(contents(number, 1000)).await.unwrap());
    }
    filler.close().await.unwrap();

    let store = small(cold);
    for id in &ids {
        store.get_blob(id).await.unwrap().unwrap();
    }
    assert_eq!((store.stats().promoted_blobs, store.stats().hot_blobs), (0, 0));
    for _ in 0..2 {
        store.get_blob(&ids[7]).await.unwrap().unwrap();
    }
    assert_eq!((store.stats().promoted_blobs, store.stats().hot_blobs), (1, 1));
    let hits = store.stats().hot_hits;
    store.get_blob(&ids[7]).await.unwrap().unwrap();
    assert_eq!(store.stats().hot_hits, hits + 1);
}

#[tokio::test]
async fn spillover_ends_when_contents_are_removed() {
    let store = small(Arc::default());
    for number in 0..100 {
        store.put("same name", contents(number, 1000)).await.unwrap();
    }
    assert!(store.stats().spillover_active);
    assert_eq!(store.sweep(&HashSet::new()).await.unwrap(), 99);
    assert!(!store.stats().spillover_active);
    assert_eq!(store.get("same name").await.unwrap().unwrap(), contents(99, 1000));
}

#[tokio::test]
async fn a_sweep_preserves_named_and_kept_contents() {
    let store = small(Arc::default());
    let named = store.put("name", contents(1, 10)).await.unwrap();
    let wanted = store.put_blob(contents(2, 10)).await.unwrap();
    let unwanted = store.put_blob(contents(3, 10)).await.unwrap();
    assert_eq!(store.sweep(&HashSet::from([wanted])).await.unwrap(), 1);
    assert!(store.get_blob(&named).await.unwrap().is_some());
    assert!(store.get_blob(&wanted).await.unwrap().is_some());
    assert_eq!(store.get_blob(&unwanted).await.unwrap(), None);
}

#[tokio::test]
async fn invalid_names_and_options_are_rejected() {
    let store = small(Arc::default());
    for name in ["", &"x".repeat(NAME_BYTES_MAX + 1)] {
        let error = store.put(name, Bytes::new()).await.unwrap_err();
        assert!(matches!(error, Error::InvalidName { max: NAME_BYTES_MAX, .. }), "{error}");
    }
    let refused = |options| Store::open(options, Arc::new(MemoryColdTier::new())).unwrap_err().to_string();
    for threshold in [0.0, -1.0, 1.1, f64::NAN] {
        let message = refused(StoreOptions { spillover_threshold: threshold, ..StoreOptions::default() });
        assert!(message.contains("spillover_threshold") && message.contains("up to 1"), "{message}");
    }
    assert!(refused(StoreOptions { promote_after: 0, ..StoreOptions::default() }).contains("promote_after"));
    assert!(
        refused(StoreOptions { memory_bytes_max: 10, ..StoreOptions::default() })
            .contains("memory_bytes_max")
    );
}

#[tokio::test]
async fn reclaiming_does_not_change_results() {
    let cold = Arc::new(MemoryColdTier::new());
    let store = Store::open(StoreOptions { reclaim: true, ..small_options() }, cold).unwrap();
    for number in 0..200 {
        store.put(&number.to_string(), contents(number, 1000)).await.unwrap();
    }
    assert_eq!(store.get("0").await.unwrap().unwrap(), contents(0, 1000));
}

/// A cold tier that fails or returns wrong values on request.
#[derive(Debug, Default)]
struct Faulty {
    cold: MemoryColdTier,
    failing: AtomicBool,
    lying: AtomicBool,
}

impl Faulty {
    fn check(&self) -> Result<(), BoxError> {
        if self.failing.load(Ordering::Relaxed) { Err("no space left".into()) } else { Ok(()) }
    }
}

#[async_trait]
impl ColdTier for Faulty {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        self.check()?;
        let value = self.cold.get(key).await?;
        let lie = self.lying.load(Ordering::Relaxed) && key[0] == b'b';
        Ok(value.map(|value| if lie { Bytes::from_static(b"lie") } else { value }))
    }
    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        self.check()?;
        self.cold.get_many(keys).await
    }
    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        self.cold.contains_many(keys).await
    }
    fn value_bytes_max(&self) -> Option<u64> {
        None
    }
    fn shared(&self) -> Option<&dyn SharedColdTier> {
        None
    }
    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        self.check()?;
        self.cold.put_many(entries).await
    }
    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        self.check()?;
        self.cold.remove_many(keys).await
    }
    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        self.cold.list(prefix).await
    }
    async fn flush(&self) -> Result<(), BoxError> {
        self.check()
    }
    async fn close(&self) -> Result<(), BoxError> {
        self.check()
    }
    fn stats(&self) -> ColdTierStats {
        self.cold.stats()
    }
}

#[tokio::test]
async fn a_failing_cold_tier_loses_nothing() {
    let cold = Arc::new(Faulty::default());
    let store = Store::open(small_options(), cold.clone()).unwrap();
    cold.failing.store(true, Ordering::Relaxed);
    let mut failures = 0;
    for number in 0..100 {
        failures += u32::from(store.put(&number.to_string(), contents(number, 1000)).await.is_err());
    }
    assert!(failures > 10);
    let error = store.flush().await.unwrap_err();
    assert!(matches!(error, Error::ColdTier { .. }), "{error}");
    for number in 0..100 {
        assert_eq!(store.get(&number.to_string()).await.unwrap().unwrap(), contents(number, 1000));
    }
    cold.failing.store(false, Ordering::Relaxed);
    store.put("recovered", contents(7, 10)).await.unwrap();
    assert!(store.stats().memory_bytes_used <= store.stats().memory_bytes_max);
}

#[tokio::test]
async fn contents_that_do_not_match_their_hash_are_missing_until_put_again() {
    let cold = Arc::new(Faulty::default());
    let writer = Store::open(small_options(), cold.clone()).unwrap();
    let id = writer.put("name", contents(1, 100)).await.unwrap();
    writer.close().await.unwrap();
    let store = Store::open(small_options(), cold.clone()).unwrap();
    cold.lying.store(true, Ordering::Relaxed);
    assert_eq!(store.get("name").await.unwrap(), None);
    assert_eq!(store.stats().corrupt_blobs, 1);
    cold.lying.store(false, Ordering::Relaxed);
    store.put_blob(contents(1, 100)).await.unwrap();
    store.close().await.unwrap();
    let again = Store::open(small_options(), cold).unwrap();
    assert_eq!(again.get_blob(&id).await.unwrap().unwrap(), contents(1, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_can_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = on_disk(dir.path());
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..40 {
                    let (name, number) = (format!("{task}/{round}"), task * 1000 + round);
                    store.put(&name, contents(number, 700)).await.unwrap();
                    assert_eq!(store.get(&name).await.unwrap().unwrap(), contents(number, 700));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.list("").await.unwrap().len(), 320);
    assert!(store.stats().memory_bytes_used <= store.stats().memory_bytes_max);
}

/// A cold tier whose writes wait for a permit.
#[derive(Debug)]
struct Gated {
    cold: MemoryColdTier,
    arrived: tokio::sync::Semaphore,
    open: tokio::sync::Semaphore,
}

#[async_trait]
impl ColdTier for Gated {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        self.cold.get(key).await
    }
    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        self.cold.get_many(keys).await
    }
    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        self.cold.contains_many(keys).await
    }
    fn value_bytes_max(&self) -> Option<u64> {
        None
    }
    fn shared(&self) -> Option<&dyn SharedColdTier> {
        None
    }
    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        self.arrived.add_permits(1);
        self.open.acquire().await?.forget();
        self.cold.put_many(entries).await
    }
    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        self.cold.remove_many(keys).await
    }
    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        self.cold.list(prefix).await
    }
    async fn flush(&self) -> Result<(), BoxError> {
        Ok(())
    }
    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }
    fn stats(&self) -> ColdTierStats {
        self.cold.stats()
    }
}

#[tokio::test]
async fn changes_made_during_a_flush_are_not_lost() {
    let closed = || tokio::sync::Semaphore::new(0);
    let cold = Arc::new(Gated { cold: MemoryColdTier::new(), arrived: closed(), open: closed() });
    let store = Store::open(small_options(), cold.clone()).unwrap();
    store.put("name", contents(1, 100)).await.unwrap();
    let flush = tokio::spawn({
        let store = store.clone();
        async move { store.flush().await }
    });
    // The first permit lets the contents through. The name then changes while it is written.
    cold.arrived.acquire().await.unwrap().forget();
    cold.open.add_permits(1);
    cold.arrived.acquire().await.unwrap().forget();
    store.put("name", contents(2, 100)).await.unwrap();
    assert_eq!(store.get("name").await.unwrap().unwrap(), contents(2, 100));
    cold.open.add_permits(100);
    flush.await.unwrap().unwrap();
    store.flush().await.unwrap();
    drop(store);
    let again = Store::open(small_options(), cold).unwrap();
    assert_eq!(again.get("name").await.unwrap().unwrap(), contents(2, 100));
}

#[tokio::test]
async fn a_put_dropped_while_waiting_leaves_a_consistent_state() {
    let closed = || tokio::sync::Semaphore::new(0);
    let cold = Arc::new(Gated { cold: MemoryColdTier::new(), arrived: closed(), open: closed() });
    let store = Store::open(small_options(), cold.clone()).unwrap();
    let filler = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..100 {
                store.put(&number.to_string(), contents(number, 1000)).await.unwrap();
            }
        }
    });
    cold.arrived.acquire().await.unwrap().forget();
    filler.abort();
    assert!(filler.await.unwrap_err().is_cancelled());
    let names = store.list("").await.unwrap();
    cold.open.add_permits(1000);
    store.put("more", contents(1000, 1000)).await.unwrap();
    for name in names {
        let number = name.parse().unwrap();
        assert_eq!(store.get(&name).await.unwrap().unwrap(), contents(number, 1000));
    }
    assert!(store.stats().memory_bytes_used <= store.stats().memory_bytes_max);
}
