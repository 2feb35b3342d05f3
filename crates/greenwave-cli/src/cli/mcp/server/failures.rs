//! Failed tests in a form for a model: what matters of their output, and where.

use std::collections::HashSet;
use std::path::Path;

use greenwave_testing::{FailureText, RunReport, TestReport, TestResult};
use serde_json::{Value, json};

use super::resources::{REPORT, output_address};
use crate::testview::{ALL_BYTES_MAX, NAMES_MAX, TEST_BYTES_MAX};
use crate::text::printable;

/// The failed tests of a run, within size limits.
#[derive(Default)]
pub(super) struct Failures {
    shown: Vec<Failure>,
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
        let (mut failures, mut bytes_left, mut reasons) = (Self::default(), ALL_BYTES_MAX, HashSet::new());
        for test in run.tests.iter().filter(|test| is_failure(test)) {
            if failures.shown.len() == NAMES_MAX {
                failures.omitted += 1;
                continue;
            }
            let (problem, output) = match &test.result {
                // Tests of one program that does not compile share their reason.
                TestResult::Error(reason) if !reasons.insert(reason.clone()) => {
                    ("cannot be run, as above".to_owned(), &b""[..])
                }
                TestResult::Error(reason) => ("cannot be run".to_owned(), reason.as_bytes()),
                _ => (test.problem().unwrap_or_default(), &test.output[..]),
            };
            let mut text = FailureText::of_output(output, &[project], TEST_BYTES_MAX);
            // The place of a failure stays when its text does not fit.
            let location = text.location(project).map(|(file, line)| (file.display().to_string(), line));
            if text.text.len() > bytes_left {
                text.text = String::new();
            }
            let text = text.text;
            bytes_left = bytes_left.saturating_sub(text.len());
            failures.shown.push(Failure { name: test.name.clone(), problem, location, text });
        }
        failures
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
            json["output"] = json!(output_address(&failure.name));
            if let Some((file, line)) = &failure.location {
                json["file"] = json!(file);
                json["line"] = json!(line);
            }
            json
        };
        self.shown.iter().map(json).collect()
    }
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
        let run = RunReport {
            started: SystemTime::UNIX_EPOCH,
            wall: Duration::ZERO,
            saved: Duration::ZERO,
            tracing: TraceStatus::Off,
            flaky_fails: false,
            tests: (0..NAMES_MAX + 7).map(test).collect(),
        };
        let failures = Failures::of(&run, project.path());
        assert_eq!((failures.shown.len(), failures.omitted), (NAMES_MAX, 7));
        assert!(failures.shown.iter().all(|failure| failure.location == Some(("a.sh".to_owned(), 7))));
        let texts: usize = failures.shown.iter().map(|failure| failure.text.len()).sum();
        assert!((ALL_BYTES_MAX / 2..=ALL_BYTES_MAX).contains(&texts), "{texts}");
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
}
