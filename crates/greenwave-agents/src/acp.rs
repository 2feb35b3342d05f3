//! Implements an agent that speaks the [Agent Client Protocol] over its standard streams.
//!
//! [Agent Client Protocol]: https://agentclientprotocol.com/protocol/overview

mod permission;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use greenwave_streaming::{BufferedSplitter, CHUNK_BYTES_MAX, Cap, Lines};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::time::{Instant, timeout_at};

use crate::command::Running;
use crate::{
    Agent, AgentEvent, CommandAgent, Error, KeptProgram, Preflight, Request, ResponseStream, Session,
};
use turn::{Action, Turn};

/// Maximum length of a message in bytes. Longer ones fail the response.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Time that the agent has to confirm that a turn is cancelled, before its program is killed.
const CANCEL_MAX: Duration = Duration::from_secs(2);

/// Time that a program has to exit after its turn, before it is killed.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// An agent that starts a program which speaks the Agent Client Protocol, version 1, in lines of
/// JSON. The program is started in the request's directory, and confined to it.
///
/// With [`keeping`](Self::keeping), a program whose turn has succeeded is suspended in the
/// [place](Request::kept) that its request names. The next request with this place, the same
/// session and the same directories is a further turn of the session in the running program. A
/// program that has ended meanwhile is started again.
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
    keeps: bool,
}

impl AcpAgent {
    /// Creates an agent whose program, surroundings and confinement are those of `command`, with a
    /// time limit for each turn. The prompt is sent as a message, so the arguments should not
    /// contain it.
    pub fn new(command: CommandAgent, time_limit: Duration) -> Self {
        // The program is killed later than the turn is cancelled.
        let command = command.with_time_limit(program_limit(time_limit));
        Self { command, time_limit, keeps: false }
    }

    /// Keeps programs for later requests, or not, which is the default. Only a program under a
    /// [supervisor](CommandAgent::supervised_by) can be suspended.
    ///
    /// Programs that can signal the user's processes can wake a suspended one, so keep none where
    /// such programs must not reach it.
    #[must_use]
    pub fn keeping(self, keeps: bool) -> Self {
        Self { keeps, ..self }
    }

    /// Takes the suspended program from the place of a request, if it can serve it.
    async fn kept(&self, request: &Request) -> Option<Connection> {
        let kept = request.kept.as_ref()?.take::<Connection>()?;
        let identity = Identity::of(self, request).ok()?;
        let mut connection = *kept;
        let is_same = connection.identity.as_ref() == Some(&identity)
            && connection.turn.session() == request.session.as_deref();
        if !is_same || !connection.running.resume(program_limit(self.time_limit)).await {
            return None;
        }
        connection.begin(request, self.time_limit);
        Some(connection)
    }

    fn start(&self, request: &Request) -> Result<Connection, Error> {
        let (running, stdin) = self.command.launch(request)?;
        let (turn, first) = Turn::begin(request);
        let identity = if self.keeps { Identity::of(self, request).ok() } else { None };
        Ok(Connection {
            program: self.command.program(),
            running,
            stdin: Some(stdin),
            lines: Some(BufferedSplitter::new(Lines::new(Cap::error(MESSAGE_BYTES_MAX)))),
            turn,
            actions: first.into(),
            deadline: Instant::now() + self.time_limit.min(CommandAgent::TIME_LIMIT_MAX),
            time_limit: self.time_limit,
            is_cancelled: false,
            bytes: 0,
            identity,
        })
    }
}

/// Returns the time limit of a program: it is killed later than its turn is cancelled.
fn program_limit(time_limit: Duration) -> Duration {
    time_limit.saturating_add(2 * CANCEL_MAX)
}

/// Everything that a request and a suspended program must have in common. The directory is that of
/// the file system, since another one may have been mounted at its path.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    agent: [u8; 32],
    directory: PathBuf,
    root: (PathBuf, u64, u64),
    temporary: PathBuf,
}

impl Identity {
    fn of(agent: &AcpAgent, request: &Request) -> io::Result<Self> {
        let root = std::fs::metadata(&request.root)?;
        Ok(Self {
            agent: agent.fingerprint(),
            directory: request.directory.clone(),
            root: (request.root.clone(), root.dev(), root.ino()),
            temporary: request.temporary.clone(),
        })
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
        let connection = match self.kept(request).await {
            Some(connection) => connection,
            None => self.start(request)?,
        };
        let place = request.kept.clone().filter(|_| self.keeps);
        Ok(ResponseStream::new(stream::unfold(Some((connection, place)), |state| async move {
            let (mut connection, place) = state?;
            let event = connection.next().await;
            match event {
                Ok(AgentEvent::End) => {
                    connection.leave(place).await;
                    Some((event, None))
                }
                Err(_) => Some((event, None)),
                Ok(_) => Some((event, Some((connection, place)))),
            }
        })))
    }

    fn is_open(&self) -> bool {
        true
    }
}

/// The connection to a program during a turn. Dropping it kills the program.
struct Connection {
    program: String,
    running: Running,
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
    /// `None` if the program is not to be kept.
    identity: Option<Identity>,
}

impl Connection {
    async fn next(&mut self) -> Result<AgentEvent, Error> {
        loop {
            while let Some(action) = self.actions.pop_front() {
                match action {
                    Action::Send(message) => self.send(&message).await,
                    Action::Event(event) => return Ok(event),
                    Action::Succeed => return Ok(AgentEvent::End),
                    Action::Fail(message) => return Err(self.failed(message)),
                }
            }
            let Ok(event) = timeout_at(self.deadline, self.running.next()).await else {
                self.cancel()?;
                continue;
            };
            match event? {
                AgentEvent::Text(text) => {
                    self.bytes += text.len() as u64;
                    self.feed(text)?;
                }
                AgentEvent::Exit(status) => {
                    self.feed_end()?;
                    self.actions.push_back(Action::Event(AgentEvent::Exit(status)));
                }
                // The program may end without an error before its turn has.
                AgentEvent::End => return Err(Error::BrokeOff { bytes: self.bytes }),
                other => return Ok(other),
            }
        }
    }

    /// Begins a further turn of the session.
    fn begin(&mut self, request: &Request, time_limit: Duration) {
        self.actions = self.turn.again(request).into();
        self.deadline = Instant::now() + time_limit.min(CommandAgent::TIME_LIMIT_MAX);
        self.bytes = 0;
    }

    /// Leaves the program after its turn: suspended in its place, or else ended.
    async fn leave(mut self, place: Option<KeptProgram>) {
        let can_continue = self.identity.is_some() && self.stdin.is_some() && !self.is_cancelled;
        let Some(place) = place.filter(|_| can_continue) else { return self.close().await };
        if self.running.suspend().await {
            place.put(Box::new(self));
        }
    }

    /// Closes the program's standard input, and waits a little until it exits by itself, so that it
    /// stores its session.
    async fn close(&mut self) {
        self.stdin = None;
        let exits = async {
            while let Ok(event) = self.running.next().await {
                if matches!(event, AgentEvent::Exit(_) | AgentEvent::End) {
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
