//! Compares JSON values with `serde_json`.

use greenwave_streaming::conformance::units;
use greenwave_streaming::{Error, Json};
use proptest::prelude::*;
use serde_json::Value;

use crate::texts;

#[track_caller]
fn check(input: &str, expected: &[&str]) {
    let (found, error) = texts(Json::default(), input.as_bytes());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, expected, "{input:?}");
}

#[test]
fn values_end_at_their_last_byte() {
    check("{}[] \"a\"1 2\ttrue\r\nnull", &["{}", "[]", "\"a\"", "1", "2", "true", "null"]);
    check(r#"{"a":"}\"]","b":[{}]}"#, &[r#"{"a":"}\"]","b":[{}]}"#]);
    check(r#""\\""x""#, &[r#""\\""#, r#""x""#]);
    check("1[2]3\"4\"", &["1", "[2]", "3", "\"4\""]);
    check("  \n ", &[]);
}

#[test]
fn values_cut_off_are_incomplete() {
    check("[1,", &["[1,…"]);
    check("1 \"a\\", &["1", "\"a\\…"]);
}

#[test]
fn brackets_must_match() {
    for (input, at) in [("1 ]", 2), ("[}", 1), ("{\"a\":[1}", 7), (",", 0)] {
        let (_, error) = texts(Json::default(), input.as_bytes());
        assert!(matches!(error, Some(Error::Malformed { offset, .. }) if offset == at), "{input} {error:?}");
    }
}

#[test]
fn depth_and_length_are_capped() {
    let (found, error) = texts(Json::new(64, 3), b"[[[]]] [[[[]]]]");
    assert_eq!(found, ["[[[]]]"]);
    assert!(matches!(error, Some(Error::TooDeep { offset: 10, depth_max: 3 })), "{error:?}");
    let (_, error) = texts(Json::new(4, 3), b"1 \"abcd\"");
    assert!(matches!(error, Some(Error::UnitTooLong { offset: 2, bytes_max: 4 })), "{error:?}");
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        "[\\\\\"{}\\[\\]a-zäß€😀\n ]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[\\\\\"{}a-c]{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn values_match_serde(values in prop::collection::vec((values(), any::<bool>()), 0..6)) {
        let mut text = String::new();
        for (value, pretty) in &values {
            let written = if *pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
            text.push_str(&written.unwrap());
            text.push_str(if *pretty { "\n" } else { " " });
        }
        let (found, error) = units(Json::default(), [text.as_bytes()]);
        prop_assert!(error.is_none());
        let parsed: Vec<Value> = found.iter().map(|unit| serde_json::from_slice(&unit.bytes).unwrap()).collect();
        let expected: Vec<Value> =
            serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap).collect();
        prop_assert_eq!(parsed, expected);
    }

    /// For any bytes, the splitter finds the same values as serde up to serde's first error.
    #[test]
    fn garbage_agrees_with_serde_up_to_its_first_error(text in "[\\[\\]{}\",:1tn \\\\a-]{0,24}") {
        let expected: Vec<Value> =
            serde_json::Deserializer::from_str(&text).into_iter::<Value>().map_while(Result::ok).collect();
        let (found, _) = units(Json::default(), [text.as_bytes()]);
        let parsed: Vec<Value> = found.iter().map_while(|unit| serde_json::from_slice(&unit.bytes).ok()).collect();
        prop_assert!(parsed.starts_with(&expected), "{parsed:?} {expected:?}");
    }
}

/// Values within the default depth are accepted by `serde_json`, and deeper ones are rejected by
/// both.
#[test]
fn the_default_depth_matches_serde_json() {
    for depth in [1, 126, 127, 128, 129] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let inner = if open == "[" { "" } else { "1" };
            let text = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
            let parses = serde_json::from_str::<Value>(&text).is_ok();
            let (_, error) = texts(Json::default(), text.as_bytes());
            assert_eq!(error.is_none(), parses, "{depth} levels of {open}: {error:?}");
            let pushed = greenwave_streaming::PartialJson::default().push(text.as_bytes());
            assert_eq!(pushed.is_ok(), parses, "{depth} levels of {open}: {pushed:?}");
        }
    }
}
