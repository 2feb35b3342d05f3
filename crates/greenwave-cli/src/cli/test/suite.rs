//! Opens the suite of a project: its declared or discovered tests, its results and its settings.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Once};

use greenwave::{Environment, ResultStore, Test};
use greenwave_testing::{
    Discovery, Harnesses, Jobserver, ListingContext, Outcome, RunnerOptions, Suite, SuiteOptions,
    SuiteReport, TestId, TraceStatus,
};

use super::args::TestArgs;
use super::fast_path::Recordable;
use crate::config::Config;
use crate::dirs::results_dir;
use crate::error::CliError;
use crate::jobserver;
use crate::output;
use crate::signals::StopOnSignal;
use crate::supervisor;

/// The tests of a project, ready to run.
pub(super) struct Loaded {
    pub(super) suite: Arc<Suite>,
    /// The settings for an up-to-date record, if one may be stored for this project.
    pub(super) recordable: Option<Recordable>,
}

/// Opens the suite of the tests that the settings file declares, or else of the discovered ones.
pub(super) async fn load(project: &Path, args: &TestArgs) -> Result<Loaded, CliError> {
    let mut config = Config::load(project, &args.overrides()?)?;
    let environment = supervisor::environment();
    let file = std::mem::take(&mut config.tests);
    let mut tests = file.tests;
    let is_declared = !tests.is_empty();
    if !is_declared {
        let found = discover(project, &environment, &config, args).await?;
        found.notes.iter().for_each(|note| output::note(&note.to_string()));
        tests = found.tests;
    }
    let suite = open(project, tests, file.resources, environment, &config, args, args.fail_fast)?;
    let settings = &config.settings;
    let has_default_cache =
        settings.cache.enabled && settings.cache.directory.is_none() && settings.testing.audit == 0.0;
    let text = config.text.filter(|_| has_default_cache && is_declared);
    let recordable = text.map(|text| Recordable { text, ttl: settings.testing.ttl });
    Ok(Loaded { suite: Arc::new(suite), recordable })
}

/// Discovers the tests of a project. With `--per-test`, each function is a test.
pub(super) async fn discover(
    project: &Path,
    environment: &Environment,
    config: &Config,
    args: &TestArgs,
) -> Result<Discovery, CliError> {
    let harnesses = Harnesses::builtin();
    let mut found = greenwave_testing::discover(project, &harnesses, environment).await?;
    let run = async |commands: Vec<Test>| run_commands(project, commands, environment, config, args).await;
    if !found.collections.is_empty() {
        let is_traced = matches!(TraceStatus::of(config.settings.testing.trace), TraceStatus::Traced);
        let commands = found.collection_commands(&harnesses, project, is_traced);
        let report = run(commands.clone()).await?;
        found.collect(
            &harnesses,
            &ListingContext::new(project, environment).with(outcomes(&commands, &report)),
        );
    }
    if !args.per_test {
        return Ok(found);
    }
    let context = ListingContext::new(project, environment);
    let listings = found.listing_commands(&harnesses, &context);
    if listings.is_empty() {
        found.split(&harnesses, &context).await?;
        return Ok(found);
    }
    let report = run(listings.clone()).await?;
    found.split(&harnesses, &context.with(outcomes(&listings, &report))).await?;
    Ok(found)
}

/// Returns the outcomes of commands that ran as a suite.
fn outcomes<'a>(
    commands: &'a [Test],
    report: &'a SuiteReport,
) -> impl Iterator<Item = (&'a Test, Option<&'a Outcome>)> {
    commands.iter().zip(report.results.iter().map(|result| result.as_ref()?.as_ref().ok()))
}

/// Runs commands that say which tests there are, unless their results are cached.
async fn run_commands(
    project: &Path,
    commands: Vec<Test>,
    environment: &Environment,
    config: &Config,
    args: &TestArgs,
) -> Result<SuiteReport, CliError> {
    // A command that fails must not keep others from running, so no `--fail-fast`.
    let suite = open(project, commands, BTreeMap::new(), environment.clone(), config, args, false)?;
    let signals = StopOnSignal::start(suite.stopper())?;
    let all: Vec<TestId> = suite.ids().collect();
    let report = suite.run(&all, |_| {}).await?;
    match signals.finish() {
        Some(code) => Err(CliError::Stopped { code }),
        None => Ok(report),
    }
}

fn open(
    project: &Path,
    tests: Vec<Test>,
    resources: BTreeMap<String, u32>,
    environment: Environment,
    config: &Config,
    args: &TestArgs,
    fail_fast: bool,
) -> Result<Suite, CliError> {
    let settings = &config.settings;
    let results = if settings.cache.enabled { open_results(config) } else { None };
    let dir = results_dir(config).ok().and_then(|dir| std::path::absolute(dir).ok());
    // The default profile is made for runs of plans. Tests use all CPUs unless somebody chose a
    // number.
    let workers = if config.is_default("parallel.workers") {
        SuiteOptions::default().workers
    } else {
        settings.parallel.workers
    };
    let runner = RunnerOptions {
        trace: settings.testing.trace,
        strict: args.strict,
        cache_failures: args.keep_failures,
        // Without a jobserver, `make` and `cargo` inside tests start more jobs than there are
        // workers.
        jobserver: jobserver::outer().or_else(|| Jobserver::new(workers).ok()),
        // Tests see the same directories and ports with and without a cache.
        ports: dir.as_deref().map(ResultStore::ports_path),
        results: dir,
        files: results.as_ref().map(ResultStore::files_path),
        harnesses: Harnesses::builtin(),
    };
    let options = SuiteOptions {
        workers,
        follow_load: settings.testing.follow_load,
        fail_fast,
        resources,
        audit: settings.testing.audit,
        audit_seed: u64::from(std::process::id()),
        ..SuiteOptions::default()
    };
    let cache = results.map(ResultStore::into_cache);
    let suite = Suite::builder(project).tests(tests).environment(environment).cache(cache);
    Ok(suite.runner(runner).options(options).open()?)
}

/// Opens the store of results. If that fails, prints one warning, and tests run without.
fn open_results(config: &Config) -> Option<ResultStore> {
    static WARNED: Once = Once::new();
    let opened = results_dir(config)
        .and_then(|dir| ResultStore::open(&dir, &config.settings.testing).map_err(CliError::Results));
    let warn = |error: &CliError| WARNED.call_once(|| output::warn("running without cached results", error));
    opened.inspect_err(warn).ok()
}
