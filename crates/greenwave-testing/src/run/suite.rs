//! Runs the tests of a project: looks up cached results and schedules the tests without one.

mod builder;
mod builds;
mod company;
mod context;
mod coordinator;
mod explain;
mod lookup;
pub(crate) mod report;
mod schedule;
mod up_to_date;
mod worker;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use greenwave_cache::TieredStats;
use greenwave_inputs::Snapshot;
use greenwave_scheduler::{Executor, Stopper};
use tokio::time::Instant;

use self::context::SuiteContext;
use self::coordinator::{Coordinator, PendingTests};
use self::lookup::SuiteLookup;
use self::report::{Observe, SuiteEvent, SuiteReport};
use crate::boxed::boxed;
use crate::harness::Harnesses;
use crate::results::dependencies::{BUILDS, DependencyLog, DependencyRecord};
use crate::results::history::Statistics;
use crate::results::lookup::Lookup;
use crate::results::outcome::Outcome;
use crate::results::state::{StateDirectory, StateFile};
use crate::run::options::SuiteOptions;
use crate::run::test_id::TestId;
use crate::{Error, Test, Timings};

pub use self::builder::SuiteBuilder;
pub use self::explain::{ChangedDependency, Explanation, NotStored};
pub use self::up_to_date::DiscoveredTests;

/// The result of a test as far as it can be known without running or building anything.
#[derive(Debug)]
pub enum Inspection {
    /// The result is cached.
    Cached(Outcome),
    /// The result is cached unless the build of the test's program would change what it depends on.
    DependsOnBuild(Outcome),
    /// No result is cached.
    Missing,
}

/// The tests of a project, ready to be looked up and run.
///
/// ```
/// use greenwave_testing::{Environment, Suite, Test};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let project = tempfile::tempdir()?;
/// # std::fs::write(project.path().join("answer.txt"), "42")?;
/// let tests = vec![Test::new("answer", ["sh", "-c", "grep -q 42 answer.txt"])];
/// let environment = Environment::new(std::env::vars_os());
/// let suite = Suite::builder(project.path()).tests(tests).environment(environment).open()?;
/// let all: Vec<_> = suite.ids().collect();
/// let report = suite.run(&all, |_| {}).await?;
/// assert!(report.results.iter().flatten().flatten().all(|outcome| outcome.passed()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Suite {
    context: Arc<SuiteContext>,
    options: SuiteOptions,
    state: StateDirectory,
    executor: Executor,
}

impl Suite {
    /// Returns the settings of a suite for a project directory.
    pub fn builder(project: impl Into<PathBuf>) -> SuiteBuilder {
        SuiteBuilder::new(project.into())
    }

    /// Returns the directory of the project.
    pub fn project(&self) -> &Path {
        self.context.project.root()
    }

    /// Returns all tests, ordered by id.
    pub fn tests(&self) -> &[Test] {
        &self.context.tests
    }

    /// Returns the ids of all tests, in order.
    pub fn ids(&self) -> impl Iterator<Item = TestId> + use<> {
        self.context.ids()
    }

    /// Returns whether files of state in the project were not used because somebody else made them:
    /// their seal does not verify. They are replaced by the next run.
    pub fn has_foreign_state(&self) -> bool {
        self.state.has_foreign_files()
    }

    /// Returns the reason why tests ran without
    /// [`RunnerOptions::guard`](crate::RunnerOptions::guard), if they did.
    pub fn guard_problem(&self) -> Option<String> {
        let guard = self.context.runner.options().guard.as_ref()?;
        guard.problem().map(ToString::to_string)
    }

    /// Returns the figures of the cache.
    pub fn cache_stats(&self) -> TieredStats {
        self.context.runner.stats()
    }

    /// Returns the harnesses of the tests.
    pub fn harnesses(&self) -> &Harnesses {
        &self.context.runner.options().harnesses
    }

    /// Returns a handle that stops a run.
    pub fn stopper(&self) -> Stopper {
        self.executor.stopper()
    }

    /// Looks up the results of all tests, ordered by id, without running any. Builds programs if a
    /// result depends on them.
    ///
    /// # Errors
    /// Returns an error if the project cannot be read.
    pub fn cached_results(
        &self,
    ) -> impl Future<Output = Result<Vec<Result<Option<Outcome>, Error>>, Error>> + Send {
        boxed(self.find_cached())
    }

