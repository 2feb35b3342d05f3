//! `greenwave forget`: removes what earlier runs have recorded about features.

use std::path::PathBuf;

use clap::Args;
use greenwave::{Forgotten, Settings, nearest};

use crate::dirs::receipts_dir;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::planfile::PlanFile;
use crate::user_key::user_key;

#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// File of the plan.
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Ids of the features, which the plan need not have any more.
    #[arg(value_name = "FEATURE", required = true)]
    features: Vec<String>,
}

/// Removes the records of features, and prints them. The project stays as it is.
pub(super) fn forget(args: &ForgetArgs) -> Result<Exit, CliError> {
    let file = PlanFile::read(&args.plan)?;
    let settings = Settings {
        receipts: receipts_dir(),
        user_key: Some(user_key(&file.plan.project)?),
        ..Settings::default()
    };
    let forgotten = greenwave::forget(&file.plan, &settings, &args.features)?;
    for (feature, what) in args.features.iter().zip(forgotten) {
        output::answer(&match what {
            Forgotten { green: true, attempts: None } => format!("{feature}: no longer green"),
            Forgotten { green: true, attempts: Some(attempts) } => {
                format!("{feature}: no longer green, attempts start again from 1 (were at {attempts})")
            }
            Forgotten { green: false, attempts: Some(attempts) } => {
                format!("{feature}: attempts start again from 1 (were at {attempts})")
            }
            Forgotten { green: false, attempts: None } => {
                let mut ids = file.plan.features.iter().map(|feature| feature.id.as_str());
                let similar = nearest(feature, &mut ids).filter(|similar| similar != feature);
                let similar = similar.map(|id| format!("; did you mean `{id}`?")).unwrap_or_default();
                format!("{feature}: nothing is recorded{similar}")
            }
        })?;
    }
    Ok(Exit::SUCCESS)
}
