//! Responses that are kept: cases written from RFC 9111 and RFC 5861, each with its section; and nginx.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use greenwave_pooling::{HttpCache, HttpCacheOptions, MemoryHttpStore};
use http::{Request, Response};
use parking_lot::Mutex;

use crate::servers::Server;

type Headers = &'static [(&'static str, &'static str)];

/// What becomes of the second request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Answered from what is kept.
    Kept,
    /// Asked with a condition.
    Asked,
    /// Fetched as if nothing were kept.
    Fetched,
    /// Answered with 504.
    Refused,
}

struct Case {
    section: &'static str,
    what: &'static str,
    is_shared: bool,
    first: Headers,
    response: Headers,
    /// Seconds between the two requests.
    later: u64,
    second: Headers,
    then: Then,
}

const CASE: Case = Case {
    section: "",
    what: "",
    is_shared: false,
    first: &[],
    response: &[],
    later: 0,
    second: &[],
    then: Then::Kept,
};

const DAY: u64 = 86_400;
const FRESH: Headers = &[("cache-control", "max-age=60")];
const TAGGED: Headers = &[("cache-control", "max-age=60"), ("etag", "\"a\"")];

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { section: "9111 3", what: "no-store in the response", response: &[("cache-control", "no-store, max-age=60")], then: Then::Fetched, ..CASE },
    Case { section: "9111 5.2.1.5", what: "no-store in the request", first: &[("cache-control", "no-store")], response: FRESH, then: Then::Fetched, ..CASE },
    Case { section: "9111 4.2.1", what: "max-age not yet over", response: FRESH, later: 59, ..CASE },
    Case { section: "9111 4.2.1", what: "max-age over, no validator", response: FRESH, later: 61, then: Then::Fetched, ..CASE },
    Case { section: "9111 4.3.1", what: "max-age over, entity tag", response: TAGGED, later: 61, then: Then::Asked, ..CASE },
    Case { section: "9111 4.3.1", what: "max-age over, last modified", response: &[("cache-control", "max-age=60"), ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")], later: 61, then: Then::Asked, ..CASE },
    Case { section: "9111 5.3", what: "Expires not yet over", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("expires", "Mon, 12 Jan 1970 13:47:40 GMT")], later: 30, ..CASE },
    Case { section: "9111 5.3", what: "Expires over", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("expires", "Mon, 12 Jan 1970 13:47:40 GMT")], later: 90, then: Then::Fetched, ..CASE },
    Case { section: "9111 5.3", what: "an invalid Expires is past", response: &[("expires", "0")], then: Then::Fetched, ..CASE },
    Case { section: "9111 5.2.2.1", what: "max-age overrides Expires", response: &[("cache-control", "max-age=60"), ("expires", "0")], later: 30, ..CASE },
    Case { section: "9111 4.2.3", what: "Age counts", response: &[("cache-control", "max-age=60"), ("age", "50")], later: 15, then: Then::Fetched, ..CASE },
    Case { section: "9111 4.2.2", what: "a tenth of the time since it was modified", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("last-modified", "Fri, 02 Jan 1970 13:46:40 GMT")], later: DAY / 2, ..CASE },
    Case { section: "9111 4.2.2", what: "and no longer", response: &[("date", "Mon, 12 Jan 1970 13:46:40 GMT"), ("last-modified", "Fri, 02 Jan 1970 13:46:40 GMT")], later: DAY + 9, then: Then::Asked, ..CASE },
    Case { section: "9111 5.2.2.4", what: "no-cache is always asked about", response: &[("cache-control", "no-cache, max-age=60"), ("etag", "\"a\"")], then: Then::Asked, ..CASE },
    Case { section: "9111 5.2.1.4", what: "no-cache in the request", response: TAGGED, second: &[("cache-control", "no-cache")], then: Then::Asked, ..CASE },
    Case { section: "9111 5.4", what: "Pragma: no-cache in the request", response: TAGGED, second: &[("pragma", "no-cache")], then: Then::Asked, ..CASE },
    Case { section: "9111 5.2.1.1", what: "max-age in the request", response: TAGGED, later: 20, second: &[("cache-control", "max-age=10")], then: Then::Asked, ..CASE },
    Case { section: "9111 5.2.1.3", what: "min-fresh in the request", response: TAGGED, later: 50, second: &[("cache-control", "min-fresh=20")], then: Then::Asked, ..CASE },
    Case { section: "9111 5.2.1.2", what: "max-stale in the request", response: TAGGED, later: 70, second: &[("cache-control", "max-stale=30")], ..CASE },
    Case { section: "9111 5.2.1.2", what: "more than max-stale", response: TAGGED, later: 100, second: &[("cache-control", "max-stale=30")], then: Then::Asked, ..CASE },
    Case { section: "9111 5.2.2.2", what: "must-revalidate against max-stale", response: &[("cache-control", "max-age=60, must-revalidate"), ("etag", "\"a\"")], later: 70, second: &[("cache-control", "max-stale=30")], then: Then::Asked, ..CASE },
    Case { section: "9111 5.2.1.7", what: "only-if-cached, kept", response: FRESH, second: &[("cache-control", "only-if-cached")], ..CASE },
    Case { section: "9111 5.2.1.7", what: "only-if-cached, stale", response: FRESH, later: 61, second: &[("cache-control", "only-if-cached")], then: Then::Refused, ..CASE },
    Case { section: "9111 5.2.2.7", what: "private, own cache", response: &[("cache-control", "private, max-age=60")], ..CASE },
    Case { section: "9111 5.2.2.7", what: "private, shared cache", is_shared: true, response: &[("cache-control", "private, max-age=60")], then: Then::Fetched, ..CASE },
    Case { section: "9111 5.2.2.10", what: "s-maxage, shared cache", is_shared: true, response: &[("cache-control", "max-age=1, s-maxage=60")], later: 30, ..CASE },
    Case { section: "9111 5.2.2.10", what: "s-maxage, own cache", response: &[("cache-control", "max-age=1, s-maxage=60")], later: 30, then: Then::Fetched, ..CASE },
    Case { section: "9111 3.5", what: "Authorization, shared cache", is_shared: true, first: &[("authorization", "x")], response: FRESH, second: &[("authorization", "x")], then: Then::Fetched, ..CASE },
    Case { section: "9111 3.5", what: "Authorization, public", is_shared: true, first: &[("authorization", "x")], response: &[("cache-control", "public, max-age=60")], second: &[("authorization", "x")], ..CASE },
    Case { section: "9111 4.1", what: "Vary, the same", first: &[("accept", "a")], response: &[("cache-control", "max-age=60"), ("vary", "accept")], second: &[("accept", "a")], ..CASE },
    Case { section: "9111 4.1", what: "Vary, another", first: &[("accept", "a")], response: &[("cache-control", "max-age=60"), ("vary", "accept")], second: &[("accept", "b")], then: Then::Fetched, ..CASE },
    Case { section: "9111 4.1", what: "Vary, missing", first: &[("accept", "a")], response: &[("cache-control", "max-age=60"), ("vary", "accept")], then: Then::Fetched, ..CASE },
    Case { section: "9111 4.1", what: "Vary: *", response: &[("cache-control", "max-age=60"), ("vary", "*")], then: Then::Fetched, ..CASE },
    Case { section: "5861 3", what: "stale-while-revalidate", response: &[("cache-control", "max-age=60, stale-while-revalidate=30"), ("etag", "\"a\"")], later: 80, then: Then::Kept, ..CASE },
    Case { section: "5861 3", what: "stale for longer", response: &[("cache-control", "max-age=60, stale-while-revalidate=30"), ("etag", "\"a\"")], later: 91, then: Then::Asked, ..CASE },
    Case { section: "9111 5.2.2.2", what: "must-revalidate against stale-while-revalidate", response: &[("cache-control", "max-age=60, must-revalidate, stale-while-revalidate=30"), ("etag", "\"a\"")], later: 70, then: Then::Asked, ..CASE },
];

