//! `greenwave attempts`: lists the attempts at features, and shows their messages and changes.

use std::path::{Path, PathBuf};

use clap::Args;
use greenwave::{AttemptLog, StoredAttempt};

use super::settings::SettingsArgs;
use crate::config::Config;
use crate::details::section;
use crate::error::CliError;
use crate::exit::Exit;
use crate::format::Format;
use crate::output;
use crate::planfile::PlanFile;
use crate::text::printable;
use crate::user_key::user_key;

#[derive(Debug, Args)]
pub(super) struct AttemptsArgs {
    /// File of the plan. Without it, the project in the current directory.
    #[arg(value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Id of a feature. Without it, all features.
    #[arg(value_name = "FEATURE")]
    feature: Option<String>,
    /// Show this attempt instead of the last one.
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Lists attempts.
pub(super) async fn attempts(args: &AttemptsArgs) -> Result<Exit, CliError> {
    let (plan, feature) = match (&args.plan, &args.feature) {
        // One word that names no file is a feature.
        (Some(word), None) if !word.exists() && !names_file(word) => (None, word.to_str().map(str::to_owned)),
        (plan, feature) => (plan.as_deref(), feature.clone()),
    };
    let project = match plan {
        Some(plan) => PlanFile::read(plan)?.plan.project,
        None => PathBuf::from("."),
    };
    let settings = Config::load(&project, &args.settings.overrides()?)?.settings;
    let settings = greenwave::Settings { user_key: Some(user_key(&project)?), ..settings };
    let found = find(&project, &settings, feature.as_deref()).await?;
    let found: Vec<StoredAttempt> =
        found.into_iter().filter(|found| args.attempt.is_none_or(|number| number == found.number)).collect();
    if found.is_empty() && (feature.is_some() || args.attempt.is_some()) {
        return Err(CliError::NoSuchAttempt { feature, number: args.attempt });
    }
    match args.format {
        Format::Json => {
            for attempt in &found {
                output::line(&serde_json::to_string(attempt).expect("texts and numbers always serialise"));
            }
        }
        Format::Human if found.is_empty() => output::answer("No attempts are stored")?,
        Format::Human => {
            output::lines(found.iter().map(summary));
            // The attempt that was asked for, or the last one at the feature.
            if let Some(last) = found.last().filter(|_| feature.is_some() || args.attempt.is_some()) {
                output::lines(details(last));
            }
        }
    }
    Ok(Exit::SUCCESS)
}

/// Returns whether a word names the file of a plan, which may not exist.
fn names_file(word: &Path) -> bool {
    word.components().count() > 1 || word.extension().is_some_and(|extension| extension == "toml")
}

async fn find(
    project: &Path,
    settings: &greenwave::Settings,
    feature: Option<&str>,
) -> Result<Vec<StoredAttempt>, CliError> {
    let Some(log) = AttemptLog::open(project, settings)? else { return Ok(Vec::new()) };
    let features = match feature {
        Some(feature) => vec![feature.to_owned()],
        None => log.features().await?,
    };
    let mut found = Vec::new();
    for feature in features {
        found.extend(log.attempts(&feature).await?);
    }
    Ok(found)
}

fn summary(attempt: &StoredAttempt) -> String {
    let reason = if attempt.reason.is_empty() { String::new() } else { format!("  {}", attempt.reason) };
    let line = format!("{}  attempt {}  {}{reason}", attempt.feature, attempt.number, attempt.outcome);
    printable(&line)
}

/// Returns the lines that show an attempt as a whole.
fn details(attempt: &StoredAttempt) -> Vec<String> {
    let mut lines = Vec::new();
    let files = attempt.files.iter().map(|file| format!("{}: {}", file.path, file.change));
    let files: Vec<String> = files.collect();
    for (title, text) in [
        ("files", files.join("\n").as_str()),
        ("changes", attempt.diff.as_str()),
        ("test output", attempt.test_output.as_str()),
        ("agent's messages", attempt.words.as_str()),
        ("agent's standard error", attempt.stderr.as_str()),
        ("agent's exit", attempt.exit.as_str()),
    ] {
        lines.extend(section(title, text, usize::MAX));
    }
    lines
}
