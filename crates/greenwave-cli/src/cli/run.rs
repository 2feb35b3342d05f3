//! `greenwave run`: runs a plan and shows its progress.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use greenwave::{
    AgentSpec, Candidates, CopyMode, Dashboard, Engine, Environment, Event, Exchanges, Feature,
    INSTRUCTION_FILES, MetricsEndpoint, MetricsServer, MetricsSource, PROTECTED_FILES, Plan, Problem, Report,
    ResultKind, RunScope, Settings, copy_method, nearest, preflight, preflight_sandboxes,
};
use greenwave_testing::TraceStatus;

use super::settings::SettingsArgs;
use crate::board_input::BoardInput;
use crate::config::Config;
use crate::dirs::{private_dirs, receipts_dir};
use crate::error::CliError;
use crate::exit::{Exit, INVALID_INPUT, NEEDS_APPROVAL, NOT_GREEN};
use crate::format::Format;
use crate::mount_namespace;
#[cfg(not(feature = "otel"))]
use crate::no_otel::RunTelemetry;
#[cfg(feature = "otel")]
use crate::otel::RunTelemetry;
use crate::output;
use crate::planfile::PlanFile;
use crate::progress::{Progress, copies_text, tracing_text};
use crate::pull_request::PullRequest;
use crate::random_token::random_token;
use crate::run_trace::RunTrace;
use crate::signals::StopOnSignal;
use crate::supervisor;
use crate::text::{plural, printable};
use crate::user_key::user_key;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// File of the plan.
    #[arg(value_name = "PLAN")]
    pub(super) plan: PathBuf,
    /// Treat features as green if their tests pass before any code is written; all features if none
    /// is named.
    #[arg(long, value_name = "FEATURE", num_args = 0..)]
    adopt: Option<Vec<String>>,
    /// Check the plan and show all its problems, without asking an agent; `red` also runs the
    /// tests, which must fail.
    #[arg(
        long,
        value_enum,
        value_name = "DEPTH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "plan"
    )]
    check: Option<CheckDepth>,
    /// Run only this feature and its dependencies; repeatable, or separated by commas.
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    only: Vec<String>,
    /// Start nothing new after the first feature that fails.
    #[arg(long)]
    fail_fast: bool,
    /// Continue with other features after a failure (the default).
    #[arg(long, conflicts_with = "fail_fast")]
    keep_going: bool,
    /// Limit the cost of agents in this run, in US dollars; overrides `budget.usd` of the plan.
    #[arg(long, value_name = "USD", value_parser = budget, allow_negative_numbers = true)]
    budget: Option<u64>,
    /// Push the branch of the results and create a pull request with `gh`, once every feature is
    /// green; needs `result = "pr"` in the plan.
    #[arg(long)]
    create_pr: bool,
    /// Record the programs and model servers of agents in a directory, without secrets.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Replay the agents that a directory has recorded; starts no program and sends no request.
    #[arg(long, value_name = "DIR", conflicts_with = "record")]
    replay: Option<PathBuf>,
    #[command(flatten)]
    pub(super) options: RunOptions,
}

/// Depth of `--check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckDepth {
    /// Check the plan, programs and files.
    Plan,
    /// Run the tests of the features as well.
    Red,
}

/// Maximum time for which the end of a run waits until open dashboards show it.
const DASHBOARDS_TIME_MAX: Duration = Duration::from_millis(500);

/// Arguments of the commands that run a plan.
#[derive(Debug, Args)]
pub(super) struct RunOptions {
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(super) format: Format,
    /// Multiply the recorded delays of scripted agents; 0 removes them.
    #[arg(long, value_name = "FACTOR", value_parser = pace, allow_negative_numbers = true)]
    pace: Option<f64>,
    /// Write a trace of the run (features, attempts, tests, waits) for Perfetto.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
}

fn pace(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (0.0..=1e6).contains(factor));
    factor.ok_or_else(|| "expected a number from 0 to 1000000".to_owned())
}

/// Reads an amount of US dollars, in millionths.
fn budget(text: &str) -> Result<u64, String> {
    let dollars = text.parse().ok().filter(|dollars: &f64| (0.0..=1e9).contains(dollars));
    let dollars = dollars.ok_or_else(|| "expected a number from 0 to 1000000000".to_owned())?;
    Ok((dollars * 1e6).round() as u64)
}

/// Runs or checks the plan in a file.
pub(super) async fn run(args: &RunArgs) -> Result<Exit, CliError> {
    let scope = RunScope {
        only: args.only.clone(),
        fail_fast: args.fail_fast,
        red_only: args.check == Some(CheckDepth::Red),
        // Otherwise nobody may be there to see that the run waits.
        wait_for_approval: args.options.format == Format::Human && std::io::stdout().is_terminal(),
    };
    if args.check == Some(CheckDepth::Plan) {
        return check(args, &scope);
    }
    let changes = PlanChanges {
        adopt: args.adopt.as_deref(),
        budget: args.budget,
        create_pr: args.create_pr,
        record: args.record.as_deref(),
        replay: args.replay.as_deref(),
    };
    run_plan(&args.plan, changes, &args.options, scope).await
}

