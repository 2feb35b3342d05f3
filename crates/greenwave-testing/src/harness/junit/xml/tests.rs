//! Tests of the parser of JUnit XML.

use std::io::{self, Read};

use super::*;
use crate::harness::junit::input::PART_BYTES_MAX;

fn parse(bytes: &[u8]) -> Result<JunitReport, String> {
    super::parse(bytes, &mut TextRoom::new())
}

/// Returns name, status and output of each case.
fn cases(text: &str) -> Vec<(String, CaseStatus, String)> {
    let report = parse(text.as_bytes()).unwrap();
    let output =
        |case: &CaseReport| String::from_utf8(case.output.clone().unwrap_or_default().to_vec()).unwrap();
    report.cases.iter().map(|it| (it.report.name.clone(), it.report.status, output(&it.report))).collect()
}

#[test]
fn dialects_are_read() {
    let ctest = r#"<?xml version="1.0" encoding="UTF-8"?><testsuite name="Linux-c++" tests="3" failures="1" disabled="0" skipped="1">
        <testcase name="a" classname="a" time="0.01" status="run"><system-out>out</system-out></testcase>
        <testcase name="b" classname="b" time="1" status="fail"><failure message=""/><system-out>b &lt;failed&gt;</system-out></testcase>
        <testcase name="c" classname="c" time="0" status="disabled"/></testsuite>"#;
    assert_eq!(
        cases(ctest),
        [
            ("a".to_owned(), CaseStatus::Passed, String::new()),
            ("b".to_owned(), CaseStatus::Failed, "b <failed>\n".to_owned()),
            ("c".to_owned(), CaseStatus::Skipped, String::new()),
        ]
    );
    let nested = r#"<testsuites><testsuite name="outer" file="t/A.php"><testsuite name="A">
        <testcase name="x" time="1,234.5"><failure type="E" message="no">no&#10;at A:3</failure></testcase>
        <testcase name="y" classname="B"><error><![CDATA[<boom>]]></error></testcase>
        <testcase name="z" classname="B"><flakyFailure message="once"/></testcase>
        <testcase name="s"><skipped message="later"/></testcase>
        </testsuite></testsuite></testsuites>"#;
    let found = cases(nested);
    assert_eq!(found[0], ("A x".to_owned(), CaseStatus::Failed, "no\nat A:3\n".to_owned()));
    assert_eq!(found[1], ("B y".to_owned(), CaseStatus::Failed, "<boom>\n".to_owned()));
    assert_eq!(found[2].1, CaseStatus::Passed);
    assert_eq!(found[3], ("A s".to_owned(), CaseStatus::Skipped, "later\n".to_owned()));
    let report = parse(nested.as_bytes()).unwrap();
    assert_eq!(report.cases[0].report.duration, Some(Duration::from_millis(1_234_500)));
    assert_eq!((report.cases[0].class.as_str(), report.suite_failures), ("A", 0));
}

