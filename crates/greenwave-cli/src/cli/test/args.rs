//! The arguments of `greenwave test`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use greenwave_testing::Shard;

use crate::cli::settings::{SetArgs, flag, off};
use crate::config::{ConfigError, Overrides};
use crate::format::{Format, Show};

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Run only tests whose names contain one of these.
    #[arg(value_name = "NAME")]
    pub(super) filters: Vec<String>,
    /// Arguments for the test runner, such as `-- -k name` for pytest, `-- --ignored` for cargo or
    /// `-- -race` for go.
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(super) arguments: Vec<String>,
    /// Project directory [default: the nearest directory with a greenwave.toml at or above the
    /// current one, or else the current one].
    #[arg(long, value_name = "DIR")]
    pub(super) project: Option<PathBuf>,
    /// Create a greenwave.toml with the discovered tests.
    #[arg(long, conflicts_with_all = ["filters", "dry_run", "explain", "affected", "watch"])]
    pub(super) init: bool,
    /// List which results are cached and which tests would run, without running them.
    #[arg(long, conflicts_with_all = ["explain", "watch"])]
    pub(super) dry_run: bool,
    /// Explain why the result of a test is cached, or what has changed and who read it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["filters", "affected", "watch"])]
    pub(super) explain: Option<String>,
    /// List the tests whose last result was not stored, with reasons and settings that help.
    #[arg(long, conflicts_with_all = ["explain", "dry_run", "watch"])]
    pub(super) why_not_cached: bool,
    /// Run and cache each test individually instead of per file or test binary.
    #[arg(long)]
    pub(super) per_test: bool,
    /// Run only tests that may read files changed since this commit.
    #[arg(long, value_name = "COMMIT")]
    pub(super) affected: Option<String>,
    /// Run only tests that failed when they last ran.
    #[arg(long, conflicts_with = "watch")]
    pub(super) last_failed: bool,
    /// Run only part K of N of the tests. All parts together run each test once.
    #[arg(long, value_name = "K/N", conflicts_with = "watch")]
    pub(super) shard: Option<Shard>,
    /// Read the durations of tests from a file, so that all shards take equally long.
    #[arg(long, value_name = "FILE", requires = "shard")]
    pub(super) timings: Option<PathBuf>,
    /// Write the durations of tests to a file for `--timings`.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["watch", "explain", "dry_run", "why_not_cached", "init"]
    )]
    pub(super) save_timings: Option<PathBuf>,
    /// Run new tests this many times; they pass if every run passes. A test is new if it has never
    /// run here.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) stress_new: Option<u32>,
    /// Watch for changes and rerun affected tests.
    #[arg(long, conflicts_with = "affected")]
    pub(super) watch: bool,
    /// Start no more tests after the first failure.
    #[arg(long)]
    pub(super) fail_fast: bool,
    /// Fail tests that read project files which are not among their inputs.
    #[arg(long)]
    pub(super) strict: bool,
    /// Cache failures as well as passes.
    #[arg(long)]
    pub(super) keep_failures: bool,
    /// Rerun a sample of the tests with cached results and compare, such as 0.01 or 1%
    /// (testing.audit).
    #[arg(long, value_name = "FRACTION")]
    pub(super) audit: Option<String>,
    /// Share results through a server, such as redis://host:6379 or memcached://host:11211
    /// (testing.remote).
    #[arg(long, value_name = "URL")]
    pub(super) remote: Option<String>,
    /// Output to print [default: failed, or agent if a variable such as AI_AGENT or CLAUDECODE says
    /// that a coding agent runs the command].
    #[arg(long, value_enum)]
    pub(super) output: Option<Show>,
    /// Print a line for each cached result, too.
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(super) format: Format,
    /// Write a JUnit XML report to a file.
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Append a Markdown summary to a file.
    #[arg(long, value_name = "FILE", env = "GITHUB_STEP_SUMMARY", hide_env_values = true)]
    pub(super) summary: Option<PathBuf>,
    /// Write a trace of the run (discovery, lookup, builds, tests) for Perfetto.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["watch", "explain", "dry_run", "why_not_cached", "init"]
    )]
    pub(super) trace: Option<PathBuf>,
    /// Number of tests to run in parallel (parallel.workers) [default: number of CPUs].
    #[arg(short, long, value_name = "COUNT")]
    pub(super) jobs: Option<String>,
    /// Neither look up nor store results (cache.enabled).
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Use the settings of a profile: development, production or memory-constrained.
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Option<String>,
    #[command(flatten)]
    pub(super) set: SetArgs,
}

