//! Failed tests in a form for a model: what matters of their output, and where.

use std::collections::HashSet;
use std::path::Path;

use greenwave_testing::{FailureText, RunReport, TestReport, TestResult};
use serde_json::{Value, json};

use super::resources::{REPORT, output_address};
use crate::testview::{NAMES_MAX, TEST_BYTES_MAX};
use crate::text::printable;

/// Maximum size of the texts of all failures, in bytes. If they have more, each failing test has
/// one line.
const WHOLE_BYTES_MAX: usize = 6 * 1024;
/// Maximum size of all failures, in bytes, with their names and places. The others are counted.
const ALL_BYTES_MAX: usize = 11 * 1024;
/// Maximum size of the text of one of many failures, in bytes.
const BRIEF_BYTES_MAX: usize = 1024;
/// Size of a text, in bytes, up to which it is never left out.
const LINE_BYTES: usize = 200;
/// Size of the keys of a failure as JSON, in bytes.
const KEYS_BYTES: usize = 64;

/// The failed tests of a run, within size limits.
#[derive(Default)]
pub(super) struct Failures {
    shown: Vec<Failure>,
    /// Whether each failing test has one line.
    is_brief: bool,
    /// Number of failed tests that are not shown.
    pub(super) omitted: usize,
}

/// A failed test.
struct Failure {
    name: String,
    /// Description of the failure.
    problem: String,
    /// The first file and line of the project that the output names.
    location: Option<(String, u32)>,
    /// The lines of the output that matter.
    text: String,
}

impl Failures {
    /// Collects the failed tests of a run. Failures in quarantine are not among them.
    pub(super) fn of(run: &RunReport, project: &Path) -> Self {
        let failed: Vec<&TestReport> = run.tests.iter().filter(|test| is_failure(test)).collect();
        let all = |is_brief| {
            let (shown, mut reasons) = (failed.iter().take(NAMES_MAX), HashSet::new());
            shown.map(|test| Failure::of(test, project, is_brief, &mut reasons)).collect::<Vec<_>>()
        };
        let whole = all(false);
        if whole.iter().map(|failure| failure.text.len()).sum::<usize>() <= WHOLE_BYTES_MAX {
            return Self { omitted: failed.len() - whole.len(), shown: whole, is_brief: false };
        }
        let shown = limited(all(true));
        Self { omitted: failed.len() - shown.len(), shown, is_brief: true }
    }

    /// Returns the lines that show the failures.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for failure in &self.shown {
            let place = failure.location.as_ref().map(|(file, line)| format!(" ({file}:{line})"));
            let place = place.unwrap_or_default();
            lines.push(printable(&format!("FAIL {}: {}{place}", failure.name, failure.problem)));
            lines.extend(failure.text.lines().map(|line| format!("  {line}")));
        }
        if self.omitted > 0 {
            lines.push(format!("{} more failed (resource {REPORT} has all)", self.omitted));
        }
        if let Some(first) = self.shown.first() {
            lines.push(format!("Whole output: resource {}", output_address(&first.name)));
        }
        lines
    }

    /// Returns the failures as JSON.
    pub(super) fn json(&self) -> Vec<Value> {
        let json = |failure: &Failure| {
            let mut json = json!({"name": failure.name, "problem": failure.problem, "text": failure.text});
            if !self.is_brief {
                json["output"] = json!(output_address(&failure.name));
            }
            if let Some((file, line)) = &failure.location {
                json["file"] = json!(file);
                json["line"] = json!(line);
            }
            json
        };
        self.shown.iter().map(json).collect()
    }
}

impl Failure {
    fn of(test: &TestReport, project: &Path, is_brief: bool, reasons: &mut HashSet<String>) -> Self {
        let (problem, output) = match &test.result {
            // Tests of one program that does not compile share their reason.
            TestResult::Error(reason) if !reasons.insert(reason.clone()) => {
                ("cannot be run, as above".to_owned(), &b""[..])
            }
            TestResult::Error(reason) => ("cannot be run".to_owned(), reason.as_bytes()),
            _ => (test.problem().unwrap_or_default(), &test.output[..]),
        };
        let text = match is_brief {
            true => FailureText::brief(output, &[project], BRIEF_BYTES_MAX),
            false => FailureText::of_output(output, &[project], TEST_BYTES_MAX),
        };
        let location = text.location(project).map(|(file, line)| (file.display().to_string(), line));
        let name = test.name.clone();
        let text = match &location {
            Some(place) if is_brief => without_place(&text.text, place, &name),
            _ => text.text,
        };
        Self { name, problem, location, text }
    }

    /// Returns the size without a long text.
    fn least_bytes(&self) -> usize {
        let file = self.location.as_ref().map_or(0, |(file, _)| file.len());
        let text = Some(self.text.len()).filter(|bytes| *bytes <= LINE_BYTES);
        KEYS_BYTES + self.name.len() + self.problem.len() + file + text.unwrap_or(0)
    }
}

