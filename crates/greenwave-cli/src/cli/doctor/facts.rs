//! Collects the facts that the rules examine.

use std::path::Path;

use greenwave::{RecordedRun, RunRecords};
use greenwave_testing::{ProjectHistory, TraceStatus};
use serde_json::Value;

use crate::cli::history;
use crate::cli::test::known::KnownTests;
use crate::config::{Config, Overrides};
use crate::error::CliError;

/// The settings, tests and runs of a project.
pub(super) struct Facts {
    pub(super) config: Config,
    pub(super) cpus: usize,
    pub(super) tracing: TraceStatus,
    pub(super) history: ProjectHistory,
    /// `None` if the project has no tests, or they cannot be listed.
    pub(super) tests: Option<KnownTests>,
    /// The newest run of a plan.
    pub(super) run: Option<LastRun>,
}

/// The newest recorded run of a plan.
#[derive(Debug, Default)]
pub(super) struct LastRun {
    pub(super) plan: String,
    pub(super) has_finished: bool,
    /// Attempts that agents began.
    pub(super) attempts: usize,
    /// Attempts that were rejected.
    pub(super) rejected: usize,
    /// The last figures of `/metrics`; `null` if the run was killed.
    pub(super) figures: Value,
}

impl Facts {
    /// Collects the facts. Runs no code of the project.
    ///
    /// # Errors
    /// If the settings are invalid, or the state of the project cannot be read.
    pub(super) async fn collect(project: &Path, overrides: &Overrides) -> Result<Self, CliError> {
        let config = Config::load(project, overrides)?;
        let run = match RunRecords::open(project)? {
            Some(records) => records.read(1)?.map(|run| LastRun::of(&run)),
            None => None,
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let tracing = TraceStatus::of(config.settings.testing.trace);
        let history = history::read(project)?;
        let tests = KnownTests::inspect(project).await.ok();
        Ok(Self { config, cpus, tracing, history, tests, run })
    }
}

impl LastRun {
    fn of(run: &RecordedRun) -> Self {
        let (plan, has_finished) = (run.plan.clone(), run.has_finished);
        let mut last = Self { plan, has_finished, ..Self::default() };
        for mut event in run.events() {
            match event["event"].as_str() {
                Some("phase") if event["phase"] == "yellow" => last.attempts += 1,
                Some("refused") => last.rejected += 1,
                Some("finished" | "stopped") => last.figures = event["figures"].take(),
                _ => {}
            }
        }
        last
    }

    /// Returns a figure of `/metrics`.
    pub(super) fn figure(&self, group: &str, name: &str) -> Option<f64> {
        self.figures[group][name].as_f64()
    }
}
