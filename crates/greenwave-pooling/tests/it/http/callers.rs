//! Requests that wait for another one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenwave_pooling::{HttpCache, HttpCacheOptions, MemoryHttpStore};
use http::{Request, Response};

use super::{Down, FRESH, Origin};

#[tokio::test]
async fn concurrent_misses_make_one_request_unless_the_response_is_not_storable() {
    let origin = Origin::new(FRESH);
    let cache = origin.cache(false);
    let gets: Vec<_> = (0..20)
        .map(|_| {
            let (origin, cache) = (origin.clone(), cache.clone());
            tokio::spawn(async move { origin.get(&cache, &[]).await.unwrap().into_body() })
        })
        .collect();
    for get in gets {
        assert_eq!(get.await.unwrap(), "answer 1");
    }
    assert_eq!(origin.requests.lock().len(), 1);

    let origin = Origin::new(&[("cache-control", "no-store")]);
    let cache = origin.cache(false);
    origin.get(&cache, &[]).await.unwrap();
    let hung = {
        let hanging = |_| std::future::pending::<Result<Response<Bytes>, Down>>();
        let request = Request::get("http://host/path").body(Bytes::new()).unwrap();
        let cache = cache.clone();
        tokio::spawn(async move { cache.send(request, hanging).await })
    };
    tokio::task::yield_now().await;
    assert!(origin.get(&cache, &[]).await.is_ok(), "a request that hangs does not delay others");
    hung.abort();
}

/// Sends 20 requests to a server that takes 50 ms, the first of which ends as given. Returns how
/// many reached the server, and the virtual time until all have ended.
async fn callers_of_a_slow_server(
    first: fn(),
    is_down: bool,
) -> (usize, Duration, Vec<Result<Result<Response<Bytes>, Down>, tokio::task::JoinError>>) {
    let started = tokio::time::Instant::now();
    let cache = HttpCache::new(Arc::new(MemoryHttpStore::new(10, 1 << 20)), HttpCacheOptions::default());
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let sends: Vec<_> = (0..20)
        .map(|_| {
            let (cache, count) = (cache.clone(), count.clone());
            tokio::spawn(async move {
                let request = Request::get("http://host/path").body(Bytes::new()).unwrap();
                let fetch = move |_| {
                    let count = count.clone();
                    async move {
                        let is_first = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        if is_first {
                            first();
                        }
                        let response = Response::builder().header("cache-control", "max-age=60");
                        if is_down { Err(Down) } else { Ok(response.body(Bytes::new()).unwrap()) }
                    }
                };
                cache.send(request, fetch).await
            })
        })
        .collect();
    let mut ends = Vec::new();
    for send in sends {
        ends.push(send.await);
    }
    (count.load(std::sync::atomic::Ordering::Relaxed), started.elapsed(), ends)
}

#[tokio::test(start_paused = true)]
async fn callers_that_waited_for_a_failed_request_do_not_wait_for_each_other() {
    let (requests, took, ends) = callers_of_a_slow_server(|| {}, true).await;
    assert!(ends.iter().all(|end| matches!(end, Ok(Err(Down)))), "{ends:?}");
    assert_eq!((requests, took.as_millis()), (20, 100));
}

#[tokio::test(start_paused = true)]
async fn callers_that_waited_for_a_panicking_request_share_the_next_one() {
    let (requests, took, ends) = callers_of_a_slow_server(|| panic!("the request panics"), false).await;
    assert_eq!((requests, took.as_millis()), (2, 100));
    let panics = ends.iter().filter(|end| end.as_ref().is_err_and(tokio::task::JoinError::is_panic)).count();
    let responses = ends.iter().filter(|end| matches!(end, Ok(Ok(_)))).count();
    assert_eq!((panics, responses), (1, 19));
}
