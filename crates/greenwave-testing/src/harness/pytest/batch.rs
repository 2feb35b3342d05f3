//! Runs many pytest files in one process, and separates their results with `--junitxml`
//! (<https://docs.pytest.org/en/stable/how-to/output.html#creating-junitxml-format-files>).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::harness::batch::{Batch, BatchCommand, BatchResult};
use crate::results::outcome::{ExitReason, Status};
use crate::{Environment, Error, Test, TestCount};

/// Files of pytest in one process.
#[derive(Debug, Clone, Copy)]
pub(super) struct PytestBatch;

/// A pytest plugin that writes the names of files whose tests are all deselected, which the report
/// omits. It removes itself from the variables that tests see.
const PLUGIN: &str = r#"import os, sys

HERE = os.path.dirname(os.path.abspath(__file__))
paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if paths[0] == HERE:
    del os.environ["PYTHONPATH"]
    if paths[1:]:
        os.environ["PYTHONPATH"] = os.pathsep.join(paths[1:])
# Last instead of removed, since worker processes import the plugin, too.
sys.path[:] = [path for path in sys.path if path != HERE] + [HERE]
left_out = set()


def pytest_deselected(items):
    left_out.update(item.nodeid.split("::")[0] for item in items)


def pytest_collection_finish(session):
    left = {item.nodeid.split("::")[0] for item in session.items}
    with open(os.path.join(HERE, "left_out"), "a", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(name + "\n" for name in sorted(left_out - left))
"#;
/// Module name of the plugin, which must not collide with a module of the project.
const PLUGIN_NAME: &str = "greenwave_left_out";
/// File that the plugin writes.
const DESELECTED: &str = "left_out";
/// File that pytest writes the report to.
const REPORT: &str = "report.xml";
const PYTHON_PATH: &str = "PYTHONPATH";

impl Batch for PytestBatch {
    fn prepare(
        &self,
        tests: &[&Test],
        directory: &Path,
        environment: &Environment,
    ) -> Result<BatchCommand, Error> {
        let Some(first) = tests.first() else { return Ok(BatchCommand::default()) };
        let plugin = directory.join(PLUGIN_NAME).with_extension("py");
        std::fs::write(&plugin, PLUGIN).map_err(Error::io("write", &plugin))?;
        let variables = vec![(PYTHON_PATH.into(), python_path(first, directory, environment))];
        Ok(BatchCommand { arguments: arguments(first, tests, directory), variables })
    }

    fn results(&self, tests: &[&Test], status: Status, directory: &Path) -> Vec<Option<BatchResult>> {
        let report = std::fs::read(directory.join(REPORT)).unwrap_or_default();
        let mut results = parse(&report).unwrap_or_default();
        let is_finished = has_finished(status) && tests.first().is_some_and(|test| !super::deselects(test));
        // Files that cannot be imported are in neither list, and prevent pytest from running any
        // file.
        let deselected = if is_finished { deselected(directory) } else { BTreeSet::new() };
        for file in deselected {
            results.entry(file).or_insert_with(FileResult::deselected);
        }
        let result = |test: &&Test| {
            let result = results.get(test.command.last()?)?;
            result.has_passed().then(|| result.to_batch_result())
        };
        tests.iter().map(result).collect()
    }
}

/// Returns the module path that contains the plugin, followed by that of the test.
fn python_path(test: &Test, directory: &Path, environment: &Environment) -> OsString {
    let is_visible = test.env.iter().any(|name| name == PYTHON_PATH);
    let own = test.set.get(PYTHON_PATH).map(OsStr::new);
    let own = own.or(environment.get(PYTHON_PATH).filter(|_| is_visible)).filter(|own| !own.is_empty());
    let mut path = directory.as_os_str().to_owned();
    if let Some(own) = own {
        path.push(":");
        path.push(own);
    }
    path
}

/// Returns the arguments with which one process runs all files.
fn arguments(first: &Test, tests: &[&Test], directory: &Path) -> Vec<OsString> {
    let common = first.command.get(1..first.command.len().saturating_sub(1)).unwrap_or_default();
    let mut arguments: Vec<OsString> = common.iter().map(OsString::from).collect();
    arguments.extend(["-p", PLUGIN_NAME, "-o", "junit_family=xunit1", "--junitxml"].map(OsString::from));
    arguments.push(directory.join(REPORT).into());
    arguments.extend(tests.iter().filter_map(|test| test.command.last()).map(OsString::from));
    arguments
}

/// Returns whether pytest ran everything it collected: exit code 1 if tests failed, 5 if there were
/// none (<https://docs.pytest.org/en/stable/reference/exit-codes.html>).
fn has_finished(status: Status) -> bool {
    matches!(status, Status::Passed | Status::NoTests | Status::Failed(ExitReason::Code(1 | 5)))
}

/// Returns the files whose tests were all deselected.
fn deselected(directory: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(directory.join(DESELECTED)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The result of one file among several.
#[derive(Debug, Clone, Default, PartialEq)]
struct FileResult {
    passed: u32,
    skipped: u32,
    failed: u32,
    seconds: f64,
    is_deselected: bool,
    text: String,
}

impl FileResult {
    /// Creates the result of a file whose tests were all deselected.
    fn deselected() -> Self {
        let text = "all its tests are deselected by pytest's settings\n".to_owned();
        Self { text, is_deselected: true, ..Self::default() }
    }

    /// Returns whether the file clearly passed.
    fn has_passed(&self) -> bool {
        self.is_deselected || (self.failed == 0 && self.passed > 0)
    }

    fn to_batch_result(&self) -> BatchResult {
        BatchResult {
            count: TestCount { passed: self.passed, failed: self.failed },
            output: self.output(),
            duration: Duration::try_from_secs_f64(self.seconds).unwrap_or_default(),
        }
    }

    /// Returns a line for each test of the file, since the process's output covers all files.
    fn output(&self) -> String {
        let skipped = if self.skipped > 0 { format!(", {} skipped", self.skipped) } else { String::new() };
        format!("{}{} passed{skipped} in {:.2}s\n", self.text, self.passed, self.seconds)
    }

    fn add(&mut self, case: &Case, result: CaseResult) {
        let (count, word) = match result {
            CaseResult::Passed => (&mut self.passed, "PASSED"),
            CaseResult::Skipped => (&mut self.skipped, "SKIPPED"),
            CaseResult::Failed => (&mut self.failed, "FAILED"),
        };
        *count += 1;
        self.seconds += case.seconds;
        let _ = writeln!(self.text, "{}::{} {word}", case.file, case.name);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum CaseResult {
    Passed,
    Skipped,
    Failed,
}

struct Case {
    file: String,
    name: String,
    seconds: f64,
}

/// Returns the result of each file in a JUnit report; `None` if the report is incomplete.
fn parse(report: &[u8]) -> Option<BTreeMap<String, FileResult>> {
    let mut reader = Reader::from_reader(report);
    let mut results: BTreeMap<String, FileResult> = BTreeMap::new();
    let (mut open, mut is_closed) = (None, false);
    loop {
        match reader.read_event().ok()? {
            Event::Eof => break,
            Event::End(end) if end.name().as_ref() == b"testsuites" => is_closed = true,
            Event::Empty(start) if start.name().as_ref() == b"testcase" => {
                let case = case(&start)?;
                results.entry(case.file.clone()).or_default().add(&case, CaseResult::Passed);
            }
            Event::Start(start) if start.name().as_ref() == b"testcase" => {
                open = Some((case(&start)?, CaseResult::Passed));
            }
            Event::Start(start) | Event::Empty(start) => match (start.name().as_ref(), &mut open) {
                (b"failure" | b"error", Some((_, result))) => *result = CaseResult::Failed,
                (b"skipped", Some((_, result))) => *result = CaseResult::Skipped,
                _ => {}
            },
            Event::End(end) if end.name().as_ref() == b"testcase" => {
                if let Some((case, result)) = open.take() {
                    results.entry(case.file.clone()).or_default().add(&case, result);
                }
            }
            _ => {}
        }
    }
    is_closed.then_some(results)
}

fn case(start: &BytesStart<'_>) -> Option<Case> {
    let attribute = |name: &str| {
        let found = start.try_get_attribute(name).ok()??;
        Some(found.normalized_value(quick_xml::XmlVersion::Implicit1_0).ok()?.into_owned())
    };
    let seconds = attribute("time").and_then(|time| time.parse().ok()).unwrap_or(0.0);
    Some(Case { file: attribute("file")?, name: attribute("name")?, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_separated_by_file() {
        let report = r#"<?xml version="1.0"?><testsuites><testsuite>
            <testcase classname="a" name="one" file="a.py" time="0.5"/>
            <testcase classname="a" name="two" file="a.py" time="0.25"><skipped message="x">y</skipped></testcase>
            <testcase classname="b" name="one&lt;" file="b.py" time="1"><failure message="m">t</failure></testcase>
            </testsuite></testsuites>"#;
        let results = parse(report.as_bytes()).expect("the report is complete");
        assert!(results["a.py"].has_passed() && !results["b.py"].has_passed());
        assert_eq!(
            results["a.py"].output(),
            "a.py::one PASSED\na.py::two SKIPPED\n1 passed, 1 skipped in 0.75s\n"
        );
        assert_eq!((results["a.py"].skipped, results["b.py"].failed), (1, 1));
    }

    #[test]
    fn an_incomplete_report_has_no_results() {
        assert_eq!(parse(b"<testsuites><testsuite><testcase name=\"x\" file=\"a.py\" time=\"1\"/>"), None);
        assert_eq!(parse(b""), None);
    }
}
