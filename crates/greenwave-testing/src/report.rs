//! The results of one run, in the form that reports are rendered from.
//!
//! [`junit`] renders them for build servers, [`JsonLine`] for programs, and [`github_summary`] for
//! the page of a run on GitHub. Nothing in here writes a file.

mod annotations;
mod failure_text;
mod github;
mod json;
mod junit;
mod quarantine;
mod timings;

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::plain_text::plain;
use crate::run::suite::report::SuiteReport;
use crate::{
    CacheDecision, CaseReport, Error, Harness, Harnesses, Outcome, Source, Status, Test, TestCount, TestId,
    TraceStatus,
};

pub use annotations::github_annotations;
pub use failure_text::FailureText;
pub use github::github_summary;
pub use json::JsonLine;
pub use junit::junit;
pub use quarantine::{InvalidDay, Quarantine, QuarantineEntry};
pub use timings::{Timings, TimingsError};

/// The results of one run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// Start of the run.
    pub started: SystemTime,
    /// Duration of the run.
    pub wall: Duration,
    /// Time that the tests with a cached result would have taken.
    pub saved: Duration,
    /// Whether the tests were traced.
    pub tracing: TraceStatus,
    /// Whether a test that passed only after a retry fails the run.
    pub flaky_fails: bool,
    /// One report per test, in the suite's order.
    pub tests: Vec<TestReport>,
}

/// The result of one test.
#[derive(Debug, Clone)]
pub struct TestReport {
    /// Name of the test.
    pub name: String,
    /// Result of the test.
    pub result: TestResult,
    /// Duration of the test. For a cached result, the duration of the run that produced it.
    pub duration: Duration,
    /// Age of the result, if it was cached.
    pub age: Option<Duration>,
    /// Captured standard output and error, as bytes of any encoding.
    pub output: Bytes,
    /// Number of tests by the harness's own count, if the output has one.
    pub count: Option<TestCount>,
    /// Number of attempts in this run; 0 if the result was cached.
    pub attempts: u32,
    /// Reason why a pass was not stored.
    pub not_cached: Option<String>,
    /// Reason why the result depends on all files of the project, if it does.
    pub coarse: Option<String>,
    /// Results of the single tests inside the command, if its harness reports them.
    pub cases: Vec<CaseReport>,
    /// The quarantine of a test that failed, for people: its failure does not fail the run.
    pub quarantine: Option<String>,
}

/// The result of a test in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestResult {
    /// The test ran, or its result was cached.
    Finished(Status),
    /// The test could not be run; the text is the error with its causes.
    Error(String),
    /// The run ended before the test started.
    NotRun,
}

/// Numbers of tests in a run. `passed`, `failed`, `quarantined`, `errors` and `not_run` add up to
/// all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that finished without passing, and are not in quarantine.
    pub failed: usize,
    /// Tests in quarantine that finished without passing.
    pub quarantined: usize,
    /// Tests that could not be run.
    pub errors: usize,
    /// Tests that did not start before the run ended.
    pub not_run: usize,
    /// Tests with a cached result; also counted as `passed` or `failed`.
    pub cached: usize,
    /// Tests that passed after more than one attempt; also counted as `passed`.
    pub flaky: usize,
    /// Whether flaky tests fail the run.
    pub flaky_fails: bool,
}

impl RunReport {
    /// Creates the report of a suite's run that began at `started`, limited to the tests `ids`.
    pub fn new(
        started: SystemTime,
        tests: &[Test],
        suite: &SuiteReport,
        ids: &[TestId],
        harnesses: &Harnesses,
    ) -> Self {
        let report = |id: &TestId| {
            let result = suite.results[id.index()].as_ref();
            TestReport::new(&tests[id.index()], result, harnesses)
        };
        let (wall, saved, tracing) = (suite.wall, suite.saved, suite.tracing.clone());
        let tests = ids.iter().map(report).collect();
        Self { started, wall, saved, tracing, flaky_fails: false, tests }
    }

