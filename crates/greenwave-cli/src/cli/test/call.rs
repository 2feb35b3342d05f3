//! Runs and looks up tests for a caller in this process, which gets the results as values.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use greenwave_testing::{
    Explanation, Inspection, Outcome, RunReport, RunStats, Suite, SuiteEvent, SuiteReport, TestId,
};

use super::args::TestArgs;
use super::explain::{described, lines};
use super::fast_path::FastPath;
use super::select::select_one;
use super::suite::Loaded;
use super::{Selected, selected, suite};
use crate::error::CliError;
use crate::testview::SuiteTotals;
use crate::text::printable;

/// Maximum time for a stopped run to end; after that it is dropped.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// A call of `greenwave test` whose results are not printed.
#[derive(Debug, Default)]
pub(in crate::cli) struct TestCall {
    /// Directory of the project.
    pub(in crate::cli) project: PathBuf,
    /// Parts of names of tests. Without any, all tests are selected.
    pub(in crate::cli) filters: Vec<String>,
    /// Selects tests that may read files changed since this commit.
    pub(in crate::cli) affected: Option<String>,
    /// Selects tests that failed when they last ran.
    pub(in crate::cli) last_failed: bool,
    /// Whether each test is a unit instead of each file or program.
    pub(in crate::cli) per_test: bool,
    /// Whether no more tests start after the first failure.
    pub(in crate::cli) fail_fast: bool,
}

/// The result of a run.
pub(in crate::cli) enum Ran {
    /// No test was selected, for this reason.
    Nothing(String),
    /// The run has ended.
    Finished(Box<FinishedRun>),
    /// The caller stopped the run.
    Stopped,
}

/// A run that has ended.
pub(in crate::cli) struct FinishedRun {
    /// The results; `None` if an up-to-date record says that all tests of the project have cached
    /// passes.
    pub(in crate::cli) report: Option<RunReport>,
    pub(in crate::cli) stats: RunStats,
    pub(in crate::cli) totals: SuiteTotals,
    /// Time that the tests with a cached result would have taken.
    pub(in crate::cli) saved: Duration,
    pub(in crate::cli) wall: Duration,
    /// Whether the run counts as a success.
    pub(in crate::cli) is_success: bool,
    suite_report: Option<SuiteReport>,
}

/// A test and the lookup of its result.
pub(in crate::cli) struct Listed {
    pub(in crate::cli) name: String,
    pub(in crate::cli) found: Result<Inspection, greenwave_testing::Error>,
}

/// The explanation of why a test has a cached result or has none.
pub(in crate::cli) struct Explained {
    /// Name of the test.
    pub(in crate::cli) name: String,
    pub(in crate::cli) explanation: Explanation,
    /// The changes that make the test run again.
    pub(in crate::cli) changes: Vec<String>,
    /// The explanation as `greenwave test --explain` prints it.
    pub(in crate::cli) lines: Vec<String>,
}

impl Listed {
    /// Returns the cached result.
    pub(in crate::cli) fn outcome(&self) -> Option<&Outcome> {
        match &self.found {
            Ok(Inspection::Cached(outcome) | Inspection::DependsOnBuild(outcome)) => Some(outcome),
            _ => None,
        }
    }
}

impl FinishedRun {
    fn all_cached(tests: usize, saved: Duration, wall: Duration) -> Self {
        Self {
            report: None,
            stats: RunStats { passed: tests, cached: tests, ..RunStats::default() },
            totals: SuiteTotals::all_cached(tests, saved, wall),
            saved,
            wall,
            is_success: true,
            suite_report: None,
        }
    }
}

impl TestCall {
    fn args(&self) -> TestArgs {
        TestArgs {
            filters: self.filters.clone(),
            affected: self.affected.clone(),
            last_failed: self.last_failed,
            per_test: self.per_test,
            fail_fast: self.fail_fast,
            ..TestArgs::silent(Some(self.project.clone()))
        }
    }

