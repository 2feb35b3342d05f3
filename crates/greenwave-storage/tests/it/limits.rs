//! Tests of size limits and disk budgets: rejected contents do not stop a store.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_storage::{
    AttemptOutcome, Attempts, BlobId, BoxError, ColdEntry, ColdTier, ColdTierStats, Error, MemoryColdTier,
    NewAttempt, SegmentColdTier, SegmentOptions, SharedColdTier, Store, StoreOptions,
};

use crate::{contents, on_disk, small_options};

/// A tier that reports one limit and enforces another.
#[derive(Debug, Default)]
struct Limited {
    cold: MemoryColdTier,
    said_bytes_max: Option<u64>,
    bytes_max: usize,
}

#[async_trait]
impl ColdTier for Limited {
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
        self.said_bytes_max
    }
    fn shared(&self) -> Option<&dyn SharedColdTier> {
        None
    }
    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        for entry in entries {
            if entry.value.len() > self.bytes_max {
                return Err(format!("{} bytes are too many", entry.value.len()).into());
            }
            self.cold.put_many(vec![entry]).await?;
        }
        Ok(())
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
async fn oversized_contents_are_rejected_by_the_put() {
    let cold = Arc::new(Limited { said_bytes_max: Some(100), bytes_max: 100, ..Limited::default() });
    let store = Store::open(small_options(), cold.clone()).unwrap();
    store.put("name", contents(1, 100)).await.unwrap();
    let base = store.resolve("name").await.unwrap().unwrap();
    for refused in [
        store.put("name", contents(2, 101)).await,
        store.put_with_base("name", contents(2, 101), &base).await,
        store.put_blob(contents(2, 101)).await,
        store.put_blob_with_base(contents(2, 101), &base).await,
    ] {
        assert!(matches!(refused, Err(Error::TooLarge { len: 101, max: 100 })), "{refused:?}");
    }
    assert_eq!(store.get("name").await.unwrap(), Some(contents(1, 100)));
    store.close().await.unwrap();
    let store = Store::open(small_options(), cold).unwrap();
    assert_eq!(store.get("name").await.unwrap(), Some(contents(1, 100)));
}

#[tokio::test]
#[ignore = "uses 2 GiB of memory: for long runs"]
async fn contents_over_a_gibibyte_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let store = on_disk(dir.path());
    store.put("before", contents(1, 10)).await.unwrap();
    let refused = store.put("large", vec![0; (1 << 30) + 1].into()).await;
    assert!(matches!(refused, Err(Error::TooLarge { max: 0x4000_0000, .. })), "{refused:?}");
    store.put("after", contents(2, 10)).await.unwrap();
    store.flush().await.unwrap();
    drop(store);
    assert_eq!(on_disk(dir.path()).list("").await.unwrap(), ["after", "before"]);
}

#[test]
fn a_segment_tier_reports_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let cold = SegmentColdTier::open(dir.path(), SegmentOptions::default()).unwrap();
    assert_eq!(cold.value_bytes_max(), Some(1 << 30));
}

