//! Opens the suite of a project: its declared or discovered tests, its results and its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::SystemTime;

use greenwave::{Environment, ResultStore, Test};
use greenwave_testing::{
    Continuations, Discovery, DiscoveryNote, Guard, Harnesses, Inspection, Jobserver, LazyGuard,
    ListingContext, Outcome, Quarantine, RunnerOptions, Suite, SuiteOptions, SuiteReport, TestId, TraceMode,
    TraceStatus,
};

use super::args::TestArgs;
use super::fast_path::{Origin, Recordable};
use super::live;
use super::select::is_named;
use crate::config::Config;
use crate::dirs::{private_dirs, results_dir};
use crate::error::CliError;
use crate::format::{Format, Show};
use crate::jobserver;
use crate::output;
use crate::result_keys::result_keys;
use crate::signals::StopOnSignal;
use crate::supervisor;
use crate::text::{list, printable};
use crate::user_key::user_key;

/// The tests of a project, ready to run.
pub(super) struct Loaded {
    pub(super) suite: Arc<Suite>,
    /// Notes for somebody who runs these tests for the first time, or asks for all notes.
    pub(super) introduction: Vec<String>,
    /// The settings for an up-to-date record, if one may be stored for this project.
    pub(super) recordable: Option<Recordable>,
    /// The tests whose failures do not count.
    pub(super) quarantine: Quarantine,
    /// Whether tests that pass only after a retry fail the run.
    pub(super) flaky_fails: bool,
    /// Processes that have collected tests and wait to run them.
    pub(super) waiting: Continuations,
}

/// Opens the suite of the tests that the settings file declares, or else of the discovered ones.
pub(super) async fn load(project: &Path, args: &TestArgs) -> Result<Loaded, CliError> {
    let mut config = load_config(project, args)?;
    let environment = supervisor::environment();
    let guard = guard(project, &config, args);
    let environment = environment.guarded_by(guard);
    let inspecting = || greenwave::trusted_path(project).unwrap_or_default();
    let environment = if args.is_inspection() { environment.inspecting(inspecting()) } else { environment };
    let file = std::mem::take(&mut config.tests);
    let mut tests = file.tests;
    let is_declared = !tests.is_empty();
    let (mut introduction, mut found) = (Vec::new(), None);
    let (harnesses, waiting) = (Harnesses::builtin(), Continuations::default());
    if is_declared && !args.arguments.is_empty() {
        output::note(
            "the arguments after `--` are for discovered tests, and this project declares its tests",
        );
    }
    if !is_declared {
        let all = discover(project, &environment, &config, args, (&harnesses, Some(&waiting))).await?;
        introduction = introduce(&all.discovery.notes, args);
        tests.clone_from(&all.discovery.tests);
        found = Some(all);
    }
    let retries = config.settings.testing.retries;
    for test in tests.iter_mut().filter(|test| !is_declared || file.without_retries.contains(&test.name)) {
        test.retries = retries;
    }
    let quarantine = Quarantine::at(SystemTime::now(), file.quarantine);
    note_quarantine(&quarantine, &tests);
    let suite = open(
        project,
        tests,
        file.resources,
        environment,
        &config,
        args,
        Commands::Tests(harnesses.clone(), waiting.clone()),
    )?;
    if suite.timings().is_empty() {
        if let Some(found) = found.as_ref().filter(|_| is_first_contact(args)) {
            let overview = found.discovery.overview(project)?;
            introduction.extend(overview.iter().map(|line| printable(&line.to_string())));
        }
    } else if !args.verbose {
        introduction.clear();
    }
    if args.verbose && is_declared && suite.has_foreign_state() {
        output::note(&DiscoveryNote::ForeignState.to_string());
    }
    let flaky_fails = config.settings.testing.flaky_fails;
    let recordable = recordable(config, found, harnesses);
    Ok(Loaded { suite: Arc::new(suite), introduction, recordable, quarantine, flaky_fails, waiting })
}

