//! Tests of tiers that write in the background, after the runtime of their task ended.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_cache::{
    Backend, BoxError, Capabilities, Key, KeyBuilder, MemoryBackend, OnFailure, Record, Tier, Tiered,
    TieredOptions, WriteMode,
};
use tokio::runtime::{Builder, Runtime};

fn key(number: u64) -> Key {
    KeyBuilder::new("write back", 1).number(number).finish()
}

fn record() -> Record {
    Record { schema: 1, created_ms: 0, cost: Duration::ZERO, tags: vec![], payload: "value".into() }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn tiered(backend: Arc<dyn Backend>) -> Tiered {
    let writes = WriteMode::Back { queued_max: 10 };
    let tier = Tier { writes, on_failure: OnFailure::Report, ..Tier::new("back", backend) };
    Tiered::new(vec![tier], TieredOptions::new(1))
}

#[test]
fn writes_after_the_runtime_ended_are_queued_in_the_next_one() {
    let backend = Arc::new(MemoryBackend::new(10, 1 << 20).unwrap());
    let tiered = tiered(backend.clone());
    for number in 0..3 {
        runtime().block_on(async {
            tiered.put(&key(number), &record()).await.unwrap();
            assert!(tiered.flush().await, "no write was lost");
            assert!(backend.get(&key(number)).await.unwrap().is_some(), "write {number} is done");
        });
    }
    runtime().block_on(async {
        tiered.remove(&key(0)).await;
        assert!(tiered.close().await);
        assert_eq!(backend.get(&key(0)).await.unwrap(), None);
    });
    assert_eq!(tiered.stats().tiers[0].dropped, 0);
}

#[test]
fn writes_lost_with_the_runtime_are_counted_and_fail_the_next_flush() {
    let tiered = tiered(Arc::new(MemoryBackend::new(10, 1 << 20).unwrap()));
    runtime().block_on(async {
        // The task of the queue does not run before the block ends.
        for number in 0..3 {
            tiered.put(&key(number), &record()).await.unwrap();
        }
    });
    assert_eq!(tiered.stats().tiers[0].dropped, 3);
    runtime().block_on(async {
        assert!(!tiered.flush().await, "three writes were lost");
        assert!(tiered.flush().await, "and were reported once");
    });
}

/// A backend whose writes never end.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl Backend for Hanging {
    async fn get(&self, _: &Key) -> Result<Option<Bytes>, BoxError> {
        Ok(None)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        Ok(vec![None; keys.len()])
    }

    async fn put(&self, _: &Key, _: Bytes, _: Option<Duration>) -> Result<(), BoxError> {
        std::future::pending().await
    }

    async fn remove(&self, _: &Key) -> Result<(), BoxError> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        Ok(Vec::new())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { list: true, ttl: true, shared: false, durable: false, value_bytes_max: None }
    }
}

#[test]
fn a_write_that_the_end_of_the_runtime_interrupts_is_lost() {
    let tiered = tiered(Arc::new(Hanging));
    runtime().block_on(async {
        tiered.put(&key(1), &record()).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(50), tiered.flush()).await;
        assert!(waiting.is_err(), "the flush waits for the write");
    });
    assert_eq!(tiered.stats().tiers[0].dropped, 1);
    assert!(!runtime().block_on(tiered.close()));
}

#[test]
fn without_a_runtime_writes_go_through() {
    let backend = Arc::new(MemoryBackend::new(10, 1 << 20).unwrap());
    let tiered = tiered(backend.clone());
    let put = poll_once(tiered.put(&key(1), &record())).unwrap();
    put.unwrap();
    let stored = poll_once(backend.get(&key(1))).unwrap();
    assert!(stored.unwrap().is_some());
}

/// Polls a future that needs neither a timer nor a waker.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
