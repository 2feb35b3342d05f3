//! Renders a run as lines of JSON. `docs/reports.md` describes the format, and
//! `docs/formats/report.schema.json` is its schema.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{RunReport, TestReport, TestResult};
use crate::{Audit, ExitReason, Status, Test};
use crate::{CaseReport, CaseStatus};

/// Version of the format. Readers ignore keys that they do not recognise; within a version, no key
/// changes its meaning.
const VERSION: u32 = 2;

/// One line of the report. `Display` writes the JSON without a line break.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum JsonLine<'a> {
    /// The run has started.
    Started {
        /// Version of the format.
        version: u32,
        /// Start of the run, in milliseconds since the Unix epoch.
        time_ms: u64,
        /// Number of tests.
        tests: usize,
    },
    /// A test has a result.
    Test(JsonTest<'a>),
    /// The result of an audited test differs from the cached one.
    AuditFailed {
        /// Name of the test.
        name: &'a str,
        /// Status of the cached result.
        cached: String,
        /// Status of the new result.
        now: String,
    },
    /// A signal has stopped the run, so there is no `finished` line.
    Stopped,
    /// The run has ended.
    Finished {
        /// Whether at least one test ran and none failed that counts.
        success: bool,
        /// Tests that passed.
        passed: usize,
        /// Tests that finished without passing, and are not in quarantine.
        failed: usize,
        /// Tests in quarantine that finished without passing.
        quarantined: usize,
        /// Tests that could not be run.
        errors: usize,
        /// Tests that did not start before the run ended.
        not_run: usize,
        /// Tests with a cached result.
        cached: usize,
        /// Tests that passed after more than one attempt.
        flaky: usize,
        /// Whether tests were traced: `traced`, `traced_by_outer`, `off` or `unavailable`.
        tracing: &'static str,
        /// Reason why tests could not be traced, if tracing was requested.
        #[serde(skip_serializing_if = "Option::is_none")]
        tracing_problem: Option<&'a str>,
        /// Duration of the run, in milliseconds.
        wall_ms: f64,
        /// Time that the tests with a cached result would have taken, in milliseconds.
        saved_ms: f64,
    },
}

/// The result of one test.
#[derive(Debug, Clone, Serialize)]
pub struct JsonTest<'a> {
    name: &'a str,
    /// `passed`, `failed`, `timed_out`, `no_tests`, `error` or `not_run`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(rename = "cached")]
    is_cached: bool,
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
    quarantine: Option<&'a str>,
    #[serde(rename = "not_stored", skip_serializing_if = "Option::is_none")]
    not_cached: Option<&'a str>,
    /// Reason why the result depends on all files of the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    coarse: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cases: Vec<JsonCase<'a>>,
    output: Cow<'a, str>,
}

#[derive(Debug, Clone, Serialize)]
struct JsonCase<'a> {
    name: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Cow<'a, str>>,
}

impl<'a> JsonLine<'a> {
    /// Creates the first line, of a run with this number of tests.
    pub fn started(time: SystemTime, tests: usize) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        JsonLine::Started { version: VERSION, time_ms, tests }
    }

    /// Creates the line of a test.
    pub fn test(test: &'a TestReport) -> Self {
        let (status, exit_code, signal) = status(&test.result);
        JsonLine::Test(JsonTest {
            name: &test.name,
            status,
            exit_code,
            signal,
            problem: test.problem(),
            is_cached: test.age.is_some(),
            age_ms: test.age.map(ms),
            duration_ms: ms(test.duration),
            attempts: test.attempts,
            flaky: test.is_flaky(),
            tests_passed: test.count.map(|count| count.passed),
            tests_failed: test.count.map(|count| count.failed),
            quarantine: test.quarantine.as_deref(),
            not_cached: test.not_cached.as_deref(),
            coarse: test.coarse.as_deref(),
            cases: test.cases.iter().map(case).collect(),
            output: String::from_utf8_lossy(&test.output),
        })
    }

    /// Creates the line of a failed audit.
    pub fn audit_failed(test: &'a Test, audit: &Audit) -> Self {
        let (cached, now) = (audit.cached.status.to_string(), audit.actual.status.to_string());
        JsonLine::AuditFailed { name: &test.name, cached, now }
    }

    /// Creates the last line, of a run that has ended.
    pub fn finished(run: &RunReport) -> JsonLine<'_> {
        let stats = run.stats();
        JsonLine::Finished {
            success: stats.is_success(),
            passed: stats.passed,
            failed: stats.failed,
            quarantined: stats.quarantined,
            errors: stats.errors,
            not_run: stats.not_run,
            cached: stats.cached,
            flaky: stats.flaky,
            tracing: run.tracing.as_str(),
            tracing_problem: run.tracing.reason(),
            wall_ms: ms(run.wall),
            saved_ms: ms(run.saved),
        }
    }
}

impl fmt::Display for JsonLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

fn case(case: &CaseReport) -> JsonCase<'_> {
    JsonCase {
        name: &case.name,
        status: match case.status {
            CaseStatus::Passed => "passed",
            CaseStatus::Failed => "failed",
            CaseStatus::Skipped => "skipped",
        },
        duration_ms: case.duration.map(ms),
        output: case.output.as_deref().map(String::from_utf8_lossy),
    }
}

/// Returns the status, the exit code and the signal of a result.
fn status(result: &TestResult) -> (&'static str, Option<i32>, Option<i32>) {
    match result {
        TestResult::Finished(Status::Passed) => ("passed", None, None),
        TestResult::Finished(Status::Failed(ExitReason::Code(code))) => ("failed", Some(*code), None),
        TestResult::Finished(Status::Failed(ExitReason::Report)) => ("failed", None, None),
        TestResult::Finished(Status::Failed(ExitReason::Unfinished)) => ("failed", Some(0), None),
        TestResult::Finished(Status::Failed(ExitReason::Signal(signal))) => ("failed", None, Some(*signal)),
        TestResult::Finished(Status::TimedOut(_)) => ("timed_out", None, None),
        TestResult::Finished(Status::NoTests) => ("no_tests", None, None),
        TestResult::Error(_) => ("error", None, None),
        TestResult::NotRun => ("not_run", None, None),
    }
}

/// Returns a duration in milliseconds, rounded down to the microsecond.
fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
