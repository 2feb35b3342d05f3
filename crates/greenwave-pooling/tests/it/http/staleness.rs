//! Ages, revalidation, and stale responses.

use super::{FRESH, Headers, Origin, TAGGED};

/// RFC 9110, section 6.6.1.
#[tokio::test]
async fn a_response_without_a_date_gets_the_date_of_arrival() {
    let origin = Origin::new(FRESH);
    let cache = origin.cache(false);
    origin.get(&cache, &[]).await.unwrap();
    origin.pass(9);
    let response = origin.get(&cache, &[]).await.unwrap();
    assert_eq!(response.headers()["date"], "Mon, 12 Jan 1970 13:46:40 GMT");
}

/// RFC 9111, section 4.3.4: fields of a 304 replace stored ones, except fields that describe the
/// body.
#[tokio::test]
async fn a_304_updates_the_stored_response() {
    for validator in ["etag", "last-modified"] {
        let value = if validator == "etag" { "\"a\"" } else { "Thu, 01 Jan 1970 00:00:00 GMT" };
        let origin = Origin::new(&[]);
        let first = [
            ("cache-control", "max-age=60"),
            (validator, value),
            ("x-a", "1"),
            ("x-b", "1"),
            ("content-length", "8"),
        ];
        *origin.headers.lock() = first.to_vec().leak();
        let cache = origin.cache(false);
        origin.get(&cache, &[]).await.unwrap();
        origin.pass(70);
        // Without the validator.
        *origin.headers.lock() = &[("cache-control", "max-age=600"), ("x-a", "2"), ("content-length", "0")];
        for _ in 0..2 {
            let response = origin.get(&cache, &[]).await.unwrap();
            assert_eq!((response.status().as_u16(), response.body().as_ref()), (200, &b"answer 1"[..]));
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(
                [header("x-a"), header("x-b"), header("content-length")],
                ["2", "1", "8"],
                "{validator}"
            );
            origin.pass(500);
        }
        assert_eq!(origin.requests.lock().len(), 2, "{validator}: it is fresh for ten minutes more");
    }
}

/// RFC 9111, section 4.3.4: a 304 that identifies another response does not apply to the stored
/// one.
#[tokio::test]
async fn a_304_for_another_response_is_rejected() {
    let origin = Origin::new(TAGGED);
    let cache = origin.cache(false);
    origin.get(&cache, &[]).await.unwrap();
    origin.pass(70);
    *origin.headers.lock() = &[("cache-control", "max-age=60"), ("etag", "\"b\"")];
    assert_eq!(origin.get(&cache, &[]).await.unwrap().body(), "answer 3");
    let requests = origin.requests.lock();
    assert!(!requests[2].headers().contains_key("if-none-match"), "the second request has no conditions");
}

/// RFC 9111, section 5.1.
#[tokio::test]
async fn a_cached_response_has_an_age() {
    let origin = Origin::new(FRESH);
    let cache = origin.cache(false);
    origin.get(&cache, &[]).await.unwrap();
    origin.pass(42);
    assert_eq!(origin.get(&cache, &[]).await.unwrap().headers()["age"], "42");
}

/// RFC 9111, section 4.3.4.
#[tokio::test]
async fn a_revalidated_response_is_fresh_again() {
    let origin = Origin::new(TAGGED);
    let cache = origin.cache(false);
    origin.get(&cache, &[]).await.unwrap();
    origin.pass(70);
    origin.get(&cache, &[]).await.unwrap();
    assert_eq!(origin.requests.lock()[1].headers()["if-none-match"], "\"a\"");
    origin.pass(50);
    assert_eq!(origin.get(&cache, &[]).await.unwrap().body(), "answer 1");
    assert_eq!(origin.requests.lock().len(), 2);
}

/// RFC 5861, section 4; RFC 9111, section 4.2.4.
#[tokio::test]
async fn a_stale_response_replaces_errors_if_allowed() {
    let may: Headers = &[("cache-control", "max-age=60, stale-if-error=600"), ("etag", "\"a\"")];
    let must_not: Headers =
        &[("cache-control", "max-age=60, must-revalidate, stale-if-error=600"), ("etag", "\"a\"")];
    for (headers, later, is_served) in
        [(may, 100, true), (may, 700, false), (must_not, 100, false), (TAGGED, 100, false)]
    {
        for status in [0, 503] {
            let origin = Origin::new(headers);
            let cache = origin.cache(false);
            origin.get(&cache, &[]).await.unwrap();
            origin.pass(later);
            *origin.status.lock() = status;
            let second = origin.get(&cache, &[]).await;
            let is_first = second.as_ref().is_ok_and(|second| second.body() == "answer 1");
            assert_eq!(is_first, is_served, "{headers:?}, {later} s, status {status}: {second:?}");
            assert_eq!(origin.requests.lock().len(), 2, "the origin was asked anyway");
        }
    }
}

/// RFC 5861, section 3.
#[tokio::test]
async fn a_stale_response_is_refreshed_in_the_background() {
    let origin =
        Origin::new(&[("cache-control", "max-age=60, stale-while-revalidate=600"), ("etag", "\"a\"")]);
    let cache = origin.cache(false);
    origin.get(&cache, &[]).await.unwrap();
    origin.pass(100);
    for _ in 0..3 {
        assert_eq!(origin.get(&cache, &[]).await.unwrap().headers()["age"], "100");
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(origin.requests.lock().len(), 2, "one request serves all callers");
    assert!(
        !origin.get(&cache, &[]).await.unwrap().headers().contains_key("age")
            || origin.get(&cache, &[]).await.unwrap().headers()["age"] == "0"
    );
}
