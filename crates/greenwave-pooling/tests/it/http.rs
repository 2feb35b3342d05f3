//! Tests of `HttpCache`: cases from RFC 9111, RFC 9110, RFC 5861 and RFC 9213, each with its
//! section, and nginx as an origin server.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use greenwave_pooling::{HttpCache, HttpCacheOptions, HttpStore, MemoryHttpStore, StoredResponse};
use greenwave_testkit::server::Server;
use http::{Request, Response};
use parking_lot::Mutex;

type Headers = &'static [(&'static str, &'static str)];

/// The expected handling of the second request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Served from the cache.
    Cached,
    /// Revalidated.
    Revalidated,
    /// Fetched without conditions.
    Fetched,
    /// Answered with status 504.
    GatewayTimeout,
}

struct Case {
    section: &'static str,
    name: &'static str,
    is_shared: bool,
    first: Headers,
    response: Headers,
    /// Seconds between the two requests.
    later: u64,
    second: Headers,
    then: Expected,
}

const CASE: Case = Case {
    section: "",
    name: "",
    is_shared: false,
    first: &[],
    response: &[],
    later: 0,
    second: &[],
    then: Expected::Cached,
};

const DAY: u64 = 86_400;
const FRESH: Headers = &[("cache-control", "max-age=60")];
const TAGGED: Headers = &[("cache-control", "max-age=60"), ("etag", "\"a\"")];

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { section: "9111 3", name: "no-store in the response", response: &[("cache-control", "no-store, max-age=60")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.2.1.5", name: "no-store in the request", first: &[("cache-control", "no-store")], response: FRESH, then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.2.1", name: "fresh by max-age", response: FRESH, later: 59, ..CASE },
    Case { section: "9111 4.2.1", name: "stale by max-age, no validator", response: FRESH, later: 61, then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.3.1", name: "stale by max-age, entity tag", response: TAGGED, later: 61, then: Expected::Revalidated, ..CASE },
    Case { section: "9111 4.3.1", name: "stale by max-age, last modified", response: &[("cache-control", "max-age=60"), ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")], later: 61, then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.3", name: "fresh by Expires", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("expires", "Mon, 12 Jan 1970 13:47:40 GMT")], later: 30, ..CASE },
    Case { section: "9111 5.3", name: "stale by Expires", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("expires", "Mon, 12 Jan 1970 13:47:40 GMT")], later: 90, then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.3", name: "an invalid Expires is in the past", response: &[("expires", "0")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.2.2.1", name: "max-age overrides Expires", response: &[("cache-control", "max-age=60"), ("expires", "0")], later: 30, ..CASE },
    Case { section: "9111 4.2.3", name: "Age counts", response: &[("cache-control", "max-age=60"), ("age", "50")], later: 15, then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.2.2", name: "a tenth of the time since the modification", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("last-modified", "Fri, 02 Jan 1970 13:46:40 GMT")], later: DAY / 2, ..CASE },
    Case { section: "9111 4.2.2", name: "stale after that time", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("last-modified", "Fri, 02 Jan 1970 13:46:40 GMT")], later: DAY + 9, then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2.2.4", name: "no-cache is always revalidated", response: &[("cache-control", "no-cache, max-age=60"), ("etag", "\"a\"")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2.1.4", name: "no-cache in the request", response: TAGGED, second: &[("cache-control", "no-cache")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.4", name: "Pragma: no-cache in the request", response: TAGGED, second: &[("pragma", "no-cache")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2.1.1", name: "max-age in the request", response: TAGGED, later: 20, second: &[("cache-control", "max-age=10")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2.1.3", name: "min-fresh in the request", response: TAGGED, later: 50, second: &[("cache-control", "min-fresh=20")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2.1.2", name: "max-stale in the request", response: TAGGED, later: 70, second: &[("cache-control", "max-stale=30")], ..CASE },
    Case { section: "9111 5.2.1.2", name: "staler than max-stale", response: TAGGED, later: 100, second: &[("cache-control", "max-stale=30")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2.2.2", name: "must-revalidate against max-stale", response: &[("cache-control", "max-age=60, must-revalidate"), ("etag", "\"a\"")], later: 70, second: &[("cache-control", "max-stale=30")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2.1.7", name: "only-if-cached, fresh", response: FRESH, second: &[("cache-control", "only-if-cached")], ..CASE },
    Case { section: "9111 5.2.1.7", name: "only-if-cached, stale", response: FRESH, later: 61, second: &[("cache-control", "only-if-cached")], then: Expected::GatewayTimeout, ..CASE },
    Case { section: "9111 5.2.2.7", name: "private, private cache", response: &[("cache-control", "private, max-age=60")], ..CASE },
    Case { section: "9111 5.2.2.7", name: "private, shared cache", is_shared: true, response: &[("cache-control", "private, max-age=60")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.2.2.10", name: "s-maxage, shared cache", is_shared: true, response: &[("cache-control", "max-age=1, s-maxage=60")], later: 30, ..CASE },
    Case { section: "9111 5.2.2.10", name: "s-maxage, private cache", response: &[("cache-control", "max-age=1, s-maxage=60")], later: 30, then: Expected::Fetched, ..CASE },
    Case { section: "9111 3.5", name: "Authorization, shared cache", is_shared: true, first: &[("authorization", "x")], response: FRESH, second: &[("authorization", "x")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 3.5", name: "Authorization, public", is_shared: true, first: &[("authorization", "x")], response: &[("cache-control", "public, max-age=60")], second: &[("authorization", "x")], ..CASE },
    Case { section: "9111 4.1", name: "Vary, same value", first: &[("accept", "a")], response: &[("cache-control", "max-age=60"), ("vary", "accept")], second: &[("accept", "a")], ..CASE },
    Case { section: "9111 4.1", name: "Vary, other value", first: &[("accept", "a")], response: &[("cache-control", "max-age=60"), ("vary", "accept")], second: &[("accept", "b")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.1", name: "Vary, missing value", first: &[("accept", "a")], response: &[("cache-control", "max-age=60"), ("vary", "accept")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.1", name: "Vary: *", response: &[("cache-control", "max-age=60"), ("vary", "*")], then: Expected::Fetched, ..CASE },
    Case { section: "5861 3", name: "stale-while-revalidate", response: &[("cache-control", "max-age=60, stale-while-revalidate=30"), ("etag", "\"a\"")], later: 80, then: Expected::Cached, ..CASE },
    Case { section: "5861 3", name: "stale for longer", response: &[("cache-control", "max-age=60, stale-while-revalidate=30"), ("etag", "\"a\"")], later: 91, then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2.2.2", name: "must-revalidate against stale-while-revalidate", response: &[("cache-control", "max-age=60, must-revalidate, stale-while-revalidate=30"), ("etag", "\"a\"")], later: 70, then: Expected::Revalidated, ..CASE },

    // Directives and lifetimes, in the forms that servers send.
    Case { section: "9111 5.2", name: "directives in any case", response: &[("cache-control", "MaX-aGe=60")], later: 59, ..CASE },
    Case { section: "9111 5.2", name: "no-cache in any case", response: &[("cache-control", "max-age=60, No-CaChE"), ("etag", "\"a\"")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2", name: "no-store in any case", response: &[("cache-control", "max-age=60, nO-sToRe")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.2", name: "private in any case", is_shared: true, response: &[("cache-control", "max-age=60, PRIVATE")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.2", name: "no-cache of a request in any case", response: TAGGED, second: &[("cache-control", "NO-CACHE")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2", name: "two lines", response: &[("cache-control", "foo"), ("cache-control", "max-age=60")], ..CASE },
    Case { section: "9111 5.2", name: "max-age inside a quoted value", response: &[("cache-control", "x=\"max-age=60\", max-age=1")], later: 30, then: Expected::Fetched, ..CASE },
    Case { section: "9111 1.2.2", name: "a lifetime beyond 32 bits", response: &[("cache-control", "max-age=99999999999")], later: DAY, ..CASE },
    Case { section: "9111 4.2.1", name: "a lifetime that is not a number", response: &[("cache-control", "max-age='60'"), ("expires", "Mon, 12 Jan 1970 14:47:40 GMT")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.2.1", name: "a negative lifetime", response: &[("cache-control", "max-age=-60")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.2.1", name: "two different lifetimes", response: &[("cache-control", "max-age=60, max-age=1800")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.2.2.3", name: "must-understand, a known status", response: &[("cache-control", "max-age=60, no-store, must-understand")], ..CASE },
    Case { section: "9111 5.2.2.4", name: "no-cache of one field", response: &[("cache-control", "max-age=60, no-cache=\"x-a\""), ("x-a", "1")], ..CASE },
    Case { section: "9111 5.2.2.7", name: "private of one field, shared cache", is_shared: true, response: &[("cache-control", "max-age=60, private=\"x-a\""), ("x-a", "1")], ..CASE },
    Case { section: "9111 5.2.2.8", name: "proxy-revalidate against max-stale", is_shared: true, response: &[("cache-control", "max-age=60, proxy-revalidate"), ("etag", "\"a\"")], later: 70, second: &[("cache-control", "max-stale")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2.2.10", name: "s-maxage against max-stale", is_shared: true, response: &[("cache-control", "s-maxage=60"), ("etag", "\"a\"")], later: 70, second: &[("cache-control", "max-stale")], then: Expected::Revalidated, ..CASE },
    Case { section: "9111 5.2.1.2", name: "max-stale without a limit", response: TAGGED, later: DAY, second: &[("cache-control", "max-stale")], ..CASE },
    Case { section: "9111 5.2.1.1", name: "max-age=0 in the request", response: TAGGED, second: &[("cache-control", "max-age=0")], then: Expected::Revalidated, ..CASE },
    // Ages and dates.
    Case { section: "9111 5.1", name: "an age that is not a number", response: &[("cache-control", "max-age=60"), ("age", "old")], ..CASE },
    Case { section: "9111 5.1", name: "a negative age", response: &[("cache-control", "max-age=60"), ("age", "-70")], ..CASE },
    Case { section: "9111 5.1", name: "an age with a fraction", response: &[("cache-control", "max-age=60"), ("age", "70.0")], ..CASE },
    Case { section: "9111 5.1", name: "an age beyond 32 bits", response: &[("cache-control", "max-age=60"), ("age", "99999999999")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.1", name: "the first age of a list counts", response: &[("cache-control", "max-age=60"), ("age", "70, 0")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.1", name: "the second age of a list does not count", response: &[("cache-control", "max-age=60"), ("age", "0, 70")], ..CASE },
    Case { section: "9111 5.1", name: "the first of two age lines counts", response: &[("cache-control", "max-age=60"), ("age", "70"), ("age", "0")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.2.3", name: "an old Date", response: &[("cache-control", "max-age=60"), ("date", "Mon, 12 Jan 1970 13:40:00 GMT")], then: Expected::Fetched, ..CASE },
    Case { section: "9110 5.6.7", name: "Expires in RFC 850 format", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("expires", "Monday, 12-Jan-70 13:47:40 GMT")], later: 30, ..CASE },
    Case { section: "9110 5.6.7", name: "Expires in asctime format", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("expires", "Mon Jan 12 13:47:40 1970")], later: 30, ..CASE },
    Case { section: "9110 5.6.7", name: "Expires in any case", response: &[("expires", "MON, 12 jan 1970 13:47:40 gmt")], later: 30, ..CASE },
    Case { section: "9110 5.6.7", name: "Expires with two spaces", response: &[("expires", "Mon, 12  Jan  1970 13:47:40 GMT")], then: Expected::Fetched, ..CASE },
    Case { section: "9110 5.6.7", name: "Expires in another zone", response: &[("expires", "Mon, 12 Jan 1970 13:47:40 UTC")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.3", name: "two different Expires lines", response: &[("expires", "Mon, 12 Jan 1970 13:47:40 GMT"), ("expires", "Mon, 12 Jan 1970 13:57:40 GMT")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 5.3", name: "two equal Expires lines", response: &[("expires", "Mon, 12 Jan 1970 13:47:40 GMT"), ("expires", "Mon, 12 Jan 1970 13:47:40 GMT")], ..CASE },
    Case { section: "9111 5.3", name: "Expires with an invalid Date", response: &[("date", "foo"), ("expires", "Mon, 12 Jan 1970 13:47:40 GMT")], later: 30, ..CASE },
    Case { section: "9111 5.3", name: "Expires and Date from a fast clock", response: &[("date", "Mon, 12 Jan 1970 14:00:00 GMT"), ("expires", "Mon, 12 Jan 1970 13:59:00 GMT")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.2.2", name: "a week at most", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")], later: 2 * DAY, then: Expected::Revalidated, ..CASE },
    // Directives for content delivery networks, which replace the others.
    Case { section: "9213 2", name: "CDN-Cache-Control", is_shared: true, response: &[("cdn-cache-control", "max-age=60")], later: 59, ..CASE },
    Case { section: "9213 2", name: "CDN-Cache-Control, private cache", response: &[("cdn-cache-control", "max-age=60")], later: 1, then: Expected::Fetched, ..CASE },
    Case { section: "9213 2", name: "CDN-Cache-Control before no-store and Expires", is_shared: true, response: &[("cache-control", "no-store"), ("expires", "0"), ("cdn-cache-control", "max-age=60")], later: 59, ..CASE },
    Case { section: "9213 2", name: "CDN-Cache-Control shorter than max-age", is_shared: true, response: &[("cache-control", "max-age=600"), ("cdn-cache-control", "max-age=6")], later: 30, then: Expected::Fetched, ..CASE },
    Case { section: "9213 2", name: "CDN-Cache-Control: no-store", is_shared: true, response: &[("cache-control", "max-age=60"), ("cdn-cache-control", "no-store")], then: Expected::Fetched, ..CASE },
    Case { section: "9213 2", name: "CDN-Cache-Control: no-cache", is_shared: true, response: &[("cache-control", "max-age=60"), ("cdn-cache-control", "no-cache"), ("etag", "\"a\"")], then: Expected::Revalidated, ..CASE },
    Case { section: "9213 2", name: "CDN-Cache-Control: private", is_shared: true, response: &[("cache-control", "max-age=60"), ("cdn-cache-control", "private")], then: Expected::Fetched, ..CASE },
    Case { section: "9213 2.1", name: "a malformed CDN-Cache-Control is ignored", is_shared: true, response: &[("cache-control", "max-age=60"), ("cdn-cache-control", "max-age=1, &&&")], later: 30, ..CASE },
    Case { section: "9213 2.1", name: "a CDN-Cache-Control of another type is ignored", is_shared: true, response: &[("cache-control", "no-store"), ("cdn-cache-control", "max-age=\"60\"")], then: Expected::Fetched, ..CASE },
    // Variants.
    Case { section: "9111 4.1", name: "one line or two", first: &[("foo", "1, 2")], response: &[("cache-control", "max-age=60"), ("vary", "foo")], second: &[("foo", "1"), ("foo", "2")], ..CASE },
    Case { section: "9111 4.1", name: "white space in a list", first: &[("accept", "a,b")], response: &[("cache-control", "max-age=60"), ("vary", "Accept")], second: &[("accept", "a ,  b")], ..CASE },
    Case { section: "9111 4.1", name: "the case of languages", first: &[("accept-language", "en, de")], response: &[("cache-control", "max-age=60"), ("vary", "accept-language")], second: &[("accept-language", "eN, De")], ..CASE },
    Case { section: "9111 4.1", name: "the case of another field", first: &[("foo", "a")], response: &[("cache-control", "max-age=60"), ("vary", "foo")], second: &[("foo", "A")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.1", name: "Vary with * in a list", response: &[("cache-control", "max-age=60"), ("vary", "foo, *")], then: Expected::Fetched, ..CASE },
    Case { section: "9111 4.1", name: "Vary with * in a second line", response: &[("cache-control", "max-age=60"), ("vary", ""), ("vary", "*")], then: Expected::Fetched, ..CASE },
];

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

#[tokio::test]
async fn cases_of_the_rfcs() {
    for case in CASES {
        let origin = Origin::new(case.response);
        let cache = origin.cache(case.is_shared);
        let first = origin.get(&cache, case.first).await.unwrap();
        assert_eq!(first.body(), "answer 1");
        origin.pass(case.later);
        let second = origin.get(&cache, case.second).await.unwrap();
        let requests = origin.requests.lock();
        let is_conditional = requests.last().is_some_and(|requests| {
            requests.headers().contains_key("if-none-match")
                || requests.headers().contains_key("if-modified-since")
        });
        let then = match (second.status().as_u16(), requests.len(), is_conditional) {
            (504, 1, _) => Expected::GatewayTimeout,
            (200, 1, _) => Expected::Cached,
            (200, 2, true) => Expected::Revalidated,
            (200, 2, false) => Expected::Fetched,
            other => panic!("RFC {}, {}: {other:?}", case.section, case.name),
        };
        assert_eq!(then, case.then, "RFC {}, {}", case.section, case.name);
        let body = match then {
            Expected::Cached | Expected::Revalidated => "answer 1",
            Expected::Fetched => "answer 2",
            Expected::GatewayTimeout => "",
        };
        assert_eq!(second.body(), body, "RFC {}, {}", case.section, case.name);
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

/// Sends one request on a new connection. Returns the status and the headers of interest.
async fn fetch(port: u16, request: Request<Bytes>) -> std::io::Result<Response<Bytes>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let mut head =
        format!("GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", request.uri().path());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let mut response = Response::builder().status(lines.next().unwrap().split(' ').nth(1).unwrap());
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        response = response.header(name, value);
    }
    Ok(response.body(Bytes::from(body.to_owned())).unwrap())
}

#[tokio::test]
async fn nginx_confirms_responses_and_changes_are_detected() {
    let Some(nginx) = Server::nginx() else { return };
    let file = nginx.directory().join("www/page");
    std::fs::write(&file, "first").unwrap();
    let cache = HttpCache::new(Arc::new(MemoryHttpStore::new(10, 1 << 20)), HttpCacheOptions::default());
    let statuses = Arc::new(Mutex::new(Vec::new()));
    let port = nginx.port();
    let get = || {
        let (cache, statuses) = (cache.clone(), statuses.clone());
        async move {
            let request = Request::get("http://localhost/page").body(Bytes::new()).unwrap();
            let fetch = move |request| {
                let statuses = statuses.clone();
                async move {
                    let response = fetch(port, request).await?;
                    statuses.lock().push(response.status().as_u16());
                    Ok::<_, std::io::Error>(response)
                }
            };
            cache.send(request, fetch).await.unwrap()
        }
    };
    for _ in 0..2 {
        let response = get().await;
        assert_eq!((response.status().as_u16(), response.body()), (200, &Bytes::from("first")));
    }
    std::fs::write(&file, "changed").unwrap();
    assert_eq!(get().await.body(), "changed");
    assert_eq!(get().await.body(), "changed");
    assert_eq!(
        *statuses.lock(),
        [200, 304, 200, 304],
        "no-cache: revalidated each time, resent after a change"
    );
}

/// A store whose calls panic.
#[derive(Debug)]
struct PanickingStore;

#[async_trait::async_trait]
impl HttpStore for PanickingStore {
    async fn get(&self, _: &str) -> Vec<StoredResponse> {
        tokio::task::yield_now().await;
        panic!("get")
    }

    async fn put(&self, _: &str, _: Vec<StoredResponse>) {
        tokio::task::yield_now().await;
        panic!("put")
    }

    async fn remove(&self, _: &str) {
        tokio::task::yield_now().await;
        panic!("remove")
    }
}

#[tokio::test]
async fn a_cache_whose_store_panics_passes_requests_on() {
    let origin = Origin::new(&[("cache-control", "max-age=60")]);
    let cache = HttpCache::new(Arc::new(PanickingStore), HttpCacheOptions::default());
    for _ in 0..3 {
        let (first, second) = tokio::join!(origin.get(&cache, &[]), origin.get(&cache, &[]));
        assert!(first.unwrap().status().is_success() && second.unwrap().status().is_success());
        assert_eq!(origin.get(&cache, &[("range", "bytes=0-1")]).await.unwrap().status(), 200);
        assert_eq!(origin.send(&cache, "DELETE", &[]).await.unwrap().status(), 200);
    }
    assert_eq!(origin.requests.lock().len(), 12);
}

#[tokio::test]
async fn a_cache_whose_clock_panics_uses_the_system_clock() {
    let origin = Origin::new(&[("cache-control", "max-age=60")]);
    let store = Arc::new(MemoryHttpStore::new(10, 1 << 20));
    let cache = HttpCache::with_clock(store, HttpCacheOptions::default(), || panic!("no clock"));
    for _ in 0..3 {
        assert_eq!(origin.get(&cache, &[]).await.unwrap().status(), 200);
    }
    assert_eq!(origin.requests.lock().len(), 1);
}
