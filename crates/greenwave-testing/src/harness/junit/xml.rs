//! Parses JUnit XML reports in the dialects of many tools.
//!
//! Jenkins documents the common structure
//! (<https://github.com/jenkinsci/xunit-plugin/blob/master/src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd>).

use std::borrow::Cow;
use std::time::Duration;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::{CaseReport, CaseStatus};

/// Maximum number of elements inside each other.
const DEPTH_MAX: usize = 64;
/// Maximum number of cases in one report.
pub(crate) const CASES_MAX: usize = 100_000;
/// Maximum length of a name and of the output of one case, in bytes.
const NAME_BYTES_MAX: usize = 4 * 1024;
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// A single test in a report, with the values that select it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JunitCase {
    /// Attribute `name`.
    pub(crate) name: String,
    /// Attribute `classname`, or the name of the suite.
    pub(crate) class: String,
    /// Attribute `file` of the case or of a suite around it.
    pub(crate) file: String,
    pub(crate) report: CaseReport,
}

/// The content of one report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JunitReport {
    pub(crate) cases: Vec<JunitCase>,
    /// Failures and errors outside of cases, such as one in the setup of a suite.
    pub(crate) suite_failures: u64,
}

/// Parses a report.
///
/// # Errors
/// A phrase, such as "it ends within an element", if the text is not a complete report.
pub(crate) fn parse(bytes: &[u8]) -> Result<JunitReport, String> {
    let text = decode(bytes);
    let mut reader = Reader::from_str(&text);
    reader.config_mut().expand_empty_elements = true;
    let mut parser = Parser::default();
    loop {
        match reader.read_event() {
            Err(error) => return Err(format!("at byte {}: {error}", reader.error_position())),
            Ok(Event::Eof) => return parser.finish(),
            Ok(Event::Start(element)) => parser.start(&element)?,
            Ok(Event::End(_)) => parser.end(),
            Ok(Event::Text(text)) => parser.text(&String::from_utf8_lossy(&text)),
            Ok(Event::CData(text)) => parser.text(&String::from_utf8_lossy(&text)),
            Ok(Event::GeneralRef(reference)) => {
                let name = String::from_utf8_lossy(&reference).into_owned();
                let escaped = format!("&{name};");
                parser.text(&quick_xml::escape::unescape(&escaped).unwrap_or(escaped.as_str().into()));
            }
            Ok(_) => {}
        }
    }
}

/// Decodes UTF-8 and UTF-16 with a byte order mark. Other encodings keep their ASCII characters.
fn decode(bytes: &[u8]) -> Cow<'_, str> {
    let units = |convert: fn([u8; 2]) -> u16| {
        let (pairs, _) = bytes[2..].as_chunks::<2>();
        let units = pairs.iter().map(|pair| convert(*pair));
        let text = char::decode_utf16(units).map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER));
        Cow::Owned(text.collect())
    };
    match bytes {
        [0xff, 0xfe, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] => units(u16::from_be_bytes),
        _ => String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)),
    }
}

#[derive(Debug, Default)]
struct Parser {
    /// Names of the open elements.
    open: Vec<Vec<u8>>,
    is_report: bool,
    /// Names and files of the open suites.
    suites: Vec<(String, String)>,
    case: Option<JunitCase>,
    text: String,
    found: JunitReport,
    /// Failures and errors that the attributes of suites count.
    counted: u64,
}

impl Parser {
    fn start(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        if self.open.len() == DEPTH_MAX {
            return Err(format!("it has more than {DEPTH_MAX} elements inside each other"));
        }
        let name = element.local_name().as_ref().to_vec();
        match name.as_slice() {
            b"testsuites" | b"testsuite" => self.suite(element, name == b"testsuite"),
            b"testcase" => self.begin_case(element)?,
            b"failure" | b"error" | b"skipped" | b"disabled" => self.outcome(element, &name),
            _ => {}
        }
        self.is_report |= matches!(name.as_slice(), b"testsuites" | b"testsuite");
        self.text.clear();
        self.open.push(name);
        Ok(())
    }

    fn suite(&mut self, element: &BytesStart<'_>, is_inner: bool) {
        // The attributes of an outer element are the sums of the inner ones.
        if self.open.is_empty() {
            let number = |name: &str| attribute(element, name).trim().parse::<u64>().unwrap_or(0);
            self.counted = self.counted.saturating_add(number("failures").saturating_add(number("errors")));
        }
        if is_inner {
            self.suites.push((attribute(element, "name"), attribute(element, "file")));
        }
    }

