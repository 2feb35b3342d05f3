//! `greenwave run`: runs a plan and shows what happens.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use greenwave::{AgentSpec, Engine, Environment, MetricsEndpoint, MetricsServer, Stopper};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::{CliError, RunArgs, locate, located, read_plan};
use crate::config::Config;
use crate::output::NOT_GREEN;
use crate::progress::Progress;

/// How long a run may take to stop before the program ends without it.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) async fn run(path: &Path, args: &RunArgs) -> Result<ExitCode, CliError> {
    let mut file = read_plan(path)?;
    if let Some(pace) = args.pace {
        set_pace(&mut file.plan.agents, pace);
    }
    file.plan.graph().map_err(|error| located(&file, &error))?;
    let config = Config::load(&file.plan.project, &args.settings.overrides()?)?;
    let settings = config.settings;
    let metrics = settings.metrics.clone();
    let endpoint = match metrics.enabled {
        true => Some(MetricsEndpoint::bind(SocketAddr::new(metrics.address, metrics.port)).await?),
        false => None,
    };
    let environment = Environment::new(std::env::vars_os());
    let engine =
        Engine::open(file.plan.clone(), settings, environment).map_err(|error| locate(&file, error))?;
    let serving = endpoint.map(|endpoint| endpoint.serve(engine.metrics()));
    let mut progress = Progress::new(args.format, &file.plan);
    progress.profile(config.profile, serving.as_ref().map(MetricsServer::address));
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
    let stopped_by = Arc::new(AtomicU8::new(0));
    let signals = stop_on_signals(engine.stopper(), Arc::clone(&stopped_by))?;
    let mut events = engine.events();
    // A task of its own: while nobody reads what is printed, the run must still hear that it shall stop.
    let mut running = tokio::spawn(engine.run());
    let report = loop {
        tokio::select! {
            // What happened before the end is shown before it.
            biased;
            Some(event) = events.next() => progress.event(&event),
            report = &mut running => break report.expect("a run does not panic and is not cancelled")?,
        }
    };
    signals.abort();
    let code = stopped_by.load(Ordering::Relaxed);
    if code != 0 {
        progress.stopped(plan);
        return Ok(ExitCode::from(code));
    }
    while let Some(event) = events.try_next() {
        progress.event(&event);
    }
    progress.finish(&report);
    Ok(if report.all_green() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GREEN) })
}

/// Stops the run at the first signal, and the program at the second, or when the run takes too long to stop.
/// The exit code is the one that shells give for a program that such a signal ended.
pub(super) fn stop_on_signals(
    stopper: Stopper,
    stopped_by: Arc<AtomicU8>,
) -> Result<JoinHandle<()>, CliError> {
    let io = |source| CliError::Io { operation: "wait for signals of", path: "this process".into(), source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(io)?;
    Ok(tokio::spawn(async move {
        loop {
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
                _ = hang_up.recv() => 129,
                () = tokio::time::sleep(STOP_TIME_MAX), if stopped_by.load(Ordering::Relaxed) != 0 => 0,
            };
            stopper.stop();
            match stopped_by.load(Ordering::Relaxed) {
                0 => stopped_by.store(code, Ordering::Relaxed),
                first => std::process::exit(i32::from(first)),
            }
        }
    }))
}
