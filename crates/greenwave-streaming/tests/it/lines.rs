//! Tests lines and delimited records.

use greenwave_streaming::{Cap, Delimited, Error, Lines};

use crate::texts;

#[track_caller]
fn check(input: &str, expected: &[&str]) {
    let (found, error) = texts(Lines::default(), input.as_bytes());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, expected, "{input:?}");
}

#[track_caller]
fn check_delimited(delimiter: &str, input: &str, expected: &[&str]) {
    let (found, error) = texts(Delimited::new(delimiter.as_bytes(), Cap::default()), input.as_bytes());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, expected, "{input:?}");
}

#[test]
fn all_three_line_endings_are_recognized() {
    check("a\nb\r\nc\rd\n", &["a", "b", "c", "d"]);
    check("\n\r\n\r\r\n", &["", "", "", ""]);
    check("a\n\nb", &["a", "", "b…"]);
    check("", &[]);
}

#[test]
fn a_line_that_ends_with_cr_is_reported_at_once() {
    let mut lines = greenwave_streaming::BufferedSplitter::new(Lines::default());
    assert!(lines.feed("one\r".into()).unwrap().is_some());
    assert!(lines.feed("\n".into()).unwrap().is_none());
    assert!(lines.feed("\n".into()).unwrap().is_some(), "the LF after the CRLF is a line of its own");
}

#[test]
fn oversized_lines_are_split_between_characters() {
    let (found, _) = texts(Lines::new(Cap::split(4)), "abcdefgh\nij\näöü\n".as_bytes());
    assert_eq!(found, ["abcd…", "…efgh", "ij", "äö…", "…ü"]);
    let (found, _) = texts(Lines::new(Cap::split(4)), "abcä\n".as_bytes());
    assert_eq!(found, ["abc…", "…ä"]);
}

#[test]
fn oversized_lines_are_errors() {
    let (found, error) = texts(Lines::new(Cap::error(4)), b"abcd\nabcde\n");
    assert_eq!(found, ["abcd"]);
    assert!(matches!(error, Some(Error::UnitTooLong { offset: 5, bytes_max: 4 })), "{error:?}");
}

#[test]
fn delimiters_of_any_length_are_found() {
    check_delimited("\0", "a\0b\0\0c", &["a", "b", "", "c…"]);
    check_delimited("--", "a-b--c---d--", &["a-b", "c", "-d"]);
    check_delimited("aab", "aaabxaab", &["a", "x"]);
}

#[test]
fn long_records_are_split() {
    let (found, _) = texts(Delimited::new(b"--", Cap::split(4)), b"abcdefgh--abcd-");
    assert_eq!(found, ["abcd…", "…efgh", "abcd…", "…-…"]);
}
