//! Tests of tiers that write in the background, after the runtime of their task ended or came to a
//! standstill.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// A backend whose first writes never end. Counts the others.
#[derive(Debug)]
struct Hanging {
    hanging: AtomicUsize,
    puts: AtomicUsize,
    removals: AtomicUsize,
}

impl Hanging {
    fn new(hanging: usize) -> Self {
        Self { hanging: hanging.into(), puts: 0.into(), removals: 0.into() }
    }

    fn counts(&self) -> (usize, usize) {
        (self.puts.load(Ordering::Relaxed), self.removals.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl Backend for Hanging {
    async fn get(&self, _: &Key) -> Result<Option<Bytes>, BoxError> {
        Ok(None)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        Ok(vec![None; keys.len()])
    }

    async fn put(&self, _: &Key, _: Bytes, _: Option<Duration>) -> Result<(), BoxError> {
        let taken = |left: usize| left.checked_sub(1);
        if self.hanging.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok() {
            std::future::pending::<()>().await;
        }
        self.puts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn remove(&self, _: &Key) -> Result<(), BoxError> {
        self.removals.fetch_add(1, Ordering::Relaxed);
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
    let tiered = tiered(Arc::new(Hanging::new(usize::MAX)));
    runtime().block_on(async {
        tiered.put(&key(1), &record()).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(50), tiered.flush()).await;
        assert!(waiting.is_err(), "the flush waits for the write");
    });
    assert_eq!(tiered.stats().tiers[0].dropped, 1);
    assert!(!runtime().block_on(tiered.close()));
}

/// A runtime that somebody else drives. Its clock is paused, so waiting takes no time.
fn other_runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_flush_performs_the_writes_of_a_runtime_at_a_standstill() {
    // The task has not begun to run, or its first write hangs.
    for (hanging, yields) in [(0, 0), (1, 3)] {
        let (standing, backend) = (runtime(), Arc::new(Hanging::new(hanging)));
        let tiered = tiered(backend.clone());
        standing.block_on(async {
            for number in 0..3 {
                tiered.put(&key(number), &record()).await.unwrap();
            }
            tiered.remove(&key(0)).await;
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(backend.counts(), (0, 0));
        let flushed = other_runtime().block_on(async { tokio::time::timeout(HOUR, tiered.flush()).await });
        assert_eq!((flushed, backend.counts()), (Ok(true), (3, 1)), "{hanging}");
        // The former task does nothing more, and later writes have a task again.
        standing.block_on(async {
            tokio::task::yield_now().await;
            tiered.put(&key(9), &record()).await.unwrap();
            assert!(tokio::time::timeout(HOUR, tiered.flush()).await.unwrap());
        });
        assert_eq!((backend.counts(), tiered.stats().tiers[0].dropped), ((4, 1), 0));
    }
}

#[test]
fn a_removal_finds_room_in_the_queue_of_a_runtime_at_a_standstill() {
    let (standing, backend) = (runtime(), Arc::new(Hanging::new(0)));
    let tiered = tiered(backend.clone());
    standing.block_on(async {
        for number in 0..12 {
            let put = tiered.put(&key(number), &record()).await;
            assert_eq!(put.is_ok(), number < 10, "the queue has ten places");
        }
    });
    let other = other_runtime();
    let removed = other.block_on(async { tokio::time::timeout(HOUR, tiered.remove(&key(0))).await });
    let flushed = other.block_on(async { tokio::time::timeout(HOUR, tiered.flush()).await });
    assert_eq!((removed, flushed, backend.counts()), (Ok(()), Ok(true), (10, 1)));
    assert_eq!(tiered.stats().tiers[0].dropped, 2);
}

#[test]
fn a_flush_leaves_the_writes_to_a_runtime_that_runs() {
    let (running, backend) = (Builder::new_multi_thread().build().unwrap(), Arc::new(Hanging::new(0)));
    let tiered = tiered(backend.clone());
    running.block_on(async { tiered.put(&key(1), &record()).await.unwrap() });
    // Without timers, so that a move to this runtime is impossible.
    let without_timers = Builder::new_current_thread().build().unwrap();
    assert!(without_timers.block_on(tiered.flush()));
    assert_eq!(backend.counts(), (1, 0));
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
