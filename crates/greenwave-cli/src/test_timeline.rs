//! Turns the events of a run of tests into its parts, each with start and end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use greenwave_testing::{CaseReport, Outcome, Suite, SuiteEvent, TestId, TestReport};

/// A part of a run that has ended. Times count from the start of the run.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) part: Part<'a>,
    pub(crate) start: Duration,
    pub(crate) end: Duration,
}

/// The parts of a run.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// Settings were read, and tests discovered.
    Loading,
    /// Results were looked up.
    Lookup { cached: usize, running: usize },
    /// Programs were built in this directory of the project.
    Build { directory: String, succeeded: bool },
    /// A test has a result.
    Test(TestPart<'a>),
}

/// A test with its result.
#[derive(Debug)]
pub(crate) struct TestPart<'a> {
    pub(crate) name: &'a str,
    /// Name of the program that runs the tests inside the command.
    pub(crate) runner: &'a str,
    /// The way in which the test ended.
    pub(crate) status: String,
    pub(crate) passed: bool,
    pub(crate) cached: bool,
    /// Duration of the run that produced the result.
    pub(crate) duration: Duration,
    pub(crate) attempts: u32,
    /// The reason for which a result that is new was not stored.
    pub(crate) not_stored: Option<String>,
    /// The single tests inside the command, if it reports them.
    pub(crate) cases: Vec<CaseReport>,
}

/// The state of a run.
#[derive(Debug)]
pub(crate) struct Timeline {
    started: Instant,
    /// The end of loading, until the lookup has ended.
    loaded: Option<Duration>,
    /// The start of the build that is running.
    build: Duration,
    tests: HashMap<TestId, Duration>,
}

impl Timeline {
    /// Starts the timeline of a run that has just been loaded.
    pub(crate) fn new(started: Instant) -> Self {
        let loaded = Some(started.elapsed());
        Self { started, loaded, build: Duration::ZERO, tests: HashMap::new() }
    }

    /// Returns the time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the loading of the run.
    pub(crate) fn loading(&self) -> Ended<'static> {
        Ended { part: Part::Loading, start: Duration::ZERO, end: self.loaded.unwrap_or_default() }
    }

    /// Adds an event that happens at this time. Returns the part that ends with it.
    pub(crate) fn event<'a>(
        &mut self,
        suite: &'a Suite,
        event: &SuiteEvent<'_>,
        at: Duration,
    ) -> Option<Ended<'a>> {
        let (part, start) = match event {
            SuiteEvent::LookedUp { cached, running } => {
                let start = self.loaded.take().unwrap_or(at);
                (Part::Lookup { cached: *cached, running: *running }, start)
            }
            SuiteEvent::Building(_) => {
                self.build = at;
                return None;
            }
            SuiteEvent::Built { directory, succeeded } => {
                let directory = if directory.as_os_str().is_empty() {
                    ".".to_owned()
                } else {
                    directory.display().to_string()
                };
                (Part::Build { directory, succeeded: *succeeded }, self.build)
            }
            SuiteEvent::Started(id) => {
                self.tests.insert(*id, at);
                return None;
            }
            SuiteEvent::Cached(id, outcome) | SuiteEvent::Deduplicated(id, _, outcome) => {
                (Part::Test(TestPart::new(suite, *id, outcome)), at)
            }
            SuiteEvent::Ran(id, outcome) => {
                let part = TestPart::new(suite, *id, outcome);
                let started = self.tests.remove(id).unwrap_or_default();
                // A test waits for others in its batch, and for another process that runs it.
                let duration = if part.cached { Duration::ZERO } else { part.duration };
                (Part::Test(part), at.saturating_sub(duration).max(started))
            }
            SuiteEvent::Broken(id, _) => {
                let start = self.tests.remove(id).unwrap_or(at);
                (Part::Test(TestPart::broken(suite, *id, at.saturating_sub(start))), start)
            }
            _ => return None,
        };
        Some(Ended { part, start, end: at })
    }
}

impl<'a> TestPart<'a> {
    fn new(suite: &'a Suite, id: TestId, outcome: &Outcome) -> Self {
        let result = Ok(outcome.clone());
        let report = TestReport::new(&suite.tests()[id.index()], Some(&result), suite.harnesses());
        Self {
            status: outcome.status.to_string(),
            passed: outcome.passed(),
            cached: outcome.is_cached(),
            attempts: outcome.attempts,
            not_stored: report.not_cached,
            cases: report.cases,
            ..Self::broken(suite, id, outcome.duration)
        }
    }

    /// A test that could not be run.
    fn broken(suite: &'a Suite, id: TestId, duration: Duration) -> Self {
        let test = &suite.tests()[id.index()];
        Self {
            name: &test.name,
            runner: test.harness.as_str(),
            status: "could not be run".to_owned(),
            passed: false,
            cached: false,
            duration,
            attempts: 1,
            not_stored: None,
            cases: Vec::new(),
        }
    }
}
