//! `greenwave cache`: looks after the kept results of tests.

use std::process::ExitCode;

use greenwave::ResultStore;

use super::test::results_folder;
use super::{CacheCommand, CliError};
use crate::output;
use crate::testview::plural;

/// The exit code if something was damaged.
const DAMAGED: u8 = 1;

pub(super) async fn cache(command: &CacheCommand) -> Result<ExitCode, CliError> {
    let args = match command {
        CacheCommand::Warm(args) => return super::test::warm(args).await,
        CacheCommand::Stats(args) | CacheCommand::Clear(args) | CacheCommand::Verify(args) => args,
    };
    let config = args.config()?;
    let folder = results_folder(&config)?;
    let results = ResultStore::open(&folder, &config.settings.testing)?;
    let mega = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    match command {
        CacheCommand::Clear(_) => {
            let cleared = results.clear().await?;
            output::answer(&format!("Forgot {} in {}", plural(cleared, "record"), folder.display()))?;
        }
        CacheCommand::Verify(_) => {
            let stats = results.verify().await?;
            let (good, damaged) = (stats.entries, stats.damaged);
            output::answer(&format!("{}: {good} good, {damaged} damaged and removed", folder.display()))?;
            if damaged > 0 {
                return Ok(ExitCode::from(DAMAGED));
            }
        }
        CacheCommand::Stats(_) | CacheCommand::Warm(_) => {
            let stats = results.stats().await?;
            let limit = mega(config.settings.testing.disk_limit);
            let kept = plural(stats.entries, "record");
            output::answer(&format!(
                "{kept}, {} of at most {limit}, in {}",
                mega(stats.disk_bytes),
                folder.display()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
