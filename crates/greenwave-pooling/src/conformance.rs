//! A test suite for implementations of [`Manager`].

use std::future::Future;
use std::sync::Arc;

use crate::manager::Manager;
use crate::pool::{Pool, PoolOptions};

/// Emits one `#[test]` for each promise of [`Manager`]. The argument is an expression that creates
/// the manager. It may await, and the peer must be reachable.
#[macro_export]
macro_rules! manager_conformance {
    ($make:expr) => {
        #[test]
        fn a_new_connection_works() {
            $crate::conformance::run(async { $crate::conformance::works(&$make).await });
        }

        #[test]
        fn connects_are_concurrent_and_independent() {
            $crate::conformance::run(async { $crate::conformance::independent($make).await });
        }

        #[test]
        fn connect_and_check_can_be_cancelled() {
            $crate::conformance::run(async { $crate::conformance::cancelled(&$make).await });
        }

        #[test]
        fn a_connection_can_be_dropped_outside_a_runtime() {
            let _connection = $crate::conformance::run(async { $crate::conformance::connect(&$make).await });
        }

        #[test]
        fn a_pool_lends_reuses_and_closes() {
            $crate::conformance::run(async { $crate::conformance::pooled($make).await });
        }
    };
}

/// Runs a future on a runtime with I/O and time.
///
/// # Panics
/// If the runtime cannot be created.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

/// Connects.
///
/// # Panics
/// If connecting fails.
pub async fn connect<M: Manager>(manager: &M) -> M::Connection {
    manager.connect().await.unwrap_or_else(|error| panic!("{manager:?} cannot connect: {error}"))
}

/// Tests that a new connection is not broken and passes `check`, repeatedly.
pub async fn works<M: Manager>(manager: &M) {
    let mut connection = connect(manager).await;
    for _ in 0..3 {
        assert!(!manager.is_broken(&mut connection), "a new connection is not broken");
        let checked = manager.check(&mut connection).await;
        assert!(checked.is_ok(), "a new connection passes its check: {:?}", checked.err());
    }
}

/// Tests that `connect` may run concurrently and that connections are independent of each other.
pub async fn independent<M: Manager>(manager: M) {
    let manager = Arc::new(manager);
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let manager = manager.clone();
            tokio::spawn(async move { connect(&*manager).await })
        })
        .collect();
    let mut connections = Vec::new();
    for task in tasks {
        connections.push(task.await.expect("connecting does not panic"));
    }
    while let Some(mut connection) = connections.pop() {
        assert!(
            manager.check(&mut connection).await.is_ok(),
            "the connection works after others were dropped"
        );
    }
}

/// Tests that `connect` and `check` may be cancelled.
pub async fn cancelled<M: Manager>(manager: &M) {
    for polls in 0..4 {
        poll_times(polls, manager.connect()).await;
        let mut connection = connect(manager).await;
        poll_times(polls, manager.check(&mut connection)).await;
    }
    works(manager).await;
}

/// Tests that a pool lends, reuses and closes connections of this manager.
pub async fn pooled<M: Manager>(manager: M) {
    let pool = Pool::new(manager, PoolOptions { size_min: 0, size_max: 2, ..PoolOptions::default() });
    for _ in 0..8 {
        let lease =
            pool.get().await.unwrap_or_else(|error| panic!("{pool:?} cannot lend a connection: {error:?}"));
        drop(lease);
    }
    assert_eq!(pool.stats().created, 1, "an unused connection is reused");
    pool.close().await;
    assert_eq!(pool.stats().size, 0);
}

/// Polls a future up to `times` times, and drops it.
async fn poll_times<T>(times: usize, future: impl Future<Output = T>) {
    let mut future = std::pin::pin!(future);
    for _ in 0..times {
        if std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return;
        }
        tokio::task::yield_now().await;
    }
}
