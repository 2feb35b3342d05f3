//! Tests of `HttpCache`: cases from RFC 9111, RFC 9110, RFC 5861 and RFC 9213, each with its
//! section, and nginx as an origin server.

mod callers;
mod cases;
mod nginx;
mod panics;
mod staleness;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use greenwave_pooling::{HttpCache, HttpCacheOptions, MemoryHttpStore};
use http::{Request, Response};
use parking_lot::Mutex;

type Headers = &'static [(&'static str, &'static str)];

const FRESH: Headers = &[("cache-control", "max-age=60")];
const TAGGED: Headers = &[("cache-control", "max-age=60"), ("etag", "\"a\"")];

/// The origin server: its responses, and the requests that it received.
#[derive(Clone)]
struct Origin {
    now: Arc<Mutex<SystemTime>>,
    headers: Arc<Mutex<Headers>>,
    status: Arc<Mutex<u16>>,
    requests: Arc<Mutex<Vec<Request<Bytes>>>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Down;

impl Origin {
    fn new(headers: Headers) -> Self {
        Self {
            // A million seconds.
            now: Arc::new(Mutex::new(UNIX_EPOCH + Duration::from_secs(1_000_000))),
            headers: Arc::new(Mutex::new(headers)),
            status: Arc::new(Mutex::new(200)),
            requests: Arc::default(),
        }
    }

    fn cache(&self, is_shared: bool) -> HttpCache {
        let now = self.now.clone();
        let store = Arc::new(MemoryHttpStore::new(100, 1 << 20));
        let options = HttpCacheOptions { is_shared, ..HttpCacheOptions::default() };
        HttpCache::with_clock(store, options, move || *now.lock())
    }

    fn pass(&self, seconds: u64) {
        *self.now.lock() += Duration::from_secs(seconds);
    }

    async fn get(&self, cache: &HttpCache, headers: Headers) -> Result<Response<Bytes>, Down> {
        self.send(cache, "GET", headers).await
    }