/// Returns the settings for an up-to-date record, if one may be stored for this project.
fn recordable(config: Config, found: Option<Found>, harnesses: Harnesses) -> Option<Recordable> {
    let Config { settings, text, .. } = config;
    if !settings.cache.enabled || settings.cache.directory.is_some() || settings.testing.audit != 0.0 {
        return None;
    }
    let origin = match found {
        None => Origin::Declared,
        Some(Found { discovery, collections }) => {
            // A record would hide remarks that each run prints.
            if !discovery.notes.iter().all(is_introduction) {
                return None;
            }
            Origin::Discovered { harnesses, collections: collections.map(Box::new) }
        }
    };
    Some(Recordable { text, ttl: settings.testing.ttl, origin })
}

/// Returns whether a call may introduce a project to somebody who has not run its tests before.
fn is_first_contact(args: &TestArgs) -> bool {
    let is_for_people = args.format == Format::Human && matches!(args.output(), Show::Failed | Show::All);
    is_for_people && !args.is_inspection()
}

/// Prints the notes about problems of a discovery, which may explain an error. Returns the others,
/// which would only precede it.
fn introduce(notes: &[DiscoveryNote], args: &TestArgs) -> Vec<String> {
    let mut introduction = Vec::new();
    for note in notes {
        match note {
            DiscoveryNote::Interpreter { .. } => introduction.push(note.to_string()),
            _ if is_introduction(note) && !args.verbose => {}
            _ => output::note(&note.to_string()),
        }
    }
    introduction
}

/// Returns whether a run prints a note only for somebody who runs the tests for the first time, or
/// asks for all notes.
fn is_introduction(note: &DiscoveryNote) -> bool {
    matches!(note, DiscoveryNote::Interpreter { .. } | DiscoveryNote::ForeignState)
}

/// Prints notes about entries of the quarantine that have no effect.
fn note_quarantine(quarantine: &Quarantine, tests: &[Test]) {
    for entry in quarantine.ended() {
        output::note(&format!(
            "the quarantine of `{}` has ended: failures count again",
            printable(entry.test())
        ));
    }
    for entry in quarantine.unmatched(tests) {
        output::note(&format!("no test has the name `{}`, which is in quarantine", printable(entry.test())));
    }
}

/// Loads the settings, and the keys of stored results.
pub(super) fn load_config(project: &Path, args: &TestArgs) -> Result<Config, CliError> {
    let mut config = Config::load(project, &args.overrides()?)?;
    config.settings.result_keys = result_keys(project, &mut config)?;
    Ok(config)
}

/// The tests that were discovered.
pub(super) struct Found {
    pub(super) discovery: Discovery,
    /// The commands that collected tests, if there were any, and the report of their run.
    collections: Option<(Suite, SuiteReport)>,
}

/// Discovers the tests of a project. With `--per-test`, each function is a test. Processes that can
/// run the tests wait in `waiting`. A harness may keep results of the discovery for the build.
pub(super) async fn discover(
    project: &Path,
    environment: &Environment,
    config: &Config,
    args: &TestArgs,
    (harnesses, waiting): (&Harnesses, Option<&Continuations>),
) -> Result<Found, CliError> {
    let key = user_key(project)?;
    let mut found = greenwave_testing::discover(project, harnesses, environment, &key).await?;
    if !args.arguments.is_empty() {
        add_arguments(&mut found, harnesses, args)?;
    }
    let run = async |commands: &[Test]| {
        let kind = Commands::Listings(harnesses.clone(), waiting.cloned());
        run_commands(project, commands, environment, config, args, kind).await
    };
    let mut collections = None;
    if args.per_test && !args.is_inspection() {
        found.collect_single_tests();
    }
    if !found.collections.is_empty() {
        let is_traced = matches!(TraceStatus::of(config.settings.testing.trace), TraceStatus::Traced);
        let commands = found.collection_commands(harnesses, project, is_traced);
        let (outcomes, suite) = run(&commands).await?;
        let context = ListingContext::new(project, environment);
        found.collect(harnesses, &context.with(commands.iter().zip(outcomes.iter().map(Option::as_ref))));
        collections = suite;
    }
    if args.per_test {
        split(&mut found, project, environment, args, harnesses, run).await?;
    }
    Ok(Found { discovery: found, collections })
}

