//! Waits for agents whose provider limits requests, is overloaded or cannot be reached.

use std::time::Duration;

use futures_util::StreamExt;
use greenwave_agents::{Acceptance, Admission, AgentEvent, Place, ResponseStream, WaitOn};
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

/// Maximum waiting time of a feature that another agent would take over.
const FALLBACK_WAIT_MAX: Duration = Duration::from_secs(60);

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
        let gate = self.ctx.gates.get(self.agent())?;
        granted.or_else(|| gate.try_enter(self.active.place.get_or_insert_with(Place::new)))
    }

    /// Reports that the agent's provider has accepted a request, once its answer shows that. The
    /// words of a program do not, because they may describe a failure.
    pub(super) fn reporting(&self, answer: ResponseStream, acceptance: &Acceptance) -> ResponseStream {
        if matches!(self.agent_spec(), Some(AgentSpec::Http(_))) {
            acceptance.report();
            return answer;
        }
        let mut acceptance = Some(acceptance.clone());
        ResponseStream::new(answer.inspect(move |event| {
            let is_of_model = matches!(
                event,
                Ok(AgentEvent::Reasoning(_) | AgentEvent::ToolCall { .. } | AgentEvent::FileTouched(_))
            );
            if is_of_model && let Some(acceptance) = acceptance.take() {
                acceptance.report();
            }
        }))
    }

    /// Notes that the agent worked on a request.
    pub(super) fn end_pause(&mut self, mut admission: Admission) {
        (self.active.paused_since, self.active.place) = (None, None);
        self.active.waits_for = None;
        admission.succeeded();
    }

    /// Holds back requests to the agent, and pauses the feature.
    pub(super) fn pause(
        &mut self,
        admission: Admission,
        Unavailable { message, retry_after, is_unreachable }: Unavailable,
    ) -> Result<StageResult, FeatureError> {
        let delay = match is_unreachable {
            true => admission.unreachable(),
            false => admission.overloaded(retry_after),
        };
        tracing::debug!(feature = self.feature().id, message, ?delay, "agent is unavailable");
        self.active.waits_for = Some(Wait::Agent { message, is_unreachable });
        Ok(StageResult::Completed(PhaseEvent::Overloaded))
    }

    /// Waits until the agent may get the request.
    ///
    /// # Errors
    /// [`FeatureError::AgentUnavailable`] once the feature has waited too long.
    pub(super) async fn wait_for_agent(&mut self) -> Result<StageResult, FeatureError> {
        let agent = self.agent().clone();
        let Some(gate) = self.ctx.gates.get(&agent) else {
            return Err(FeatureError::Internal(format!("agent `{agent}` is not set up")));
        };
        let since = *self.active.paused_since.get_or_insert_with(Instant::now);
        let (wait_max, has_fallback) = (self.wait_max(), self.has_fallback());
        let place = self.active.place.get_or_insert_with(Place::new);
        loop {
            // As long as others are served, the feature waits for its turn.
            let since = since.max(gate.last_served());
            let left = wait_max.saturating_sub(since.elapsed());
            if has_fallback && gate.limit() == 0 && gate.remaining() > left {
                break;
            }
            match timeout(left, gate.enter(place)).await {
                Ok(admission) if !left.is_zero() => {
                    self.active.admission = Some(admission);
                    return Ok(StageResult::Completed(PhaseEvent::Released));
                }
                _ if gate.last_served() > since => {}
                _ => break,
            }
        }
        let message = match &self.active.waits_for {
            Some(Wait::Agent { message, .. }) => message.clone(),
            _ => "its provider limits requests".to_owned(),
        };
        Err(FeatureError::AgentUnavailable { agent, waited: wait_max, message })
    }

    /// Returns the conditions under which the feature's agent waits.
    pub(super) fn wait_on(&self) -> WaitOn {
        match self.agent_spec() {
            Some(AgentSpec::Command(spec)) => spec.wait_on.clone(),
            _ => WaitOn::never(),
        }
    }

    fn wait_max(&self) -> Duration {
        let set = self.agent_spec().and_then(AgentSpec::wait_max);
        set.unwrap_or(match &self.active.waits_for {
            _ if self.has_fallback() => FALLBACK_WAIT_MAX,
            Some(Wait::Agent { is_unreachable: true, .. }) => UNREACHABLE_WAIT_MAX,
            _ => WAIT_MAX,
        })
    }
}
