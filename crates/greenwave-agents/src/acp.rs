//! Implements an agent that speaks the [Agent Client Protocol] over its standard streams.
//!
//! [Agent Client Protocol]: https://agentclientprotocol.com/protocol/overview

mod permission;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use greenwave_streaming::{BufferedSplitter, CHUNK_BYTES_MAX, Cap, Lines};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::time::{Instant, timeout_at};

use crate::{Agent, AgentEvent, CommandAgent, Error, Preflight, Request, ResponseStream, Session};
use turn::{Action, Turn};

/// Maximum length of a message in bytes. Longer ones fail the response.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Time that the agent has to confirm that a turn is cancelled, before its program is killed.
const CANCEL_MAX: Duration = Duration::from_secs(2);

/// Time that a program has to exit after its turn, before it is killed.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// An agent that starts a program which speaks the Agent Client Protocol, version 1, in lines of
/// JSON. Each request has its own program, in the request's directory, because the program is
/// confined to it.
///
/// The program changes files itself; this client offers it neither files nor terminals. Requests
/// for permission are granted if every path that they name is in the request's root or its
/// temporary directory, and refused otherwise. A turn that exceeds the time limit is cancelled
/// (`session/cancel`), and its program is killed if it does not confirm that within 2 s.
///
/// An earlier session of the same feature is loaded if the agent can load sessions.
#[derive(Debug, Clone)]
pub struct AcpAgent {
    command: CommandAgent,
    time_limit: Duration,
}

impl AcpAgent {
    /// Creates an agent whose program, surroundings and confinement are those of `command`, with a
    /// time limit for each turn. The prompt is sent as a message, so the arguments should not
    /// contain it.
    pub fn new(command: CommandAgent, time_limit: Duration) -> Self {
        // The program is killed later than the turn is cancelled.
        Self { command: command.with_time_limit(time_limit.saturating_add(2 * CANCEL_MAX)), time_limit }
    }
}

#[async_trait]
impl Agent for AcpAgent {
    async fn connect(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn kind(&self) -> &'static str {
        "acp"
    }

    fn preflight(&self, context: &Preflight<'_>) -> Result<(), Error> {
        self.command.preflight(context)
    }

    fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"acp").update(&self.command.fingerprint());
        *hasher.finalize().as_bytes()
    }
}

#[async_trait]
impl Session for AcpAgent {
    async fn send(&mut self, request: &Request) -> Result<ResponseStream, Error> {
        let (output, stdin) = self.command.launch(request)?;
        let (turn, first) = Turn::begin(request);
        let connection = Connection {
            program: self.command.program(),
            output,
            stdin: Some(stdin),
            lines: Some(BufferedSplitter::new(Lines::new(Cap::error(MESSAGE_BYTES_MAX)))),
            turn,
            actions: first.into(),
            deadline: Instant::now() + self.time_limit.min(CommandAgent::TIME_LIMIT_MAX),
            time_limit: self.time_limit,
            is_cancelled: false,
            bytes: 0,
        };
        Ok(ResponseStream::new(stream::unfold(Some(connection), |connection| async move {
            let mut connection = connection?;
            let event = connection.next().await;
            let continues = !matches!(event, Ok(AgentEvent::End) | Err(_));
            Some((event, continues.then_some(connection)))
        })))
    }

    fn is_open(&self) -> bool {
        true
    }
}

/// The connection to a program during a turn. Dropping it kills the program.
struct Connection {
    program: String,
    output: ResponseStream,
    /// `None` once the program no longer reads.
    stdin: Option<ChildStdin>,
    /// `None` after the end of the output.
    lines: Option<BufferedSplitter<Lines>>,
    turn: Turn,
    /// Reactions that are due before more output is read.
    actions: VecDeque<Action>,
    deadline: Instant,
    time_limit: Duration,
    is_cancelled: bool,
    bytes: u64,
}

impl Connection {
    async fn next(&mut self) -> Result<AgentEvent, Error> {
        loop {
            while let Some(action) = self.actions.pop_front() {
                match action {
                    Action::Send(message) => self.send(&message).await,
                    Action::Event(event) => return Ok(event),
                    Action::Succeed => {
                        self.close().await;
                        return Ok(AgentEvent::End);
                    }
                    Action::Fail(message) => return Err(self.failed(message)),
                }
            }
            let Ok(event) = timeout_at(self.deadline, self.output.next()).await else {
                self.cancel()?;
                continue;
            };
            match event {
                Some(Ok(AgentEvent::Text(text))) => {
                    self.bytes += text.len() as u64;
                    self.feed(text)?;
                }
                Some(Ok(AgentEvent::Exit(status))) => {
                    self.feed_end()?;
                    self.actions.push_back(Action::Event(AgentEvent::Exit(status)));
                }
                // The program may end without an error before its turn has.
                Some(Ok(AgentEvent::End)) | None => return Err(Error::BrokeOff { bytes: self.bytes }),
                Some(other) => return other,
            }
        }
    }

    /// Closes the program's standard input, and waits a little until it exits by itself, so that it
    /// stores its session.
    async fn close(&mut self) {
        self.stdin = None;
        let exits = async {
            while let Some(Ok(event)) = self.output.next().await {
                if matches!(event, AgentEvent::Exit(_)) {
                    break;
                }
            }
        };
        // A program that stays is killed.
        let _ = tokio::time::timeout(CLOSE_MAX, exits).await;
    }

    /// Cancels the turn. Fails if it was cancelled before.
    fn cancel(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.is_cancelled, true) {
            return Err(self.timed_out());
        }
        self.actions.extend(self.turn.cancel());
        self.deadline = Instant::now() + CANCEL_MAX;
        Ok(())
    }

    /// Sends a message. A program that no longer reads has ended or will be killed, which its
    /// output shows.
    async fn send(&mut self, message: &Value) {
        let Some(stdin) = &mut self.stdin else { return };
        let line = format!("{message}\n");
        let sent = timeout_at(self.deadline, stdin.write_all(line.as_bytes())).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(program = self.program, "the agent does not read its messages");
            self.stdin = None;
        }
    }

    fn feed(&mut self, mut text: Bytes) -> Result<(), Error> {
        let Some(mut lines) = self.lines.take() else { return Ok(()) };
        while !text.is_empty() {
            let chunk = text.split_to(text.len().min(CHUNK_BYTES_MAX));
            let batch = lines.feed(chunk).map_err(|error| self.unreadable(error))?;
            for unit in batch.iter().flat_map(greenwave_streaming::UnitBatch::iter) {
                self.actions.extend(self.turn.receive(&unit.bytes()));
            }
        }
        self.lines = Some(lines);
        Ok(())
    }

    fn feed_end(&mut self) -> Result<(), Error> {
        let Some(mut lines) = self.lines.take() else { return Ok(()) };
        let batch = lines.finish().map_err(|error| self.unreadable(error))?;
        for unit in batch.iter().flat_map(greenwave_streaming::UnitBatch::iter) {
            self.actions.extend(self.turn.receive(&unit.bytes()));
        }
        Ok(())
    }

    fn failed(&self, message: String) -> Error {
        if self.is_cancelled {
            self.timed_out()
        } else {
            Error::Failed { program: self.program.clone(), message }
        }
    }

    fn timed_out(&self) -> Error {
        Error::TimedOut { program: self.program.clone(), limit: self.time_limit }
    }

    fn unreadable(&self, error: greenwave_streaming::Error) -> Error {
        Error::Broken { program: self.program.clone(), source: io::Error::other(error) }
    }
}
