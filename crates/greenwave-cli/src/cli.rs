//! The command line, whole. What each command does stands in a file of its own.

mod answer;
mod cache;
mod demo;
mod graph;
mod init;
mod profile;
mod run;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Args, Parser, Subcommand, ValueEnum};
use greenwave::PlanError;
use greenwave_testing::{Jobserver, RESULTS_VARIABLE};

use crate::config::{Config, ConfigError, Origin, Overrides, VARIABLE};
use crate::diagnostic::{Diagnostic, Document};
use crate::planfile::{PlanFile, looks_like_configuration};

/// Runs plans of features through coding agents: red (the tests fail), yellow (an agent writes), green (the
/// tests pass and it is merged), many features at once.
#[derive(Debug, Parser)]
#[command(name = "greenwave", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a plan that needs nothing: a calculator in ten features, by scripted agents.
    Demo {
        /// Folder to unpack it into, or that of an earlier demo to go on with; a new temporary one if not given.
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Run a plan.
    Run {
        /// The plan's file.
        plan: PathBuf,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Run a project's own tests, but for those whose results are known.
    Test(Box<TestArgs>),
    /// Look after the kept results of tests.
    Cache {
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// Write a commented plan to start from.
    Init {
        /// The file to write.
        #[arg(default_value = "plan.toml")]
        plan: PathBuf,
    },
    /// Print a plan's graph of features.
    Graph {
        /// The plan's file.
        plan: PathBuf,
        /// The language to print it in.
        #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
        format: GraphFormat,
    },
    /// Look at the settings.
    Profile {
        #[command(subcommand)]
        command: ProfileCommand,
    },
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Say how much is kept.
    Stats(CacheArgs),
    /// Forget everything that is kept.
    Clear(CacheArgs),
    /// Read and check everything that is kept; what is damaged is removed.
    Verify(CacheArgs),
    /// Fetch what a server knows of the project's tests as they are now. Runs none.
    Warm(Box<TestArgs>),
}

#[derive(Debug, Args)]
struct CacheArgs {
    /// The project's folder, whose greenwave.toml counts.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    project: PathBuf,
    /// Change any setting, as `greenwave profile show` names it. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// Only tests whose names contain one of these.
    #[arg(value_name = "NAME")]
    filters: Vec<String>,
    /// The project's folder; the nearest with a greenwave.toml at or above the working directory, if not given.
    #[arg(long, value_name = "FOLDER")]
    project: Option<PathBuf>,
    /// Write a greenwave.toml with the tests that are found, with comments.
    #[arg(long)]
    init: bool,
    /// Say which results are known and which tests would run.
    #[arg(long)]
    dry_run: bool,
    /// Say why the result of this test is known, or what has changed.
    #[arg(long, value_name = "NAME")]
    explain: Option<String>,
    /// A unit for each test that pytest collects, instead of each file; and for each function in cargo's programs.
    #[arg(long)]
    per_test: bool,
    /// Only tests that may read what has changed since this commit.
    #[arg(long, value_name = "COMMIT")]
    affected: Option<String>,
    /// Stay, and run what a saved file touches.
    #[arg(long)]
    watch: bool,
    /// Start nothing more after the first failure.
    #[arg(long)]
    fail_fast: bool,
    /// Fail tests that read files of the project which are not among their inputs.
    #[arg(long)]
    strict: bool,
    /// Keep failures as well, and take them for known.
    #[arg(long)]
    keep_failures: bool,
    /// Run this share of the known results again and compare: 0.01, or 1% (testing.audit).
    #[arg(long, value_name = "SHARE")]
    audit: Option<String>,
    /// Share results by this server: redis://host:6379 or memcached://host:11211 (testing.remote).
    #[arg(long, value_name = "ADDRESS")]
    remote: Option<String>,
    /// Which tests' output to print.
    #[arg(long, value_enum, default_value_t = Show::Failed)]
    output: Show,
    /// A line for known results as well.
    #[arg(short, long)]
    verbose: bool,
    /// How to print what happens.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Write a report as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a summary in Markdown; by default to where GitHub wants it, if this runs there.
    #[arg(long, value_name = "FILE", env = "GITHUB_STEP_SUMMARY", hide_env_values = true)]
    summary: Option<PathBuf>,
    /// Tests that run at once (parallel.workers); as many as there are processors, if nothing says otherwise.
    #[arg(short, long, value_name = "COUNT")]
    jobs: Option<String>,
    /// Neither look results up nor keep them (cache.enabled).
    #[arg(long)]
    no_cache: bool,
    /// development, production, or memory-constrained.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Change any setting, as `greenwave profile show` names it. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

/// Which tests' output is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    /// That of failed tests.
    Failed,
    /// All of it, that of known results as it was then.
    All,
    /// None.
    None,
}

impl TestArgs {
    fn overrides(&self) -> Result<Overrides, ConfigError> {
        let flag = |flag: &str, key: &str, value: &Option<String>| {
            value.as_ref().map(|value| (flag.to_owned(), key.to_owned(), value.clone()))
        };
        let named = [
            flag("--jobs", "parallel.workers", &self.jobs),
            flag("--audit", "testing.audit", &self.audit),
            flag("--remote", "testing.remote", &self.remote),
            self.no_cache.then(|| ("--no-cache".to_owned(), "cache.enabled".to_owned(), "false".to_owned())),
        ];
        let set = self.set.iter().map(|(key, value)| ("--set".to_owned(), key.clone(), value.clone()));
        Ok(Overrides {
            profile: self.profile.clone(),
            variables: variables()?,
            flags: named.into_iter().flatten().chain(set).collect(),
        })
    }
}

#[derive(Debug, Subcommand)]
enum ProfileCommand {
    /// Print the effective settings, and where each comes from.
    Show {
        /// The project's folder, whose greenwave.toml counts.
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        project: PathBuf,
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GraphFormat {
    /// For Markdown, as GitHub shows it.
    Mermaid,
    /// For Graphviz.
    Dot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: colours and a progress line on a terminal, plain lines in a pipe.
    Human,
    /// For programs: one JSON object a line.
    Json,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// How to print what happens.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Multiply the recorded delays of scripted agents; 0 for none.
    #[arg(long, value_name = "FACTOR", value_parser = pace, allow_negative_numbers = true)]
    pace: Option<f64>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Flags that change settings.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
struct SettingsArgs {
    /// development, production, or memory-constrained.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Change any setting, as `greenwave profile show` names it. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
    /// Tests that run at once (parallel.workers).
    #[arg(long, value_name = "COUNT")]
    workers: Option<String>,
    /// Questions that are with agents at once (parallel.agents).
    #[arg(long, value_name = "COUNT")]
    agents: Option<String>,
    /// Features begun and not yet finished (parallel.features).
    #[arg(long, value_name = "COUNT")]
    features: Option<String>,
    /// Neither look test results up nor keep them (cache.enabled).
    #[arg(long)]
    no_cache: bool,
    /// Port of the endpoint with live figures; 0 for any that is free (metrics.port).
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<String>,
    /// Serve no live figures (metrics.enabled).
    #[arg(long)]
    no_metrics: bool,
}

fn pace(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (0.0..=1e6).contains(factor));
    factor.ok_or_else(|| "a number from 0 to 1000000 is wanted".to_owned())
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or("`KEY=VALUE` is wanted, as in `--set cache.entries=500`")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl SettingsArgs {
    fn overrides(&self) -> Result<Overrides, ConfigError> {
        let flag = |flag: &str, key: &str, value: &Option<String>| {
            value.as_ref().map(|value| (flag.to_owned(), key.to_owned(), value.clone()))
        };
        let off = |is_given: bool| is_given.then(|| "false".to_owned());
        let named = [
            flag("--workers", "parallel.workers", &self.workers),
            flag("--agents", "parallel.agents", &self.agents),
            flag("--features", "parallel.features", &self.features),
            flag("--no-cache", "cache.enabled", &off(self.no_cache)),
            flag("--metrics-port", "metrics.port", &self.metrics_port),
            flag("--no-metrics", "metrics.enabled", &off(self.no_metrics)),
        ];
        let set = self.set.iter().map(|(key, value)| ("--set".to_owned(), key.clone(), value.clone()));
        Ok(Overrides {
            profile: self.profile.clone(),
            variables: variables()?,
            flags: named.into_iter().flatten().chain(set).collect(),
        })
    }
}

impl CacheArgs {
    fn config(&self) -> Result<Config, CliError> {
        let flags = self.set.iter().map(|(key, value)| ("--set".to_owned(), key.clone(), value.clone()));
        let overrides = Overrides { profile: None, variables: variables()?, flags: flags.collect() };
        Ok(Config::load(&self.project, &overrides)?)
    }
}

/// The jobserver of the run that this program is started by, if it is a test of one.
static OUTER_JOBSERVER: OnceLock<Jobserver> = OnceLock::new();

/// Takes the jobserver of the run that this program is started by, if it is a test of one.
///
/// # Safety
/// As that of [`Jobserver::inherited`]: first in `main`.
pub(crate) unsafe fn inherit_jobserver() {
    if std::env::var_os(RESULTS_VARIABLE).is_some() {
        // SAFETY: what has to hold the caller has promised.
        if let Some(jobserver) = unsafe { Jobserver::inherited() } {
            let _ = OUTER_JOBSERVER.set(jobserver);
        }
    }
}

/// The variables that may be ours: those with names that are text.
fn variables() -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with(VARIABLE) => {
                let origin = Origin::Variable(name);
                return Err(ConfigError::Value { origin, problem: "its value is not UTF-8".to_owned() });
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

impl Cli {
    pub(crate) async fn run(self) -> Result<ExitCode, CliError> {
        match self.command {
            Command::Demo { dir, run } => demo::demo(dir, &run).await,
            Command::Run { plan, run } => run::run(&plan, &run).await,
            Command::Test(args) => test::test(&args).await,
            Command::Cache { command } => cache::cache(&command).await,
            Command::Init { plan } => init::init(&plan),
            Command::Graph { plan, format } => graph::graph(&plan, format),
            Command::Profile { command: ProfileCommand::Show { project, settings } } => {
                profile::show(&Config::load(&project, &settings.overrides()?)?)
            }
        }
    }
}

/// What ends the program before or beside a run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{0}")]
    Plan(Box<Diagnostic>),
    #[error("cannot read the plan {}", path.display())]
    ReadPlan { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Run(#[from] greenwave::Error),
    #[error(transparent)]
    Metrics(#[from] greenwave::TelemetryError),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot {operation} {}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot write the report {}", path.display())]
    Report { path: PathBuf, source: std::io::Error },
    #[error("cannot write to the standard output")]
    Output(#[source] std::io::Error),
    #[error(transparent)]
    Test(#[from] greenwave_testing::Error),
    #[error(transparent)]
    Results(#[from] greenwave::ResultStoreError),
    #[error("no tests were found")]
    NoTests,
    #[error("stopped while single tests were listed")]
    Stopped { code: u8 },
    #[error("no test's name contains {filters}; there are {names}")]
    NoSuchTest { filters: String, names: String },
    #[error("several tests' names contain {name}: {names}")]
    SeveralTests { name: String, names: String },
    #[error("git cannot say what has changed since {commit}: {problem}")]
    Git { commit: String, problem: String },
    #[error("cannot watch {}: {problem}", path.display())]
    Watch { path: PathBuf, problem: String },
    #[error("there is no place for test results: neither XDG_CACHE_HOME nor HOME is set")]
    NoCacheFolder,
    #[error("{} is there already, and is not overwritten", path.display())]
    Exists { path: PathBuf },
    #[error("{} has files in it that are no demo", path.display())]
    NotADemo { path: PathBuf },
}

impl CliError {
    /// What would help, where that is known.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            CliError::ReadPlan { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                Some(format!("`greenwave init {}` writes one to start from", path.display()))
            }
            CliError::Metrics(greenwave::TelemetryError::AddressInUse { .. }) => {
                Some("`--metrics-port 0` takes any free port, `--no-metrics` does without".to_owned())
            }
            CliError::Run(greenwave::Error::Busy { .. }) => {
                Some("wait for it to end, or give this run a project folder of its own".to_owned())
            }
            CliError::Run(greenwave::Error::Agent {
                source: greenwave::AgentError::ReadScript { .. },
                ..
            }) => Some("paths in a plan are relative to the folder that the plan is in".to_owned()),
            CliError::NoTests => Some(
                "cargo, pytest, go and npm projects are recognised; `[[test]]` in greenwave.toml declares any command".to_owned(),
            ),
            CliError::Test(greenwave_testing::Error::NotTraced { .. }) => Some(
                "run where system calls may be filtered (seccomp user notification), or set testing.trace = true to go on without tracing, which each run then says"
                    .to_owned(),
            ),
            CliError::NoCacheFolder => Some("`--set cache.directory=FOLDER` names one, `--no-cache` does without".to_owned()),
            CliError::Results(greenwave::ResultStoreError::Open { .. }) => {
                Some("`--set cache.directory=FOLDER` names another, `--no-cache` does without".to_owned())
            }
            CliError::Report { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("the folder that it is to be in has to be there".to_owned())
            }
            CliError::Report { .. } => Some("name a file that may be written".to_owned()),
            CliError::Output(_) => Some("make room where it goes, or send it elsewhere (`> FILE`)".to_owned()),
            CliError::NotADemo { .. } | CliError::Exists { .. } => Some("name another place".to_owned()),
            _ => None,
        }
    }
}

/// Reads a plan's file; what is wrong with it is told with its place.
fn read_plan(path: &Path) -> Result<PlanFile, CliError> {
    let document =
        Document::read(path).map_err(|source| CliError::ReadPlan { path: path.to_owned(), source })?;
    let is_configuration = looks_like_configuration(&document);
    let whole = document.clone();
    PlanFile::read(document).map_err(|mistake| {
        let better =
            || whole.mistake(0..0, "this is a configuration file, not a plan: it has no `[[features]]`");
        CliError::Plan(Box::new(if is_configuration { better() } else { mistake }))
    })
}

/// Puts the place in the file to an error about its plan.
fn locate(plan: &PlanFile, error: greenwave::Error) -> CliError {
    match error {
        greenwave::Error::Plan(error) => located(plan, &error),
        other => CliError::Run(other),
    }
}

fn located(plan: &PlanFile, error: &PlanError) -> CliError {
    CliError::Plan(Box::new(plan.locate(error)))
}