/// The other side: what it answers, and what it was asked.
#[derive(Clone)]
struct Origin {
    now: Arc<Mutex<SystemTime>>,
    headers: Arc<Mutex<Headers>>,
    status: Arc<Mutex<u16>>,
    asked: Arc<Mutex<Vec<Request<Bytes>>>>,
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
            asked: Arc::default(),
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
            let mut asked = self.asked.lock();
            asked.push(request);
            asked.len()
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
        let asked = origin.asked.lock();
        let is_conditional = asked.last().is_some_and(|asked| {
            asked.headers().contains_key("if-none-match") || asked.headers().contains_key("if-modified-since")
        });
        let then = match (second.status().as_u16(), asked.len(), is_conditional) {
            (504, 1, _) => Then::Refused,
            (200, 1, _) => Then::Kept,
            (200, 2, true) => Then::Asked,
            (200, 2, false) => Then::Fetched,
            other => panic!("RFC {}, {}: {other:?}", case.section, case.what),
        };
        assert_eq!(then, case.then, "RFC {}, {}", case.section, case.what);
        let body = match then {
            Then::Kept | Then::Asked => "answer 1",
            Then::Fetched => "answer 2",
            Then::Refused => "",
        };
        assert_eq!(second.body(), body, "RFC {}, {}", case.section, case.what);
    }
}

