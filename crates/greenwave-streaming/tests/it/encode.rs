//! Tests of encoders: splitters find the encoded values.

use greenwave_streaming::conformance::units;
use greenwave_streaming::{
    Cap, Delimited, Event, Fences, Lines, Pull, Sse, encode_fence, encode_line, encode_record,
};
use proptest::prelude::*;

fn texts(splitter: impl greenwave_streaming::Splitter, input: &[u8]) -> Vec<Vec<u8>> {
    let (seen, error) = units(splitter, [input]);
    assert!(error.is_none(), "{error:?}");
    assert!(seen.iter().all(|unit| unit.complete));
    seen.into_iter().map(|unit| unit.bytes.to_vec()).collect()
}

/// Text with many of the characters that formats treat specially.
fn tricky() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!["a", "`", "\n", "\r", " ", ":", "~", "é", "data", "\0"]),
        0..12,
    )
    .prop_map(|parts| parts.concat())
}

fn read_events(stream: &str) -> Vec<Event> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut events = Pull::read(stream.as_bytes(), Sse::default()).events();
        let mut seen = Vec::new();
        while let Some(event) = events.next().await {
            seen.push(event.expect("an event"));
        }
        seen
    })
}

proptest! {
    #[test]
    fn lines_are_found_again(lines in prop::collection::vec(tricky(), 0..5)) {
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        for line in lines {
            let before = out.len();
            match encode_line(line.as_bytes(), &mut out) {
                Ok(()) => expected.push(line.into_bytes()),
                Err(_) => prop_assert!(line.contains(['\n', '\r']) && out.len() == before),
            }
        }
        prop_assert_eq!(texts(Lines::default(), &out), expected);
    }

    #[test]
    fn records_are_found_again(records in prop::collection::vec("[ab]{0,6}", 0..5), delimiter in "[ab]{0,3}") {
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        for record in records {
            if encode_record(record.as_bytes(), delimiter.as_bytes(), &mut out).is_ok() {
                expected.push(record.into_bytes());
            }
        }
        if !expected.is_empty() {
            prop_assert_eq!(texts(Delimited::new(delimiter.as_bytes(), Cap::default()), &out), expected);
        }
    }

    #[test]
    fn code_is_found_again(blocks in prop::collection::vec(("[a-z ]{0,4}", tricky()), 0..4)) {
        let (mut out, mut expected) = (String::new(), Vec::new());
        for (info, code) in blocks {
            encode_fence(&info, &code, &mut out).expect("an info string of letters");
            let end = if code.is_empty() || code.ends_with(['\n', '\r']) { "" } else { "\n" };
            expected.push(format!("{code}{end}").into_bytes());
        }
        prop_assert_eq!(texts(Fences::default(), out.as_bytes()), expected);
    }

    #[test]
    fn events_are_found_again(fields in prop::collection::vec((tricky(), tricky(), tricky()), 0..4)) {
        let (mut out, mut expected, mut last_id) = (String::new(), Vec::new(), String::new());
        for (name, data, id) in fields {
            let event = Event::new(data.clone()).with_event(name.clone()).with_id(id.clone());
            if event.encode(&mut out).is_err() {
                prop_assert!(name.contains(['\n', '\r']) || id.contains(['\n', '\r', '\0']));
                continue;
            }
            if !id.is_empty() {
                last_id = id;
            }
            let name = if name.is_empty() { "message".to_owned() } else { name };
            let data = data.replace("\r\n", "\n").replace('\r', "\n");
            expected.push(Event::new(data).with_event(name).with_id(last_id.clone()));
        }
        prop_assert_eq!(read_events(&out), expected);
    }
}

#[test]
fn errors_name_the_value() {
    let mut out = Vec::new();
    let error = encode_line(b"a\nb", &mut out).expect_err("a line end");
    assert_eq!(error.to_string(), "cannot encode the line: it contains a line end");
    assert!(encode_record(b"a", b"", &mut out).is_err());
    assert!(encode_record(b"xa", b"aa", &mut out).is_err(), "the delimiter would be found too early");
    assert!(encode_fence("a`b", "", &mut String::new()).is_err());
    assert!(out.is_empty());
}
