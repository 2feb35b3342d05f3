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
/// Least limit of the text of one of many failures, in bytes. Few failures have more.
const BRIEF_BYTES: usize = 1024;
/// Number of failing tests in one failure, such as a package of Go, above which each has one line
/// if the failure has a long text.
const TESTS_MAX: usize = 10;
/// Size of a text with that many failing tests, in bytes, that is long.
const LONG_BYTES: usize = TEST_BYTES_MAX / 2;
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
    /// Whether the text is one of many failing tests, and so long that it lacks some of them.
    is_crowded: bool,
}

impl Failures {
    /// Collects the failed tests of a run. Failures in quarantine are not among them.
    pub(super) fn of(run: &RunReport, project: &Path) -> Self {
        let failed: Vec<&TestReport> = run.tests.iter().filter(|test| is_failure(test)).collect();
        let all = |brief_bytes_max| {
            let (shown, mut reasons) = (failed.iter().take(NAMES_MAX), HashSet::new());
            shown.map(|test| Failure::of(test, project, brief_bytes_max, &mut reasons)).collect::<Vec<_>>()
        };
        let whole = all(None);
        let bytes: usize = whole.iter().map(|failure| failure.text.len()).sum();
        if bytes <= WHOLE_BYTES_MAX && !whole.iter().any(|failure| failure.is_crowded) {
            return Self { omitted: failed.len() - whole.len(), shown: whole, is_brief: false };
        }
        let bytes_max = (ALL_BYTES_MAX / whole.len().max(1)).clamp(BRIEF_BYTES, TEST_BYTES_MAX);
        let shown = limited(all(Some(bytes_max)));
        Self { omitted: failed.len() - shown.len(), shown, is_brief: true }
    }

    /// Returns the lines that show the failures.
    pub(super) fn lines(&self) -> Vec<String> {
        let (mut lines, mut before) = (Vec::new(), None);
        for failure in &self.shown {
            let heading = match self.is_brief {
                true => failure.brief_heading(before.replace(failure)),
                false => failure.heading(),
            };
            lines.push(printable(&heading));
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
    /// Shortens the output of a test: each failing test has one line if there is a limit for that.
    fn of(
        test: &TestReport,
        project: &Path,
        brief_bytes_max: Option<usize>,
        reasons: &mut HashSet<String>,
    ) -> Self {
        let (problem, output) = match &test.result {
            // Tests of one program that does not compile share their reason.
            TestResult::Error(reason) if !reasons.insert(reason.clone()) => {
                ("cannot be run, as above".to_owned(), &b""[..])
            }
            TestResult::Error(reason) => ("cannot be run".to_owned(), reason.as_bytes()),
            _ => (test.problem().unwrap_or_default(), &test.output[..]),
        };
        let text = match brief_bytes_max {
            Some(bytes_max) => FailureText::brief(output, &[project], bytes_max),
            None => FailureText::of_output(output, &[project], TEST_BYTES_MAX),
        };
        let is_crowded = text.failing.len() > TESTS_MAX && text.text.len() > LONG_BYTES;
        let location = text.location(project).map(|(file, line)| (file.display().to_string(), line));
        let name = test.name.clone();
        let text = match &location {
            Some(place) if brief_bytes_max.is_some() => without_place(&text.text, place, &name),
            _ => text.text,
        };
        Self { name, problem, location, text, is_crowded }
    }

    fn heading(&self) -> String {
        let place = self.location.as_ref().map(|(file, line)| format!(" ({file}:{line})"));
        format!("FAIL {}: {}{}", self.name, self.problem, place.unwrap_or_default())
    }

    /// Returns a heading without the file that the name ends with, the line with which the text
    /// begins, and the problem of the failure before.
    fn brief_heading(&self, before: Option<&Self>) -> String {
        let Some((file, line)) = &self.location else { return self.heading() };
        if !self.text.starts_with(&format!("{line}: ")) {
            return self.heading();
        }
        let is_new = before.is_none_or(|before| before.problem != self.problem);
        let problem = if is_new { format!(": {}", self.problem) } else { String::new() };
        let place = if self.name.ends_with(file) { String::new() } else { format!(" ({file})") };
        format!("FAIL {}{problem}{place}", self.name)
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
    fn each_of_many_failing_tests_in_one_package_has_its_assertion() {
        let project = tempfile::tempdir().unwrap();
        std::fs::write(project.path().join("a_test.go"), "").unwrap();
        let failure =
            |test: u32| format!("--- FAIL: Test{test} (0.00s)\n    a_test.go:{test}: want 1, got 2\n");
        let output = (1..=200).map(failure).collect::<String>() + "FAIL\nFAIL\tapp\t0.01s\n";
        let test = TestReport {
            result: TestResult::Finished(Status::Failed(ExitReason::Code(1))),
            output: output.into(),
            ..TestReport::new(&Test::new("go:.", ["true"]), None, &Harnesses::builtin())
        };
        let failures = Failures::of(&run_of(vec![test]), project.path());
        let lines = failures.lines();
        assert_eq!(
            lines[..3],
            [
                "FAIL go:.: failed with exit code 1 (a_test.go)",
                "  1: Test1: want 1, got 2",
                "  2: Test2: want 1, got 2"
            ]
        );
        let text = &failures.shown[0].text;
        assert!(text.lines().count() > 80 && text.len() <= TEST_BYTES_MAX + 40, "{text}");
        assert!(text.lines().next_back().unwrap().ends_with(" more left out]"), "{text}");
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
        let headings: Vec<String> =
            failures.lines().into_iter().filter(|line| line.starts_with("FAIL")).collect();
        assert_eq!(headings[..2], ["FAIL py:test_0.py: failed with exit code 1", "FAIL py:test_1.py"]);
        // Few failures have the source code.
        let few = Failures::of(&run_of(vec![test(0)]), project.path());
        assert!(few.shown[0].text.contains(">       assert x == 2"), "{}", few.shown[0].text);
        assert!(few.json()[0]["output"].is_string());
    }
}
