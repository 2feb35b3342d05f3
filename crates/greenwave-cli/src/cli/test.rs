//! `greenwave test`: runs a project's own tests, but for those whose results are known.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant, SystemTime};

use greenwave::{Environment, ResultStore, Test};
use greenwave_testing::{
    Discovery, Harnesses, Jobserver, ListingContext, RESULTS_VARIABLE, RunReport, RunnerOptions, Suite,
    SuiteOptions, TestId, TraceMode, TraceStatus, github_summary, junit,
};
use parking_lot::Mutex;
use rustix::fs::{Access, access};

use super::answer::{Asked, Rules};
use super::run::stop_on_signals;
use super::{CliError, Format, OUTER_JOBSERVER, TestArgs};
use crate::config::{Config, FILE};
use crate::output::{self, NOT_GREEN};
use crate::testview::{TestView, Totals, lasted, plural, printable, untraced};

pub(super) async fn test(args: &TestArgs) -> Result<ExitCode, CliError> {
    let project = project(args.project.as_deref())?;
    if args.init {
        return init(&project, args).await;
    }
    check_reports(args)?;
    if args.watch {
        return watch(&project, args).await;
    }
    let started = Instant::now();
    // An answer goes by the stamps of directories, which do not tell whoever traces this program that their names count.
    let asked = match TraceStatus::of(TraceMode::WhenPossible) {
        TraceStatus::TracedByOuter => None,
        _ => Asked::new(&project, args)?,
    };
    if let Some(asked) = &asked
        && let Some(answer) = asked.recall().await
    {
        output::lines(&untraced(&answer.tracing).into_iter().collect::<Vec<_>>());
        output::line(&Totals::all_known(&answer, started.elapsed()));
        return Ok(ExitCode::SUCCESS);
    }
    let Loaded { suite, rules } = load(&project, args).await?;
    if let Some(name) = &args.explain {
        return explain(&suite, name).await;
    }
    let mut wanted = wanted(suite.tests(), &args.filters)?;
    if let Some(commit) = &args.affected {
        let changed = changed_since(&project, commit).await?;
        let touched = suite.tests_reading(&changed)?;
        wanted.retain(|at| touched.contains(at));
        if wanted.is_empty() {
            output::answer(&format!(
                "No test may read what has changed since {commit} ({}).",
                plural(changed.len(), "file")
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    if args.dry_run {
        return dry_run(&suite, &wanted).await;
    }
    let remember = asked.as_ref().zip(rules.as_ref());
    let code = run(&suite, &wanted, args, remember).await;
    // The program ends here: taking everything apart in memory would only cost time.
    std::mem::forget(suite);
    code
}

/// A project's tests.
struct Loaded {
    suite: Arc<Suite>,
    /// If what is said of all of them can be remembered.
    rules: Option<Rules>,
}

/// The project's tests, as its file says or as they are found.
async fn load(project: &Path, args: &TestArgs) -> Result<Loaded, CliError> {
    let mut config = Config::load(project, &args.overrides()?)?;
    let environment = Environment::new(std::env::vars_os());
    let file = std::mem::take(&mut config.tests);
    let mut tests = file.tests;
    let is_declared = !tests.is_empty();
    if tests.is_empty() {
        let found = find(project, &environment, &config, args).await?;
        found.notes.iter().for_each(|note| output::remark(&note.to_string()));
        tests = found.tests;
    }
    let suite = open(project, tests, file.resources, environment, &config, args, args.fail_fast)?;
    let settings = &config.settings;
    let is_usual =
        settings.cache.enabled && settings.cache.directory.is_none() && settings.testing.audit == 0.0;
    let text = config.text.filter(|_| is_usual && is_declared);
    let rules = text.map(|text| Rules { text, ttl: settings.testing.ttl });
    Ok(Loaded { suite: Arc::new(suite), rules })
}

/// The tests that there are in a project that does not say so itself.
async fn find(
    project: &Path,
    environment: &Environment,
    config: &Config,
    args: &TestArgs,
) -> Result<Discovery, CliError> {
    let harnesses = Harnesses::builtin();
    let mut found = greenwave_testing::discover(project, &harnesses, environment).await?;
    if !args.per_test {
        return Ok(found);
    }
    let context = ListingContext::new(project, environment);
    let listings = found.listing_commands(&harnesses, &context);
    if listings.is_empty() {
        found.split(&harnesses, &context).await?;
        return Ok(found);
    }
    let resources = BTreeMap::new();
    // One that cannot be listed keeps no other from it.
    let suite = open(project, listings.clone(), resources, environment.clone(), config, args, false)?;
    let all: Vec<TestId> = suite.ids().collect();
    let stopped_by = Arc::new(AtomicU8::new(0));
    let signals = stop_on_signals(suite.stopper(), Arc::clone(&stopped_by))?;
    let report = suite.run(&all, |_| {}).await?;
    signals.abort();
    match stopped_by.load(Ordering::Relaxed) {
        0 => {}
        code => return Err(CliError::Stopped { code }),
    }
    let outcomes = report.results.iter().map(|result| result.as_ref().and_then(|it| it.as_ref().ok()));
    let context = context.with(listings.iter().zip(outcomes));
    found.split(&harnesses, &context).await?;
    Ok(found)
}

/// Fetches what is known of the project's tests, from wherever it is kept.
pub(super) async fn warm(args: &TestArgs) -> Result<ExitCode, CliError> {
    let project = project(args.project.as_deref())?;
    let config = Config::load(&project, &args.overrides()?)?;
    if config.settings.cache.enabled {
        // Without a place for them there is nothing that could be fetched.
        drop(ResultStore::open(&results_folder(&config)?, &config.settings.testing)?);
    }
    let Loaded { suite, .. } = load(&project, args).await?;
    let wanted = wanted(suite.tests(), &args.filters)?;
    let known = suite.cached_results().await?;
    let count = wanted.iter().filter(|at| matches!(known[at.index()], Ok(Some(_)))).count();
    output::answer(&format!("{count} of {} known, and at hand", plural(wanted.len(), "result")))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes down the tests that are found.
async fn init(project: &Path, args: &TestArgs) -> Result<ExitCode, CliError> {
    let environment = Environment::new(std::env::vars_os());
    let config = Config::load(project, &args.overrides()?)?;
    let found = find(project, &environment, &config, args).await?;
    if found.tests.is_empty() {
        return Err(CliError::NoTests);
    }
    let path = project.join(FILE);
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::Exists { path: path.clone() },
        _ => CliError::Io { operation: "write", path: path.clone(), source },
    };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    std::io::Write::write_all(&mut file, found.init_text().as_bytes()).map_err(failed)?;
    output::line(&format!("Wrote {} with {}.", path.display(), plural(found.tests.len(), "test")));
    Ok(ExitCode::SUCCESS)
}

/// Files that git knows to have changed since a commit, and those that it does not know at all.
async fn changed_since(project: &Path, commit: &str) -> Result<Vec<PathBuf>, CliError> {
    let failed = |problem: &str| CliError::Git { commit: commit.to_owned(), problem: problem.to_owned() };
    let ask = |question: Vec<String>| async move {
        let answer = tokio::process::Command::new("git").arg("-C").arg(project).args(question).output().await;
        let answer = answer.map_err(|error| failed(&error.to_string()))?;
        let told = String::from_utf8_lossy(&answer.stderr);
        // What git says beyond its first line is how it is called.
        let problem = told.lines().next().unwrap_or("it knows no such commit");
        if answer.status.success() { Ok(answer.stdout) } else { Err(failed(problem)) }
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    ask(words(&["rev-parse", "--git-dir"])).await?;
    // By its hash: a name that begins with a dash would be an option of what comes next.
    let name = format!("{commit}^{{commit}}");
    let hash = ask(words(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name])).await?;
    let hash = String::from_utf8_lossy(&hash).trim().to_owned();
    let tracked =
        ask(words(&["diff", "--name-only", "--no-renames", "--relative", "-z", &hash, "--"])).await?;
    let others = ask(words(&["ls-files", "--others", "--exclude-standard", "-z"])).await?;
    let paths = tracked.split(|byte| *byte == 0).chain(others.split(|byte| *byte == 0));
    let paths = paths.filter(|path| !path.is_empty());
    Ok(paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect())
}

/// How long it is waited for more to change after something has.
const SETTLE: Duration = Duration::from_millis(30);

/// Runs tests whenever something changes that they depend on, until it is stopped.
async fn watch(project: &Path, args: &TestArgs) -> Result<ExitCode, CliError> {
    let failed =
        |error: notify::Error| CliError::Watch { path: project.to_owned(), problem: error.to_string() };
    let (sender, mut changes) = tokio::sync::mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is no change. One that waits to be told stands for all.
        if event.map_or(true, |event| !event.kind.is_access()) {
            let _ = sender.try_send(());
        }
    })
    .map_err(failed)?;
    notify::Watcher::watch(&mut watcher, project, notify::RecursiveMode::Recursive).map_err(failed)?;
    let mut seen: HashMap<String, Option<[u8; 32]>> = HashMap::new();
    loop {
        let mut told = true;
        match load(project, args).await {
            Ok(Loaded { suite, .. }) => {
                let keys = suite.keys().await?;
                let changed =
                    |at: &TestId| seen.get(&suite.tests()[at.index()].name) != Some(&keys[at.index()]);
                let touched: Vec<TestId> = match wanted(suite.tests(), &args.filters) {
                    Ok(wanted) => wanted.into_iter().filter(changed).collect(),
                    Err(error) => {
                        output::complain(&error);
                        Vec::new()
                    }
                };
                told = !touched.is_empty();
                if told {
                    let code = run(&suite, &touched, args, None).await?;
                    if [129, 130, 143].iter().any(|stopped| code == ExitCode::from(*stopped)) {
                        return Ok(code);
                    }
                }
                // As they are after the run: what tests have made themselves is no change.
                let keys = suite.keys().await?;
                seen = suite.tests().iter().map(|test| test.name.clone()).zip(keys).collect();
            }
            Err(CliError::Stopped { code }) => return Ok(ExitCode::from(code)),
            Err(error) => output::complain(&error),
        }
        if told && args.format == Format::Human {
            output::line("Waiting for changes (Ctrl-C to stop).");
        }
        let stop = wait(&mut changes).await;
        if let Some(code) = stop {
            return Ok(ExitCode::from(code));
        }
        tokio::time::sleep(SETTLE).await;
        while changes.try_recv().is_ok() {}
    }
}

/// Waits for a change, or for a signal that ends the program.
async fn wait(changes: &mut tokio::sync::mpsc::Receiver<()>) -> Option<u8> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok()?;
    tokio::select! {
        _ = changes.recv() => None,
        _ = tokio::signal::ctrl_c() => Some(130),
        _ = terminate.recv() => Some(143),
    }
}

/// The folder that was named, or the nearest at or above the working directory with a `greenwave.toml`, or the working directory.
fn project(named: Option<&Path>) -> Result<PathBuf, CliError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let io = |source| CliError::Io { operation: "find", path: ".".into(), source };
    let here = std::env::current_dir().map_err(io)?;
    let above = here.ancestors().find(|folder| folder.join(FILE).is_file());
    Ok(above.unwrap_or(&here).to_owned())
}

