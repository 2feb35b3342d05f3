//! `greenwave approve` and `greenwave reject`: decide about features that are held before their
//! merge.

use std::path::{Path, PathBuf};

use clap::Args;
use greenwave::{Decision, Settings, decide, held_features, nearest};

use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::planfile::PlanFile;
use crate::user_key::user_key;

#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// File of the plan.
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Ids of the features.
    #[arg(value_name = "FEATURE", required = true)]
    features: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct RejectArgs {
    /// File of the plan.
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Id of the feature.
    #[arg(value_name = "FEATURE")]
    feature: String,
    /// Text for the agent: what to change.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
}

/// Approves features.
pub(super) fn approve(args: &ApproveArgs) -> Result<Exit, CliError> {
    let plan = HeldPlan::read(&args.plan)?;
    plan.check("approve", &args.features)?;
    for feature in &args.features {
        let attempt = plan.decide("approve", feature, &Decision::Approve)?;
        output::answer(&format!(
            "{feature}: attempt {attempt} is approved; the run in progress merges it, or else the next run"
        ))?;
    }
    Ok(Exit::SUCCESS)
}

/// Rejects a feature.
pub(super) fn reject(args: &RejectArgs) -> Result<Exit, CliError> {
    let plan = HeldPlan::read(&args.plan)?;
    plan.check("reject", std::slice::from_ref(&args.feature))?;
    let decision = Decision::Reject { comment: args.comment.clone() };
    let (feature, attempt) = (&args.feature, plan.decide("reject", &args.feature, &decision)?);
    output::answer(&format!(
        "{feature}: attempt {attempt} is rejected; the agent gets another one in the run in progress, or else \
         in the next run"
    ))?;
    Ok(Exit::SUCCESS)
}

/// A plan with the key of its state.
struct HeldPlan {
    file: PlanFile,
    settings: Settings,
}

impl HeldPlan {
    fn read(path: &Path) -> Result<Self, CliError> {
        let file = PlanFile::read(path)?;
        let settings = Settings { user_key: Some(user_key(&file.plan.project)?), ..Settings::default() };
        Ok(Self { file, settings })
    }

    /// Checks that all features are held, before anything is decided.
    fn check(&self, operation: &'static str, features: &[String]) -> Result<(), CliError> {
        let held = held_features(&self.file.plan, &self.settings)?;
        for feature in features {
            let mut ids = self.file.plan.features.iter().map(|feature| feature.id.as_str());
            if !ids.clone().any(|id| id == feature) {
                let similar = nearest(feature, &mut ids);
                return Err(CliError::NoSuchFeature { name: feature.clone(), similar });
            }
            if !held.contains(feature) {
                return Err(not_held(operation, feature, held));
            }
        }
        Ok(())
    }

    /// Stores a decision. Returns the attempt that it is about.
    fn decide(&self, operation: &'static str, feature: &str, decision: &Decision) -> Result<u32, CliError> {
        let attempt = decide(&self.file.plan, &self.settings, feature, decision)?;
        attempt.ok_or_else(|| not_held(operation, feature, Vec::new()))
    }
}

fn not_held(operation: &'static str, feature: &str, held: Vec<String>) -> CliError {
    CliError::NotHeld { operation, feature: feature.to_owned(), held }
}
