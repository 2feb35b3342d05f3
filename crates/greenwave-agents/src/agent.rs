//! Defines the `Agent` and `Session` traits and the request type.

use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::{Error, ResponseStream};

/// A coding agent that sessions can be opened with.
///
/// # Contract
/// - **Concurrency**: `connect` may be called concurrently, and sessions coexist. Each session
///   handles one request at a time.
/// - **Cancellation**: dropping the future of `connect` releases all its resources.
/// - `Ok` from `connect` means that a request can be sent, not that it will be answered.
/// - **Retry**: an error of `connect` may be retried; no request was sent.
#[async_trait]
pub trait Agent: Debug + Send + Sync + 'static {
    /// Opens a session, for example a connection. A backend without connections returns a value
    /// that holds no resource.
    async fn connect(&self) -> Result<Box<dyn Session>, Error>;

    /// Returns the kind of agent as one word, for output (`scripted`, `command`).
    fn kind(&self) -> &'static str;

    /// Returns a hash of everything that determines the responses. Agents with equal fingerprints
    /// are interchangeable. Must not reveal secrets.
    fn fingerprint(&self) -> [u8; 32];
}

/// A session with an agent.
///
/// # Contract
/// - **Order**: `send` is called only after the last response has ended or was dropped.
/// - **Cancellation**: dropping the future of `send`, or the response, stops the work: processes
///   are killed with all their descendants, and connections are closed or made reusable.
/// - `Ok` from `send` means that the request was accepted. The response is complete once its last
///   event is [`AgentEvent::End`](crate::AgentEvent::End).
/// - **Retry**: an error of `send` may be retried. Once the response has started, the request may
///   have had side effects.
#[async_trait]
pub trait Session: Debug + Send + Sync + 'static {
    /// Sends a request and returns its response stream, which does not borrow the session.
    async fn send(&mut self, request: &Request) -> Result<ResponseStream, Error>;

    /// Returns whether another request can be sent. Cheap, and does not block.
    fn is_open(&self) -> bool;
}

/// A request to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The feature to implement.
    pub feature: String,
    /// Number of the attempt for this feature, from 1.
    pub attempt: u32,
    /// The prompt text.
    pub prompt: String,
    /// The worktree with the current state of the project, for agents that read files themselves.
    pub directory: PathBuf,
}
