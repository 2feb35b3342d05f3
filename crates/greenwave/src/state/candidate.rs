//! The answers to an attempt that asks for several, each in its own working copy.

use super::ActiveFeature;
use crate::candidate_record::CandidateRecord;
use crate::error::FeatureError;
use crate::tree;

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

impl Candidate {
    /// Creates a candidate whose agent has not answered yet.
    pub(crate) fn pending(number: u32, agent: String, active: ActiveFeature) -> Self {
        Self { number, agent, state: CandidateState::Pending(Box::new(active)) }
    }

    /// Recreates a candidate whose answer cannot be used.
    pub(crate) fn unusable(record: &CandidateRecord, reason: &str) -> Self {
        let state = CandidateState::Unusable { reason: reason.to_owned() };
        Self { number: record.number, agent: record.agent.clone(), state }
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
            CandidateState::Pending(mut active) | CandidateState::Answered(mut active) => {
                active.kept.clear();
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