/// Replaces tests by their functions.
async fn split(
    found: &mut Discovery,
    project: &Path,
    environment: &Environment,
    args: &TestArgs,
    harnesses: &Harnesses,
    run: impl AsyncFn(&[Test]) -> Result<RanCommands, CliError>,
) -> Result<(), CliError> {
    if args.is_inspection() {
        output::note("the single tests are not listed, which would run code of the project");
        return Ok(());
    }
    let context = ListingContext::new(project, environment);
    let listings = found.listing_commands(harnesses, &context);
    let outcomes = if listings.is_empty() { Vec::new() } else { run(&listings).await?.0 };
    let context = context.with(listings.iter().zip(outcomes.iter().map(Option::as_ref)));
    Ok(found.split(harnesses, &context).await?)
}

/// Appends the arguments behind `--` to the commands of the one harness whose tests are selected.
///
/// # Errors
/// [`CliError::SeveralRunners`] if tests of several harnesses are selected.
fn add_arguments(found: &mut Discovery, harnesses: &Harnesses, args: &TestArgs) -> Result<(), CliError> {
    let is_selected = |test: &&Test| is_named(test, &args.filters);
    let names: BTreeSet<&str> =
        found.tests.iter().filter(is_selected).map(|test| test.harness.as_str()).collect();
    if names.len() > 1 {
        return Err(CliError::SeveralRunners { names: list(names) });
    }
    let Some(harness) = harnesses.iter().find(|harness| names.contains(harness.name())).cloned() else {
        return Ok(());
    };
    let refused = found.add_arguments(&*harness, &args.arguments);
    if let Some(first) = refused.first() {
        output::note(&format!(
            "the arguments after `--` are not passed to {}, whose command takes none",
            printable(first)
        ));
    }
    Ok(())
}

/// The outcomes of commands that say which tests there are, and the suite that ran them with its
/// report, unless this is an inspection.
type RanCommands = (Vec<Option<Outcome>>, Option<(Suite, SuiteReport)>);

/// Runs commands that say which tests there are, unless their results are cached. An inspection
/// runs none.
async fn run_commands(
    project: &Path,
    commands: &[Test],
    environment: &Environment,
    config: &Config,
    args: &TestArgs,
    kind: Commands,
) -> Result<RanCommands, CliError> {
    let (commands, resources) = (commands.to_vec(), BTreeMap::new());
    let suite = open(project, commands, resources, environment.clone(), config, args, kind)?;
    if args.is_inspection() {
        let cached = |found| match found {
            Ok(Inspection::Cached(outcome)) => Some(outcome),
            _ => None,
        };
        return Ok((suite.inspect().await?.into_iter().map(cached).collect(), None));
    }
    let signals = StopOnSignal::start(suite.stopper())?;
    let all: Vec<TestId> = suite.ids().collect();
    let report = suite.run(&all, |_| {}).await?;
    if let Some(code) = signals.finish() {
        return Err(CliError::Stopped { code });
    }
    let outcome = |result: &Option<Result<Outcome, _>>| result.as_ref()?.as_ref().ok().cloned();
    Ok((report.results.iter().map(outcome).collect(), Some((suite, report))))
}

/// The commands of a suite, with the processes that wait to run tests.
#[derive(Debug, Clone)]
enum Commands {
    /// Tests of the project.
    Tests(Harnesses, Continuations),
    /// Commands that list tests. One that fails must not keep others from running, and their output
    /// is not shown.
    Listings(Harnesses, Option<Continuations>),
}