#[test]
fn failures_outside_of_cases_count() {
    let failures = |text: &str| parse(text.as_bytes()).unwrap().suite_failures;
    assert_eq!(failures(r#"<testsuite><error message="setup"/></testsuite>"#), 1);
    assert_eq!(failures(r#"<testsuites errors="1"><testsuite errors="1"/></testsuites>"#), 1);
    assert_eq!(
        failures(r#"<testsuite failures="1"><testcase name="a"><failure/></testcase></testsuite>"#),
        0
    );
}

#[test]
fn incomplete_and_other_documents_are_errors() {
    let whole = r#"<testsuites><testsuite name="s"><testcase name="a"><failure>x</failure></testcase></testsuite></testsuites>"#;
    assert!(parse(whole.as_bytes()).is_ok());
    for end in 0..whole.len() {
        assert!(parse(&whole.as_bytes()[..end]).is_err(), "{}", &whole[..end]);
    }
    for other in ["<html></html>", "{}", "<a></b>", "\u{0}", "<testsuite>&"] {
        assert!(parse(other.as_bytes()).is_err(), "{other}");
    }
    let deep = "<testsuite>".repeat(DEPTH_MAX + 1);
    assert_eq!(parse(deep.as_bytes()).unwrap_err(), "it has more than 64 elements inside each other");
    let many = format!("<testsuite>{}</testsuite>", "<testcase/>".repeat(CASES_MAX + 1));
    assert_eq!(parse(many.as_bytes()).unwrap_err(), "it has more than 100000 cases");
}

#[test]
fn other_encodings_entities_and_long_texts_are_read() {
    let text = "<testsuite><testcase name=\"\u{e4}\"/></testsuite>";
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    assert_eq!(parse(&utf16).unwrap().cases[0].name, "\u{e4}");
    let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><testsuite><testcase name='\xe4'/></testsuite>";
    assert_eq!(parse(latin).unwrap().cases[0].name, "\u{fffd}");
    // An entity of the document itself is not expanded.
    let bomb = "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><testsuite><testcase name='&a;'><failure>&a;</failure></testcase></testsuite>";
    assert_eq!(cases(bomb)[0], ("&a;".to_owned(), CaseStatus::Failed, "&a;\n".to_owned()));
    let long = format!(
        "<testsuite><testcase name='a'><failure>{}</failure></testcase></testsuite>",
        "\u{fc}".repeat(1 << 20)
    );
    assert!(cases(&long)[0].2.len() <= TEXT_BYTES_MAX + 1);
    let long = format!("<testsuite><testcase name='{}&amp;'/></testsuite>", "&amp;".repeat(1 << 17));
    assert_eq!(cases(&long)[0].0, "&".repeat(NAME_BYTES_MAX));
}

/// Writes a text repeatedly, without having all of it in memory.
struct Repeated {
    text: &'static [u8],
    at: usize,
    left: usize,
}

impl Read for Repeated {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let count = (&self.text[self.at..]).read(target)?;
        self.at = (self.at + count) % self.text.len();
        self.left -= usize::from(self.at == 0);
        Ok(count)
    }
}

#[test]
fn long_parts_and_texts_are_refused() {
    let input = |start: &'static str, text: &'static str, left: usize| {
        io::BufReader::new(start.as_bytes().chain(Repeated { text: text.as_bytes(), at: 0, left }))
    };
    let problem = |start, text, left| super::parse(input(start, text, left), &mut TextRoom::new());
    let many = PART_BYTES_MAX / 16 + 1;
    for start in ["<testsuite><testcase name='", "<testsuite><", "<testsuite>", "<testsuite><![CDATA["] {
        let error = problem(start, "0123456789abcdef", many).unwrap_err();
        assert_eq!(error, "an element or a text is longer than 32 MiB", "{start}");
    }
    let name = format!("<testsuite><{}>", "a".repeat(4097));
    assert_eq!(parse(name.as_bytes()).unwrap_err(), "the name of an element is longer than 4096 bytes");
    let wide = [0xff, 0xfe].as_slice().chain(Repeated { text: &[65, 0], at: 0, left: 16 << 20 | 1 });
    let error = super::parse(io::BufReader::new(wide), &mut TextRoom::new()).unwrap_err();
    assert_eq!(error, "it is in UTF-16 and larger than 32 MiB");
}

#[test]
fn texts_of_all_cases_are_limited() {
    let mut room = TextRoom { names: 4 * 3 + 4 * 4, outputs: 5 };
    let case = "<testcase name='ab'><failure>abcd</failure></testcase>";
    let text = format!("<testsuite name='c' file='f'>{}</testsuite>", case.repeat(2));
    let found = super::parse(text.as_bytes(), &mut room).unwrap().cases;
    let outputs = found.iter().map(|case| case.report.output.is_some()).collect::<Vec<_>>();
    assert_eq!((outputs, room.names), (vec![true, false], 28 - 2 * (2 + 1 + 1 + 4)));
    let error = super::parse(text.as_bytes(), &mut room).unwrap_err();
    assert_eq!(error, "the names of the cases are longer than 64 MiB in all");
}