/// Removes from the lines of a text what stands beside it: the file, and if it is the only one, the
/// line and the name of the test.
fn without_place(text: &str, (file, line): &(String, u32), name: &str) -> String {
    let test = name.rsplit("::").next().unwrap_or_default();
    let shortened = |text: &str| {
        let Some(rest) = text.strip_prefix(&format!("{file}:")) else { return text.to_owned() };
        rest.strip_prefix(&format!("{line}: {test}: ")).unwrap_or(rest).to_owned()
    };
    text.lines().map(shortened).collect::<Vec<_>>().join("\n")
}

/// Limits the size of failures. Names, places and short texts precede long texts.
fn limited(mut failures: Vec<Failure>) -> Vec<Failure> {
    let mut bytes_left = ALL_BYTES_MAX;
    let mut fits = |bytes: usize| {
        let left = bytes_left.checked_sub(bytes);
        bytes_left = left.unwrap_or(bytes_left);
        left.is_some()
    };
    let count = failures.iter().take_while(|failure| fits(failure.least_bytes())).count();
    failures.truncate(count);
    for failure in failures.iter_mut().filter(|failure| failure.text.len() > LINE_BYTES) {
        if !fits(failure.text.len()) {
            failure.text.clear();
        }
    }
    failures
}

fn is_failure(test: &TestReport) -> bool {
    match test.result {
        TestResult::NotRun => false,
        _ => !test.passed() && test.quarantine.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    use greenwave_testing::{ExitReason, Harnesses, Status, Test, TraceStatus};

    fn run_of(tests: Vec<TestReport>) -> RunReport {
        RunReport {
            started: SystemTime::UNIX_EPOCH,
            wall: Duration::ZERO,
            saved: Duration::ZERO,
            tracing: TraceStatus::Off,
            flaky_fails: false,
            tests,
        }
    }

    #[test]
    fn many_failures_keep_their_places_when_their_texts_do_not_fit() {
        let project = tempfile::tempdir().unwrap();
        std::fs::write(project.path().join("a.sh"), "").unwrap();
        let lines: String = (0..1_000).map(|number| format!("line {number}\n")).collect();
        let output = "a.sh:7: want 1, got 2\n".to_owned() + &lines;
        let test = |number: usize| TestReport {
            result: TestResult::Finished(Status::Failed(ExitReason::Code(1))),
            output: output.clone().into(),
            ..TestReport::new(&Test::new(format!("t{number}"), ["true"]), None, &Harnesses::builtin())
        };
        let run = run_of((0..NAMES_MAX + 7).map(test).collect());
        let failures = Failures::of(&run, project.path());
        assert_eq!((failures.shown.len(), failures.omitted), (NAMES_MAX, 7));
        assert!(failures.shown.iter().all(|failure| failure.location == Some(("a.sh".to_owned(), 7))));
        let bytes = |failure: &Failure| failure.least_bytes() + failure.text.len();
        let all: usize = failures.shown.iter().map(bytes).sum();
        assert!((ALL_BYTES_MAX / 2..=ALL_BYTES_MAX).contains(&all), "{all}");
        assert!(failures.shown[0].text.starts_with("7: want 1, got 2\n"), "{}", failures.shown[0].text);
        assert_eq!(failures.shown[NAMES_MAX - 1].text, "");
        let lines = failures.lines();
        assert!(
            lines.contains(&format!("FAIL t{}: failed with exit code 1 (a.sh:7)", NAMES_MAX - 1)),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"7 more failed (resource greenwave://report has all)".to_owned()),
            "{lines:?}"
        );
    }
    #[test]
    fn each_of_many_failing_tests_has_its_assertion() {
        let project = tempfile::tempdir().unwrap();
        let test = |file: usize| {
            let failure = |test: usize| {
                format!(
                    "_______ test_{test} _______\n\n    def test_{test}():\n        x = 1\n>       assert x == 2\n\
                     E       assert 1 == 2\n\ntest_{file}.py:{test}: AssertionError\n"
                )
            };
            std::fs::write(project.path().join(format!("test_{file}.py")), "").unwrap();
            let output = "====== FAILURES ======\n".to_owned() + &(1..=10).map(failure).collect::<String>();
            TestReport {
                result: TestResult::Finished(Status::Failed(ExitReason::Code(1))),
                output: output.into(),
                ..TestReport::new(
                    &Test::new(format!("py:test_{file}.py"), ["true"]),
                    None,
                    &Harnesses::builtin(),
                )
            }
        };
        let failures = Failures::of(&run_of((0..20).map(test).collect()), project.path());
        assert_eq!((failures.shown.len(), failures.omitted), (20, 0));
        for (file, failure) in failures.shown.iter().enumerate() {
            assert_eq!(failure.location, Some((format!("test_{file}.py"), 1)));
            let lines: Vec<String> =
                (1..=10).map(|test| format!("{test}: test_{test}: assert 1 == 2")).collect();
            assert_eq!(failure.text, lines.join("\n"));
        }
        assert!(json!(failures.json()).to_string().len() <= ALL_BYTES_MAX);
        // Few failures have the source code.
        let few = Failures::of(&run_of(vec![test(0)]), project.path());
        assert!(few.shown[0].text.contains(">       assert x == 2"), "{}", few.shown[0].text);
        assert!(few.json()[0]["output"].is_string());
    }
}
