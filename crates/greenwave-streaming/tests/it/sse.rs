//! Tests server-sent events against the text of the HTML standard, 9.2.5 and 9.2.6.

mod standard;

use std::time::Duration;

use bytes::Bytes;
use greenwave_streaming::conformance::units;
use greenwave_streaming::{BufferedSplitter, Error, Sse, UnitBatch};
use proptest::prelude::*;

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
fn standard_examples() {
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
fn line_endings_and_byte_order_mark() {
    check("data:a\r\rdata:b\n\ndata:c\r\n\r\n", &["message||a", "message||b", "message||c"]);
    check("data:a\r\ndata:b\rdata:c\n\n", &["message||a\nb\nc"]);
    check("\u{feff}data:a\n\n", &["message||a"]);
    check("\u{feff}\u{feff}data:a\n\ndata:b\n\n", &["message||b"]);
    check("\u{feff}", &[]);
}

/// Like "UTF-8 decode" of the Encoding standard.
#[test]
fn types_and_ids_that_are_not_utf_8_are_decoded_with_replacement() {
    let input = b"id: a\xFFb\ndata: 1\n\ndata: 2\n\nevent: a\xFFb\ndata: 3\n\nid: \xE2\x82\nevent: \xC3\xA9\ndata: 4\n\nid\ndata: 5\n\n";
    let expected = [
        "message|a\u{fffd}b|1",
        "message|a\u{fffd}b|2",
        "a\u{fffd}b|a\u{fffd}b|3",
        "é|\u{fffd}|4",
        "message||5",
    ];
    for size in 1..=input.len() {
        let mut splitting = BufferedSplitter::new(Sse::default());
        let mut found = Vec::new();
        for chunk in input.chunks(size) {
            let batch = splitting.feed(Bytes::copy_from_slice(chunk)).unwrap();
            // Clones and units that outlive the batch have the labels too.
            let units = batch.clone().into_iter().flat_map(UnitBatch::into_units);
            found.extend(units.map(|unit| {
                let unit = unit.get();
                format!("{}|{}|{}", unit.event().unwrap(), unit.id().unwrap_or(""), unit.text().unwrap())
            }));
        }
        assert_eq!(found, expected, "chunks of {size}");
    }
    let mut splitting = BufferedSplitter::new(Sse::default());
    splitting.feed_slice(&input[..20]).unwrap();
    assert_eq!(splitting.splitter().last_event_id(), "a\u{fffd}b".as_bytes());
    assert_eq!(Sse::default().after(b"\xFF").last_event_id(), "\u{fffd}".as_bytes());
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
fn ids_persist() {
    check("id:1\ndata:a\n\ndata:b\n\n", &["message|1|a", "message|1|b"]);
    check("id:1\n\ndata:b\n\n", &["message|1|b"]);
    check("id:1\ndata:a\n\nid:x\u{0}\ndata:b\n\n", &["message|1|a", "message|1|b"]);
    check("id:1\ndata:a\n\nid\ndata:b\n\n", &["message|1|a", "message||b"]);
}

#[test]
fn an_unfinished_event_is_discarded() {
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
        let mut splitting = BufferedSplitter::new(Sse::default());
        splitting.feed(Bytes::from_static(input.as_bytes())).unwrap();
        assert_eq!(splitting.splitter().retry(), expected.map(Duration::from_millis), "{input:?}");
    }
}

#[test]
fn the_last_id_is_available_for_a_new_attempt() {
    let mut splitting = BufferedSplitter::new(Sse::default());
    splitting.feed("id:1\ndata:a\n\nid:2\ndata".into()).unwrap();
    assert_eq!(splitting.splitter().last_event_id(), b"1", "an event that is not complete does not count");
    splitting.feed("\n\n".into()).unwrap();
    assert_eq!(splitting.splitter().last_event_id(), b"2");
}

#[test]
fn an_event_is_reported_at_its_blank_line() {
    let mut splitting = BufferedSplitter::new(Sse::default());
    assert!(splitting.feed("data:a\r\n".into()).unwrap().is_none());
    assert!(splitting.feed("\r".into()).unwrap().is_some());
    assert!(splitting.feed("\ndata:b\n".into()).unwrap().is_none());
    assert_eq!(splitting.feed("\n".into()).unwrap().unwrap().get(0).unwrap().bytes(), "b");
}

#[test]
fn an_oversized_event_is_an_error() {
    let (found, error) = units(Sse::new(8), [b"data:abc\n\ndata:a\ndata:b\n\n".as_slice()]);
    assert_eq!(found.len(), 1);
    assert!(matches!(error, Some(Error::UnitTooLong { offset: 10, bytes_max: 8 })), "{error:?}");
}

#[test]
fn a_new_stream_continues_with_the_old_id() {
    let (found, _) = units(Sse::default().after(b"7"), [b"data:a\n\nid:8\ndata:b\n\n".as_slice()]);
    let ids: Vec<_> = found.iter().map(|unit| unit.id.as_deref()).collect();
    assert_eq!(ids, [Some("7"), Some("8")]);
}

#[test]
fn standard_details() {
    // "If the line starts with a U+003A COLON character (:): Ignore the line."
    check(
        "data:1\r:\0\n:\r\ndata:2\n:xxxxxxxx\rdata:3\n:data:fail\r:x\ndata:4\n\n",
        &["message||1\n2\n3\n4"],
    );
    // "If value starts with a U+0020 SPACE character, remove it from value." Only one, and no tab.
    check("data:\ttest\rdata: \ndata:test\n\n", &["message||\ttest\n\ntest"]);
    // "Otherwise, the string is not empty but does not contain a colon: use the whole line as the
    // field name."
    check("data:test\ndata\ndata:test\n\n", &["message||test\n\ntest"]);
    // Field names are case-sensitive.
    check(
        "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        &["message||\0\n 2\n1\n3\n\n4"],
    );
    // "Set the event type buffer to field value": the last one counts, and an empty one counts as
    // none.
    check("event:a\nevent: \ndata:x\n\n", &["message||x"]);
    check("event: a b\ndata:x\n\ndata:y\n\n", &["a b||x", "message||y"]);
    // An event without data changes the last event id too.
    check("id:1\n\nid\ndata:x\n\n", &["message||x"]);
    check("data:x\nid:\u{fffd}\n\n", &["message|\u{fffd}|x"]);
    // An event of a megabyte.
    let long = "x".repeat(1 << 20);
    check(&format!("data:{long}\n\n"), &[&format!("message||{long}")]);
}

proptest! {
    #[test]
    fn events_match_the_standard(pieces in prop::collection::vec(prop::sample::select(vec![
        "data", "data:", "data: ", "data:  x", "event:", "event:e", "id:", "id:1", "id: 2", "id:\0", "id", "retry:1", ":", ": c", "x", "y:z",
        "\n", "\n", "\r", "\r\n", "\n\n", "\u{feff}", " ", "\0",
    ]), 0..40)) {
        let text = pieces.concat();
        let expected = standard::events(text.as_bytes());
        let (found, error) = units(Sse::default(), [text.as_bytes()]);
        prop_assert!(error.is_none());
        let found: Vec<_> = found
            .iter()
            .map(|unit| {
                let (event, id) = (unit.event.clone().unwrap_or_default(), unit.id.clone().unwrap_or_default());
                (event.into_bytes(), id.into_bytes(), unit.bytes.to_vec())
            })
            .collect();
        prop_assert_eq!(found, expected, "{:?}", text);
    }
}
