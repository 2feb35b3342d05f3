//! What an agent is: something that can be asked and answers bit by bit. Knows of no particular agent,
//! and nothing of plans, files or tests.

use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::{Error, ResponseStream};

/// A coding agent: something that sessions can be opened with.
///
/// # Contract
/// - **Concurrency**: `connect` may be called many times at once, and sessions live side by side; each
///   session is asked one question at a time.
/// - **Cancellation**: dropping the future of `connect` leaves nothing behind.
/// - `Ok` from `connect` promises that a question may be asked, not that it will be answered.
/// - **Retry**: an error of `connect` may be retried; nothing was asked.
#[async_trait]
pub trait Agent: Debug + Send + Sync + 'static {
    /// Opens a session: a connection, a slot, or nothing at all, whatever asking needs.
    async fn connect(&self) -> Result<Box<dyn Session>, Error>;

    /// How this agent should be called in output: its kind in one word (`scripted`, `command`).
    fn kind(&self) -> &'static str;

    /// Everything that decides what this agent would answer, as far as can be known: two agents with the
    /// same fingerprint are the same agent. Never a secret.
    fn fingerprint(&self) -> [u8; 32];
}

/// One session with an agent.
///
/// # Contract
/// - **Order**: `ask` is called again only when the last answer has ended or was dropped.
/// - **Cancellation**: dropping the future of `ask`, or the answer, ends the work on it: processes are
///   killed with everything they started, connections are closed or made usable again.
/// - `Ok` from `ask` promises that the question was taken; whether it was answered is known when the
///   answer's last event is [`AgentEvent::End`](crate::AgentEvent::End).
/// - **Retry**: an error of `ask` may be retried; once the answer has begun, it may have had side effects.
#[async_trait]
pub trait Session: Debug + Send + Sync + 'static {
    /// Asks a question. The answer streams; it is independent of the borrow of the session.
    async fn send(&mut self, request: &Request) -> Result<ResponseStream, Error>;

    /// Whether another question may be asked. Cheap, and does not wait.
    fn is_open(&self) -> bool;
}

/// A question to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The feature that it is about.
    pub feature: String,
    /// How often it has been asked for this feature, this time included; from 1.
    pub attempt: u32,
    /// The whole text.
    pub prompt: String,
    /// A folder with the project as far as it has come, for agents that look around themselves.
    pub directory: PathBuf,
}
