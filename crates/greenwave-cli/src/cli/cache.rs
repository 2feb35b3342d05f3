//! `greenwave cache`: manages the stored test results.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use greenwave::ResultStore;

use super::settings::SetArgs;
use super::test::{self, WarmArgs};
use crate::config::Config;
use crate::dirs::results_dir;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::result_keys::result_keys;
use crate::text::{plural, size};

/// Exit code of `verify` if a record was damaged.
const DAMAGED: u8 = 1;

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Print the number of stored records and their size.
    Stats(CacheArgs),
    /// Remove all stored records, of all projects.
    Clear(CacheArgs),
    /// Read and verify all stored records, and remove damaged ones.
    Verify(CacheArgs),
    /// Fetch results for the project's tests from a server, without running tests.
    Warm(Box<WarmArgs>),
}

#[derive(Debug, Args)]
pub(super) struct CacheArgs {
    /// Project directory with the greenwave.toml to read.
    #[arg(long, value_name = "DIR", default_value = ".")]
    project: PathBuf,
    #[command(flatten)]
    set: SetArgs,
}

/// Runs the command.
pub(super) async fn cache(command: CacheCommand) -> Result<Exit, CliError> {
    match command {
        CacheCommand::Stats(args) => stats(&args),
        CacheCommand::Clear(args) => clear(&args).await,
        CacheCommand::Verify(args) => verify(&args).await,
        CacheCommand::Warm(args) => test::warm(*args).await,
    }
}

/// Opens the stored results. Creates no directory.
fn open(args: &CacheArgs) -> Result<(Config, PathBuf, ResultStore), CliError> {
    let mut config = Config::load(&args.project, &args.set.overrides(None, [])?)?;
    let dir = results_dir(&config)?;
    let keys = result_keys(&args.project, &mut config)?;
    let results = ResultStore::open_existing(&dir, &config.settings.testing, &keys)?;
    Ok((config, dir, results))
}

fn stats(args: &CacheArgs) -> Result<Exit, CliError> {
    let (config, dir, results) = open(args)?;
    let stats = results.stats();
    output::answer(&format!(
        "{}{}, {} of {}, in {}",
        if stats.is_exact { "" } else { "at most " },
        plural(stats.entries, "record"),
        size(stats.disk_bytes),
        size(config.settings.testing.disk_limit),
        dir.display()
    ))?;
    Ok(Exit::SUCCESS)
}

async fn clear(args: &CacheArgs) -> Result<Exit, CliError> {
    let (_, dir, results) = open(args)?;
    let cleared = results.clear().await?;
    output::answer(&format!("Removed {} from {}", plural(cleared, "record"), dir.display()))?;
    Ok(Exit::SUCCESS)
}

async fn verify(args: &CacheArgs) -> Result<Exit, CliError> {
    let (_, dir, results) = open(args)?;
    let stats = results.verify().await?;
    let damaged = match stats.damaged {
        0 => "none damaged".to_owned(),
        damaged => format!("{damaged} damaged and removed"),
    };
    output::answer(&format!("{} intact, {damaged}, in {}", plural(stats.entries, "record"), dir.display()))?;
    Ok(if stats.damaged == 0 { Exit::SUCCESS } else { Exit::from(DAMAGED) })
}