/// Where results are kept: where the settings say, or in the user's folder for caches, which all work trees share.
pub(super) fn results_folder(config: &Config) -> Result<PathBuf, CliError> {
    if let Some(folder) = &config.settings.cache.directory {
        return Ok(folder.clone());
    }
    usual_results_folder()
}

/// The user's folder for results, where the settings name no other.
pub(super) fn usual_results_folder() -> Result<PathBuf, CliError> {
    let caches =
        std::env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()).map(PathBuf::from);
    let home = || {
        std::env::var_os("HOME").filter(|path| !path.is_empty()).map(|home| Path::new(&home).join(".cache"))
    };
    let usual = |caches: PathBuf| caches.join("greenwave").join("tests");
    // A test's home is empty: the run that it belongs to says where results are.
    let outer = || std::env::var_os(RESULTS_VARIABLE).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = caches.map(usual).or_else(outer).or_else(|| home().map(usual));
    folder.ok_or(CliError::NoCacheFolder)
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
    let folder = results_folder(config).ok().and_then(|folder| std::path::absolute(folder).ok());
    // A profile's number of workers is that of a machine which is not known; a project's own, or a flag's, is meant.
    let workers = match config.is_profiles("parallel.workers") {
        true => SuiteOptions::default().workers,
        false => settings.parallel.workers,
    };
    let runner = RunnerOptions {
        trace: settings.testing.trace,
        strict: args.strict,
        cache_failures: args.keep_failures,
        // A run without is as good as one with, but for what its tests start.
        jobserver: OUTER_JOBSERVER.get().cloned().or_else(|| Jobserver::new(workers).ok()),
        // With and without a cache, tests see the same.
        ports: folder.as_deref().map(ResultStore::ports_path),
        results: folder,
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
    Ok(Suite::open(project, tests, environment, cache, runner, options)?)
}