    async fn send(&self, cache: &HttpCache, method: &str, headers: Headers) -> Result<Response<Bytes>, Down> {
        let mut request = Request::builder().method(method).uri("http://host/path");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let origin = self.clone();
        let fetch = move |request| {
            let origin = origin.clone();
            async move { origin.answer(request).await }
        };
        cache.send(request.body(Bytes::new()).unwrap(), fetch).await
    }

    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Down> {
        tokio::task::yield_now().await;
        let is_conditional =
            ["if-none-match", "if-modified-since"].iter().any(|name| request.headers().contains_key(*name));
        let count = {
            let mut requests = self.requests.lock();
            requests.push(request);
            requests.len()
        };
        let status = *self.status.lock();
        if status == 0 {
            return Err(Down);
        }
        let status = if is_conditional && status == 200 { 304 } else { status };
        let mut response = Response::builder().status(status);
        for (name, value) in *self.headers.lock() {
            response = response.header(*name, *value);
        }
        let body = if status == 304 { Bytes::new() } else { Bytes::from(format!("answer {count}")) };
        Ok(response.body(body).unwrap())
    }
}

/// RFC 9111, sections 4.2.4 and 5.1: fields are served as received, except fields of the
/// connection.
#[tokio::test]
async fn stored_fields_are_served_unchanged() {
    let date = "Mon, 12 Jan 1970 13:46:30 GMT";
    let origin = Origin::new(&[
        ("cache-control", "max-age=600, no-cache=\"x-listed\""),
        ("date", "Mon, 12 Jan 1970 13:46:30 GMT"),
        ("expires", "Mon Jan 12 13:47:40 1970"),
        ("age", "5, 9"),
        ("connection", "x-hop, close"),
        ("x-hop", "1"),
        ("x-listed", "1"),
        ("keep-alive", "timeout=5"),
        ("x-other", "1"),
        ("x-other", "2"),
    ]);
    let cache = origin.cache(false);
    origin.get(&cache, &[]).await.unwrap();
    origin.pass(42);
    let response = origin.get(&cache, &[]).await.unwrap();
    let headers = response.headers();
    // Its date makes it ten seconds old, which is more than its `Age`.
    let one =
        |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((one("date"), one("age")), (vec![date], vec!["52"]));
    assert_eq!((one("expires"), one("x-other")), (vec!["Mon Jan 12 13:47:40 1970"], vec!["1", "2"]));
    for gone in ["connection", "x-hop", "x-listed", "keep-alive"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

/// RFC 9111, section 4.3.2, and RFC 9110, section 13.
#[tokio::test]
async fn client_conditions_are_evaluated_by_the_cache() {
    let stored: Headers = &[
        ("cache-control", "max-age=60"),
        ("etag", "W/\"a\""),
        ("last-modified", "Fri, 02 Jan 1970 13:46:40 GMT"),
        ("content-type", "text/plain"),
    ];
    let cases: &[(Headers, u16)] = &[
        (&[("if-none-match", "\"a\"")], 304),
        (&[("if-none-match", "W/\"a\"")], 304),
        (&[("if-none-match", "\"x\", \"a\", \"y,\"")], 304),
        (&[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"b\"")], 200),
        (&[("if-none-match", "\"b\""), ("if-modified-since", "Fri, 02 Jan 1970 13:46:40 GMT")], 200),
        (&[("if-modified-since", "Fri, 02 Jan 1970 13:46:40 GMT")], 304),
        (&[("if-modified-since", "Friday, 02-Jan-70 13:46:40 GMT")], 304),
        (&[("if-modified-since", "Fri, 02 Jan 1970 13:46:41 GMT")], 304),
        (&[("if-modified-since", "Fri, 02 Jan 1970 13:46:39 GMT")], 200),
        (&[("if-modified-since", "yesterday")], 200),
    ];
    for (conditions, status) in cases {
        // Once fresh, and once stale with an origin that confirms it.
        for later in [10, 70] {
            let origin = Origin::new(stored);
            let cache = origin.cache(false);
            origin.get(&cache, &[]).await.unwrap();
            origin.pass(later);
            let response = origin.get(&cache, conditions).await.unwrap();
            assert_eq!(response.status().as_u16(), *status, "{conditions:?}, {later} s");
            assert_eq!(response.body().is_empty(), *status == 304);
            assert_eq!(response.headers()["etag"], "W/\"a\"");
            assert_eq!(response.headers().contains_key("content-type"), *status == 200);
            let requests = origin.requests.lock();
            assert_eq!(requests.len(), 1 + usize::from(later > 60));
            assert!(requests[1..].iter().all(|requests| requests.headers()["if-none-match"] == "W/\"a\""));
        }
    }
    // With an empty cache, conditions go to the origin, whose response is not stored.
    let origin = Origin::new(stored);
    let cache = origin.cache(false);
    let response = origin.get(&cache, &[("if-none-match", "\"a\"")]).await.unwrap();
    assert_eq!(response.status().as_u16(), 304);
    assert_eq!(origin.get(&cache, &[]).await.unwrap().body(), "answer 2");
}

/// RFC 9110, section 14, and RFC 9111, section 3.3.
#[tokio::test]
async fn ranges_are_served_from_the_cache() {
    /// Status, body and `Content-Range`.
    type Part = (u16, &'static str, Option<&'static str>);
    let whole: Part = (200, "answer 1", None);
    let cases: &[(Headers, Part)] = &[
        (&[("range", "bytes=0-1")], (206, "an", Some("bytes 0-1/8"))),
        (&[("range", "Bytes=7-")], (206, "1", Some("bytes 7-7/8"))),
        (&[("range", "bytes=-3")], (206, "r 1", Some("bytes 5-7/8"))),
        (&[("range", "bytes=-99")], (206, "answer 1", Some("bytes 0-7/8"))),
        (&[("range", "bytes=2-99999999999999999999999")], (206, "swer 1", Some("bytes 2-7/8"))),
        (&[("range", "bytes=8-")], (416, "", Some("bytes */8"))),
        (&[("range", "bytes=-0")], (416, "", Some("bytes */8"))),
        (&[("range", "bytes=0-1"), ("if-range", "\"a\"")], (206, "an", Some("bytes 0-1/8"))),
        (&[("range", "bytes=0-1"), ("if-range", "\"b\"")], whole),
        (&[("range", "bytes=0-1"), ("if-range", "W/\"a\"")], whole),
        (&[("range", "bytes=0-1"), ("if-none-match", "\"a\"")], (304, "", None)),
        // Left to the origin, which ignores ranges in this test.
        (&[("range", "bytes=0-1,3-4")], (200, "answer 2", None)),
        (&[("range", "lines=0-1")], (200, "answer 2", None)),
        (&[("range", "bytes=4-2")], (200, "answer 2", None)),
        (&[("range", "bytes=-")], (200, "answer 2", None)),
        (&[("range", "bytes=+1-2")], (200, "answer 2", None)),
    ];
    for (headers, expected) in cases {
        let origin = Origin::new(TAGGED);
        let cache = origin.cache(false);
        origin.get(&cache, &[]).await.unwrap();
        let response = origin.get(&cache, headers).await.unwrap();
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        let range = response.headers().get("content-range").map(|range| range.to_str().unwrap());
        assert_eq!((response.status().as_u16(), body.as_str(), range), *expected, "{headers:?}");
        assert_eq!(origin.get(&cache, &[]).await.unwrap().body(), "answer 1", "the stored response stays");
    }
}

#[tokio::test]
async fn a_stored_part_answers_the_ranges_within_it() {
    /// Status, body and `Content-Range`.
    type Part = (u16, &'static str, Option<&'static str>);
    const PART: Headers =
        &[("cache-control", "max-age=60"), ("etag", "\"a\""), ("content-range", "bytes 4-11/20")];
    let fetched: Part = (206, "answer 2", Some("bytes 4-11/20"));
    let cases: &[(Headers, Part)] = &[
        (&[("range", "bytes=4-11")], (206, "answer 1", Some("bytes 4-11/20"))),
        (&[("range", "bytes=4-5")], (206, "an", Some("bytes 4-5/20"))),
        (&[("range", "bytes=11-11")], (206, "1", Some("bytes 11-11/20"))),
        (&[("range", "bytes=6-7"), ("if-range", "\"a\"")], (206, "sw", Some("bytes 6-7/20"))),
        (&[("range", "bytes=6-7"), ("if-range", "\"b\"")], fetched),
        (&[("range", "bytes=6-7"), ("if-none-match", "\"a\"")], fetched),
        (&[("range", "bytes=6-7"), ("cache-control", "no-cache")], fetched),
        (&[("range", "bytes=3-5")], fetched),
        (&[("range", "bytes=4-12")], fetched),
        (&[("range", "bytes=4-")], fetched),
        (&[("range", "bytes=-8")], fetched),
        (&[("range", "bytes=5-4")], fetched),
        (&[("range", "bytes=4-5,7-8")], fetched),
        (&[], fetched),
    ];
    for (headers, expected) in cases {
        let origin = Origin::new(PART);
        *origin.status.lock() = 206;
        let cache = origin.cache(false);
        origin.get(&cache, &[("range", "bytes=4-11")]).await.unwrap();
        let response = origin.get(&cache, headers).await.unwrap();
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        let range = response.headers().get("content-range").map(|range| range.to_str().unwrap());
        assert_eq!((response.status().as_u16(), body.as_str(), range), *expected, "{headers:?}");
    }
    // The end of the whole response.
    let origin = Origin::new(&[("cache-control", "max-age=60"), ("content-range", "bytes 4-11/12")]);
    *origin.status.lock() = 206;
    let cache = origin.cache(false);
    origin.get(&cache, &[("range", "bytes=4-")]).await.unwrap();
    let ends: &[(Headers, &str)] = &[
        (&[("range", "bytes=4-")], "answer 1"),
        (&[("range", "bytes=-1")], "1"),
        (&[("range", "bytes=10-99")], " 1"),
    ];
    for (headers, body) in ends {
        assert_eq!(origin.get(&cache, headers).await.unwrap().body(), body, "{headers:?}");
    }
    // A stale part is fetched again, and a complete response replaces it.
    origin.pass(61);
    assert_eq!(origin.get(&cache, &[("range", "bytes=4-")]).await.unwrap().body(), "answer 2");
    *origin.status.lock() = 200;
    assert_eq!(origin.get(&cache, &[]).await.unwrap().body(), "answer 3");
    assert_eq!(origin.get(&cache, &[("range", "bytes=-1")]).await.unwrap().body(), "3");
}

#[tokio::test]
async fn parts_that_contradict_themselves_are_not_stored() {
    for range in [
        "bytes 4-12/20",
        "bytes 4-10/20",
        "bytes 4-11/*",
        "bytes 4-11/11",
        "lines 4-11/20",
        "bytes */20",
        "4-11/20",
        "bytes 18446744073709551610-18446744073709551617/18446744073709551618",
    ] {
        let origin = Origin::new(&[("cache-control", "max-age=60")]);
        *origin.headers.lock() =
            Box::leak(Box::new([("cache-control", "max-age=60"), ("content-range", range)]));
        *origin.status.lock() = 206;
        let cache = origin.cache(false);
        for count in 1..3 {
            let response = origin.get(&cache, &[("range", "bytes=4-11")]).await.unwrap();
            assert_eq!(response.body(), &format!("answer {count}"), "{range}");
        }
    }
}

/// RFC 9111, section 3: with a lifetime any final response is stored, otherwise only some statuses.
#[tokio::test]
async fn statuses_decide_whether_a_response_is_stored() {
    let modified: Headers =
        &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("last-modified", "Fri, 02 Jan 1970 13:46:40 GMT")];
    let public: Headers = &[
        ("date", "Mon, 12 Jan 1970 13:46:40 GMT"),
        ("last-modified", "Fri, 02 Jan 1970 13:46:40 GMT"),
        ("cache-control", "public"),
    ];
    let must_understand: Headers = &[("cache-control", "max-age=60, no-store, must-understand")];
    for status in [
        200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 499, 500, 501, 502, 503,
        504, 599,
    ] {
        let guessed = [200, 203, 204, 301, 308, 404, 405, 410, 414, 501].contains(&status);
        let is_understood = ![299, 499, 599].contains(&status);
        for (headers, is_cached) in
            [(FRESH, true), (modified, guessed), (public, true), (must_understand, is_understood)]
        {
            let origin = Origin::new(headers);
            let cache = origin.cache(false);
            *origin.status.lock() = status;
            for _ in 0..2 {
                assert_eq!(origin.get(&cache, &[]).await.unwrap().status().as_u16(), status);
            }
            assert_eq!(origin.requests.lock().len() == 1, is_cached, "{status} {headers:?}");
        }
    }
    for status in [206, 304] {
        let origin = Origin::new(FRESH);
        let cache = origin.cache(false);
        *origin.status.lock() = status;
        origin.get(&cache, &[]).await.unwrap();
        origin.get(&cache, &[]).await.unwrap();
        assert_eq!(origin.requests.lock().len(), 2, "{status} is not stored");
    }
}

/// Tries every option with zero, one and its maximum. None may panic or block.
#[tokio::test]
async fn extreme_options_do_no_harm() {
    let vary: Headers = &[("cache-control", "max-age=60"), ("vary", "foo")];
    for variants_max in [0, 1, usize::MAX] {
        for body_bytes_max in [0, 1, usize::MAX] {
            for (keys_max, bytes_max) in
                [(0, usize::MAX), (1, usize::MAX), (usize::MAX, 0), (usize::MAX, 1), (usize::MAX, usize::MAX)]
            {
                for is_shared in [false, true] {
                    let origin = Origin::new(vary);
                    let store = Arc::new(MemoryHttpStore::new(keys_max, bytes_max));
                    let options = HttpCacheOptions { is_shared, variants_max, body_bytes_max };
                    let now = origin.now.clone();
                    let cache = HttpCache::with_clock(store.clone(), options, move || *now.lock());
                    for foo in ["1", "2", "1", "1"] {
                        let headers: Headers = vec![("foo", foo)].leak();
                        origin.get(&cache, headers).await.unwrap();
                    }
                    // The body "answer 1" has eight bytes.
                    let is_stored = body_bytes_max > 1 && bytes_max > 1 && keys_max > 0;
                    let expected = match (is_stored, variants_max) {
                        (false, _) => 4,
                        (true, 0 | 1) => 3,
                        (true, _) => 2,
                    };
                    assert_eq!(
                        origin.requests.lock().len(),
                        expected,
                        "{options:?}, {keys_max} keys, {bytes_max} bytes"
                    );
                    assert_eq!(store.len(), usize::from(is_stored));
                }
            }
        }
    }
}

/// Implausible times must do no harm.
#[tokio::test]
async fn extreme_clocks_do_no_harm() {
    let ends = [
        UNIX_EPOCH - Duration::from_secs(1 << 40),
        UNIX_EPOCH,
        UNIX_EPOCH + Duration::from_secs(1 << 40),
        UNIX_EPOCH + Duration::from_secs(i64::MAX as u64),
    ];
    let headers: [Headers; 3] = [
        &[("cache-control", "max-age=99999999999999999999"), ("age", "99999999999999999999")],
        &[("expires", "Fri, 31 Dec 9999 23:59:59 GMT"), ("etag", "\"a\"")],
        &[
            ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("cache-control", "stale-if-error=99999999999"),
        ],
    ];
    for headers in headers {
        for first in ends {
            for second in ends {
                let origin = Origin::new(headers);
                let cache = origin.cache(false);
                *origin.now.lock() = first;
                origin.get(&cache, &[]).await.unwrap();
                *origin.now.lock() = second;
                let wishes: Headers = &[("cache-control", "max-stale=99999999999, min-fresh=99999999999")];
                origin.get(&cache, wishes).await.unwrap();
                origin.get(&cache, &[]).await.unwrap();
            }
        }
    }
}

/// RFC 9111, section 4.4.
#[tokio::test]
async fn unsafe_methods_invalidate_stored_responses() {
    for (method, status, is_forgotten) in [
        ("POST", 200, true),
        ("DELETE", 204, true),
        ("POST", 500, false),
        ("PUT", 404, false),
        ("HEAD", 200, false),
    ] {
        let origin = Origin::new(FRESH);
        let cache = origin.cache(false);
        origin.get(&cache, &[]).await.unwrap();
        *origin.status.lock() = status;
        origin.send(&cache, method, &[]).await.unwrap();
        *origin.status.lock() = 200;
        let body = origin.get(&cache, &[]).await.unwrap().into_body();
        assert_eq!(body == "answer 3", is_forgotten, "{method} {status}");
    }
}
