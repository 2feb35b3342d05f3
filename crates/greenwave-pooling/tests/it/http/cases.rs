//! Pairs of requests, each with the section of the RFC that decides how the second is handled.

use super::{FRESH, Headers, Origin, TAGGED};

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