/// The kept results; none where they cannot be opened, which is told once: tests can be run without.
fn open_results(config: &Config) -> Option<ResultStore> {
    static TOLD: Once = Once::new();
    let opened = results_folder(config)
        .and_then(|folder| ResultStore::open(&folder, &config.settings.testing).map_err(CliError::Results));
    let without = "no result is known in this run, and none is kept";
    opened.inspect_err(|error| TOLD.call_once(|| output::warn(error, without))).ok()
}

/// The places of tests whose names contain one of these.
fn wanted(tests: &[Test], filters: &[String]) -> Result<Vec<TestId>, CliError> {
    if tests.is_empty() {
        return Err(CliError::NoTests);
    }
    let matches =
        |test: &Test| filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter.as_str()));
    let wanted: Vec<TestId> = (0..tests.len()).filter(|at| matches(&tests[*at])).map(TestId::new).collect();
    if wanted.is_empty() {
        let names = tests.iter().take(8).map(|test| format!("`{}`", printable(&test.name)));
        let more = if tests.len() > 8 { ", ..." } else { "" };
        let names = names.collect::<Vec<_>>().join(", ") + more;
        return Err(CliError::NoSuchTest { filters: filters.join(" "), names });
    }
    Ok(wanted)
}

async fn run(
    suite: &Arc<Suite>,
    wanted: &[TestId],
    args: &TestArgs,
    remember: Option<(&Asked, &Rules)>,
) -> Result<ExitCode, CliError> {
    let view = Arc::new(Mutex::new(TestView::new(args.format, args.output, args.verbose, &suite)));
    let started = SystemTime::now();
    let stopped_by = Arc::new(AtomicU8::new(0));
    let signals = stop_on_signals(suite.stopper(), Arc::clone(&stopped_by))?;
    let (of, places, shown) = (Arc::clone(suite), wanted.to_vec(), Arc::clone(&view));
    // A task of its own: while nobody reads what is printed, the run must still hear that it shall stop.
    let running = tokio::spawn(async move { of.run(&places, move |event| shown.lock().event(&event)).await });
    let report = running.await.expect("a run does not panic and is not cancelled")?;
    signals.abort();
    let code = stopped_by.load(Ordering::Relaxed);
    let mut view = view.lock();
    if code != 0 {
        view.stopped();
        return Ok(ExitCode::from(code));
    }
    let run = RunReport::new(started, suite.tests(), &report, wanted, suite.harnesses());
    view.finish(&report, &run);
    write_reports(args, &run)?;
    if let Some((asked, rules)) = remember {
        asked.keep(suite, &report, rules);
    }
    let is_good = Totals::of(&report, wanted.len()).is_good() && report.audits_failed.is_empty();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(NOT_GREEN) })
}