#[tokio::test]
async fn a_flush_skips_entries_that_the_tier_rejects() {
    let cold = Arc::new(Limited { said_bytes_max: None, bytes_max: 500, ..Limited::default() });
    let store = Store::open(small_options(), cold.clone()).unwrap();
    for number in 0..40_u64 {
        store.put(&format!("large {number}"), contents(number, 501)).await.unwrap();
        if number % 8 == 0 {
            store.put(&format!("small {number}"), contents(number, 400)).await.unwrap();
        }
    }
    store.put("gone", contents(50, 10)).await.unwrap();
    let error = store.flush().await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("501 bytes"), "{error:?}");
    let attempts = Attempts::new(store.clone(), "attempts");
    let files = [("file".to_owned(), contents(60, 501))].into();
    attempts
        .record(
            "f",
            NewAttempt {
                files,
                outcome: AttemptOutcome::Passed,
                note: String::new(),
                ..NewAttempt::default()
            },
        )
        .await
        .unwrap();
    store.remove("gone").await.unwrap();
    assert!(store.flush().await.is_err());
    // Memory overflows because of earlier contents, so later puts succeed.
    for number in 100..300 {
        store.put("overflow", contents(number, 450)).await.unwrap();
    }
    assert!(store.sweep(&HashSet::from([BlobId::of(&contents(60, 501))])).await.is_err());
    for number in 0..40 {
        assert_eq!(store.get(&format!("large {number}")).await.unwrap(), Some(contents(number, 501)));
    }

    let other = Store::open(small_options(), cold).unwrap();
    let names = other.list("").await.unwrap();
    assert_eq!(names, ["overflow", "small 0", "small 16", "small 24", "small 32", "small 8"]);
    assert_eq!(other.get("overflow").await.unwrap(), Some(contents(299, 450)));
    assert_eq!(other.get("small 32").await.unwrap(), Some(contents(32, 400)));

    // Removing names frees the rejected contents.
    for name in store.list("").await.unwrap() {
        store.remove(&name).await.unwrap();
    }
    assert!(store.sweep(&HashSet::new()).await.unwrap() > 40);
    store.flush().await.unwrap();
    assert!(other.list("").await.unwrap().is_empty());
}

#[tokio::test]
async fn large_contents_are_put_after_others_were_spilled() {
    let memory_bytes_max = 4 << 20;
    let options = StoreOptions { memory_bytes_max, ..StoreOptions::default() };
    let store = Store::open(options, Arc::new(MemoryColdTier::default())).unwrap();
    let large = |index: u8| Bytes::from(vec![index; 3 << 19]);
    let mut ids = Vec::new();
    for index in 0..8 {
        ids.push(store.put_blob(large(index)).await.unwrap());
    }
    let stats = store.stats();
    assert!(stats.memory_bytes_peak <= memory_bytes_max, "{stats:?}");
    assert!(stats.spilled_blobs > 0, "{stats:?}");
    for (index, id) in (0..).zip(&ids) {
        assert_eq!(store.get_blob(id).await.unwrap(), Some(large(index)));
    }
}

fn budget(dir: &std::path::Path, disk_bytes_max: u64) -> Store {
    let options = SegmentOptions { disk_bytes_max: Some(disk_bytes_max), ..SegmentOptions::default() };
    let cold = SegmentColdTier::open(dir, options).unwrap();
    Store::open(StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() }, Arc::new(cold))
        .unwrap()
}

/// Puts contents until a put fails. Returns the number of puts.
async fn fill(store: &Store, len: usize) -> u64 {
    let mut put = 0;
    while store.put(&format!("name {put}"), contents(put, len)).await.is_ok() && put < 1000 {
        put += 1;
    }
    put + 1
}

#[tokio::test]
async fn removals_free_an_exhausted_budget() {
    for (disk_bytes_max, len) in [(1 << 20, 50_000), (256 << 10, 3000), (64 << 10, 20_000), (64 << 10, 500)] {
        for reopened in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut store = budget(dir.path(), disk_bytes_max);
            let put = fill(&store, len).await;
            assert!((3..1000).contains(&put), "{put}");
            assert!(store.flush().await.is_err());
            if reopened {
                drop(store);
                store = budget(dir.path(), disk_bytes_max);
            }
            for name in store.list("").await.unwrap().iter().skip(1) {
                assert!(store.remove(name).await.unwrap());
            }
            let names = store.list("").await.unwrap();
            assert!(store.sweep(&HashSet::new()).await.unwrap() > 0);
            store.flush().await.unwrap();
            assert_eq!(store.list("").await.unwrap(), names);
            for name in &names {
                assert!(store.get(name).await.unwrap().is_some());
            }
            let again = fill(&store, len).await;
            assert!(again * 2 > put, "{put} fitted into {disk_bytes_max} first, then {again}");
        }
    }
}
