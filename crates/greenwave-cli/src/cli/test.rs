//! `greenwave test`: runs the project's tests, skipping those with a cached result.

mod affected;
mod args;
mod dry_run;
mod explain;
mod fast_path;
mod reports;
mod select;
mod suite;
mod watch;

use std::path::Path;
use std::sync::{Arc, Once};
use std::time::{Instant, SystemTime};

use greenwave::ResultStore;
use greenwave_testing::{RunReport, Suite, SuiteReport, TestId};
use parking_lot::Mutex;

use self::fast_path::FastPath;
use self::select::select;
use self::suite::Loaded;
use super::init::create;
use crate::config::Config;
use crate::dirs::{project_dir, results_dir};
use crate::error::CliError;
use crate::exit::{Exit, NOT_GREEN};
use crate::output;
use crate::reader::SETTINGS_FILE;
use crate::signals::StopOnSignal;
use crate::supervisor;
use crate::testview::{TestView, Totals, tracing_note};
use crate::text::plural;

pub(super) use self::args::{TestArgs, WarmArgs};

/// Runs the command.
pub(super) async fn test(args: &TestArgs) -> Result<Exit, CliError> {
    let project = project_dir(args.project.as_deref())?;
    if args.init {
        return init(&project, args).await;
    }
    reports::check(args)?;
    if args.watch {
        return watch::watch(&project, args).await;
    }
    let started = Instant::now();
    let fast_path = FastPath::new(&project, args)?;
    if let Some(fast_path) = &fast_path
        && let Some(record) = fast_path.check().await
    {
        output::lines(tracing_note(&record.tracing));
        output::line(&Totals::all_cached(record.tests, record.saved, started.elapsed()).to_string());
        return Ok(Exit::SUCCESS);
    }
    let Loaded { suite, recordable } = suite::load(&project, args).await?;
    if let Some(name) = &args.explain {
        return explain::explain(&suite, name).await;
    }
    let mut selected = select(suite.tests(), &args.filters)?;
    if let Some(commit) = &args.affected {
        let changed = affected::changed_since(&project, commit).await?;
        let affected = suite.tests_reading(&changed)?;
        selected.retain(|test| affected.contains(test));
        if selected.is_empty() {
            let files = plural(changed.len(), "file");
            output::answer(&format!("No test is affected by the changes since {commit} ({files})"))?;
            return Ok(Exit::SUCCESS);
        }
    }
    if args.dry_run {
        return dry_run::dry_run(&suite, &selected).await;
    }
    let (exit, report) = run(&suite, &selected, args).await?;
    if let (Some(fast_path), Some(recordable), Some(report)) = (&fast_path, &recordable, &report) {
        fast_path.record(&suite, report, recordable);
    }
    // Taking the suite apart would only delay the exit.
    Ok(exit.keeping(suite))
}

/// Fetches the results of the project's tests from wherever they are stored.
pub(super) async fn warm(args: WarmArgs) -> Result<Exit, CliError> {
    let args = &args.into_test_args();
    let project = project_dir(args.project.as_deref())?;
    let config = suite::load_config(&project, args)?;
    if config.settings.cache.enabled {
        // A run continues without a store of results; here it is an error.
        let settings = &config.settings;
        let mut store = ResultStore::open(&results_dir(&config)?, &settings.testing, &settings.result_keys)?;
        if let Some(problem) = store.take_remote_problem() {
            return Err(problem.into());
        }
    }
    let Loaded { suite, .. } = suite::load(&project, args).await?;
    let selected = select(suite.tests(), &args.filters)?;
    let cached = suite.cached_results().await?;
    let count = selected.iter().filter(|test| matches!(cached[test.index()], Ok(Some(_)))).count();
    output::answer(&format!("{count} of {} cached locally", plural(selected.len(), "result")))?;
    Ok(Exit::SUCCESS)
}

/// Writes the discovered tests to the settings file.
async fn init(project: &Path, args: &TestArgs) -> Result<Exit, CliError> {
    let environment = supervisor::environment();
    let config = Config::load(project, &args.overrides()?)?;
    let found = suite::discover(project, &environment, &config, args).await?;
    if found.tests.is_empty() {
        return Err(CliError::NoTests);
    }
    let path = project.join(SETTINGS_FILE);
    create(&path, &found.init_text())?;
    output::line(&format!("Created {} with {}", path.display(), plural(found.tests.len(), "test")));
    Ok(Exit::SUCCESS)
}

/// Prints notes about tests without a guard, and about results that are not authentic.
fn note_state(suite: &Suite) {
    static NOTED: Once = Once::new();
    if let Some(problem) = suite.guard_problem() {
        let text = format!("tests could read the user's key and change stored results: {problem}");
        NOTED.call_once(|| output::note(&text));
    }
    for tier in suite.cache_stats().tiers.iter().filter(|tier| tier.untrusted_records > 0) {
        let records = plural(usize::try_from(tier.untrusted_records).unwrap_or(usize::MAX), "record");
        output::note(&format!("{records} on {} had no valid seal and counted as misses", tier.name));
    }
}

/// Runs tests and writes the reports. Returns no report if a signal stopped the run.
async fn run(
    suite: &Arc<Suite>,
    selected: &[TestId],
    args: &TestArgs,
) -> Result<(Exit, Option<SuiteReport>), CliError> {
    let view = TestView::new(args.format, args.output, args.verbose, suite, selected.len());
    let view = Arc::new(Mutex::new(view));
    let started = SystemTime::now();
    let signals = StopOnSignal::start(suite.stopper())?;
    let (runner, tests, shown) = (Arc::clone(suite), selected.to_vec(), Arc::clone(&view));
    // The run has its own task, so that it can be stopped while printing is blocked by a reader.
    let running =
        tokio::spawn(async move { runner.run(&tests, move |event| shown.lock().event(&event)).await });
    let report = running.await.expect("a run does not panic and is not cancelled")?;
    note_state(suite);
    let view = view.lock();
    if let Some(code) = signals.finish() {
        view.stopped();
        return Ok((Exit::from(code), None));
    }
    let run = RunReport::new(started, suite.tests(), &report, selected, suite.harnesses());
    let totals = Totals::of(&report, selected.len());
    view.finish(&report, &run, &totals);
    reports::write(args, &run)?;
    let is_success = totals.all_passed() && report.audits_failed.is_empty();
    let exit = if is_success { Exit::SUCCESS } else { Exit::from(NOT_GREEN) };
    Ok((exit, Some(report)))
}
