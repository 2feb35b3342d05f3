//! The events of a run of a project's tests, and its report.

use std::path::Path;
use std::time::Duration;

use greenwave_sandbox::TraceStatus;

use crate::results::lookup_inputs::LookupInputs;
use crate::run::test_id::TestId;
use crate::{Error, Outcome};

/// Receives the events of a run.
pub(super) type Observe<'a> = dyn Fn(SuiteEvent<'_>) + Send + Sync + 'a;

/// An event of a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum SuiteEvent<'a> {
    /// The lookup has finished.
    LookedUp {
        /// Number of tests with a cached result.
        cached: usize,
        /// Number of tests that will run.
        running: usize,
    },
    /// A build has started in this directory of the project.
    Building(&'a Path),
    /// The build in this directory has ended.
    Built {
        /// Directory in the project.
        directory: &'a Path,
        /// Whether the build tool could be run, and the project be read. A program that does not
        /// compile fails its tests later.
        succeeded: bool,
    },
    /// A test has a cached result.
    Cached(TestId, &'a Outcome),
    /// A test has started.
    Started(TestId),
    /// A test has run.
    Ran(TestId, &'a Outcome),
    /// The first test did not run, because the second has the same command and inputs and has just
    /// produced the result.
    Deduplicated(TestId, TestId, &'a Outcome),
    /// A test could not be run.
    Broken(TestId, &'a Error),
    /// An audited test ended with another status than the cached one.
    AuditFailed(TestId, &'a Audit),
}

/// A cached result and the result of running the test again.
#[derive(Debug)]
pub struct Audit {
    /// The cached result.
    pub cached: Outcome,
    /// The new result.
    pub actual: Outcome,
}

/// The results and statistics of a run.
#[derive(Debug)]
pub struct SuiteReport {
    /// Results by test index; `None` for tests that were not requested or did not get to run.
    pub results: Vec<Option<Result<Outcome, Error>>>,
    /// Number of cached results that were compared with a new run, including failed audits.
    pub audited: usize,
    /// Audits whose new status differs from the cached one.
    pub audits_failed: Vec<(TestId, Audit)>,
    /// Duration of the run, including the lookup.
    pub wall: Duration,
    /// Tests that did not run, each with the test of the same command and inputs that produced its
    /// result.
    pub deduplicated: Vec<(TestId, TestId)>,
    /// Tests that ran more than once because they were new.
    pub stressed: Vec<TestId>,
    /// Total duration of the runs that originally produced the cached results.
    pub saved: Duration,
    /// Lower bound on the time that the tests take in any order.
    pub lower_bound: Duration,
    /// Duration of the lookup.
    pub looked_up: Duration,
    /// Whether the tests were traced.
    pub tracing: TraceStatus,
    /// Input patterns that match no file, with the tests that declare them. Covers only tests
    /// that had to run.
    pub unmatched: Vec<(TestId, String)>,
    /// Inputs of the lookup, if all of its results were cached.
    pub(crate) lookup_inputs: Option<LookupInputs>,
}

impl SuiteReport {
    /// Creates the report of a run that has no results yet.
    pub(super) fn new(tests: usize, tracing: TraceStatus) -> Self {
        Self {
            results: (0..tests).map(|_| None).collect(),
            audited: 0,
            audits_failed: Vec::new(),
            wall: Duration::ZERO,
            deduplicated: Vec::new(),
            stressed: Vec::new(),
            saved: Duration::ZERO,
            lower_bound: Duration::ZERO,
            looked_up: Duration::ZERO,
            tracing,
            unmatched: Vec::new(),
            lookup_inputs: None,
        }
    }
}
