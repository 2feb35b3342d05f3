//! `greenwave dashboard`: shows a recorded run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use greenwave::{AttemptLog, MetricsEndpoint, MetricsSnapshot, RecordedRun, RunRecords, Settings};

use super::run::serve;
use super::settings::SettingsArgs;
use crate::config::Config;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::planfile::PlanFile;
use crate::text::{duration, printable};
use crate::user_key::user_key;

#[derive(Debug, Args)]
pub(super) struct DashboardArgs {
    /// File of the plan whose project is shown. Without it, the project in the current directory.
    #[arg(value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Show this run of the list; 1 is the newest.
    #[arg(long, value_name = "N", default_value_t = 1)]
    run: usize,
    /// Compare the run with this earlier run of the list.
    #[arg(long, value_name = "N", conflicts_with = "list")]
    compare: Option<usize>,
    /// List the recorded runs.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Serves the dashboard of a recorded run until a signal ends it.
pub(super) async fn dashboard(args: &DashboardArgs) -> Result<Exit, CliError> {
    let project = match &args.plan {
        Some(plan) => PlanFile::read(plan)?.plan.project,
        None => PathBuf::from("."),
    };
    let settings = Config::load(&project, &args.settings.overrides()?)?.settings;
    let records = RunRecords::open(&project)?;
    if args.list {
        return list(records.as_ref());
    }
    let read = |number: usize| {
        let run = records.as_ref().map_or(Ok(None), |records| records.read(number))?;
        let count = records.as_ref().map_or(0, RunRecords::count);
        run.ok_or(CliError::NoSuchRun { number, count })
    };
    let (run, before) = (read(args.run)?, args.compare.map(read).transpose()?);
    show(&project, settings, &run, before.as_ref()).await
}

fn list(records: Option<&RunRecords>) -> Result<Exit, CliError> {
    let count = records.map_or(0, RunRecords::count);
    if count == 0 {
        output::answer("No runs are recorded")?;
    }
    for number in 1..=count {
        if let Some(run) = records.map_or(Ok(None), |records| records.read(number))? {
            output::answer(&format!("{number:>3}  {}", describe(&run)))?;
        }
    }
    Ok(Exit::SUCCESS)
}

async fn show(
    project: &Path,
    settings: Settings,
    run: &RecordedRun,
    before: Option<&RecordedRun>,
) -> Result<Exit, CliError> {
    let metrics = settings.metrics.clone();
    let settings = Settings { user_key: Some(user_key(project)?), ..settings };
    let endpoint = MetricsEndpoint::bind(SocketAddr::new(metrics.address, metrics.port)).await?;
    let log = AttemptLog::open(project, &settings)?;
    let dashboard = match before {
        Some(before) => run.compared_with(before, log),
        None => run.dashboard(log),
    };
    let (_server, url) = serve(endpoint, dashboard, MetricsSnapshot::default)?;
    output::line(&format!("Dashboard: {url}"));
    let compared = before.map(|before| format!(" and compares it with that of {}", describe(before)));
    let compared = compared.unwrap_or_default();
    output::line(&format!("Shows the run of {}{compared}. Ctrl-C ends it.", describe(run)));
    std::future::pending().await
}

fn describe(run: &RecordedRun) -> String {
    let age = SystemTime::now().duration_since(run.started).unwrap_or_default();
    let end = if run.has_finished { "" } else { ", stopped" };
    format!("{}, {} ago{end}", printable(&run.plan), duration(age))
}