/// Whether the reports that were asked for can be written, before anything runs. Leaves files as they are, and none that was not there.
fn check_reports(args: &TestArgs) -> Result<(), CliError> {
    let summary = args.summary.as_ref().filter(|path| !path.as_os_str().is_empty());
    for path in args.junit.iter().chain(summary) {
        check_report(path).map_err(|source| CliError::Report { path: path.clone(), source })?;
    }
    Ok(())
}

fn check_report(path: &Path) -> std::io::Result<()> {
    match std::fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(std::io::ErrorKind::IsADirectory.into()),
        Ok(there) if there.is_file() => std::fs::File::options().append(true).open(path).map(drop),
        // Opening a pipe and closing it would be the end of what its reader gets.
        Ok(_) => Ok(()),
        // Not by making it: a file that comes and goes is a change of the project, if it is in there.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let link = std::fs::read_link(path).unwrap_or_default();
            let above = path.parent().map(|folder| folder.join(&link)).unwrap_or_default();
            let place = if link.as_os_str().is_empty() { path } else { &above };
            let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            if !std::fs::metadata(folder)?.is_dir() {
                return Err(std::io::ErrorKind::NotADirectory.into());
            }
            Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        Err(error) => Err(error),
    }
}

/// Writes the reports that were asked for. A summary is added to what is there, as GitHub wants it.
fn write_reports(args: &TestArgs, run: &RunReport) -> Result<(), CliError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::Report { path, source }
    };
    if let Some(path) = &args.junit {
        std::fs::write(path, junit(run)).map_err(failed(path))?;
    }
    if let Some(path) = args.summary.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        let file = std::fs::File::options().create(true).append(true).open(path);
        let written =
            file.and_then(|mut file| std::io::Write::write_all(&mut file, github_summary(run).as_bytes()));
        written.map_err(failed(path))?;
    }
    Ok(())
}

