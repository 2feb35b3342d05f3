//! A run as lines of JSON, for programs. The format is written down in `docs/reports.md`. Knows nothing of where lines go.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{CaseStatus, RunReport, TestReport, Verdict};
use crate::{Ending, Status};

/// Version of the format. Readers pass over keys they do not know; what a key means never changes within a version.
const VERSION: u32 = 1;

/// One line. Its `Display` is the JSON, without the end of the line.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Line<'a> {
    /// The run begins.
    Started {
        /// The format's version.
        version: u32,
        /// Milliseconds since the Unix epoch.
        time_ms: u64,
        /// How many tests there are.
        tests: usize,
    },
    /// A test has its result.
    Test(TestLine<'a>),
    /// The run has ended.
    Finished {
        /// Whether every test passed, and there was one.
        success: bool,
        /// Tests that passed.
        passed: usize,
        /// Tests with a result that is no pass.
        failed: usize,
        /// Tests that could not be run.
        errors: usize,
        /// Tests that were not run.
        not_run: usize,
        /// Results that were known.
        known: usize,
        /// Passes that took more than one attempt.
        flaky: usize,
        /// Whether tests were traced: `traced`, `traced_by_outer`, `off` or `unavailable`.
        tracing: &'static str,
        /// Why they were not, if that was wanted.
        #[serde(skip_serializing_if = "Option::is_none")]
        tracing_problem: Option<&'a str>,
        /// How long the run took.
        wall_ms: f64,
        /// How long the tests whose results were known would have run.
        saved_ms: f64,
    },
}

/// What came of one test.
#[derive(Debug, Clone, Serialize)]
pub struct TestLine<'a> {
    name: &'a str,
    /// `passed`, `failed`, `timed_out`, `no_tests`, `error` or `not_run`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    known: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<f64>,
    duration_ms: f64,
    attempts: u32,
    flaky: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tests_passed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tests_failed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_kept: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cases: Vec<CaseLine<'a>>,
    output: Cow<'a, str>,
}

#[derive(Debug, Clone, Serialize)]
struct CaseLine<'a> {
    name: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Cow<'a, str>>,
}

impl<'a> Line<'a> {
    /// The line of a run that begins.
    pub fn started(time: SystemTime, tests: usize) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Line::Started { version: VERSION, time_ms, tests }
    }

    /// The line of a test.
    pub fn test(test: &'a TestReport) -> Self {
        let (status, exit_code, signal) = status(&test.verdict);
        let cases = test.cases.iter().map(|case| CaseLine {
            name: &case.name,
            status: match case.status {
                CaseStatus::Passed => "passed",
                CaseStatus::Failed => "failed",
                CaseStatus::Skipped => "skipped",
            },
            duration_ms: case.duration.map(ms),
            output: case.output.as_deref().map(String::from_utf8_lossy),
        });
        Line::Test(TestLine {
            name: &test.name,
            status,
            exit_code,
            signal,
            problem: test.problem(),
            known: test.age.is_some(),
            age_ms: test.age.map(ms),
            duration_ms: ms(test.duration),
            attempts: test.attempts,
            flaky: test.is_flaky(),
            tests_passed: test.count.map(|count| count.passed),
            tests_failed: test.count.map(|count| count.failed),
            not_kept: test.not_kept.as_deref(),
            explanation: test.explanation.as_deref(),
            cases: cases.collect(),
            output: String::from_utf8_lossy(&test.output),
        })
    }

    /// The line of a run that has ended.
    pub fn finished(run: &RunReport) -> Line<'_> {
        let tally = run.tally();
        Line::Finished {
            success: tally.is_success(),
            passed: tally.passed,
            failed: tally.failed,
            errors: tally.errors,
            not_run: tally.not_run,
            known: tally.known,
            flaky: tally.flaky,
            tracing: run.tracing.as_str(),
            tracing_problem: run.tracing.reason(),
            wall_ms: ms(run.wall),
            saved_ms: ms(run.saved),
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

fn status(verdict: &Verdict) -> (&'static str, Option<i32>, Option<i32>) {
    match verdict {
        Verdict::Result(Status::Passed) => ("passed", None, None),
        Verdict::Result(Status::Failed(Ending::Code(code))) => ("failed", Some(*code), None),
        Verdict::Result(Status::Failed(Ending::Signal(signal))) => ("failed", None, Some(*signal)),
        Verdict::Result(Status::TimedOut(_)) => ("timed_out", None, None),
        Verdict::Result(Status::NoTests) => ("no_tests", None, None),
        Verdict::Error(_) => ("error", None, None),
        Verdict::NotRun => ("not_run", None, None),
    }
}

/// Milliseconds, to the microsecond.
fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
