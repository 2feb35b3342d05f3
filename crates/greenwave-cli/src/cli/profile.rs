//! `greenwave profile show`: every setting, its value, and where the value comes from.

use std::process::ExitCode;

use super::CliError;
use crate::config::Config;
use crate::output;

pub(super) fn show(config: &Config) -> Result<ExitCode, CliError> {
    let origin =
        config.profile_origin().map_or_else(|| "nothing else was said".to_owned(), ToString::to_string);
    output::answer(&format!("# profile {} ({origin})", config.profile))?;
    let rows: Vec<_> = config.values().collect();
    let width = rows.iter().map(|(key, value, _)| key.len() + value.len() + 3).max().unwrap_or(0);
    for (key, value, origin) in rows {
        let assignment = format!("{key} = {value}");
        output::answer(&format!("{assignment:width$}  # {origin}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