/// Returns the setting `run.copies`, if the plan and the settings can be read.
pub(super) fn copy_mode(args: &RunArgs) -> Option<CopyMode> {
    let project = PlanFile::read(&args.plan).ok()?.plan.project;
    let config = Config::load(&project, &args.options.settings.overrides().ok()?).ok()?;
    Some(config.settings.run.copies)
}

/// Shows all problems and notes of a plan.
fn check(args: &RunArgs, scope: &RunScope) -> Result<Exit, CliError> {
    let file = PlanFile::read(&args.plan)?;
    let notes = checked(&file, scope)?;
    let mut config = Config::load(&file.plan.project, &args.options.settings.overrides()?)?;
    config.settings.run.overlays = mount_namespace::overlays();
    let method = copy_method(&config.settings, &supervisor::environment())?;
    for problem in notes.iter().chain(&preflight_sandboxes(&file.plan, config.settings.run.confine)) {
        output::note(&file.describe(problem));
    }
    let count = plural(scope.select(&file.plan).map_or(0, |selected| selected.len()), "feature");
    output::line(&format!("{}: {count}, no problem found", file.plan.name));
    let several = several_answers(&file.plan, config.settings.run.candidates);
    several.iter().for_each(|line| output::line(line));
    output::lines(written_tests(&file.plan));
    match (method, &config.settings.run.directory) {
        (None, Some(directory)) => output::line(&format!(
            "Copies: chosen when a run creates {}",
            printable(&directory.display().to_string())
        )),
        (method, _) => output::lines(method.map(copies_text)),
    }
    output::line(&tracing_text(TraceStatus::Off.as_str()));
    output::line(&protected(&file.plan));
    Ok(Exit::SUCCESS)
}

/// Describes the features whose attempts ask for several answers. `usual` is the number of answers
/// of features that do not set it.
fn several_answers(plan: &Plan, usual: u32) -> Vec<String> {
    let describe = |feature: &Feature| {
        let agents: Vec<String> = match &feature.candidates {
            Some(Candidates::Agents(agents)) => agents.clone(),
            Some(Candidates::Count(count)) => vec![feature.agent.clone(); *count as usize],
            None => vec![feature.agent.clone(); usual as usize],
        };
        let named: Vec<String> = agents.iter().map(|agent| format!("`{agent}`")).collect();
        (agents.len() > 1)
            .then(|| format!("{} asks for {} answers: {}", feature.id, agents.len(), named.join(", ")))
    };
    plan.features.iter().filter_map(describe).collect()
}

/// Describes the features whose tests an agent writes.
fn written_tests(plan: &Plan) -> Vec<String> {
    let describe = |feature: &Feature| {
        let of_tests = feature.test_agent.as_ref().filter(|_| feature.tests.is_empty())?;
        Some(format!(
            "{} has no tests yet: `{}` writes them, then `{}` writes the code",
            feature.id, of_tests.agent, feature.agent
        ))
    };
    plan.features.iter().filter_map(describe).collect()
}

/// Describes the files that agents may not change.
fn protected(plan: &Plan) -> String {
    let added = plan.protect.iter().map(String::as_str);
    let patterns: Vec<&str> = PROTECTED_FILES.into_iter().chain(added).collect();
    format!(
        "Protected from agents, besides tests and the plan (`protect` in the plan changes the lists):\n  {}\n\
         Protected unless the prompt names the file:\n  {}",
        patterns.join(" "),
        INSTRUCTION_FILES.join(" ")
    )
}

/// Checks a plan, and returns notes about it.
///
/// # Errors
/// Returns the last problem that keeps the plan from running. Prints those before it.
fn checked(file: &PlanFile, scope: &RunScope) -> Result<Vec<Problem>, CliError> {
    problems(file, scope, &supervisor::environment()).map_err(|mut errors| {
        let last = errors.pop().expect("a plan that has problems has a last one");
        errors.iter().for_each(output::report);
        last
    })
}

/// Checks a plan, and returns notes about it.
///
/// # Errors
/// All problems that keep the plan from running, at least one.
pub(super) fn problems(
    file: &PlanFile,
    scope: &RunScope,
    environment: &Environment,
) -> Result<Vec<Problem>, Vec<CliError>> {
    let problems = file.plan.problems();
    if !problems.is_empty() {
        return Err(problems.iter().map(|error| file.locate_plan_error(error)).collect());
    }
    scope.select(&file.plan).map_err(|error| vec![CliError::Run(error.into())])?;
    let problems = preflight(&file.plan, environment);
    let (serious, notes): (Vec<_>, Vec<_>) = problems.into_iter().partition(|problem| problem.is_error);
    if serious.is_empty() {
        return Ok(notes);
    }
    Err(serious.iter().map(|problem| file.locate_problem(problem)).collect())
}

