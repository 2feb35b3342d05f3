//! Stores and clocks that panic.

use std::sync::Arc;

use greenwave_pooling::{HttpCache, HttpCacheOptions, HttpStore, MemoryHttpStore, StoredResponse};

use super::Origin;

/// A store whose calls panic.
#[derive(Debug)]
struct PanickingStore;

#[async_trait::async_trait]
impl HttpStore for PanickingStore {
    async fn get(&self, _: &str) -> Vec<StoredResponse> {
        tokio::task::yield_now().await;
        panic!("get")
    }

    async fn put(&self, _: &str, _: Vec<StoredResponse>) {
        tokio::task::yield_now().await;
        panic!("put")
    }

    async fn remove(&self, _: &str) {
        tokio::task::yield_now().await;
        panic!("remove")
    }
}

#[tokio::test]
async fn a_cache_whose_store_panics_passes_requests_on() {
    let origin = Origin::new(&[("cache-control", "max-age=60")]);
    let cache = HttpCache::new(Arc::new(PanickingStore), HttpCacheOptions::default());
    for _ in 0..3 {
        let (first, second) = tokio::join!(origin.get(&cache, &[]), origin.get(&cache, &[]));
        assert!(first.unwrap().status().is_success() && second.unwrap().status().is_success());
        assert_eq!(origin.get(&cache, &[("range", "bytes=0-1")]).await.unwrap().status(), 200);
        assert_eq!(origin.send(&cache, "DELETE", &[]).await.unwrap().status(), 200);
    }
    assert_eq!(origin.requests.lock().len(), 12);
}

#[tokio::test]
async fn a_cache_whose_clock_panics_uses_the_system_clock() {
    let origin = Origin::new(&[("cache-control", "max-age=60")]);
    let store = Arc::new(MemoryHttpStore::new(10, 1 << 20));
    let cache = HttpCache::with_clock(store, HttpCacheOptions::default(), || panic!("no clock"));
    for _ in 0..3 {
        assert_eq!(origin.get(&cache, &[]).await.unwrap().status(), 200);
    }
    assert_eq!(origin.requests.lock().len(), 1);
}
