//! `greenwave profile show`: prints every setting with its value and the source of the value.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::settings::SettingsArgs;
use crate::config::Config;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output;

#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// Print all settings, each with its value and source.
    Show(ProfileArgs),
}

#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    /// Project directory with the greenwave.toml to read.
    #[arg(long, value_name = "DIR", default_value = ".")]
    project: PathBuf,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Prints the settings.
pub(super) fn show(args: &ProfileArgs) -> Result<Exit, CliError> {
    let config = Config::load(&args.project, &args.settings.overrides()?)?;
    let origin = config.profile_origin().map_or_else(|| "default".to_owned(), ToString::to_string);
    output::answer(&format!("# profile {} ({origin})", config.profile))?;
    let rows: Vec<_> = config.values().collect();
    let width = rows.iter().map(|(key, value, _)| key.len() + value.len() + 3).max().unwrap_or(0);
    for (key, value, origin) in rows {
        let assignment = format!("{key} = {value}");
        output::answer(&format!("{assignment:width$}  # {origin}"))?;
    }
    Ok(Exit::SUCCESS)
}