/// Changes of a plan for one run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PlanChanges<'a> {
    /// Features that are green if their tests pass before any code is written. An empty list means
    /// all.
    adopt: Option<&'a [String]>,
    /// Maximum cost of all features, in millionths of a US dollar.
    budget: Option<u64>,
    /// Whether the pull request of the results is created.
    create_pr: bool,
    /// Directory in which agents are recorded.
    record: Option<&'a Path>,
    /// Directory from which they are replayed.
    replay: Option<&'a Path>,
}

impl PlanChanges<'_> {
    fn apply(self, plan: &mut Plan) -> Result<(), CliError> {
        if self.create_pr && plan.result != ResultKind::PullRequest {
            return Err(CliError::NoPullRequest);
        }
        plan.exchanges = match (self.record, self.replay) {
            (Some(directory), _) => Exchanges::Record(directory.to_owned()),
            (None, Some(directory)) => Exchanges::Replay(directory.to_owned()),
            (None, None) => Exchanges::Live,
        };
        if plan.exchanges != Exchanges::Live && !plan.agents.values().any(AgentSpec::is_recorded) {
            return Err(CliError::NoExchanges);
        }
        plan.budget.cost = self.budget.or(plan.budget.cost);
        set_adopted(plan, self.adopt)
    }
}

/// Runs the plan in a file.
///
/// # Errors
/// Those of the plan, the settings and the run, and [`CliError::NoSuchFeature`].
pub(super) async fn run_plan(
    path: &Path,
    changes: PlanChanges<'_>,
    options: &RunOptions,
    scope: RunScope,
) -> Result<Exit, CliError> {
    let mut file = PlanFile::read(path)?;
    if let Some(pace) = options.pace {
        set_pace(&mut file.plan.agents, pace);
    }
    changes.apply(&mut file.plan)?;
    checked(&file, &scope)?;
    let config = Config::load(&file.plan.project, &options.settings.overrides()?)?;
    file.plan.declared = config.tests.tests;
    let settings =
        Settings { receipts: receipts_dir(), ..engine_settings(config.settings, &file.plan.project)? };
    let metrics = settings.metrics.clone();
    let endpoint = if metrics.enabled {
        Some(MetricsEndpoint::bind(SocketAddr::new(metrics.address, metrics.port)).await?)
    } else {
        None
    };
    let environment = supervisor::environment();
    let is_check = scope.red_only;
    let plan = file.plan.clone();
    // Calls git, and searches for files to hide.
    let opened = tokio::task::spawn_blocking(move || {
        Engine::open(plan, settings, environment).and_then(|engine| engine.with_scope(scope))
    });
    let opened = opened.await.expect("opening a plan does not panic and is not cancelled");
    let engine = opened.map_err(|error| file.locate(error))?;
    if !is_check {
        engine.record();
    }
    let server =
        endpoint.map(|endpoint| serve(endpoint, engine.dashboard(), engine.metrics())).transpose()?;
    let progress = Progress::new(options.format, &file.plan, path);
    let urls = server.as_ref().map(|(server, dashboard)| (server.address(), dashboard.as_str()));
    progress.settings(config.profile, urls);
    let trace = options.trace.as_deref().map(|trace| open_trace(trace, &file.plan.project, path));
    let trace = trace.transpose()?;
    let proposal = Proposal { plan: &file.plan, create: changes.create_pr };
    let telemetry = RunTelemetry::start(&file.plan);
    let exit = watch(engine, (progress, trace, telemetry), proposal, path, is_check).await;
    if let Some((server, _)) = server {
        server.finish(DASHBOARDS_TIME_MAX).await;
    }
    exit
}

/// Adds what this process and its user bring to the settings of an engine: overlays, the key that
/// seals the state of the project, and the directories that are hidden from agents and tests.
pub(super) fn engine_settings(mut settings: Settings, project: &Path) -> Result<Settings, CliError> {
    settings.run.overlays = mount_namespace::overlays();
    Ok(Settings { user_key: Some(user_key(project)?), private: private_dirs(), ..settings })
}

/// Serves the metrics and the dashboard of a run. Returns the URL of the dashboard as well, with
/// its token where it needs one.
pub(super) fn serve(
    endpoint: MetricsEndpoint,
    dashboard: Dashboard,
    metrics: impl MetricsSource,
) -> Result<(MetricsServer, String), CliError> {
    let address = endpoint.address();
    if address.ip().is_loopback() {
        return Ok((endpoint.serve_with(metrics, dashboard), format!("http://{address}/")));
    }
    let token = random_token()?;
    let url = format!("http://{address}/?token={token}");
    Ok((endpoint.serve_with(metrics, dashboard.with_token(token)), url))
}