    async fn find_cached(&self) -> Result<Vec<Result<Option<Outcome>, Error>>, Error> {
        let outcome = |found: Result<Lookup, Error>| match found {
            Ok(Lookup::Hit(outcome, _)) => Ok(Some(outcome)),
            Ok(Lookup::Miss(_) | Lookup::OverLimit(_) | Lookup::Corrupt) => Ok(None),
            Err(error) => Err(error),
        };
        let lookup = self.lookup_all().await?;
        self.save();
        Ok(lookup.found.into_iter().map(|(_, found)| outcome(found)).collect())
    }

    /// Looks up the results of all tests, ordered by id, without running or building anything.
    ///
    /// # Errors
    /// Returns an error if the project cannot be read.
    pub fn inspect(&self) -> impl Future<Output = Result<Vec<Result<Inspection, Error>>, Error>> + Send {
        boxed(self.find_without_builds())
    }

    async fn find_without_builds(&self) -> Result<Vec<Result<Inspection, Error>>, Error> {
        let inspection = |found: Result<Lookup, Error>| match found {
            Ok(Lookup::Hit(outcome, chain)) if chain.builds().next().is_some() => {
                Ok(Inspection::DependsOnBuild(outcome))
            }
            Ok(Lookup::Hit(outcome, _)) => Ok(Inspection::Cached(outcome)),
            Ok(Lookup::Miss(_) | Lookup::OverLimit(_) | Lookup::Corrupt) => Ok(Inspection::Missing),
            Err(error) => Err(error),
        };
        let all: Vec<TestId> = self.ids().collect();
        let snapshot = self.context.scan().await?;
        let lookup = SuiteLookup::without_builds(&self.context, &snapshot, &all).await;
        self.save();
        Ok(lookup.found.into_iter().map(|(_, found)| inspection(found)).collect())
    }

    /// Returns the key at which the lookup of each test ends, ordered by id. A key that differs
    /// between two calls means that a dependency of the test has changed. Tests without a usable
    /// key have `None`.
    ///
    /// # Errors
    /// Returns an error if the project cannot be read.
    pub fn keys(&self) -> impl Future<Output = Result<Vec<Option<[u8; 32]>>, Error>> + Send {
        boxed(self.find_keys())
    }

    async fn find_keys(&self) -> Result<Vec<Option<[u8; 32]>>, Error> {
        let key = |found: Result<Lookup, Error>| match found {
            Ok(Lookup::Hit(_, chain) | Lookup::Miss(chain) | Lookup::OverLimit(chain)) => {
                Some(*chain.last().as_bytes())
            }
            Ok(Lookup::Corrupt) | Err(_) => None,
        };
        Ok(self.lookup_all().await?.found.into_iter().map(|(_, found)| key(found)).collect())
    }

