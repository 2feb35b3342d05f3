//! Shows that an agent waits for its provider in the middle of a turn.

use std::time::Duration;

use greenwave_agents::{AgentEvent, Error as AgentError};
use tokio::sync::mpsc;

use super::Stage;
use crate::event::Event;

/// Number of changes that are not shown yet, after which further ones are left out.
const CHANGES_MAX: usize = 64;

/// A change of whether an agent waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnWait {
    /// The agent sends its request again after this time, if it has said so.
    Waits(Option<Duration>),
    /// The agent works again.
    Works,
}

/// Finds the waits in the events of a turn.
#[derive(Debug)]
pub(super) struct TurnWaits {
    sender: mpsc::Sender<TurnWait>,
    is_waiting: bool,
}

impl TurnWaits {
    pub(super) fn new() -> (Self, mpsc::Receiver<TurnWait>) {
        let (sender, receiver) = mpsc::channel(CHANGES_MAX);
        (Self { sender, is_waiting: false }, receiver)
    }

    pub(super) fn observe(&mut self, event: &Result<AgentEvent, AgentError>) {
        let change = match event {
            Ok(AgentEvent::RateLimited { retry_after }) => TurnWait::Waits(*retry_after),
            _ if self.is_waiting => TurnWait::Works,
            _ => return,
        };
        self.is_waiting = change != TurnWait::Works;
        // A change that does not fit is old news by the time there is room.
        let _ = self.sender.try_send(change);
    }
}

impl Stage<'_> {
    /// Publishes that the agent waits, or works again.
    pub(super) async fn show_wait(&self, attempt: u32, change: TurnWait) {
        let feature = self.feature().id.clone();
        let event = match change {
            TurnWait::Waits(delay) => Event::Waiting {
                feature,
                attempt,
                reason: format!("agent `{}` waits for its provider and continues", self.agent()),
                seconds: delay.map(|delay| (delay.as_secs_f64() * 10.0).ceil() / 10.0),
            },
            TurnWait::Works => Event::Phase { feature, phase: self.active.phase.label(), attempt },
        };
        self.ctx.emit(event).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_shown() {
        let (mut waits, mut changes) = TurnWaits::new();
        let delay = Some(Duration::from_secs(3));
        for event in [
            AgentEvent::Message("a".into()),
            AgentEvent::RateLimited { retry_after: delay },
            AgentEvent::RateLimited { retry_after: None },
            AgentEvent::Message("b".into()),
            AgentEvent::End,
        ] {
            waits.observe(&Ok(event));
        }
        let shown: Vec<TurnWait> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
        assert_eq!(shown, [TurnWait::Waits(delay), TurnWait::Waits(None), TurnWait::Works]);
    }
}
