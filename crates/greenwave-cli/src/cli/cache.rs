//! `greenwave cache`: looks after the kept results of tests.

use std::process::ExitCode;

use greenwave::Results;

use super::test::results_folder;
use super::{CacheCommand, CliError};
use crate::config::Config;
use crate::output;
use crate::testview::plural;

/// The exit code if something was damaged.
const DAMAGED: u8 = 1;

pub(super) async fn cache(command: CacheCommand, config: &Config) -> Result<ExitCode, CliError> {
    let folder = results_folder(config)?;
    let results = Results::open(&folder, &config.settings.testing)?;
    let mega = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    match command {
        CacheCommand::Stats => {
            let stats = results.stats().await?;
            let limit = mega(config.settings.testing.disk_limit);
            let kept = plural(stats.entries, "record");
            output::answer(&format!(
                "{kept}, {} of at most {limit}, in {}",
                mega(stats.disk_bytes),
                folder.display()
            ))?;
        }
        CacheCommand::Clear => {
            let cleared = results.clear().await?;
            output::answer(&format!("Forgot {} in {}", plural(cleared, "record"), folder.display()))?;
        }
        CacheCommand::Verify => {
            let stats = results.verify().await?;
            output::answer(&format!(
                "{}: {} good, {} damaged and removed",
                folder.display(),
                stats.entries,
                stats.damaged
            ))?;
            if stats.damaged > 0 {
                return Ok(ExitCode::from(DAMAGED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
