//! Creates the candidates of an attempt that asks for several answers.

use crate::context::RunContext;
use crate::error::Error;
use crate::plan::FeatureId;
use crate::state::{ActiveFeature, Candidate};
use crate::workspace::Workspace;

/// Creates a candidate of a feature, whose agent gets the request of the feature's attempt. Its
/// workspace has no files yet.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn new_candidate(
    ctx: &RunContext,
    id: FeatureId,
    feature: &ActiveFeature,
    number: u32,
    agent: String,
) -> Result<Candidate, Error> {
    // Ids of features have no tilde.
    let name = format!("{}~{number}", ctx.feature(id).id);
    let workspace = Workspace::in_copies(&ctx.copies, &name, &ctx.project.in_flight)?;
    workspace.add_hashes(&*ctx.tests);
    let active = ActiveFeature {
        base: feature.base.clone(),
        feedback: feature.feedback.clone(),
        red: feature.red.clone(),
        cases: feature.cases.clone(),
        failing: feature.failing.clone(),
        refused: feature.refused.clone(),
        attempts_max: feature.attempts_max,
        first_attempt: feature.first_attempt,
        agent: Some(agent.clone()),
        candidate: Some(number),
        ..ActiveFeature::new(feature.phase, workspace)
    };
    Ok(Candidate::pending(number, agent, active))
}
