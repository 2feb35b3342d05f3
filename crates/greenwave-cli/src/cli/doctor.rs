//! `greenwave doctor`: looks at the settings, the last runs and their figures, and says what to
//! change.

mod facts;
mod rules;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use self::facts::Facts;
use self::rules::{RULES, Rule};
use super::settings::SettingsArgs;
use crate::dirs::project_dir;
use crate::error::CliError;
use crate::exit::Exit;
use crate::format::Format;
use crate::output;
use crate::text::{plural, printable};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Project directory [default: the nearest directory with a greenwave.toml at or above the
    /// current one, or else the current one].
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Runs the command. It runs no code of the project.
pub(super) async fn doctor(args: &DoctorArgs) -> Result<Exit, CliError> {
    let project = project_dir(args.project.as_deref())?;
    let facts = Facts::collect(&project, &args.settings.overrides()?).await?;
    let found: Vec<(&Rule, String)> =
        RULES.iter().filter_map(|rule| Some((rule, (rule.figure)(&facts)?))).collect();
    match args.format {
        Format::Human => output::answer(&lines(&found).join("\n"))?,
        Format::Json => {
            let advice: Vec<Value> = found
                .iter()
                .map(|(rule, figure)| {
                    json!({
                        "rule": rule.name, "when": rule.when, "figure": figure, "advice": rule.advice,
                    })
                })
                .collect();
            output::answer(&json!({"advice": advice, "rules": RULES.len()}).to_string())?;
        }
    }
    Ok(Exit::SUCCESS)
}

fn lines(found: &[(&Rule, String)]) -> Vec<String> {
    let rules = plural(RULES.len(), "rule");
    if found.is_empty() {
        return vec![format!("Nothing to change by {rules}")];
    }
    let advice = |(rule, figure): &(&Rule, String)| {
        [format!("{}: {}", rule.name, printable(figure)), format!("  {}", rule.advice)]
    };
    let mut lines: Vec<String> = found.iter().flat_map(advice).collect();
    lines.push(format!("{} of {rules} apply", found.len()));
    lines
}
