//! `greenwave clean`: removes what runs have left on disk.

use std::path::{Component, PathBuf};

use clap::Args;
use greenwave::{CleanOptions, Cleaned, CleanedKind, Environment};

use super::settings::SetArgs;
use crate::config::Config;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::planfile::PlanFile;
use crate::text::size;

#[derive(Debug, Args)]
pub(super) struct CleanArgs {
    /// File of the plan whose project is cleaned. Without it, the project of `--project`.
    #[arg(value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Project directory.
    #[arg(long, value_name = "DIR", default_value = ".", conflicts_with = "plan")]
    project: PathBuf,
    /// Remove the working copies of all projects.
    #[arg(long, conflicts_with_all = ["plan", "state"])]
    all: bool,
    /// Remove the project's state as well: features start again, and attempts are lost.
    #[arg(long)]
    state: bool,
    /// List what would be removed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    set: SetArgs,
}

/// Removes leftovers, and prints each with its size.
pub(super) fn clean(args: &CleanArgs) -> Result<Exit, CliError> {
    let project = match &args.plan {
        Some(plan) => PlanFile::read(plan)?.plan.project,
        None => args.project.clone(),
    };
    let config = Config::load(&project, &args.set.overrides(None, [])?)?;
    let options =
        CleanOptions { project: (!args.all).then_some(project), state: args.state, dry_run: args.dry_run };
    let environment = Environment::new(std::env::vars_os());
    let found = greenwave::clean(&options, &config.settings, &environment)?;
    for cleaned in &found {
        let kind = match cleaned.kind {
            CleanedKind::Copies => "working copies",
            CleanedKind::Temporary => "temporary files",
            CleanedKind::State => "state",
        };
        let in_use = if cleaned.in_use { " (in use by a run, kept)" } else { "" };
        let path: PathBuf = cleaned.path.components().filter(|part| *part != Component::CurDir).collect();
        output::answer(&format!("{:>9}  {kind}  {}{in_use}", size(cleaned.bytes), path.display()))?;
    }
    let free: u64 =
        found.iter().filter(|cleaned| !cleaned.in_use).map(|cleaned: &Cleaned| cleaned.bytes).sum();
    let verb = if args.dry_run { "Would remove" } else { "Removed" };
    output::answer(&if free == 0 && found.iter().all(|cleaned| cleaned.in_use) {
        "Nothing to remove".to_owned()
    } else {
        format!("{verb} {}", size(free))
    })?;
    Ok(Exit::SUCCESS)
}
