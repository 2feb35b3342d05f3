//! Waits for agents whose provider limits requests, is overloaded or cannot be reached.

use std::time::Duration;

use greenwave_agents::{Admission, WaitOn};
use tokio::time::{Instant, timeout};

use super::Stage;
use crate::error::FeatureError;
use crate::phase::PhaseEvent;
use crate::plan::AgentSpec;
use crate::state::{StageResult, Wait};

/// Maximum waiting time of agents that do not set it.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Maximum waiting time for a provider that cannot be reached. Its address may be wrong, and
/// requests that fail late cost something.
const UNREACHABLE_WAIT_MAX: Duration = Duration::from_secs(600);

/// Why an agent could not work.
#[derive(Debug)]
pub(super) struct Unavailable {
    pub(super) message: String,
    /// The delay that its provider asks for.
    pub(super) retry_after: Option<Duration>,
    /// Whether its provider cannot be reached.
    pub(super) is_unreachable: bool,
}

impl Stage<'_> {
    /// Returns the permission to send a request: a permission that the feature has waited for, or
    /// one that is available now.
    pub(super) fn admission(&mut self) -> Option<Admission> {
        let granted = self.active.admission.take();
        granted.or_else(|| self.ctx.gates.get(&self.feature().agent)?.try_enter())
    }

    /// Notes that the agent worked on a request.
    pub(super) fn end_pause(&mut self, admission: Admission) {
        self.active.paused_since = None;
        self.active.waits_for = None;
        admission.succeeded();
    }

    /// Holds back requests to the agent, and pauses the feature.
    pub(super) fn pause(
        &mut self,
        admission: Admission,
        Unavailable { message, retry_after, is_unreachable }: Unavailable,
    ) -> Result<StageResult, FeatureError> {
        let delay = admission.overloaded(retry_after);
        tracing::debug!(feature = self.feature().id, message, ?delay, "agent is unavailable");
        self.active.waits_for = Some(Wait::Agent { message, is_unreachable });
        Ok(StageResult::Completed(PhaseEvent::Overloaded))
    }

    /// Waits until the agent may get the request.
    ///
    /// # Errors
    /// [`FeatureError::AgentUnavailable`] once the feature has waited too long.
    pub(super) async fn wait_for_agent(&mut self) -> Result<StageResult, FeatureError> {
        let agent = &self.ctx.feature(self.id).agent;
        let Some(gate) = self.ctx.gates.get(agent) else {
            return Err(FeatureError::Internal(format!("agent `{agent}` is not set up")));
        };
        let since = *self.active.paused_since.get_or_insert_with(Instant::now);
        let left = self.wait_max().saturating_sub(since.elapsed());
        match timeout(left, gate.enter()).await {
            Ok(admission) if !left.is_zero() => {
                self.active.admission = Some(admission);
                Ok(StageResult::Completed(PhaseEvent::Released))
            }
            _ => {
                let message = match &self.active.waits_for {
                    Some(Wait::Agent { message, .. }) => message.clone(),
                    _ => "its provider limits requests".to_owned(),
                };
                let (agent, waited) = (agent.clone(), self.wait_max());
                Err(FeatureError::AgentUnavailable { agent, waited, message })
            }
        }
    }

    /// Returns the conditions under which the feature's agent waits.
    pub(super) fn wait_on(&self) -> WaitOn {
        match self.ctx.plan.agents.get(&self.feature().agent) {
            Some(AgentSpec::Command(spec)) => spec.wait_on.clone(),
            _ => WaitOn::never(),
        }
    }

    fn wait_max(&self) -> Duration {
        let set = self.ctx.plan.agents.get(&self.feature().agent).and_then(AgentSpec::wait_max);
        set.unwrap_or(match &self.active.waits_for {
            Some(Wait::Agent { is_unreachable: true, .. }) => UNREACHABLE_WAIT_MAX,
            _ => WAIT_MAX,
        })
    }
}
