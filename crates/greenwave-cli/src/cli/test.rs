//! `greenwave test`: runs the project's tests, skipping those with a cached result.

mod affected;
mod args;
#[cfg(feature = "mcp")]
pub(super) mod call;
mod dry_run;
mod explain;
mod fast_path;
pub(super) mod known;
mod live;
mod recorder;
mod reports;
mod select;
mod shard;
mod suite;
mod trace_file;
mod watch;

use std::path::Path;
use std::sync::{Arc, Once};
use std::time::{Instant, SystemTime};

use greenwave::ResultStore;
use greenwave_testing::{Harnesses, RunReport, Suite, SuiteEvent, SuiteReport, TestId};
use parking_lot::Mutex;

use self::fast_path::FastPath;
use self::recorder::Recorder;
use self::select::select;
use self::suite::Loaded;
use super::init::create;
use crate::config::Config;
use crate::dirs::{project_dir, results_dir};
use crate::error::CliError;
use crate::exit::{Exit, NOT_GREEN};
use crate::format::{Format, Show};
use crate::output;
use crate::reader::SETTINGS_FILE;
use crate::signals::StopOnSignal;
use crate::supervisor;
use crate::testview::{SuiteTotals, TestView, tracing_note};
use crate::text::plural;

pub(super) use self::args::{TestArgs, WarmArgs};

/// Runs the command.
pub(super) async fn test(args: &TestArgs) -> Result<Exit, CliError> {
    let project = project_dir(args.project.as_deref())?;
    if args.init {
        return init(&project, args).await;
    }
    reports::check(args, &project)?;
    if args.output() == Show::Agent {
        console::set_colors_enabled(false);
        console::set_colors_enabled_stderr(false);
    }
    if args.watch {
        return watch::watch(&project, args).await;
    }
    let started = Instant::now();
    let fast_path = FastPath::new(&project, args)?;
    if let Some(fast_path) = &fast_path
        && let Some(cached) = fast_path.check(&args.filters).await
    {
        output::lines(tracing_note(&cached.tracing));
        output::line(&SuiteTotals::all_cached(cached.tests, cached.saved, started.elapsed()).to_string());
        recorder::send_up_to_date(&project, started, (cached.tests, cached.saved)).await;
        return Ok(Exit::SUCCESS);
    }
    let loaded = suite::load(&project, args).await?;
    let suite = &loaded.suite;
    if let Some(name) = &args.explain {
        return explain::explain(suite, name).await;
    }
    let selected = match selected(suite, &project, args).await? {
        Selected::Tests(tests) => tests,
        Selected::Nothing(reason) => {
            loaded.waiting.end().await;
            output::answer(&reason)?;
            return Ok(Exit::SUCCESS);
        }
    };
    if args.why_not_cached {
        return explain::why_not_cached(suite, &selected);
    }
    if args.dry_run {
        return dry_run::dry_run(suite, &selected).await;
    }
    let (exit, report) = run(&loaded, &selected, args, started).await?;
    if let (Some(fast_path), Some(recordable), Some(report)) = (&fast_path, &loaded.recordable, &report) {
        fast_path.record(suite, report, recordable);
    }
    // Taking the suite apart would only delay the exit.
    Ok(exit.keeping(loaded))
}

/// The tests that a call selects.
enum Selected {
    Tests(Vec<TestId>),
    /// No test, which is a success, for this reason.
    Nothing(String),
}

/// Selects tests by names, shard, changes and the last results.
async fn selected(suite: &Suite, project: &Path, args: &TestArgs) -> Result<Selected, CliError> {
    let mut selected = select(suite.tests(), &args.filters)?;
    // First, because all machines share the tests and their names, and nothing else.
    if let Some(shard) = args.shard {
        selected = shard::select(suite, &selected, shard, args.timings.as_deref())?;
        if selected.is_empty() {
            return Ok(Selected::Nothing(format!("Shard {shard} has no test")));
        }
    }
    if let Some(commit) = &args.affected {
        let changed = affected::changed_since(project, commit).await?;
        let affected = suite.tests_reading(&changed)?;
        selected.retain(|test| affected.contains(test));
        if selected.is_empty() {
            let files = plural(changed.len(), "file");
            let reason = format!("No test is affected by the changes since {commit} ({files})");
            return Ok(Selected::Nothing(reason));
        }
    }
    if args.last_failed {
        let failed = suite.failed_last();
        selected.retain(|test| failed.contains(test));
        if selected.is_empty() {
            return Ok(Selected::Nothing("No selected test failed when it last ran".to_owned()));
        }
    }
    Ok(Selected::Tests(selected))
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
    let Loaded { suite, waiting, .. } = suite::load(&project, args).await?;
    waiting.end().await;
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
    let found = suite::discover(project, &environment, &config, args, (&Harnesses::builtin(), None)).await?;
    let found = found.discovery;
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
        output::note(&format!(
            "{records} on {} had no valid seal or trusted signature and counted as misses",
            tier.name
        ));
    }
}

/// Runs tests and writes the reports. Returns no report if a signal stopped the run.
async fn run(
    loaded: &Loaded,
    selected: &[TestId],
    args: &TestArgs,
    since: Instant,
) -> Result<(Exit, Option<SuiteReport>), CliError> {
    let recorder = Arc::new(Mutex::new(Recorder::start(loaded.suite.project(), args, since)?));
    let Loaded { suite, introduction, quarantine, flaky_fails, waiting, .. } = loaded;
    introduction.iter().for_each(|note| output::note(note));
    let view = TestView::new(args.format, args.output(), args.verbose, suite, quarantine, selected.len());
    let view = Arc::new(Mutex::new(view));
    let started = SystemTime::now();
    let signals = StopOnSignal::start(suite.stopper())?;
    let (runner, tests, shown) = (Arc::clone(suite), selected.to_vec(), Arc::clone(&view));
    let recorded = Arc::clone(&recorder);
    // The run has its own task, so that it can be stopped while printing is blocked by a reader.
    let running = tokio::spawn(async move {
        let observe = |event: SuiteEvent<'_>| {
            if let Some(recorder) = &mut *recorded.lock() {
                recorder.event(&runner, &event);
            }
            shown.lock().event(&event);
        };
        runner.run(&tests, observe).await
    });
    let report = running.await.expect("a run does not panic and is not cancelled")?;
    waiting.end().await;
    note_state(suite);
    let code = signals.finish();
    let recorder = recorder.lock().take();
    let recorded = match recorder {
        Some(recorder) => recorder.finish(code.is_none().then_some(&report)).await,
        None => Ok(()),
    };
    let view = view.lock();
    if let Some(code) = code {
        view.stopped();
        recorded?;
        return Ok((Exit::from(code), None));
    }
    let run = RunReport::new(started, suite.tests(), &report, selected, suite.harnesses());
    let run = RunReport { flaky_fails: *flaky_fails, ..run }.with_quarantine(quarantine);
    let totals = SuiteTotals::of(&report, &run);
    view.finish(&report, &run, &totals);
    if args.format == Format::Human {
        reports::annotate(&run, suite.project());
    }
    reports::write(args, suite.project(), &run)?;
    if let Some(path) = &args.save_timings {
        reports::write_timings(suite.project(), path, &suite.timings())?;
    }
    recorded?;
    let is_success = run.stats().is_success() && report.audits_failed.is_empty();
    let exit = if is_success { Exit::SUCCESS } else { Exit::from(NOT_GREEN) };
    Ok((exit, Some(report)))
}
