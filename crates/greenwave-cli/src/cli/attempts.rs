//! `greenwave attempts`: lists the attempts at features, and shows their messages and changes.

mod open;

use std::path::{Path, PathBuf};

use clap::Args;
use greenwave::{AttemptLog, StoredAttempt, Usage, format_dollars};

use super::settings::SettingsArgs;
use crate::config::{Config, Overrides};
use crate::details::section;
use crate::error::CliError;
use crate::exit::Exit;
use crate::format::Format;
use crate::output;
use crate::planfile::PlanFile;
use crate::text::{duration, plural, printable};
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
    #[arg(value_name = "N")]
    number: Option<u32>,
    /// Show this attempt instead of the last one.
    #[arg(long, value_name = "N", conflicts_with = "number")]
    attempt: Option<u32>,
    /// Show the difference between the results of two attempts.
    #[arg(long, num_args = 2, value_names = ["N", "M"], conflicts_with_all = ["number", "attempt", "open"])]
    diff: Option<Vec<u32>>,
    /// Write the files that the attempt changed into a new directory, as they were `before` and
    /// `after` it, and print its path.
    #[arg(long)]
    open: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Attempts that the command line names.
struct Selection {
    project: PathBuf,
    feature: Option<String>,
    number: Option<u32>,
}

/// Lists attempts.
pub(super) async fn attempts(args: &AttemptsArgs) -> Result<Exit, CliError> {
    let selection = Selection::read(args)?;
    let Selection { project, feature, number } = selection;
    let log = log_of(&project, &args.settings.overrides()?)?;
    if let (Some(numbers), Some(feature)) = (&args.diff, &feature) {
        return show_difference(log.as_ref(), feature, numbers).await;
    }
    let found = stored_attempts(log.as_ref(), feature.as_deref()).await?;
    let found: Vec<StoredAttempt> =
        found.into_iter().filter(|found| number.is_none_or(|number| number == found.number)).collect();
    if found.is_empty() && (feature.is_some() || number.is_some()) {
        return Err(CliError::NoSuchAttempt { feature, number });
    }
    if args.open || args.diff.is_some() {
        let last = found.last().filter(|_| feature.is_some() && args.diff.is_none());
        let (Some(last), Some(log)) = (last, &log) else { return Err(CliError::NoFeatureNamed) };
        return open::open(log, last).await;
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
            if let Some(last) = found.last().filter(|_| feature.is_some() || number.is_some()) {
                output::lines(details(last));
            }
        }
    }
    Ok(Exit::SUCCESS)
}

/// Opens the attempts of a project.
pub(super) fn log_of(project: &Path, overrides: &Overrides) -> Result<Option<AttemptLog>, CliError> {
    let settings = Config::load(project, overrides)?.settings;
    let settings = greenwave::Settings { user_key: Some(user_key(project)?), ..settings };
    Ok(AttemptLog::open(project, &settings)?)
}

impl Selection {
    fn read(args: &AttemptsArgs) -> Result<Self, CliError> {
        let (plan, feature, number) = match (&args.plan, &args.feature, args.number) {
            // A first word that names no file is a feature, and the next one an attempt at it.
            (Some(word), next, None) if !word.exists() && !names_file(word) => {
                let number = next.as_ref().map(|next| next.parse().ok());
                match number {
                    Some(None) => (Some(word.as_path()), next.clone(), None),
                    number => (None, word.to_str().map(str::to_owned), number.flatten()),
                }
            }
            (plan, feature, number) => (plan.as_deref(), feature.clone(), number),
        };
        let project = match plan {
            Some(plan) => PlanFile::read(plan)?.plan.project,
            None => PathBuf::from("."),
        };
        Ok(Self { project, feature, number: number.or(args.attempt) })
    }
}

/// Returns whether a word names the file of a plan, which may not exist.
fn names_file(word: &Path) -> bool {
    word.components().count() > 1 || word.extension().is_some_and(|extension| extension == "toml")
}

/// Returns the attempts at one feature, or at all.
pub(super) async fn stored_attempts(
    log: Option<&AttemptLog>,
    feature: Option<&str>,
) -> Result<Vec<StoredAttempt>, CliError> {
    let Some(log) = log else { return Ok(Vec::new()) };
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

/// Prints the difference between two attempts at a feature.
async fn show_difference(log: Option<&AttemptLog>, feature: &str, numbers: &[u32]) -> Result<Exit, CliError> {
    let stored: Vec<u32> =
        stored_attempts(log, Some(feature)).await?.into_iter().map(|attempt| attempt.number).collect();
    if let Some(missing) = numbers.iter().find(|number| !stored.contains(number)) {
        let feature = Some(feature.to_owned());
        return Err(CliError::NoSuchAttempt { feature, number: Some(*missing) });
    }
    let difference = match (log, numbers) {
        (Some(log), [from, to]) => log.diff(feature, *from, *to).await?.unwrap_or_default(),
        _ => String::new(),
    };
    if difference.is_empty() {
        output::answer("The two attempts have the same files")?;
    } else {
        output::lines(difference.lines().map(|line| printable(&line.replace('\t', "    "))));
    }
    Ok(Exit::SUCCESS)
}

/// Returns a line that describes an attempt.
pub(super) fn summary(attempt: &StoredAttempt) -> String {
    let mut parts = vec![
        attempt.feature.clone(),
        format!("attempt {}", attempt.number),
        attempt.outcome.to_owned(),
        plural(attempt.files.len(), "file"),
    ];
    parts.extend(attempt.duration.map(duration));
    parts.extend(attempt.usage.and_then(|usage| usage.cost).map(format_dollars));
    parts.extend(Some(attempt.reason.clone()).filter(|reason| !reason.is_empty()));
    printable(&parts.join("  "))
}

/// Returns the lines that show an attempt as a whole.
fn details(attempt: &StoredAttempt) -> Vec<String> {
    let mut lines = Vec::new();
    let files = attempt.files.iter().map(|file| format!("{}: {}", file.path, file.change));
    let files: Vec<String> = files.collect();
    let usage = attempt.usage.map(tokens).unwrap_or_default();
    for (title, text) in [
        ("files", files.join("\n").as_str()),
        ("changes", attempt.diff.as_str()),
        ("test output", attempt.test_output.as_str()),
        ("agent's messages", attempt.words.as_str()),
        ("agent's standard error", attempt.stderr.as_str()),
        ("agent's exit", attempt.exit.as_str()),
        ("agent's usage", usage.as_str()),
    ] {
        lines.extend(section(title, text, usize::MAX));
    }
    lines
}

fn tokens(usage: Usage) -> String {
    let Usage { input_tokens, cached_tokens, output_tokens, .. } = usage;
    format!("{input_tokens} tokens read ({cached_tokens} of them cached), {output_tokens} written")
}