    fn begin_case(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        if self.found.cases.len() == CASES_MAX {
            return Err(format!("it has more than {CASES_MAX} cases"));
        }
        let suite = self.suites.last();
        let or = |own: String, other: Option<&String>| {
            if own.is_empty() { other.cloned().unwrap_or_default() } else { own }
        };
        let name = attribute(element, "name");
        let class = or(attribute(element, "classname"), suite.map(|(name, _)| name));
        let file = or(attribute(element, "file"), suite.map(|(_, file)| file));
        let shown = if class.is_empty() || class == name { name.clone() } else { format!("{class} {name}") };
        let seconds = attribute(element, "time").replace(',', "").trim().parse::<f64>().ok();
        let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let is_skipped = |value: String| {
            let skipped = ["skipped", "notrun", "disabled", "suppressed", "ignored"];
            skipped.contains(&value.to_ascii_lowercase().as_str())
        };
        let is_skipped = is_skipped(attribute(element, "status")) || is_skipped(attribute(element, "result"));
        let status = if is_skipped { CaseStatus::Skipped } else { CaseStatus::Passed };
        self.case = Some(JunitCase {
            name,
            class,
            file,
            report: CaseReport { name: shown, status, duration, output: None },
        });
        Ok(())
    }

    /// Takes the outcome of a case, or of a suite outside of cases.
    fn outcome(&mut self, element: &BytesStart<'_>, name: &[u8]) {
        let is_failure = matches!(name, b"failure" | b"error");
        let parent = self.open.last().map(Vec::as_slice);
        match &mut self.case {
            Some(case) if parent == Some(b"testcase") => {
                case.report.status = match case.report.status {
                    _ if is_failure => CaseStatus::Failed,
                    CaseStatus::Failed => CaseStatus::Failed,
                    _ => CaseStatus::Skipped,
                };
                append(&mut case.report, &attribute(element, "message"));
            }
            Some(_) => {}
            None => self.found.suite_failures += u64::from(is_failure),
        }
    }

    fn text(&mut self, text: &str) {
        let room = TEXT_BYTES_MAX.saturating_sub(self.text.len());
        self.text.push_str(&text[..text.floor_char_boundary(room)]);
    }

    fn end(&mut self) {
        let Some(name) = self.open.pop() else { return };
        let text = std::mem::take(&mut self.text);
        match name.as_slice() {
            b"testsuite" => drop(self.suites.pop()),
            b"testcase" => {
                if let Some(mut case) = self.case.take() {
                    // Outputs of passes would only fill the cache.
                    if case.report.status == CaseStatus::Passed {
                        case.report.output = None;
                    }
                    self.found.cases.push(case);
                }
            }
            b"failure" | b"error" | b"system-out" | b"system-err" => {
                if let Some(case) = &mut self.case {
                    append(&mut case.report, &text);
                }
            }
            _ => {}
        }
    }

    fn finish(mut self) -> Result<JunitReport, String> {
        if let Some(open) = self.open.last() {
            return Err(format!("it ends within <{}>", String::from_utf8_lossy(open)));
        }
        if !self.is_report {
            return Err("it has no <testsuite>".to_owned());
        }
        let failed = self.found.cases.iter().filter(|case| case.report.status == CaseStatus::Failed).count();
        if failed == 0 {
            self.found.suite_failures = self.found.suite_failures.max(self.counted);
        }
        Ok(self.found)
    }
}

/// Appends text to the output of a case, unless the output has it already.
fn append(case: &mut CaseReport, text: &str) {
    let text = text.trim();
    let mut output =
        case.output.take().map(|it| String::from_utf8_lossy(&it).into_owned()).unwrap_or_default();
    if !text.is_empty() && output.len() < TEXT_BYTES_MAX && !output.contains(text) {
        // The text of a failure often begins with its message.
        if text.starts_with(output.trim_end()) {
            output.clear();
        }
        output.push_str(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)]);
        output.push('\n');
    }
    case.output = (!output.is_empty()).then(|| output.into());
}

/// Returns the value of an attribute; empty if it is missing.
fn attribute(element: &BytesStart<'_>, name: &str) -> String {
    let mut attributes = element.attributes();
    let found =
        attributes.with_checks(false).flatten().find(|it| it.key.local_name().as_ref() == name.as_bytes());
    let value = found.map(|found| {
        let raw = || String::from_utf8_lossy(&found.value).into_owned();
        found.normalized_value(XmlVersion::Implicit1_0).map_or_else(|_| raw(), Cow::into_owned)
    });
    let value = value.unwrap_or_default();
    value[..value.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let latin =
            b"<?xml version='1.0' encoding='ISO-8859-1'?><testsuite><testcase name='\xe4'/></testsuite>";
        assert_eq!(parse(latin).unwrap().cases[0].name, "\u{fffd}");
        // An entity of the document itself is not expanded.
        let bomb = "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><testsuite><testcase name='&a;'><failure>&a;</failure></testcase></testsuite>";
        assert_eq!(cases(bomb)[0], ("&a;".to_owned(), CaseStatus::Failed, "&a;\n".to_owned()));
        let long = format!(
            "<testsuite><testcase name='a'><failure>{}</failure></testcase></testsuite>",
            "\u{fc}".repeat(1 << 20)
        );
        assert!(cases(&long)[0].2.len() <= TEXT_BYTES_MAX + 1);
    }
}
