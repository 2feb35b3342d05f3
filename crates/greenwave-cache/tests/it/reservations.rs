//! Tests of reservations and of computations by borrowed keys.

use std::sync::Arc;

use greenwave_cache::{Cache, CacheOptions, EntryOptions};

type Pages = Cache<String, u64>;

fn pages() -> Arc<Pages> {
    Arc::new(Cache::new(CacheOptions::default()).unwrap())
}

#[tokio::test]
async fn waiters_get_the_value_of_a_reservation() {
    let cache = pages();
    let reservation = cache.get_or_reserve("a".into()).await.unwrap_err();
    assert_eq!(reservation.key(), "a");
    let reserving = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_reserve("a".into()).await.unwrap() }
    });
    let computing = tokio::spawn({
        let cache = cache.clone();
        async move {
            let never = async || -> Result<u64, std::io::Error> { panic!("the value was reserved") };
            cache.get_or_compute("a".into(), never).await.unwrap()
        }
    });
    tokio::task::yield_now().await;
    assert!(!reserving.is_finished() && !computing.is_finished());
    assert_eq!(reservation.insert(7), 7);
    assert_eq!((reserving.await.unwrap(), computing.await.unwrap()), (7, 7));
    assert_eq!(cache.get("a"), Some(7));
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.insertions), (1, 1));
}

#[tokio::test]
async fn a_dropped_reservation_passes_to_the_next_waiter() {
    let cache = pages();
    let first = cache.get_or_reserve("a".into()).await.unwrap_err();
    let next = tokio::spawn({
        let cache = cache.clone();
        async move {
            let reservation = cache.get_or_reserve("a".into()).await.unwrap_err();
            reservation.insert_with(2, &EntryOptions { tags: &["t"], ..EntryOptions::default() })
        }
    });
    tokio::task::yield_now().await;
    drop(first);
    assert_eq!(next.await.unwrap(), 2);
    assert_eq!((cache.get("a"), cache.invalidate_tag("t")), (Some(2), 1));
}

#[tokio::test]
async fn an_invalidation_cancels_a_reservation() {
    let cache = pages();
    let reservation = cache.get_or_reserve("a".into()).await.unwrap_err();
    cache.invalidate_all();
    assert_eq!(reservation.insert(1), 1);
    assert_eq!(cache.get("a"), None);
    drop(cache.get_or_reserve("a".into()).await.unwrap_err());
    assert!(cache.get_or_reserve("a".into()).await.is_err(), "nobody holds it");
}

#[tokio::test]
async fn a_borrowed_key_is_computed_once() {
    let cache = pages();
    let options = EntryOptions::default();
    let one = async || Ok::<_, std::io::Error>(1);
    let two = async || Ok::<_, std::io::Error>(2);
    assert_eq!(cache.get_or_compute_by_ref("a", &options, one).await.unwrap(), 1);
    assert_eq!(cache.get_or_compute_by_ref("a", &options, two).await.unwrap(), 1);
    assert_eq!(cache.get_or_compute("a".to_owned(), two).await.unwrap(), 1);
    // The future can be spawned.
    let spawned = {
        let cache = cache.clone();
        tokio::spawn(async move {
            cache
                .get_or_compute_by_ref("b", &EntryOptions::default(), || async { Ok::<_, std::io::Error>(3) })
                .await
        })
    };
    assert_eq!(spawned.await.unwrap().unwrap(), 3);
}