    /// Applies a quarantine to the tests.
    #[must_use]
    pub fn with_quarantine(mut self, quarantine: &Quarantine) -> Self {
        self.tests = self.tests.into_iter().map(|test| test.with_quarantine(quarantine)).collect();
        self
    }

    /// Counts the tests by result.
    pub fn stats(&self) -> RunStats {
        let mut stats = RunStats { flaky_fails: self.flaky_fails, ..RunStats::default() };
        for test in &self.tests {
            match &test.result {
                TestResult::Finished(Status::Passed) => stats.passed += 1,
                TestResult::Finished(_) if test.quarantine.is_some() => stats.quarantined += 1,
                TestResult::Finished(_) => stats.failed += 1,
                TestResult::Error(_) => stats.errors += 1,
                TestResult::NotRun => stats.not_run += 1,
            }
            stats.cached += usize::from(test.age.is_some());
            stats.flaky += usize::from(test.is_flaky());
        }
        stats
    }
}

impl RunStats {
    /// Returns whether all tests passed, apart from those in quarantine. A run without tests is not
    /// a success.
    pub fn is_success(&self) -> bool {
        let flaky = if self.flaky_fails { self.flaky } else { 0 };
        self.passed + self.quarantined > 0 && self.failed + self.errors + self.not_run + flaky == 0
    }
}

impl TestReport {
    /// Creates the report of one test; a `result` of `None` means that it was not run.
    pub fn new(test: &Test, result: Option<&Result<Outcome, Error>>, harnesses: &Harnesses) -> Self {
        let harness = harnesses.get(&test.harness);
        let outcome = result.and_then(|result| result.as_ref().ok());
        let (age, stored) = match outcome.map(|outcome| &outcome.source) {
            Some(Source::Cached(age)) => (Some(*age), None),
            Some(Source::Ran(stored)) => (None, Some(stored)),
            None => (None, None),
        };
        Self {
            name: test.name.clone(),
            result: match result {
                None => TestResult::NotRun,
                Some(Ok(outcome)) => TestResult::Finished(outcome.status),
                Some(Err(error)) => TestResult::Error(chain(error)),
            },
            duration: outcome.map_or(Duration::ZERO, |outcome| outcome.duration),
            age,
            output: outcome.map_or_else(Bytes::new, |outcome| outcome.output.clone()),
            count: outcome.and_then(|outcome| outcome.count),
            attempts: outcome.map_or(0, |outcome| outcome.attempts),
            not_cached: stored.and_then(CacheDecision::reason),
            coarse: outcome.and_then(|outcome| outcome.coarse.clone()),
            cases: outcome.map(|outcome| cases(harness, outcome)).unwrap_or_default(),
            quarantine: None,
        }
    }

    /// Applies a quarantine to the test. Only a failure has one.
    #[must_use]
    pub fn with_quarantine(mut self, quarantine: &Quarantine) -> Self {
        let has_failed = matches!(self.result, TestResult::Finished(status) if status != Status::Passed);
        self.quarantine = quarantine.entry(&self.name).filter(|_| has_failed).map(ToString::to_string);
        self
    }

    /// Returns whether the test passed.
    pub fn passed(&self) -> bool {
        self.result == TestResult::Finished(Status::Passed)
    }

    /// Returns whether the test passed after more than one attempt.
    pub fn is_flaky(&self) -> bool {
        self.passed() && self.attempts > 1
    }

    /// Describes a failure or an error; `None` if the test passed or was not run.
    pub fn problem(&self) -> Option<String> {
        match &self.result {
            TestResult::Finished(Status::Passed) | TestResult::NotRun => None,
            TestResult::Finished(status) => Some(status.to_string()),
            TestResult::Error(error) => Some(format!("could not be run: {error}")),
        }
    }
}

/// Returns the single tests inside a command, from its reports or else from its output.
fn cases(harness: &dyn Harness, outcome: &Outcome) -> Vec<CaseReport> {
    if outcome.cases.is_empty() {
        harness.parse_cases(&plain(&outcome.output))
    } else {
        outcome.cases.clone()
    }
}

/// Returns an error's message followed by those of its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}
