//! Compares unfinished values with `serde_json` and a naive search.

use greenwave_streaming::{Error, PartialJson};
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

#[track_caller]
fn check(input: &str, expected: Option<&str>) {
    let mut partial = PartialJson::default();
    partial.push(input.as_bytes()).expect("the input can become a value");
    assert_eq!(partial.text(), expected, "{input:?}");
}

#[test]
fn open_strings_and_brackets_are_closed() {
    check("", None);
    check(" ", None);
    check("{", Some("{}"));
    check("[ ", Some("[ ]"));
    check("{\"a", Some("{}"));
    check("{\"a\":", Some("{}"));
    check("{\"a\":\"", Some("{\"a\":\"\"}"));
    check("{\"a\":\"x\\", Some("{\"a\":\"x\"}"));
    check("{\"a\":\"x\\u00e", Some("{\"a\":\"x\"}"));
    check("{\"a\":\"x\\ud83d\\ude0", Some("{\"a\":\"x\"}"));
    check("{\"a\":\"x\\ud83d\\ude00", Some("{\"a\":\"x\\ud83d\\ude00\"}"));
    check("{\"a\":1,\"b\":{\"c\":[1,tru", Some("{\"a\":1,\"b\":{\"c\":[1]}}"));
    check("[1, ", Some("[1]"));
    check("[-", Some("[]"));
    check("[1.", Some("[1]"));
    check("[1.5e+", Some("[1.5]"));
    check("[[1],[[", Some("[[1],[[]]]"));
    check("nul", None);
    check("\"a", Some("\"a\""));
}

#[test]
fn characters_are_never_split() {
    let mut partial = PartialJson::default();
    for (byte, expected) in
        "\"aä€".bytes().zip(["\"\"", "\"a\"", "\"a\"", "\"aä\"", "\"aä\"", "\"aä\"", "\"aä€\""])
    {
        partial.push(&[byte]).unwrap();
        assert_eq!(partial.text(), Some(expected));
    }
}

#[test]
fn errors_are_permanent() {
    for (input, at) in [
        ("[1,]", 3),
        ("{1", 1),
        ("[01", 2),
        ("[1 2", 3),
        ("nulx", 3),
        ("{\"a\" 1", 5),
        ("[}", 1),
        ("\"\\x", 2),
        ("\"\\ud83dx", 7),
        ("\"\\ude00", 6),
        ("\"\n", 1),
        ("1 2", 2),
        ("-x", 1),
        ("[1.]", 3),
        ("{\"a\":1,}", 7),
    ] {
        let mut partial = PartialJson::default();
        let error = partial.push(input.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Malformed { offset, .. } if offset == at), "{input:?}: {error:?}");
        assert!(partial.push(b"1").is_err() && !partial.is_complete());
    }
    let error = PartialJson::default().push(b"\"\xff").unwrap_err();
    assert!(matches!(error, Error::Malformed { offset: 1, .. }), "{error:?}");
    let error = PartialJson::default().push(b"\"\xf0\x90\x28").unwrap_err();
    assert!(matches!(error, Error::Malformed { offset: 3, .. }), "{error:?}");
}

#[test]
fn length_and_depth_are_limited() {
    let mut partial = PartialJson::new(6, 2);
    assert!(matches!(partial.push(b"[[["), Err(Error::TooDeep { offset: 2, depth_max: 2 })));
    assert_eq!(partial.text(), Some("[[]]"), "what was valid stays");
    let mut partial = PartialJson::new(6, 2);
    assert!(matches!(partial.push(b"[\"abcdef"), Err(Error::UnitTooLong { bytes_max: 6, .. })));
    assert_eq!(partial.text(), Some("[\"abcd\"]"));
}

/// Finds the longest prefix that is valid once closed, by trying all prefixes.
fn naive(input: &str) -> Option<String> {
    let ends = input.char_indices().map(|(at, _)| at).chain([input.len()]);
    ends.rev().find_map(|end| {
        let prefix = &input[..end];
        let closed = prefix.to_owned() + &closing(prefix);
        serde_json::from_str::<&RawValue>(&closed).ok()?;
        // The grammar alone accepts halves of surrogate pairs.
        serde_json::from_str::<Value>(&closed).ok().map(|_| closed)
    })
}

fn closing(prefix: &str) -> String {
    let (mut due, mut is_string, mut is_escaped) = (String::new(), false, false);
    for c in prefix.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_string => is_escaped = true,
            '"' => is_string = !is_string,
            '[' if !is_string => due.push(']'),
            '{' if !is_string => due.push('}'),
            ']' | '}' if !is_string => drop(due.pop()),
            _ => {}
        }
    }
    let quote = if is_string { "\"" } else { "" };
    quote.to_owned() + &due.chars().rev().collect::<String>()
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        "[\\\\\"{}\\[\\]a-cä€😀\n,:]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::hash_map("[\\\\\"{}a-c]{0,3}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_prefix_is_the_longest_valid_one(value in values(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let mut partial = PartialJson::default();
        for (at, byte) in text.bytes().enumerate() {
            partial.push(&[byte]).unwrap();
            if text.is_char_boundary(at + 1) {
                prop_assert_eq!(partial.text().map(str::to_owned), naive(&text[..=at]));
            }
        }
        prop_assert!(partial.is_complete());
        prop_assert_eq!(partial.text(), Some(&text[..]));
    }

    #[test]
    fn the_grammar_matches_serde(text in "[\\[\\]{}\",:1.e-tru nl\\\\ud83a]{0,12}") {
        let mut partial = PartialJson::default();
        let is_value = partial.push(text.as_bytes()).is_ok() && partial.is_complete();
        // The grammar accepts numbers beyond the range of `f64`. `Value` stops at such a number, so
        // `RawValue` checks the rest of the text.
        let by_serde = match serde_json::from_str::<Value>(&text) {
            Err(error) if error.to_string().contains("out of range") => {
                serde_json::from_str::<&RawValue>(&text).is_ok()
            }
            value => value.is_ok(),
        };
        prop_assert_eq!(is_value, by_serde, "{:?}", text);
    }

    #[test]
    fn chunking_does_not_matter(value in values(), garbage in "[\\[\\]{}\",:1a\\\\]{0,4}", sizes in prop::collection::vec(1_usize..6, 1..5)) {
        let text = serde_json::to_string(&value).unwrap() + &garbage;
        let mut whole = PartialJson::new(60, 4);
        let expected = whole.push(text.as_bytes());
        let mut partial = PartialJson::new(60, 4);
        let mut sizes = sizes.iter().copied().cycle();
        let chunks = greenwave_streaming::conformance::chunked(text.as_bytes(), &mut || sizes.next().unwrap_or(1));
        let found = chunks.into_iter().try_for_each(|chunk| partial.push(chunk));
        prop_assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        prop_assert_eq!(partial.text(), whole.text());
    }
}
