//! Implements an agent that replays recorded responses, chunk by chunk with their recorded delays.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};

use crate::script::Recording;
use crate::{Agent, AgentEvent, Error, Request, ResponseStream, Script, Session};

/// An agent that replays a [`Script`]. Its responses pass through the same parsers as those of a
/// live agent.
#[derive(Debug, Clone)]
pub struct ScriptedAgent {
    script: Arc<Script>,
    pace: f64,
}

impl ScriptedAgent {
    /// Creates an agent that replays `script`. Recorded delays are multiplied by `pace`: 1 replays
    /// in real time, 0 without delays. A negative or infinite pace counts as 0.
    pub fn new(script: Script, pace: f64) -> Self {
        let pace = if pace.is_finite() { pace.max(0.0) } else { 0.0 };
        Self { script: Arc::new(script), pace }
    }
}

#[async_trait]
impl Agent for ScriptedAgent {
    async fn connect(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.script.fingerprint()
    }
}

#[async_trait]
impl Session for ScriptedAgent {
    async fn send(&mut self, request: &Request) -> Result<ResponseStream, Error> {
        let recording = self.script.response(&request.feature, request.attempt, request.candidate)?;
        if let Some(missing) = recording.expects.iter().find(|text| !request.prompt.contains(*text)) {
            return Err(Error::PromptMismatch {
                name: self.script.name().to_owned(),
                feature: request.feature.clone(),
                attempt: request.attempt,
                missing: missing.clone(),
            });
        }
        Ok(replay(recording.clone(), self.pace))
    }

    fn is_open(&self) -> bool {
        true
    }
}

fn replay(recording: Recording, pace: f64) -> ResponseStream {
    let end = recording.complete.then_some(Ok(AgentEvent::End));
    let chunks = stream::iter(recording.chunks).then(move |(delay, text)| async move {
        // A delay beyond the range of `Duration` never ends.
        let delay = Duration::try_from_secs_f64(delay.as_secs_f64() * pace).unwrap_or(Duration::MAX);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok(AgentEvent::Text(text))
    });
    ResponseStream::new(chunks.chain(stream::iter(end)))
}
