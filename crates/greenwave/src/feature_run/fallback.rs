//! Leaves a feature to its next agent.

use super::FeatureRun;
use crate::error::{FeatureError, chain};
use crate::event::Event;
use crate::phase::{Phase, PhaseEvent};
use crate::state::FeatureState;

impl FeatureRun {
    /// Leaves the feature to its next agent if the error is one of the present agent that another
    /// request to it would not cure. Returns the phase in which the next agent gets the request.
    pub(super) async fn fall_back(&mut self, error: &FeatureError) -> Option<Phase> {
        let is_of_agent = matches!(
            error,
            FeatureError::Agent(_) | FeatureError::NeedsLogin { .. } | FeatureError::AgentUnavailable { .. }
        );
        // An error in a review is one of the reviewer.
        let is_of_writer = matches!(
            self.state.phase(),
            Phase::Prompting(_) | Phase::Paused(_) | Phase::Writing(_) | Phase::WritingPaused(_)
        );
        if !is_of_agent || !is_of_writer || !self.take_over(&chain(error)).await {
            return None;
        }
        Some(match self.state.phase() {
            Phase::Paused(_) | Phase::WritingPaused(_) => self.enter(PhaseEvent::Released).await,
            phase => phase,
        })
    }

    /// Leaves the feature to its next agent, and publishes that. Returns whether there is one.
    pub(super) async fn take_over(&mut self, reason: &str) -> bool {
        let FeatureState::Active(active) = &mut self.state else { return false };
        let agent = |fallbacks| self.ctx.agent(self.id, active.phase, fallbacks);
        let (Some(before), Some(agent)) = (agent(active.fallbacks), agent(active.fallbacks + 1)) else {
            return false;
        };
        active.discard_candidates().await;
        active.take_over();
        let (agent, instead_of) = (agent.clone(), before.clone());
        self.report.agent = Some(agent.clone());
        let (feature, attempt) = (self.ctx.feature(self.id).id.clone(), active.phase.attempt());
        let reason = self.ctx.shown(reason.as_bytes());
        self.ctx.emit(Event::Fallback { feature, attempt, agent, instead_of, reason }).await;
        true
    }

    /// Continues with the agent that worked on the feature in an earlier run, if the plan still has
    /// it.
    pub(super) fn continue_with(&mut self, agent: Option<&str>) {
        let FeatureState::Active(active) = &mut self.state else { return };
        let agents = (0..).map_while(|at| self.ctx.agent(self.id, active.phase, at));
        let mut agents = agents.map(|name| Some(name.as_str()));
        let Some(at) = agents.position(|name| name == agent).filter(|at| *at > 0) else { return };
        active.fallbacks = at;
        self.report.agent = agent.map(str::to_owned);
    }
}
