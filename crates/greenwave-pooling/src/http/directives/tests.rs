//! Tests of cache directives: in any case, quoted, repeated, malformed.

use std::time::Duration;

use http::HeaderMap;

use super::Directives;

fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
    lines.iter().map(|line| (name.parse().expect("a name"), line.parse().expect("a value"))).collect()
}

#[track_caller]
fn check_seconds(lines: &[&str], expected: Option<u64>) {
    let directives = Directives::of(&headers("cache-control", lines));
    assert_eq!(directives.seconds("max-age"), expected.map(Duration::from_secs), "{lines:?}");
}

#[test]
fn lifetimes() {
    check_seconds(&["max-age=60"], Some(60));
    check_seconds(&["MaX-aGe=60"], Some(60));
    check_seconds(&["foo, max-age=60"], Some(60));
    check_seconds(&["foo", "max-age=60"], Some(60));
    check_seconds(&["max-age=\"60\""], Some(60));
    check_seconds(&["max-age=0060"], Some(60));
    check_seconds(&["max-age=60, max-age=60"], Some(60));
    check_seconds(&["max-age=2147483649"], Some(1 << 31));
    check_seconds(&["max-age=99999999999999999999999999"], Some(1 << 31));
    check_seconds(&["x=\"max-age=9\", max-age=60"], Some(60));
    check_seconds(&["x=\"\\\", max-age=9\", max-age=60"], Some(60));
    check_seconds(&["x=\"max-age=9\""], None);
    check_seconds(&["s-maxage=60"], None);
    check_seconds(&[""], None);
}

/// RFC 9111, section 4.2.1: an unintelligible lifetime makes a response stale.
#[test]
fn invalid_lifetimes_are_zero() {
    for value in ["-60", "'60'", "60.0", "60a", "a60", "", " 60", "1e3", "\"\"", "\u{b2}"] {
        check_seconds(&[&format!("max-age={value}")], Some(0));
    }
    check_seconds(&["max-age"], Some(0));
    check_seconds(&["max-age =60"], Some(0));
    check_seconds(&["max-age=60, max-age=61"], Some(0));
    check_seconds(&["max-age=60", "max-age=61"], Some(0));
}

#[test]
fn directives_without_values_and_with_field_lists() {
    let of = |line: &str| Directives::of(&headers("cache-control", &[line]));
    for line in
        ["no-cache", "No-CaChE", "max-age=9,no-cache", ",, no-cache ,", "no-cache=\"\"", "no-cache=\"a b\""]
    {
        assert!(of(line).has_bare("no-cache"), "{line}");
    }
    let listed = of("no-cache=\"a, B\", private=c, max-age=1");
    assert!(listed.has("no-cache") && !listed.has_bare("no-cache"));
    assert_eq!(listed.fields("no-cache").collect::<Vec<_>>(), ["a", "B"]);
    assert_eq!(listed.fields("private").collect::<Vec<_>>(), ["c"]);
    assert!(!of("x=\"no-cache\"").has("no-cache"));
    assert!(of("max-stale").is_unlimited("max-stale") && !of("max-stale=1").is_unlimited("max-stale"));
}

/// RFC 9213, section 2.1: a malformed field is ignored as a whole.
#[test]
fn cdn_directives() {
    let of = |line: &str| Directives::of_cdn(&headers("cdn-cache-control", &[line]));
    let seconds = |line: &str| of(line).and_then(|directives| directives.seconds("max-age"));
    assert_eq!(seconds("max-age=60"), Some(Duration::from_secs(60)));
    assert_eq!(seconds("foobar, max-age=60;x=1"), Some(Duration::from_secs(60)));
    assert_eq!(seconds("max-age=99999999999"), Some(Duration::from_secs(1 << 31)));
    for line in
        ["", "max-age=60, &&&&&", "max-age=\"60\"", "max-age= 60", "max-age =60", "max-age=-1", "max-age"]
    {
        assert!(of(line).is_none(), "{line}");
    }
    assert!(Directives::of_cdn(&HeaderMap::new()).is_none());
}
