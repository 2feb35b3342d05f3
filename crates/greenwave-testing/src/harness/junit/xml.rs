//! Parses JUnit XML reports in the dialects of many tools.
//!
//! Jenkins documents the common structure
//! (<https://github.com/jenkinsci/xunit-plugin/blob/master/src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd>).

use std::borrow::Cow;
use std::io::BufRead;
use std::time::Duration;

use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::input::{Limited, utf_16};
use super::room::TextRoom;
use crate::{CaseReport, CaseStatus};

/// Maximum number of elements inside each other.
const DEPTH_MAX: usize = 64;
/// Maximum number of cases in one report.
pub(crate) const CASES_MAX: usize = 100_000;
/// Maximum length of a name and of the output of one case, in bytes.
const NAME_BYTES_MAX: usize = 4 * 1024;
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Maximum length of the part of an attribute that is decoded, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 16 * NAME_BYTES_MAX;

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

/// Parses a report, with what is left of the texts of all reports.
///
/// # Errors
/// A phrase, such as "it ends within an element", if the text is not a complete report.
pub(crate) fn parse(mut input: impl BufRead, room: &mut TextRoom) -> Result<JunitReport, String> {
    match utf_16(&mut input).map_err(|error| error.to_string())? {
        Some(text) => parse_parts(text.as_bytes(), room),
        None => parse_parts(input, room),
    }
}

fn parse_parts(input: impl BufRead, room: &mut TextRoom) -> Result<JunitReport, String> {
    let mut reader = Reader::from_reader(Limited::new(input));
    reader.config_mut().expand_empty_elements = true;
    let mut parser = Parser::new(room);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        reader.get_mut().begin_part();
        match reader.read_event_into(&mut buffer) {
            Err(quick_xml::Error::Io(error)) => return Err(error.to_string()),
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

#[derive(Debug)]
struct Parser<'r> {
    room: &'r mut TextRoom,
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

impl<'r> Parser<'r> {
    fn new(room: &'r mut TextRoom) -> Self {
        Self {
            room,
            open: Vec::new(),
            is_report: false,
            suites: Vec::new(),
            case: None,
            text: String::new(),
            found: JunitReport::default(),
            counted: 0,
        }
    }

    fn start(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        if self.open.len() == DEPTH_MAX {
            return Err(format!("it has more than {DEPTH_MAX} elements inside each other"));
        }
        if element.name().as_ref().len() > NAME_BYTES_MAX {
            return Err(format!("the name of an element is longer than {NAME_BYTES_MAX} bytes"));
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
        let report = CaseReport { name: shown, status, duration, output: None };
        let case = JunitCase { name, class, file, report };
        self.room
            .take_names(case.name.len() + case.class.len() + case.file.len() + case.report.name.len())?;
        self.case = Some(case);
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
                    self.room.take_output(&mut case.report);
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
    let value = found.map(|found| decoded(&found)).unwrap_or_default();
    value[..value.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

/// Returns the beginning of an attribute's value without references.
fn decoded(found: &Attribute<'_>) -> String {
    let mut raw = String::from_utf8_lossy(&found.value[..found.value.len().min(ATTRIBUTE_BYTES_MAX)]);
    if found.value.len() > ATTRIBUTE_BYTES_MAX
        && let Some(at) = raw.rfind('&')
        && !raw[at..].contains(';')
    {
        // A reference that was cut would keep all others from being replaced.
        raw.to_mut().truncate(at);
    }
    let cut = Attribute { key: found.key, value: raw.as_bytes().into() };
    let value = cut.normalized_value(XmlVersion::Implicit1_0).map(Cow::into_owned);
    value.unwrap_or_else(|_| raw.into_owned())
}

#[cfg(test)]
mod tests;
