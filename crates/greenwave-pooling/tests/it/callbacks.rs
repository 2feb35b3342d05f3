//! Panics in user code, and unusable connections. Each fails the call during which it occurs, with
//! a specific error, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_pooling::{
    BatchOptions, Batcher, Error, Frame, Framing, Manager, Multiplexed, MultiplexedOptions, ObjectPool, Pool,
    PoolOptions, async_trait,
};

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Fault {
    None,
    ConnectPanics,
    ConnectFails,
    IsBroken,
    IsBrokenPanics,
    CheckPanics,
}

/// A manager with one fault, until `is_healthy` is set.
#[derive(Debug)]
struct Faulty {
    fault: Fault,
    is_healthy: AtomicBool,
    connects: AtomicUsize,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, is_healthy: AtomicBool::new(false), connects: AtomicUsize::new(0) }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault && !self.is_healthy.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Manager for Faulty {
    type Connection = usize;
    type Error = std::io::Error;

    async fn connect(&self) -> Result<usize, std::io::Error> {
        let number = self.connects.fetch_add(1, Ordering::Relaxed);
        assert!(!self.has(Fault::ConnectPanics), "boom");
        if self.has(Fault::ConnectFails) { Err(std::io::Error::other("refused")) } else { Ok(number) }
    }

    async fn check(&self, _: &mut usize) -> Result<(), std::io::Error> {
        assert!(!self.has(Fault::CheckPanics), "boom");
        Ok(())
    }

    fn is_broken(&self, _: &mut usize) -> bool {
        assert!(!self.has(Fault::IsBrokenPanics), "boom");
        self.has(Fault::IsBroken)
    }
}

fn options() -> PoolOptions {
    PoolOptions { size_min: 0, size_max: 2, ..PoolOptions::default() }
}

