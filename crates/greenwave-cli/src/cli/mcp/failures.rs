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
            let bytes_max = TEST_BYTES_MAX.min(bytes_left);
            let (problem, output) = match &test.result {
                // Tests of one program that does not compile share their reason.
                TestResult::Error(reason) if !reasons.insert(reason.clone()) => {
                    ("cannot be run, as above".to_owned(), &b""[..])
                }
                TestResult::Error(reason) => ("cannot be run".to_owned(), reason.as_bytes()),
                _ => (test.problem().unwrap_or_default(), &test.output[..]),
            };
            let text = FailureText::of_output(output, &[project], bytes_max);
            let location = text.location(project).map(|(file, line)| (file.display().to_string(), line));
            let text = if bytes_max == 0 { String::new() } else { text.text };
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
