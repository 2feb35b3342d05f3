//! Tests of managers that were written for other pools, and of hooks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_pooling::{Bb8Manager, DeadpoolManager, Error, HookedManager, Pool, PoolOptions};
use tokio::time::sleep;

use crate::fake::{Connection, Fake};

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

fn options() -> PoolOptions {
    PoolOptions { size_min: 0, size_max: 2, ..PoolOptions::default() }
}

/// Numbers that are handed out in order. Those that are recycled with 0 left are refused.
#[derive(Default)]
struct Numbers {
    next: AtomicUsize,
    detached: Arc<AtomicUsize>,
}

impl deadpool::managed::Manager for Numbers {
    type Type = usize;
    type Error = Refused;

    async fn create(&self) -> Result<usize, Refused> {
        match self.next.fetch_add(1, Ordering::Relaxed) {
            2.. => Err(Refused),
            number => Ok(number),
        }
    }

    async fn recycle(
        &self,
        number: &mut usize,
        metrics: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Refused> {
        assert!(metrics.recycle_count < 3);
        if *number == 99 { Err(Refused.into()) } else { Ok(()) }
    }

    fn detach(&self, _: &mut usize) {
        self.detached.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_of_deadpool_connects_checks_and_detaches() {
    let numbers = Numbers::default();
    let detached = numbers.detached.clone();
    let pool = Pool::new(DeadpoolManager::new(numbers), options());
    for _ in 0..3 {
        let number = pool.get().await.unwrap();
        assert_eq!(**number, 0);
        drop(number);
        sleep(Duration::from_secs(5)).await;
    }
    // Its recycling is refused from now on.
    **pool.get().await.unwrap() = 99;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(**pool.get().await.unwrap(), 1);
    assert_eq!(detached.load(Ordering::Relaxed), 1);
    pool.get().await.unwrap().discard();
    let error = pool.get().await.unwrap_err();
    let Error::Connect { source } = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "cannot create the connection");
    assert_eq!(source.source().unwrap().to_string(), "refused");
    assert_eq!(detached.load(Ordering::Relaxed), 2);
}

/// Valid up to its use number 3, and broken after that.
struct Uses;

impl bb8::ManageConnection for Uses {
    type Connection = u32;
    type Error = Refused;

    async fn connect(&self) -> Result<u32, Refused> {
        Ok(0)
    }

    async fn is_valid(&self, uses: &mut u32) -> Result<(), Refused> {
        if *uses == 2 { Err(Refused) } else { Ok(()) }
    }

    fn has_broken(&self, uses: &mut u32) -> bool {
        *uses > 2
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_of_bb8_connects_and_checks() {
    let pool = Pool::new(Bb8Manager::new(Uses), options());
    *pool.get().await.unwrap() += 1;
    sleep(Duration::from_secs(5)).await;
    let mut uses = pool.get().await.unwrap();
    assert_eq!(*uses, 1);
    *uses += 1;
    drop(uses);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(*pool.get().await.unwrap(), 0, "the check failed");
    *pool.get().await.unwrap() = 3;
    assert_eq!(*pool.get().await.unwrap(), 0, "it was broken when it was returned");
    assert_eq!(pool.stats().created, 3);
}

#[tokio::test(start_paused = true)]
async fn hooks_prepare_and_refuse_connections() {
    let calls = Arc::new(AtomicUsize::new(0));
    let (connects, checks) = (calls.clone(), calls.clone());
    let manager = HookedManager::new(Fake::default())
        .after_connect(move |_: &mut Connection| {
            let count = connects.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { if count == 0 { Err("not yet".into()) } else { Ok(()) } })
        })
        .before_check(|_| Box::pin(async { Ok(()) }))
        .after_check(move |_| {
            checks.fetch_add(10, Ordering::Relaxed);
            Box::pin(async { Err("used up".into()) })
        });
    let pool = Pool::new(manager, options());
    let Error::Connect { source } = pool.get().await.unwrap_err() else { panic!("another error") };
    assert_eq!(source.to_string(), "the hook `after_connect` refused the connection");
    assert_eq!(pool.manager().inner().alive(), 0);
    drop(pool.get().await.unwrap());
    sleep(Duration::from_secs(5)).await;
    drop(pool.get().await.unwrap());
    assert_eq!((calls.load(Ordering::Relaxed), pool.stats().created), (13, 2));
}