fn connects(pool: &Pool<Faulty>) -> usize {
    pool.manager().connects.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_faulty_manager_fails_each_call_once_until_it_recovers() {
    for (fault, expected) in [
        (Fault::ConnectPanics, "`connect` panicked: boom"),
        (Fault::ConnectFails, "cannot connect"),
        (Fault::IsBroken, "the new connection was broken immediately"),
        (Fault::IsBrokenPanics, "`is_broken` panicked: boom"),
    ] {
        let pool = Pool::new(Faulty::new(fault), options());
        for calls in 1..4 {
            assert_eq!(pool.get().await.unwrap_err().to_string(), expected);
            assert_eq!(connects(&pool), calls, "one connect per call");
        }
        let all = tokio::join!(pool.get(), pool.get(), pool.get());
        assert!(all.0.is_err() && all.1.is_err() && all.2.is_err());
        assert_eq!((connects(&pool), pool.stats().size), (6, 0), "{fault:?}");
        pool.manager().is_healthy.store(true, Ordering::Relaxed);
        assert!(pool.get().await.is_ok(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_check_closes_the_connection_and_the_caller_gets_another() {
    let pool = Pool::new(Faulty::new(Fault::CheckPanics), options());
    assert_eq!(*pool.get().await.unwrap(), 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(*pool.get().await.unwrap(), 1);
    assert_eq!((pool.stats().discarded, pool.stats().size), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_return_panics_is_closed() {
    let pool = Pool::new(Faulty::new(Fault::IsBrokenPanics), options());
    pool.manager().is_healthy.store(true, Ordering::Relaxed);
    let lease = pool.get().await.unwrap();
    pool.manager().is_healthy.store(false, Ordering::Relaxed);
    drop(lease);
    assert_eq!((pool.stats().discarded, pool.stats().size), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn restoring_the_minimum_backs_off_while_connects_fail() {
    let every =
        PoolOptions { size_min: 3, size_max: 4, idle_timeout: Some(Duration::from_millis(40)), ..options() };
    for fault in [Fault::ConnectFails, Fault::IsBroken, Fault::ConnectPanics, Fault::IsBrokenPanics] {
        let pool = Pool::new(Faulty::new(fault), PoolOptions { seed: Some(1), ..every.clone() });
        assert!(pool.get().await.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let first = connects(&pool);
        assert!((6..=60).contains(&first), "{first} connects in the first second of {fault:?}");
        tokio::time::sleep(Duration::from_secs(600)).await;
        let in_ten_minutes = connects(&pool) - first;
        assert!((60..=360).contains(&in_ten_minutes), "{in_ten_minutes}");
        // No caller waits for the background connects.
        pool.manager().is_healthy.store(true, Ordering::Relaxed);
        pool.warm_up().await.unwrap();
        assert_eq!(pool.stats().idle, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_observer_does_not_break_the_pool() {
    let pool = Pool::with_observer(Faulty::new(Fault::None), options(), |_| panic!("boom"));
    for _ in 0..3 {
        pool.get().await.unwrap().discard();
    }
    assert_eq!((pool.stats().created, pool.stats().discarded), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_handler_fails_only_its_batch() {
    let before = Batcher::new(BatchOptions::default(), |numbers: Vec<u32>| {
        assert!(numbers[0] != 1, "boom");
        async move { numbers }
    });
    let inside = Batcher::new(BatchOptions::default(), async |numbers: Vec<u32>| {
        assert!(numbers[0] != 1, "boom");
        numbers
    });
    let splitting: Batcher<u32, Result<u32, String>> = Batcher::bisecting(
        BatchOptions::default(),
        |_| 1,
        |numbers: Vec<u32>| {
            assert!(numbers[0] != 1, "boom");
            async move { Ok::<_, String>(numbers) }
        },
    );
    for batcher in [before, inside] {
        assert_eq!(batcher.submit(1).await.unwrap_err().to_string(), "`handler` panicked: boom");
        assert_eq!(batcher.submit(2).await.unwrap(), 2);
    }
    assert_eq!(splitting.submit(1).await.unwrap_err().to_string(), "`handler` panicked: boom");
    assert_eq!(splitting.submit(2).await.unwrap(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_weigher_fails_only_its_request() {
    let weigh = |number: &u32| {
        assert!(*number != 1, "boom");
        1
    };
    let batcher = Batcher::with_weigher(BatchOptions::default(), weigh, async |numbers: Vec<u32>| numbers);
    let (bad, good) = tokio::join!(batcher.submit(1), batcher.submit(2));
    assert_eq!(bad.unwrap_err().to_string(), "`weigh` panicked: boom");
    assert_eq!((good.unwrap(), batcher.submit(3).await.unwrap()), (2, 3));
}

/// A request that panics when it is dropped, if it is 1.
#[derive(Debug, PartialEq, Eq)]
struct DropPanics(u32);

impl Drop for DropPanics {
    fn drop(&mut self) {
        assert!(self.0 != 1, "boom");
    }
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_request_that_panics_when_dropped_does_not_end_the_batcher() {
    let batcher = Batcher::new(BatchOptions::default(), async |requests: Vec<DropPanics>| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        requests.iter().map(|request| request.0).collect()
    });
    let first = batcher.submit(DropPanics(2));
    let abandoned = async {
        // The first request is in flight, so this one waits.
        tokio::time::sleep(Duration::from_millis(100)).await;
        tokio::time::timeout(Duration::from_millis(100), batcher.submit(DropPanics(1))).await
    };
    let (first, abandoned) = tokio::join!(first, abandoned);
    assert_eq!(first.unwrap(), 2);
    assert!(abandoned.is_err());
    assert_eq!(batcher.submit(DropPanics(5)).await.unwrap(), 5);
}

#[test]
fn an_object_whose_reset_panics_is_dropped() {
    let objects = ObjectPool::new(2, || 1, |_: &mut i32| panic!("boom"));
    drop(objects.get());
    assert_eq!((objects.stats().idle, objects.stats().dropped), (0, 1));
}

/// A framing of single bytes. Some bytes make it panic.
#[derive(Debug, Clone)]
struct Bytes;

impl Framing for Bytes {
    type Request = u8;
    type Response = u8;

    fn encode(&mut self, _: u64, request: u8, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        assert!(request != 1, "boom");
        bytes.push(request);
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8]) -> std::io::Result<Option<Frame<u8>>> {
        let Some(&response) = bytes.first() else { return Ok(None) };
        assert!(response != 2, "boom");
        Ok(Some(Frame { bytes: 1, id: None, response }))
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_framing_breaks_its_connection() {
    for (bad, expected) in [(1, "`encode` panicked: boom"), (2, "`decode` panicked: boom")] {
        let (ours, mut theirs) = tokio::io::duplex(64);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(&mut theirs);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let line = Multiplexed::new(ours, Bytes, MultiplexedOptions::default());
        assert_eq!(line.request(7).await.unwrap(), 7);
        let Err(Error::ConnectionLost { source }) = line.request(bad).await else { panic!("it breaks") };
        assert_eq!(source.to_string(), expected);
        assert!(line.is_broken() && Arc::strong_count(&source) >= 1);
    }
}

/// Each layer around a service or a classifier that panics fails the call, and admits the next.
#[cfg(feature = "tower")]
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_layer_fails_its_call() {
    use greenwave_pooling::{
        BoxError, CircuitBreaker, CircuitBreakerLayer, CircuitBreakerOptions, Classifier, Limit, Limiter,
        LimiterLayer, Retry, RetryLayer, Retryability,
    };
    use tower::{ServiceBuilder, ServiceExt, service_fn};

    let service = service_fn(async |request: &'static str| {
        tokio::task::yield_now().await;
        assert!(request != "service", "boom");
        Ok::<_, BoxError>(request)
    });
    let classifier = Classifier::new(|result: &Result<&str, BoxError>| {
        assert!(!matches!(result, Ok("classifier")), "boom");
        Retryability::Permanent
    });
    let breaker = CircuitBreaker::new(CircuitBreakerOptions::default());
    let limiter = Limiter::new(Limit::Fixed(1));
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(Retry::default(), classifier.clone()))
        .layer(LimiterLayer::new(limiter, classifier.clone()))
        .layer(CircuitBreakerLayer::new(breaker, classifier))
        .service(service);
    for _ in 0..50 {
        for (request, expected) in
            [("service", "`Service::call` panicked: boom"), ("classifier", "`Classifier` panicked: boom")]
        {
            let error = service.clone().oneshot(request).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(matches!(error.downcast_ref(), Some(Error::Panicked { .. })));
        }
    }
    assert_eq!(service.oneshot("fine").await.unwrap(), "fine");
}