    /// Runs the selected tests, except those with a cached result, until `stopped` completes.
    ///
    /// # Errors
    /// Those of `greenwave test`.
    pub(in crate::cli) async fn run(
        &self,
        stopped: impl Future<Output = ()>,
        observe: impl Fn(&Suite, SuiteEvent<'_>) + Send + Sync,
    ) -> Result<Ran, CliError> {
        let (started, args) = (Instant::now(), self.args());
        let mut stopped = pin!(stopped);
        let fast_path = FastPath::new(&self.project, &args)?;
        if let Some(fast_path) = &fast_path
            && let Some(cached) = fast_path.check(&args.filters).await
        {
            let finished = FinishedRun::all_cached(cached.tests, cached.saved, started.elapsed());
            return Ok(Ran::Finished(Box::new(finished)));
        }
        let prepared = tokio::select! {
            biased;
            () = &mut stopped => return Ok(Ran::Stopped),
            prepared = prepare(&self.project, &args) => prepared?,
        };
        let (loaded, tests) = match prepared {
            (_, Selected::Nothing(reason)) => return Ok(Ran::Nothing(reason)),
            (loaded, Selected::Tests(tests)) => (loaded, tests),
        };
        let ran = run_until(&loaded, &tests, stopped, observe).await;
        if let (Ok(Ran::Finished(finished)), Some(fast_path), Some(recordable)) =
            (&ran, &fast_path, &loaded.recordable)
            && let Some(report) = &finished.suite_report
        {
            fast_path.record(&loaded.suite, report, recordable);
        }
        // Taking the suite apart would delay the answer.
        tokio::task::spawn_blocking(move || drop(loaded));
        ran
    }

    /// Looks up the results of the selected tests. Runs no code of the project.
    ///
    /// # Errors
    /// Those of `greenwave test --dry-run`.
    pub(in crate::cli) async fn list(&self) -> Result<Vec<Listed>, CliError> {
        let args = TestArgs { dry_run: true, ..self.args() };
        let (loaded, selected) = prepare(&self.project, &args).await?;
        let Selected::Tests(tests) = selected else { return Ok(Vec::new()) };
        let mut inspected: Vec<_> = loaded.suite.inspect().await?.into_iter().map(Some).collect();
        let listed = |test: TestId| {
            let name = loaded.suite.tests()[test.index()].name.clone();
            Some(Listed { name, found: inspected[test.index()].take()? })
        };
        Ok(tests.into_iter().filter_map(listed).collect())
    }

    /// Explains why a test has a cached result or has none. Runs no code of the
    /// project.
    ///
    /// # Errors
    /// Those of `greenwave test --explain`.
    pub(in crate::cli) async fn explain(&self, name: &str) -> Result<Explained, CliError> {
        let args = TestArgs { explain: Some(name.to_owned()), ..self.args() };
        let loaded = suite::load(&self.project, &args).await?;
        let test = select_one(loaded.suite.tests(), name)?;
        let explanation = loaded.suite.explain(test).await?;
        let name = loaded.suite.tests()[test.index()].name.clone();
        let lines = lines(&printable(&name), &explanation);
        let changes = explanation.differences.iter().map(described).collect();
        Ok(Explained { name, explanation, changes, lines })
    }
}

async fn prepare(project: &Path, args: &TestArgs) -> Result<(Loaded, Selected), CliError> {
    let loaded = suite::load(project, args).await?;
    let selected = selected(&loaded.suite, project, args).await?;
    Ok((loaded, selected))
}

/// Runs tests until `stopped` completes.
async fn run_until(
    loaded: &Loaded,
    tests: &[TestId],
    stopped: impl Future<Output = ()>,
    observe: impl Fn(&Suite, SuiteEvent<'_>) + Send + Sync,
) -> Result<Ran, CliError> {
    let suite = &loaded.suite;
    let (started, stopper) = (SystemTime::now(), suite.stopper());
    let mut running = pin!(suite.run(tests, |event| observe(suite, event)));
    let report = tokio::select! {
        report = &mut running => report?,
        () = stopped => {
            stopper.stop();
            // Tests that have ended are recorded. A test that still runs after the limit is
            // killed when the run is dropped.
            let _ = tokio::time::timeout(STOP_TIME_MAX, running).await;
            return Ok(Ran::Stopped);
        }
    };
    loaded.waiting.end().await;
    let run = RunReport::new(started, suite.tests(), &report, tests, suite.harnesses());
    let run = RunReport { flaky_fails: loaded.flaky_fails, ..run }.with_quarantine(&loaded.quarantine);
    let stats = run.stats();
    Ok(Ran::Finished(Box::new(FinishedRun {
        stats,
        totals: SuiteTotals::of(&report, &run),
        saved: report.saved,
        wall: report.wall,
        is_success: stats.is_success() && report.audits_failed.is_empty(),
        report: Some(run),
        suite_report: Some(report),
    })))
}