/// Opens the file of a trace. The project and the plan may come with a clone, and with it links.
fn open_trace(trace: &Path, project: &Path, plan: &Path) -> Result<RunTrace, CliError> {
    let beside = plan.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    RunTrace::create(trace, &[project, beside]).map_err(|source| trace_error(trace.to_owned(), source))
}

fn trace_error(path: PathBuf, source: std::io::Error) -> CliError {
    CliError::Io { operation: "write trace", path, source }
}

fn set_pace(agents: &mut BTreeMap<String, AgentSpec>, factor: f64) {
    for agent in agents.values_mut() {
        if let AgentSpec::Scripted { pace, .. } = agent {
            *pace = factor;
        }
    }
}

fn set_adopted(plan: &mut Plan, adopt: Option<&[String]>) -> Result<(), CliError> {
    let Some(adopt) = adopt else { return Ok(()) };
    for name in adopt {
        if !plan.features.iter().any(|feature| feature.id == *name) {
            let similar = nearest(name, &mut plan.features.iter().map(|feature| feature.id.as_str()));
            return Err(CliError::NoSuchFeature { name: name.clone(), similar });
        }
    }
    for feature in &mut plan.features {
        feature.adopt = adopt.is_empty() || adopt.contains(&feature.id);
    }
    Ok(())
}

/// The pull request of a run.
struct Proposal<'a> {
    plan: &'a Plan,
    /// Whether `gh` creates it.
    create: bool,
}

impl Proposal<'_> {
    /// Writes the pull request of a run that has ended, if the plan asks for one.
    async fn write(&self, report: &Report, progress: &Progress) -> Result<(), CliError> {
        let Some(mut request) = PullRequest::write(self.plan, report)? else { return Ok(()) };
        let created = if self.create && report.all_green() { request.create().await } else { Ok(()) };
        progress.pull_request(&request);
        created
    }
}

/// Runs the engine and shows its events until it ends.
async fn watch(
    engine: Engine,
    (mut progress, mut trace, mut telemetry): (Progress, Option<RunTrace>, Option<RunTelemetry>),
    proposal: Proposal<'_>,
    plan: &Path,
    is_check: bool,
) -> Result<Exit, CliError> {
    let signals = StopOnSignal::start(engine.stopper())?;
    let mut board = BoardInput::start(&engine, &mut progress)?;
    let mut events = engine.events();
    // The run has its own task, so that it can be stopped while printing is blocked by a reader.
    let mut running = tokio::spawn(engine.run());
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let report = loop {
        tokio::select! {
            // Events precede the end of the run.
            biased;
            Some(event) = events.next() => {
                send(&event, telemetry.as_mut());
                show(&event, trace.as_mut(), Some(&mut progress));
            }
            key = board.key() => board.press(key, &mut progress).await,
            _ = seconds.tick() => board.tick(&mut progress).await,
            report = &mut running => break report.expect("a run does not panic and is not cancelled")?,
        }
    };
    let code = signals.finish().or(board.close());
    while let Some(event) = events.try_next() {
        send(&event, telemetry.as_mut());
        // A stopped run prints no further events.
        show(&event, trace.as_mut(), if code.is_none() { Some(&mut progress) } else { None });
    }
    if let Some(telemetry) = telemetry {
        telemetry.finish(code.is_none().then_some(&report)).await;
    }
    let traced =
        trace.map_or(Ok(()), |trace| trace.finish().map_err(|(path, error)| trace_error(path, error)));
    if let Some(code) = code {
        progress.stopped(plan);
        traced?;
        return Ok(Exit::from(code));
    }
    let proposed = if is_check { Ok(()) } else { proposal.write(&report, &progress).await };
    progress.finish(&report);
    if report.needs_approval_only() {
        progress.needs_approval(plan);
    }
    traced?;
    proposed?;
    if is_check {
        let is_right = report.all_as_expected();
        return Ok(if is_right { Exit::SUCCESS } else { Exit::from(INVALID_INPUT) });
    }
    Ok(if report.all_green() {
        Exit::SUCCESS
    } else if report.needs_approval_only() {
        Exit::from(NEEDS_APPROVAL)
    } else {
        Exit::from(NOT_GREEN)
    })
}

fn send(event: &Event, telemetry: Option<&mut RunTelemetry>) {
    if let Some(telemetry) = telemetry {
        telemetry.event(event);
    }
}

fn show(event: &Event, trace: Option<&mut RunTrace>, progress: Option<&mut Progress>) {
    if let Some(trace) = trace {
        trace.event(event);
    }
    if let Some(progress) = progress {
        progress.event(event);
    }
}
