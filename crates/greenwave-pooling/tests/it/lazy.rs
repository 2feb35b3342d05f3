//! Tests of `Lazy` and `LazyMap`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use greenwave_pooling::{Lazy, LazyMap};
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn errors_are_not_cached() {
    let loads = AtomicU32::new(0);
    let lazy = Lazy::new(async || match loads.fetch_add(1, Ordering::SeqCst) {
        0 => Err("not yet"),
        n => Ok(n),
    });
    assert_eq!(lazy.loaded(), None);
    assert_eq!(lazy.get().await, Err("not yet"));
    assert_eq!(lazy.get().await, Ok(&1));
    assert_eq!(lazy.get().await, Ok(&1));
}

#[tokio::test(start_paused = true)]
async fn each_key_is_loaded_once_and_a_failure_leaves_nothing() {
    let map = LazyMap::new();
    let loads = AtomicU32::new(0);
    let load = async || {
        loads.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_secs(1)).await;
        Ok::<_, ()>("value")
    };
    let (a, b, c) =
        tokio::join!(map.get_or_load(&1, load), map.get_or_load(&1, load), map.get_or_load(&2, load));
    assert_eq!((a, b, c), (Ok("value"), Ok("value"), Ok("value")));
    assert_eq!((loads.load(Ordering::SeqCst), map.len()), (2, 2));

    assert_eq!(map.get_or_load(&3, async || Err("bad")).await, Err("bad"));
    let cancelled = map.get_or_load(&4, async || std::future::pending::<Result<&str, ()>>().await);
    assert!(timeout(Duration::from_secs(1), cancelled).await.is_err());
    assert_eq!((map.len(), map.loaded(&3)), (2, None));
    map.remove(&1);
    assert_eq!((map.loaded(&1), map.loaded(&2)), (None, Some("value")));
}