async fn dry_run(suite: &Suite, wanted: &[TestId]) -> Result<ExitCode, CliError> {
    let known = suite.cached_results().await?;
    let mut lines = Vec::new();
    for at in wanted {
        let name = printable(&suite.tests()[at.index()].name);
        lines.push(match &known[at.index()] {
            Ok(Some(outcome)) => format!("  known    {name}  (took {})", lasted(outcome.duration)),
            Ok(None) => format!("  to run   {name}"),
            Err(error) => format!("  broken   {}", greenwave::chain(error)),
        });
    }
    let count = wanted.iter().filter(|at| matches!(known[at.index()], Ok(Some(_)))).count();
    lines.push(format!("{}: {count} known, {} to run", plural(wanted.len(), "test"), wanted.len() - count));
    output::answer(&lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn explain(suite: &Suite, name: &str) -> Result<ExitCode, CliError> {
    let at = suite.tests().iter().position(|test| test.name == name).map(TestId::new);
    let at = match at {
        Some(at) => at,
        None => match wanted(suite.tests(), &[name.to_owned()])?.as_slice() {
            [at] => *at,
            several => {
                let names = several.iter().take(8).map(|at| format!("`{}`", suite.tests()[at.index()].name));
                return Err(CliError::SeveralTests {
                    name: name.to_owned(),
                    names: names.collect::<Vec<_>>().join(", "),
                });
            }
        },
    };
    let explained = suite.explain(at).await?;
    let mut lines = vec![match &explained.cached {
        Some(outcome) => format!(
            "{}: known; it {} in {}",
            suite.tests()[at.index()].name,
            outcome.status,
            lasted(outcome.duration)
        ),
        None => format!("{}: not known, to be run", suite.tests()[at.index()].name),
    }];
    lines.push(format!(
        "  {}, and {} that it was seen to look at",
        plural(explained.inputs, "input file"),
        plural(explained.discovered.len(), "path")
    ));
    match &explained.last {
        None => lines.push("  it has not run in this folder yet".to_owned()),
        Some((age, status, not_kept)) => {
            lines.push(format!("  it last ran {} ago, and {status}", lasted(*age)));
            lines.extend(not_kept.as_ref().map(|reason| format!("  that result was not kept: {reason}")));
        }
    }
    if let (None, Some(age)) = (&explained.cached, explained.stored) {
        lines.push(match explained.differences.as_slice() {
            [] => format!("  since its result was kept {} ago, nothing that it depends on has changed; it was forgotten", lasted(age)),
            differences => {
                const SHOWN: usize = 20;
                let shown = differences.iter().take(SHOWN).map(|it| format!("    {}", printable(&it.to_string())));
                let text = format!("  since its result was kept {} ago:\n{}", lasted(age), shown.collect::<Vec<_>>().join("\n"));
                match differences.len().saturating_sub(SHOWN) {
                    0 => text,
                    more => format!("{text}\n    and {more} more"),
                }
            }
        });
    }
    output::answer(&lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}