/// The arguments of `greenwave cache warm`.
#[derive(Debug, Args)]
pub(crate) struct WarmArgs {
    /// Fetch only results of tests whose names contain one of these.
    #[arg(value_name = "NAME")]
    filters: Vec<String>,
    /// Project directory [default: the nearest directory with a greenwave.toml at or above the
    /// current one, or else the current one].
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Fetch the result of each test individually instead of per file or test binary.
    #[arg(long)]
    per_test: bool,
    /// Fetch from a server, such as redis://host:6379 or memcached://host:11211 (testing.remote).
    #[arg(long, value_name = "URL")]
    remote: Option<String>,
    /// Number of builds to run in parallel (parallel.workers) [default: number of CPUs].
    #[arg(short, long, value_name = "COUNT")]
    jobs: Option<String>,
    /// Use the settings of a profile: development, production or memory-constrained.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    #[command(flatten)]
    set: SetArgs,
}

impl WarmArgs {
    /// Returns the arguments of a test run that looks up the same results.
    pub(super) fn into_test_args(self) -> TestArgs {
        TestArgs {
            filters: self.filters,
            per_test: self.per_test,
            remote: self.remote,
            jobs: self.jobs,
            profile: self.profile,
            set: self.set,
            ..TestArgs::silent(self.project)
        }
    }
}

impl TestArgs {
    /// Returns arguments of a call that prints no results.
    pub(super) fn silent(project: Option<PathBuf>) -> Self {
        Self {
            filters: Vec::new(),
            arguments: Vec::new(),
            project,
            init: false,
            dry_run: false,
            explain: None,
            why_not_cached: false,
            per_test: false,
            affected: None,
            last_failed: false,
            shard: None,
            timings: None,
            save_timings: None,
            stress_new: None,
            watch: false,
            fail_fast: false,
            strict: false,
            keep_failures: false,
            audit: None,
            remote: None,
            output: Some(Show::None),
            verbose: false,
            format: Format::Human,
            junit: None,
            summary: None,
            trace: None,
            jobs: None,
            no_cache: false,
            profile: None,
            set: SetArgs::default(),
        }
    }

    /// Returns the settings that the arguments and the environment change.
    pub(crate) fn overrides(&self) -> Result<Overrides, ConfigError> {
        let flags = [
            flag("--jobs", "parallel.workers", &self.jobs),
            flag("--audit", "testing.audit", &self.audit),
            flag("--remote", "testing.remote", &self.remote),
            off("--no-cache", "cache.enabled", self.no_cache),
        ];
        self.set.overrides(self.profile.as_ref(), flags)
    }

    /// Returns whether the command only shows something, so that it runs no code of the project.
    pub(super) fn is_inspection(&self) -> bool {
        self.dry_run || self.explain.is_some() || self.why_not_cached
    }

    /// Returns the output to print.
    pub(super) fn output(&self) -> Show {
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        self.output.unwrap_or_else(|| Show::default_for(std::env::vars_os().filter_map(text)))
    }

    /// Returns the file for the summary. An empty name, as in an empty variable, means none.
    pub(super) fn summary(&self) -> Option<&Path> {
        self.summary.as_deref().filter(|path| !path.as_os_str().is_empty())
    }
}
