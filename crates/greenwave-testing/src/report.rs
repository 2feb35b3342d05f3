//! What came of a run, in the form that reports are made of. Knows nothing of how tests are run, and writes no files.
//!
//! [`junit`] is for build servers, [`Line`] for programs, [`github_summary`] for the page of a run on GitHub.

mod github;
mod json;
mod junit;

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::run::suite::SuiteReport;
use crate::{CacheDecision, Count, Error, Harness, Outcome, Source, Status, Test, TestId, TraceStatus};

pub use github::github_summary;
pub use json::Line;
pub use junit::junit;

/// What came of one run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// When it began.
    pub started: SystemTime,
    /// How long it took.
    pub wall: Duration,
    /// How long the tests whose results were known would have run.
    pub saved: Duration,
    /// Whether the tests were traced.
    pub tracing: TraceStatus,
    /// Its tests, in the suite's order.
    pub tests: Vec<TestReport>,
}

/// What came of one test.
#[derive(Debug, Clone)]
pub struct TestReport {
    /// The test's name.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it ran: now, or back then if the result was known.
    pub duration: Duration,
    /// How old the result is, if it was known.
    pub age: Option<Duration>,
    /// What it printed: any bytes.
    pub output: Bytes,
    /// Its runner's own count, where the output has one.
    pub count: Option<Count>,
    /// How often it was run now; 0 if the result was known.
    pub attempts: u32,
    /// Why a pass was not kept.
    pub not_kept: Option<String>,
    /// The single tests in it, where they can be told apart.
    pub cases: Vec<CaseReport>,
    /// Why it ran, where somebody asked.
    pub explanation: Option<String>,
}

/// What came of a test in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has a result.
    Result(Status),
    /// It could not be run, for this reason.
    Error(String),
    /// It was not run, since the run ended before.
    NotRun,
}

/// What came of a single test inside a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseReport {
    /// Its name, as its runner has it.
    pub name: String,
    /// What came of it.
    pub status: CaseStatus,
    /// How long it ran, where its runner says so.
    pub duration: Option<Duration>,
    /// What it printed, where that can be told apart.
    pub output: Option<Bytes>,
}

/// What came of a single test inside a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseStatus {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It was passed over.
    Skipped,
}

impl RunReport {
    /// The report of a suite's run that began at this time, about the tests in these places.
    pub fn new(started: SystemTime, tests: &[Test], suite: &SuiteReport, ids: &[TestId]) -> Self {
        let report = |id: &TestId| TestReport::new(&tests[id.index()], suite.results[id.index()].as_ref());
        let (wall, saved, tracing) = (suite.wall, suite.saved, suite.tracing.clone());
        Self { started, wall, saved, tracing, tests: ids.iter().map(report).collect() }
    }

    /// How many tests there are of each kind.
    pub fn tally(&self) -> Tally {
        let count = |is: fn(&TestReport) -> bool| self.tests.iter().filter(|test| is(test)).count();
        Tally {
            passed: count(TestReport::passed),
            failed: count(
                |test| matches!(&test.verdict, Verdict::Result(status) if *status != Status::Passed),
            ),
            errors: count(|test| matches!(test.verdict, Verdict::Error(_))),
            not_run: count(|test| test.verdict == Verdict::NotRun),
            known: count(|test| test.age.is_some()),
            flaky: count(TestReport::is_flaky),
        }
    }
}

/// Numbers of tests. The first four add up to all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// They passed.
    pub passed: usize,
    /// They have a result, and it is no pass.
    pub failed: usize,
    /// They could not be run.
    pub errors: usize,
    /// They were not run, since the run ended before.
    pub not_run: usize,
    /// Of those that have a result: it was known.
    pub known: usize,
    /// Of those that passed: not at once.
    pub flaky: usize,
}

impl Tally {
    /// Whether everything passed. Nothing at all is not a pass.
    pub fn is_success(&self) -> bool {
        self.passed > 0 && self.failed + self.errors + self.not_run == 0
    }
}

impl TestReport {
    /// The report of one test's result; `None` if it was not run.
    pub fn new(test: &Test, result: Option<&Result<Outcome, Error>>) -> Self {
        let verdict = match result {
            None => Verdict::NotRun,
            Some(Ok(outcome)) => Verdict::Result(outcome.status),
            Some(Err(error)) => Verdict::Error(chain(error)),
        };
        let outcome = result.and_then(|result| result.as_ref().ok());
        let (age, stored) = match outcome.map(|outcome| &outcome.source) {
            Some(Source::Cached(age)) => (Some(*age), None),
            Some(Source::Ran(stored)) => (None, Some(stored)),
            None => (None, None),
        };
        Self {
            name: test.name.clone(),
            verdict,
            duration: outcome.map_or(Duration::ZERO, |outcome| outcome.duration),
            age,
            output: outcome.map_or_else(Bytes::new, |outcome| outcome.output.clone()),
            count: outcome.and_then(|outcome| outcome.count),
            attempts: outcome.map_or(0, |outcome| outcome.attempts),
            not_kept: stored.and_then(CacheDecision::reason),
            cases: outcome.map(|outcome| cases(test, outcome)).unwrap_or_default(),
            explanation: None,
        }
    }

    /// Whether it passed.
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Result(Status::Passed)
    }

    /// Whether it passed only when it was tried again.
    pub fn is_flaky(&self) -> bool {
        self.passed() && self.attempts > 1
    }

    /// What is wrong, in words; `None` if it passed or was not run.
    pub fn problem(&self) -> Option<String> {
        match &self.verdict {
            Verdict::Result(Status::Passed) | Verdict::NotRun => None,
            Verdict::Result(status) => Some(status.to_string()),
            Verdict::Error(error) => Some(format!("could not be run: {error}")),
        }
    }
}

/// The single tests in what a command printed, where its runner is known.
fn cases(test: &Test, outcome: &Outcome) -> Vec<CaseReport> {
    if !matches!(test.harness, Harness::Cargo { .. }) {
        return Vec::new();
    }
    let case = |(name, passed)| {
        let status = if passed { CaseStatus::Passed } else { CaseStatus::Failed };
        CaseReport { name, status, duration: None, output: None }
    };
    crate::harness::cargo::cases(&plain(&outcome.output)).into_iter().map(case).collect()
}

/// An error with everything behind it.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

/// An output as text without what only a terminal understands: escape sequences and control characters.
pub(crate) fn plain(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => skip_escape(&mut rest),
            '\n' | '\t' => plain.push(character),
            // What a progress bar has written over, stays readable.
            '\r' if rest.peek() != Some(&'\n') => plain.push('\n'),
            other if other.is_control() || matches!(other, '\u{fffe}' | '\u{ffff}') => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The same in one line, for names and reasons.
fn one_line(text: &str) -> String {
    plain(text.as_bytes()).trim_end().replace(['\n', '\t'], " ")
}

/// Skips the rest of an escape sequence (ECMA-48): a control sequence, a string up to its end, or one character.
fn skip_escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.next() {
        Some('[') => while rest.next().is_some_and(|it| !('@'..='~').contains(&it)) {},
        Some(']' | 'P' | '^' | '_' | 'X') => {
            while let Some(character) = rest.next() {
                if character == '\x07' || (character == '\x1b' && rest.next_if_eq(&'\\').is_some()) {
                    return;
                }
            }
        }
        _ => {}
    }
}