fn open(
    project: &Path,
    tests: Vec<Test>,
    resources: BTreeMap<String, u32>,
    environment: Environment,
    config: &Config,
    args: &TestArgs,
    commands: Commands,
) -> Result<Suite, CliError> {
    let settings = &config.settings;
    let (are_tests, harnesses, continuations) = match commands {
        Commands::Tests(harnesses, waiting) => (true, harnesses, Some(waiting)),
        Commands::Listings(harnesses, waiting) => (false, harnesses, waiting),
    };
    let results = if settings.cache.enabled { open_results(config, args) } else { None };
    let dir = results_dir(config).ok().and_then(|dir| std::path::absolute(dir).ok());
    // The default profile is made for runs of plans. Tests use all CPUs unless somebody chose a
    // number.
    let workers = if config.is_default("parallel.workers") {
        SuiteOptions::default().workers
    } else {
        settings.parallel.workers
    };
    let is_shown = args.format == Format::Human && are_tests;
    let is_live = is_shown && args.output() == Show::Live;
    let runner = RunnerOptions {
        trace: settings.testing.trace,
        incomplete: settings.testing.incomplete,
        strict: args.strict,
        cache_failures: args.keep_failures,
        // Without a jobserver, `make` and `cargo` inside tests start more jobs than there are
        // workers.
        jobserver: jobserver::outer().or_else(|| Jobserver::new(workers).ok()),
        // Tests see the same directories and ports with and without a cache.
        ports: dir.as_deref().map(ResultStore::ports_path),
        files: results.as_ref().and_then(ResultStore::files_path),
        guard: environment.guard().cloned(),
        results: dir,
        harnesses,
        output: is_live.then(live::observer),
        continuations,
        slots: None,
    };
    let options = SuiteOptions {
        workers,
        follow_load: settings.testing.follow_load,
        fail_fast: args.fail_fast && are_tests,
        resources,
        audit: settings.testing.audit,
        audit_seed: u64::from(std::process::id()),
        stress_new: args.stress_new.filter(|_| are_tests).unwrap_or(1),
        ..SuiteOptions::default()
    };
    let cache = results.map(ResultStore::into_cache);
    let with_servers = |mut test: Test| {
        test.servers.extend_from_slice(&settings.testing.servers);
        test
    };
    let tests = tests.into_iter().map(with_servers).collect();
    let suite = Suite::builder(project).tests(tests).environment(environment).cache(cache);
    Ok(suite.key(user_key(project)?).runner(runner).options(options).open()?)
}

/// Returns the guard of tests: they can neither read the user's key nor change stored results.
///
/// A run inside another run needs none, since the outer guard holds for its tests as well.
fn guard(project: &Path, config: &Config, args: &TestArgs) -> Option<Arc<LazyGuard>> {
    let is_inner = TraceStatus::of(TraceMode::WhenPossible) == TraceStatus::TracedByOuter;
    if is_inner || !config.settings.testing.protect_state {
        return None;
    }
    let guard = private_dirs().into_iter().fold(Guard::new(), Guard::hidden);
    let results = results_dir(config).ok().and_then(|dir| std::path::absolute(dir).ok());
    if let (Some(results), true) = (&results, config.settings.cache.enabled && !args.is_inspection()) {
        // Opening the store reports an error.
        let _ = ResultStore::create_lock_directories(results);
    }
    let guard = match results {
        // Runs inside tests lock files there.
        Some(results) => guard
            .writable(ResultStore::ports_path(&results))
            .writable(ResultStore::leases_path(&results))
            .read_only(results),
        None => guard,
    };
    Some(Arc::new(LazyGuard::new(guard, vec![project.to_owned(), std::env::temp_dir()])))
}

/// Opens the store of results. If that fails, prints one warning, and tests run without. A server
/// that cannot be used is one warning, too, and tests run with the directory only. An inspection
/// creates no store.
fn open_results(config: &Config, args: &TestArgs) -> Option<ResultStore> {
    static WARNED: Once = Once::new();
    let opened = results_dir(config).and_then(|dir| {
        let (testing, keys) = (&config.settings.testing, &config.settings.result_keys);
        let opened = if args.is_inspection() {
            ResultStore::open_existing(&dir, testing, keys)
        } else {
            ResultStore::open(&dir, testing, keys)
        };
        opened.map_err(CliError::Results)
    });
    let warn = |consequence: &str, error: CliError| WARNED.call_once(|| output::warn(consequence, &error));
    let mut store = opened.map_err(|error| warn("running without cached results", error)).ok()?;
    if let Some(problem) = store.take_remote_problem() {
        warn("results are not shared", problem.into());
    }
    Some(store)
}
