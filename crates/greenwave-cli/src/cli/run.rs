//! `greenwave run`: runs a plan and shows its progress.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use greenwave::{AgentSpec, Engine, Environment, MetricsEndpoint, MetricsServer};

use super::settings::SettingsArgs;
use crate::config::Config;
use crate::error::CliError;
use crate::exit::{Exit, NOT_GREEN};
use crate::format::Format;
use crate::planfile::PlanFile;
use crate::progress::Progress;
use crate::signals::StopOnSignal;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// File of the plan.
    #[arg(value_name = "FILE")]
    pub(super) plan: PathBuf,
    #[command(flatten)]
    pub(super) options: RunOptions,
}

/// Arguments of the commands that run a plan.
#[derive(Debug, Args)]
pub(super) struct RunOptions {
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(super) format: Format,
    /// Multiply the recorded delays of scripted agents; 0 removes them.
    #[arg(long, value_name = "FACTOR", value_parser = pace, allow_negative_numbers = true)]
    pace: Option<f64>,
    #[command(flatten)]
    settings: SettingsArgs,
}

fn pace(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (0.0..=1e6).contains(factor));
    factor.ok_or_else(|| "expected a number from 0 to 1000000".to_owned())
}

/// Runs the plan in a file.
pub(super) async fn run(path: &Path, options: &RunOptions) -> Result<Exit, CliError> {
    let mut file = PlanFile::read(path)?;
    if let Some(pace) = options.pace {
        set_pace(&mut file.plan.agents, pace);
    }
    file.plan.graph().map_err(|error| file.locate_plan_error(&error))?;
    let config = Config::load(&file.plan.project, &options.settings.overrides()?)?;
    let settings = config.settings;
    let metrics = settings.metrics.clone();
    let endpoint = if metrics.enabled {
        Some(MetricsEndpoint::bind(SocketAddr::new(metrics.address, metrics.port)).await?)
    } else {
        None
    };
    let environment = Environment::new(std::env::vars_os());
    let engine =
        Engine::open(file.plan.clone(), settings, environment).map_err(|error| file.locate(error))?;
    let server = endpoint.map(|endpoint| endpoint.serve(engine.metrics()));
    let progress = Progress::new(options.format, &file.plan, path);
    progress.settings(config.profile, server.as_ref().map(MetricsServer::address));
    watch(engine, progress, path).await
}

fn set_pace(agents: &mut BTreeMap<String, AgentSpec>, factor: f64) {
    for agent in agents.values_mut() {
        if let AgentSpec::Scripted { pace, .. } = agent {
            *pace = factor;
        }
    }
}

/// Runs the engine and shows its events until it ends.
async fn watch(engine: Engine, mut progress: Progress, plan: &Path) -> Result<Exit, CliError> {
    let signals = StopOnSignal::start(engine.stopper())?;
    let mut events = engine.events();
    // The run has its own task, so that it can be stopped while printing is blocked by a reader.
    let mut running = tokio::spawn(engine.run());
    let report = loop {
        tokio::select! {
            // Events precede the end of the run.
            biased;
            Some(event) = events.next() => progress.event(&event),
            report = &mut running => break report.expect("a run does not panic and is not cancelled")?,
        }
    };
    if let Some(code) = signals.finish() {
        progress.stopped(plan);
        return Ok(Exit::from(code));
    }
    while let Some(event) = events.try_next() {
        progress.event(&event);
    }
    progress.finish(&report);
    Ok(if report.all_green() { Exit::SUCCESS } else { Exit::from(NOT_GREEN) })
}