/// RFC 9111, section 5.1.
#[tokio::test]
async fn what_is_kept_says_how_old_it_is() {
    let origin = Origin::new(FRESH);
    let cache = origin.cache(false);
    origin.get(&cache, &[]).await.unwrap();
    origin.pass(42);
    assert_eq!(origin.get(&cache, &[]).await.unwrap().headers()["age"], "42");
}

/// RFC 9111, section 4.3.4.
#[tokio::test]
async fn what_was_found_good_is_fresh_again() {
    let origin = Origin::new(TAGGED);
    let cache = origin.cache(false);
    origin.get(&cache, &[]).await.unwrap();
    origin.pass(70);
    origin.get(&cache, &[]).await.unwrap();
    assert_eq!(origin.asked.lock()[1].headers()["if-none-match"], "\"a\"");
    origin.pass(50);
    assert_eq!(origin.get(&cache, &[]).await.unwrap().body(), "answer 1");
    assert_eq!(origin.asked.lock().len(), 2);
}

/// RFC 5861, section 4; RFC 9111, section 4.2.4.
#[tokio::test]
async fn what_is_stale_stands_in_for_errors_where_it_may() {
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
            assert_eq!(origin.asked.lock().len(), 2, "it was asked all the same");
        }
    }
}

/// RFC 5861, section 3.
#[tokio::test]
async fn what_is_stale_is_refreshed_in_the_background() {
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
    assert_eq!(origin.asked.lock().len(), 2, "one request for all");
    assert!(
        !origin.get(&cache, &[]).await.unwrap().headers().contains_key("age")
            || origin.get(&cache, &[]).await.unwrap().headers()["age"] == "0"
    );
}

/// RFC 9111, section 4.4.
#[tokio::test]
async fn what_may_have_changed_is_forgotten() {
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
async fn one_request_for_all_who_miss_and_none_waits_where_nothing_is_kept() {
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
    assert_eq!(origin.asked.lock().len(), 1);

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
    assert!(origin.get(&cache, &[]).await.is_ok(), "one that hangs holds nobody up");
    hung.abort();
}

/// One request on a connection of its own; the status, and a response with the headers of interest.
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
async fn nginx_answers_conditions_and_changes_are_seen() {
    let Some(nginx) = Server::nginx() else { return };
    let file = nginx.dir().join("www/page");
    std::fs::write(&file, "first").unwrap();
    let cache = HttpCache::new(Arc::new(MemoryHttpStore::new(10, 1 << 20)), HttpCacheOptions::default());
    let statuses = Arc::new(Mutex::new(Vec::new()));
    let port = nginx.port;
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
    assert_eq!(*statuses.lock(), [200, 304, 200, 304], "no-cache: asked each time, sent when it changed");
}
