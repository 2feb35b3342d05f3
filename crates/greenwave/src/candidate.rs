//! The answers to an attempt that asks for several, each in a working copy of its own.

use serde::{Deserialize, Serialize};

use crate::context::RunContext;
use crate::error::{Error, FeatureError};
use crate::plan::FeatureId;
use crate::state::ActiveFeature;
use crate::tree::{self, Change};
use crate::workspace::Workspace;

/// One of several answers to an attempt.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Number among the answers to the attempt, from 1.
    pub(crate) number: u32,
    pub(crate) agent: String,
    pub(crate) state: CandidateState,
}

/// State of a candidate.
#[derive(Debug)]
pub(crate) enum CandidateState {
    /// Its agent has not answered yet.
    Pending(Box<ActiveFeature>),
    /// Its workspace holds the answer.
    Answered(Box<ActiveFeature>),
    /// Its answer cannot be used.
    Unusable {
        /// Why not.
        reason: String,
    },
    /// Its agent cannot work.
    Out(FeatureError),
}

/// A candidate whose agent has answered, as the next run finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CandidateRecord {
    number: u32,
    agent: String,
    /// Changes of the answer. `None` if it cannot be used.
    changes: Option<Vec<Change>>,
    /// Why it cannot be used.
    reason: String,
}

impl CandidateRecord {
    #[cfg(test)]
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Returns whether the answer changes a file.
    pub(crate) fn has_changes(&self) -> bool {
        self.changes.as_ref().is_some_and(|changes| !changes.is_empty())
    }

    /// Returns the changes of the answer, or why it cannot be used.
    pub(crate) fn answer(&self) -> Result<&[Change], &str> {
        self.changes.as_deref().ok_or(&self.reason)
    }

    /// Recreates a candidate whose answer cannot be used.
    pub(crate) fn unusable(&self, reason: &str) -> Candidate {
        let state = CandidateState::Unusable { reason: reason.to_owned() };
        Candidate { number: self.number, agent: self.agent.clone(), state }
    }

    /// Recreates a candidate before its answer.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn pending(
        &self,
        ctx: &RunContext,
        id: FeatureId,
        feature: &ActiveFeature,
    ) -> Result<Candidate, Error> {
        Candidate::new(ctx, id, feature, self.number, self.agent.clone())
    }

    /// Returns whether the answer is that of one of these agents, in the order of the candidates.
    pub(crate) fn is_of(&self, agents: &[&String]) -> bool {
        let index = (self.number as usize).checked_sub(1);
        index.and_then(|index| agents.get(index)).is_some_and(|agent| **agent == self.agent)
    }
}

impl Candidate {
    /// Creates a candidate of a feature, whose agent gets the request of the feature's attempt. Its
    /// workspace has no files yet.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn new(
        ctx: &RunContext,
        id: FeatureId,
        feature: &ActiveFeature,
        number: u32,
        agent: String,
    ) -> Result<Self, Error> {
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
            agent: Some(agent.clone()),
            candidate: Some(number),
            ..ActiveFeature::new(feature.phase, workspace)
        };
        Ok(Self { number, agent, state: CandidateState::Pending(Box::new(active)) })
    }

    /// Returns the record for the next run, once the agent has answered.
    pub(crate) fn record(&self) -> Option<CandidateRecord> {
        let (changes, reason) = match &self.state {
            CandidateState::Answered(active) => {
                (Some(tree::changes(&active.base, active.workspace.tree())), String::new())
            }
            CandidateState::Unusable { reason } => (None, reason.clone()),
            // Another request to an agent that cannot work costs nothing.
            CandidateState::Pending(_) | CandidateState::Out(_) => return None,
        };
        Some(CandidateRecord { number: self.number, agent: self.agent.clone(), changes, reason })
    }

    /// Notes that the workspace of the candidate holds its answer.
    pub(crate) fn answered(self) -> Self {
        let state = match self.state {
            CandidateState::Pending(active) => CandidateState::Answered(active),
            other => other,
        };
        Self { state, ..self }
    }

    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.state, CandidateState::Pending(_))
    }

    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.state, CandidateState::Answered(_))
    }

    /// Returns the feature in the candidate's workspace, if it still has one.
    pub(crate) fn active(&mut self) -> Option<&mut ActiveFeature> {
        match &mut self.state {
            CandidateState::Pending(active) | CandidateState::Answered(active) => Some(active),
            CandidateState::Unusable { .. } | CandidateState::Out(_) => None,
        }
    }

    /// Ends the candidate in a state without a workspace, and removes its workspace.
    pub(crate) async fn end(&mut self, state: CandidateState) {
        match std::mem::replace(&mut self.state, state) {
            CandidateState::Pending(active) | CandidateState::Answered(active) => {
                active.workspace.tear_down().await;
                active.workspace.remove();
            }
            CandidateState::Unusable { .. } | CandidateState::Out(_) => {}
        }
    }

    /// Removes the candidate's workspace.
    pub(crate) async fn discard(mut self) {
        self.end(CandidateState::Unusable { reason: String::new() }).await;
    }
}