    /// Runs the given tests, except those with a cached result.
    ///
    /// # Errors
    /// Returns an error if the project cannot be read, or if a test needs more of a resource than
    /// [`SuiteOptions::resources`] provides.
    pub fn run<'a>(
        &'a self,
        wanted: &'a [TestId],
        observe: impl Fn(SuiteEvent<'_>) + Send + Sync + 'a,
    ) -> impl Future<Output = Result<SuiteReport, Error>> + Send + 'a {
        self.run_observed(wanted, Box::new(observe))
    }

    fn run_observed<'a>(
        &'a self,
        wanted: &'a [TestId],
        observe: Box<dyn Fn(SuiteEvent<'_>) + Send + Sync + 'a>,
    ) -> Pin<Box<dyn Future<Output = Result<SuiteReport, Error>> + Send + 'a>> {
        boxed(async move { self.look_up_and_run(wanted, &*observe).await })
    }

    async fn look_up_and_run(&self, wanted: &[TestId], observe: &Observe<'_>) -> Result<SuiteReport, Error> {
        let started = Instant::now();
        let SuiteContext { tests, runner, .. } = &*self.context;
        let mut report = SuiteReport::new(tests.len(), runner.trace_status());
        let snapshot = self.context.scan().await?;
        let mut lookup = SuiteLookup::run(&self.context, &snapshot, wanted, observe).await;
        lookup.restore_outputs(&self.context).await;
        let pending = self.take_cached(lookup, &mut report);
        report.looked_up = started.elapsed();
        report_lookup(&mut report, pending.ids.len(), observe);
        self.note_broken(&report);
        report.unmatched = self.unmatched(&snapshot, &pending.ids);
        if !pending.ids.is_empty() {
            self.execute(pending, &mut report, observe).await?;
        }
        runner.flush().await;
        self.save();
        report.wall = started.elapsed();
        Ok(report)
    }

    /// Explains why a test has a cached result or has none.
    ///
    /// # Errors
    /// Returns an error if the project cannot be read or the test cannot be run.
    pub fn explain(&self, test: TestId) -> impl Future<Output = Result<Explanation, Error>> + Send {
        boxed(async move { explain::explain(&self.context, test, &self.load_log()).await })
    }

    /// Returns the tests that did not pass when they last ran, or could not be run.
    pub fn failed_last(&self) -> Vec<TestId> {
        let statistics = Statistics::load(&self.state);
        let has_failed = |id: &TestId| {
            statistics.get(&self.context.test(*id).name).is_some_and(|statistics| statistics.failed_last)
        };
        self.ids().filter(has_failed).collect()
    }

    /// Returns the tests whose last run passed and was not stored, with the reasons and advice.
    pub fn not_stored(&self) -> Vec<NotStored> {
        let log = self.load_log();
        let found = |test: TestId| {
            let name = &self.context.test(test).name;
            let last = log.last(name)?;
            let stored = log.last_stored(name).map(DependencyRecord::age);
            let (reason, setting) = (last.not_stored.clone()?, last.setting.clone());
            Some(NotStored { test, reason, setting, stored })
        };
        self.ids().filter_map(found).collect()
    }

    /// Returns the durations that the tests are expected to take, learned from earlier runs.
    pub fn timings(&self) -> Timings {
        let statistics = Statistics::load(&self.state);
        let timing = |test: &Test| Some((test.name.clone(), statistics.get(&test.name)?.duration()?));
        Timings::new(self.tests().iter().filter_map(timing))
    }

    /// Returns the tests that may read one of these paths of the project, which need not exist:
    /// their inputs include the path, or an earlier run saw them access it.
    ///
    /// # Errors
    /// Returns [`Error::Inputs`] if an input pattern is invalid.
    pub fn tests_reading(&self, paths: &[PathBuf]) -> Result<Vec<TestId>, Error> {
        let log = self.load_log();
        let is_one = |path: &Path| paths.iter().any(|other| other == path);
        // Any path may be a source of a cargo build.
        let is_built = |path: &Path| !paths.is_empty() && path.to_string_lossy().ends_with(BUILDS);
        let seen: HashSet<&str> = log.have_accessed(|path| is_one(path) || is_built(path)).collect();
        let mut readers = Vec::new();
        for id in self.ids() {
            let test = self.context.test(id);
            let selection = test.selection()?;
            if seen.contains(test.name.as_str()) || paths.iter().any(|path| selection.includes(path, false)) {
                readers.push(id);
            }
        }
        Ok(readers)
    }

    async fn lookup_all(&self) -> Result<SuiteLookup, Error> {
        let all: Vec<TestId> = self.ids().collect();
        Ok(SuiteLookup::run(&self.context, &self.context.scan().await?, &all, &|_| {}).await)
    }

    /// Moves cached results to the report, except audited ones. Returns the tests that have to run.
    fn take_cached(&self, lookup: SuiteLookup, report: &mut SuiteReport) -> PendingTests {
        let SuiteLookup { found, builds, distrusted, lookup_inputs } = lookup;
        report.lookup_inputs = lookup_inputs;
        let (mut ids, mut misses, mut audits) = (Vec::new(), HashMap::new(), HashMap::new());
        for (id, found) in found {
            match found {
                Ok(Lookup::Hit(outcome, _)) if self.is_audited(id, &outcome) => {
                    audits.insert(id, outcome);
                    ids.push(id);
                }
                Ok(Lookup::Hit(outcome, _)) => report.results[id.index()] = Some(Ok(outcome)),
                Ok(Lookup::Miss(chain)) => {
                    misses.insert(id, chain);
                    ids.push(id);
                }
                Ok(Lookup::OverLimit(_) | Lookup::Corrupt) => ids.push(id),
                Err(error) => report.results[id.index()] = Some(Err(error)),
            }
        }
        ids.sort_unstable();
        PendingTests { ids, misses, distrusted, audits, builds }
    }

    /// Records the tests whose lookup failed as tests that could not be run.
    fn note_broken(&self, report: &SuiteReport) {
        let mut broken =
            self.ids().filter(|id| matches!(report.results[id.index()], Some(Err(_)))).peekable();
        if broken.peek().is_none() {
            return;
        }
        let mut statistics = Statistics::load(&self.state);
        broken.for_each(|id| statistics.observe_error(&self.context.test(id).name));
        warn_unless_saved(statistics.save(&self.state));
    }

    fn is_audited(&self, id: TestId, cached: &Outcome) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.options.audit_seed.to_le_bytes()).update(&cached.key);
        hasher.update(&id.index().to_le_bytes());
        let [first, second, third, fourth, ..] = *hasher.finalize().as_bytes();
        let number = u32::from_le_bytes([first, second, third, fourth]);
        f64::from(number) < self.options.audit * f64::from(u32::MAX)
    }

    /// Returns the input patterns of tests that match no file.
    fn unmatched(&self, snapshot: &Snapshot, ids: &[TestId]) -> Vec<(TestId, String)> {
        let unmatched = |id: &TestId| {
            let patterns = &self.context.test(*id).inputs;
            let pattern = self.context.project.unmatched_pattern(snapshot, patterns);
            pattern.map(|pattern| (*id, pattern.to_owned()))
        };
        ids.iter().filter_map(unmatched).collect()
    }

    async fn execute(
        &self,
        pending: PendingTests,
        report: &mut SuiteReport,
        observe: &Observe<'_>,
    ) -> Result<(), Error> {
        let mut statistics = Statistics::load(&self.state);
        let cached = report.results.iter().filter(|result| matches!(result, Some(Ok(_)))).count();
        statistics.observe_cached(cached, report.saved);
        let mut log = self.load_log();
        let mut coordinator = Coordinator {
            context: &self.context,
            executor: &self.executor,
            options: &self.options,
            statistics: &mut statistics,
            log: &mut log,
            report,
            observe,
        };
        let ran = coordinator.run(pending).await;
        warn_unless_saved(self.context.runner.more_reads().save(&self.state));
        ran?;
        warn_unless_saved(statistics.save(&self.state));
        warn_unless_saved(log.save(&self.state));
        Ok(())
    }

    fn load_log(&self) -> DependencyLog {
        DependencyLog::load(&self.state)
    }

    /// Saves what lookups have read.
    fn save(&self) {
        let SuiteContext { project, runner, .. } = &*self.context;
        if !self.state.is_used() {
            return;
        }
        let caches = [StateFile::StatCache, StateFile::DirCache].map(|file| self.state.path(file));
        warn_unless_saved(project.save(&caches[0], &caches[1], self.state.seal()).map_err(Error::from));
        warn_unless_saved(runner.tools().save(&self.state));
        warn_unless_saved(runner.more_reads().save(&self.state));
        let maintained = runner.maintained();
        let saved = self.state.update(StateFile::Maintained, |stored| maintained.encode(stored));
        if saved.is_ok() {
            maintained.stored();
        }
        warn_unless_saved(saved);
    }
}

/// Logs that a part of the suite's state could not be saved. The next run then repeats some work.
fn warn_unless_saved(saved: Result<(), Error>) {
    if let Err(error) = saved {
        tracing::warn!(%error, "cannot save the state of the test suite");
    }
}

/// Adds the durations of cached results to the report, and reports the results of the lookup.
fn report_lookup(report: &mut SuiteReport, running: usize, observe: &Observe<'_>) {
    let cached = report.results.iter().filter(|result| matches!(result, Some(Ok(_)))).count();
    observe(SuiteEvent::LookedUp { cached, running });
    for (at, result) in report.results.iter().enumerate() {
        match result {
            Some(Ok(outcome)) => {
                report.saved += outcome.duration;
                observe(SuiteEvent::Cached(TestId::new(at), outcome));
            }
            Some(Err(error)) => observe(SuiteEvent::Broken(TestId::new(at), error)),
            None => {}
        }
    }
}
