//! Tests paragraphs, and compares sentences with `unicode-segmentation`.

use greenwave_streaming::conformance::units;
use greenwave_streaming::{Cap, Error, Paragraphs, Sentences};
use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation;

use crate::texts;

#[track_caller]
fn check_paragraphs(input: &str, expected: &[&str]) {
    let (found, error) = texts(Paragraphs::default(), input.as_bytes());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, expected, "{input:?}");
}

#[track_caller]
fn check_sentences(input: &str, expected: &[&str]) {
    let (found, error) = texts(Sentences::default(), input.as_bytes());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, expected, "{input:?}");
}

#[test]
fn paragraphs_end_at_blank_lines() {
    check_paragraphs("one\ntwo\n\nthree\n", &["one\ntwo", "three…"]);
    check_paragraphs("\n\n  one\r\n \t \r\ntwo\r\r", &["one", "two"]);
    check_paragraphs("a\n\n\n\n\nb\n\n", &["a", "b"]);
    check_paragraphs("a \n b\n\n", &["a \n b"]);
    check_paragraphs(" \r\n\t", &[]);
    check_paragraphs("a\r", &["a…"]);
}

#[test]
fn oversized_paragraphs_are_split_or_errors() {
    let (found, _) = texts(Paragraphs::new(Cap::split(4)), b"abcdef\n\ng\n\n");
    assert_eq!(found, ["abcd…", "…ef", "g"]);
    let (found, _) = texts(Paragraphs::new(Cap::split(4)), b"ab\n    \nc");
    assert_eq!(found, ["ab\n …", "…", "c…"], "blanks count");
    let (_, error) = texts(Paragraphs::new(Cap::error(4)), b"ab\n\nabcde\n\n");
    assert!(matches!(error, Some(Error::UnitTooLong { offset: 4, bytes_max: 4 })), "{error:?}");
}

#[test]
fn sentences_end_at_terminators() {
    check_sentences("One. Two! Three?  Four", &["One.", "Two!", "Three?", "Four…"]);
    check_sentences(
        "He said \"Stop!\" (Loudly.) Then he left.",
        &["He said \"Stop!\"", "(Loudly.)", "Then he left."],
    );
    check_sentences("one\ntwo. three\n", &["one", "two. three"]);
    check_sentences("これは。それは！", &["これは。", "それは！"]);
    check_sentences("", &[]);
}

#[test]
fn full_stops_inside_sentences() {
    check_sentences(
        "Version 3.14 of e.g. the U.S. code. Yes",
        &["Version 3.14 of e.g. the U.S. code.", "Yes…"],
    );
    check_sentences("See no. 5 (b) and on. 5 Then", &["See no. 5 (b) and on.", "5 Then…"]);
    check_sentences("Wait... what?! No", &["Wait... what?!", "No…"]);
}

#[test]
fn long_sentences_are_split() {
    let (found, _) = texts(Sentences::new(Cap::split(4)), "abcdef. Ünü.".as_bytes());
    assert_eq!(found, ["abcd…", "…ef.", "Ün…", "…ü."]);
}

/// Generates text in which all rules apply.
fn prose() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a", "b", "A", "B", "ß", "あ", "1", ".", ".", "!", "?", "。", " ", " ", "\n", "\r\n", "\"", "(", ")",
        ",", ":", "-", "*", "\u{301}", "\u{a0}", "e.g. ", "\u{2029}", "%", "’",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn sentences_match_the_reference(text in prose()) {
        let blank = |c: char| c.is_whitespace();
        let expected: Vec<&str> =
            text.split_sentence_bounds().map(|sentence| sentence.trim_matches(blank)).filter(|it| !it.is_empty()).collect();
        let (found, error) = units(Sentences::default(), [text.as_bytes()]);
        prop_assert!(error.is_none());
        let found: Vec<_> = found.iter().map(|unit| String::from_utf8_lossy(&unit.bytes).into_owned()).collect();
        prop_assert_eq!(found, expected, "{:?}", text);
    }

    /// Compares with a naive reader that groups the lines between blank lines.
    #[test]
    fn paragraphs_match_a_naive_reader(text in "[ab \\t\\n\\r]{0,40}") {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut expected: Vec<String> = Vec::new();
        let mut is_open = false;
        for line in text.split('\n') {
            let is_blank = line.trim_matches([' ', '\t']).is_empty();
            match (is_blank, is_open) {
                (true, _) => {}
                (false, true) => {
                    let last = expected.last_mut().unwrap();
                    last.push('\n');
                    last.push_str(line);
                }
                (false, false) => expected.push(line.trim_start_matches([' ', '\t']).to_owned()),
            }
            is_open = !is_blank;
        }
        let (found, _) = units(Paragraphs::default(), [text.as_bytes()]);
        let found: Vec<_> = found.iter().map(|unit| String::from_utf8_lossy(&unit.bytes).into_owned()).collect();
        prop_assert_eq!(found, expected);
    }
}
