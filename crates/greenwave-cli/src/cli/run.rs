//! `greenwave run`: runs a plan and shows what happens.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;

use greenwave::{AgentSpec, Endpoint, Engine, Environment, Serving};
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, RunArgs, locate, located, read_plan};
use crate::config::Config;
use crate::output::NOT_GREEN;
use crate::progress::Progress;

pub(super) async fn run(path: &Path, args: &RunArgs) -> Result<ExitCode, CliError> {
    let mut file = read_plan(path)?;
    if let Some(pace) = args.pace {
        set_pace(&mut file.plan.agents, pace);
    }
    file.plan.graph().map_err(|error| located(&file, &error))?;
    let config = Config::load(&file.plan.project, &args.settings.overrides())?;
    let settings = config.settings;
    let metrics = settings.metrics.clone();
    let endpoint = match metrics.enabled {
        true => Some(Endpoint::bind(SocketAddr::new(metrics.address, metrics.port)).await?),
        false => None,
    };
    let environment = Environment::new(std::env::vars_os());
    let engine =
        Engine::open(file.plan.clone(), settings, environment).map_err(|error| locate(&file, error))?;
    let serving = endpoint.map(|endpoint| endpoint.serve(engine.metrics()));
    let mut progress = Progress::new(args.format, &file.plan);
    progress.profile(config.profile, serving.as_ref().map(Serving::address));
    watch(engine, progress, path).await
}

fn set_pace(agents: &mut std::collections::BTreeMap<String, AgentSpec>, factor: f64) {
    for agent in agents.values_mut() {
        if let AgentSpec::Scripted { pace, .. } = agent {
            *pace = factor;
        }
    }
}

async fn watch(engine: Engine, mut progress: Progress, plan: &Path) -> Result<ExitCode, CliError> {
    let io = |source| CliError::Io { operation: "wait for signals of", path: "this process".into(), source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(io)?;
    let stopper = engine.stopper();
    let mut stopped_by = None;
    let mut events = engine.events();
    let mut running = pin!(engine.run());
    let report = loop {
        // The codes that shells give for a program that such a signal ended.
        let code = tokio::select! {
            // What happened before the end is shown before it.
            biased;
            Some(event) = events.next() => {
                progress.event(&event);
                continue;
            }
            report = &mut running => break report?,
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
            _ = hang_up.recv() => 129,
        };
        // Who asks twice does not want to wait.
        if stopped_by.replace(code).is_some() {
            return Ok(ExitCode::from(code));
        }
        stopper.stop();
    };
    if let Some(code) = stopped_by {
        progress.stopped(plan);
        return Ok(ExitCode::from(code));
    }
    while let Some(event) = events.try_next() {
        progress.event(&event);
    }
    progress.finish(&report);
    Ok(if report.all_green() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GREEN) })
}
