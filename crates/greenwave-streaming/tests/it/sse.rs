//! Server-sent events, case by case from the text of the HTML standard, 9.2.5 and 9.2.6.

use std::time::Duration;

use bytes::Bytes;
use greenwave_streaming::conformance::units;
use greenwave_streaming::{Error, Splitting, Sse};

/// Events as `type|id|data`.
#[track_caller]
fn check(input: &str, expected: &[&str]) {
    let (found, error) = units(Sse::default(), [input.as_bytes()]);
    assert!(error.is_none(), "{error:?}");
    let found: Vec<_> = found
        .iter()
        .map(|unit| {
            let (event, id) = (unit.event.as_deref().unwrap_or("?"), unit.id.as_deref().unwrap_or(""));
            format!("{event}|{id}|{}", String::from_utf8_lossy(&unit.bytes))
        })
        .collect();
    assert_eq!(found, expected, "{input:?}");
}

#[test]
fn examples_of_the_standard() {
    check("data: YHOO\ndata: +2\ndata: 10\n\n", &["message||YHOO\n+2\n10"]);
    check(
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        &["message|1|first event", "message||second event", "message|| third event"],
    );
    check("data\n\ndata\ndata\n\ndata:", &["message||", "message||\n"]);
    check("data:test\n\ndata: test\n\n", &["message||test", "message||test"]);
    check("event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n", &["add||73857293", "remove||2153"]);
}

#[test]
fn line_ends_and_byte_order_mark() {
    check("data:a\r\rdata:b\n\ndata:c\r\n\r\n", &["message||a", "message||b", "message||c"]);
    check("data:a\r\ndata:b\rdata:c\n\n", &["message||a\nb\nc"]);
    check("\u{feff}data:a\n\n", &["message||a"]);
    check("\u{feff}\u{feff}data:a\n\ndata:b\n\n", &["message||b"]);
    check("\u{feff}", &[]);
}

#[test]
fn fields() {
    check("data\u{0}:a\n\n", &[]);
    check(" data:a\n\n", &[]);
    check("Data:a\n\n", &[]);
    check("data :a\n\n", &[]);
    check(":data:a\n\n", &[]);
    check("data:\n\n", &["message||"]);
    check("data: \u{0}\n\n", &["message||\u{0}"]);
    check("event:\ndata:a\n\n", &["message||a"]);
    check("event:x\n\ndata:a\n\n", &["message||a"]);
    check("event:x\nevent:y\ndata:a\n\n", &["y||a"]);
    check("data:a\n:comment\nunknown:b\nevent:e\ndata:c\n\n", &["e||a\nc"]);
    check("data:a:b\n\n", &["message||a:b"]);
}

#[test]
fn ids_last() {
    check("id:1\ndata:a\n\ndata:b\n\n", &["message|1|a", "message|1|b"]);
    check("id:1\n\ndata:b\n\n", &["message|1|b"]);
    check("id:1\ndata:a\n\nid:x\u{0}\ndata:b\n\n", &["message|1|a", "message|1|b"]);
    check("id:1\ndata:a\n\nid\ndata:b\n\n", &["message|1|a", "message||b"]);
}

#[test]
fn an_event_cut_off_is_discarded() {
    check("data:a\n\ndata:b\n", &["message||a"]);
    check("data:a", &[]);
}

#[test]
fn retry_is_digits_only() {
    for (input, expected) in [
        ("retry:3000\n", Some(3000)),
        ("retry: 07\n", Some(7)),
        ("retry:30x\n", None),
        ("retry:\n", None),
        ("retry:+1\n", None),
        ("retry:5\nretry:x\n", Some(5)),
        ("retry:99999999999999999999\n", None),
    ] {
        let mut splitting = Splitting::new(Sse::default());
        splitting.feed(Bytes::from_static(input.as_bytes())).unwrap();
        assert_eq!(splitting.splitter().retry(), expected.map(Duration::from_millis), "{input:?}");
    }
}

#[test]
fn the_last_id_is_known_for_a_new_attempt() {
    let mut splitting = Splitting::new(Sse::default());
    splitting.feed("id:1\ndata:a\n\nid:2\ndata".into()).unwrap();
    assert_eq!(splitting.splitter().last_event_id(), b"1", "an event that is not complete does not count");
    splitting.feed("\n\n".into()).unwrap();
    assert_eq!(splitting.splitter().last_event_id(), b"2");
}

#[test]
fn an_event_leaves_at_its_blank_line() {
    let mut splitting = Splitting::new(Sse::default());
    assert!(splitting.feed("data:a\r\n".into()).unwrap().is_none());
    assert!(splitting.feed("\r".into()).unwrap().is_some());
    assert!(splitting.feed("\ndata:b\n".into()).unwrap().is_none());
    assert_eq!(splitting.feed("\n".into()).unwrap().unwrap().get(0).unwrap().bytes(), "b");
}

#[test]
fn a_long_event_is_an_error() {
    let (found, error) = units(Sse::new(8), [b"data:abc\n\ndata:a\ndata:b\n\n".as_slice()]);
    assert_eq!(found.len(), 1);
    assert!(matches!(error, Some(Error::UnitTooLong { offset: 10, bytes_max: 8 })), "{error:?}");
}
