//! Implements an agent that runs a program: the prompt is its standard input, the response its
//! standard output.

use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use greenwave_process::{Child, Supervisor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Agent, AgentEvent, Error, Request, ResponseStream, Session};

/// Maximum size of a chunk in bytes.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// Maximum time limit: ten years, which can be added to any clock without overflow.
const TIME_LIMIT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Maximum number of bytes of standard error included in an error. The end is included.
const STDERR_BYTES_MAX: usize = 2 * 1024;

/// An agent that starts a program for each request, in the request's directory.
///
/// The program inherits the whole environment of this process, including credentials. It is killed
/// with all its descendants when it exceeds its time limit and when the response is dropped.
/// Descendants that outlive the program are killed too.
#[derive(Debug, Clone)]
pub struct CommandAgent {
    command: Vec<String>,
    time_limit: Duration,
    supervisor: Option<Supervisor>,
    /// Variables to set, or to remove.
    variables: Vec<(OsString, Option<OsString>)>,
}

impl CommandAgent {
    /// Creates an agent that runs `command` (program and arguments), with a time limit for each
    /// response.
    pub fn new(command: Vec<String>, time_limit: Duration) -> Self {
        let time_limit = time_limit.min(TIME_LIMIT_MAX);
        Self { command, time_limit, supervisor: None, variables: Vec::new() }
    }

    /// Has a supervisor start the program, so that nothing of it is left when the response or this
    /// process ends. The program has no terminal then.
    #[must_use]
    pub fn supervised_by(self, supervisor: Option<Supervisor>) -> Self {
        Self { supervisor, ..self }
    }

    /// Sets variables of the program's environment. A variable without a value is removed.
    #[must_use]
    pub fn with_variables(
        mut self,
        variables: impl IntoIterator<Item = (OsString, Option<OsString>)>,
    ) -> Self {
        self.variables.extend(variables);
        self
    }

    fn program(&self) -> String {
        self.command.first().cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Agent for CommandAgent {
    async fn connect(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn kind(&self) -> &'static str {
        "command"
    }

    fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"command");
        for word in &self.command {
            hasher.update(&(word.len() as u64).to_le_bytes()).update(word.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

#[async_trait]
impl Session for CommandAgent {
    async fn send(&mut self, request: &Request) -> Result<ResponseStream, Error> {
        let start =
            |source| Error::Start { program: self.program(), directory: request.directory.clone(), source };
        let mut command = Command::new(self.program());
        command.args(self.command.iter().skip(1)).current_dir(&request.directory);
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = Child::spawn_piped(&mut command, self.supervisor.as_ref()).map_err(start)?;
        let pipes = (child.take_stdin(), child.take_stdout(), child.take_stderr());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(start(io::Error::other("standard streams are not pipes")));
        };
        // Written concurrently with reading: a program may respond before it has read the whole
        // prompt.
        tokio::spawn(write_prompt(stdin, request.prompt.clone()));
        let running = Running {
            child,
            ended: None,
            stdout,
            stderr_end: tokio::spawn(read_end(stderr)),
            block: BytesMut::new(),
            deadline: Instant::now() + self.time_limit,
            time_limit: self.time_limit,
            program: self.program(),
        };
        Ok(ResponseStream::new(stream::unfold(Some(running), |running| async move {
            let mut running = running?;
            let event = running.next().await;
            let continues = matches!(event, Ok(AgentEvent::Text(_)));
            Some((event, continues.then_some(running)))
        })))
    }

    fn is_open(&self) -> bool {
        true
    }
}

/// A running program. Dropping it kills the program's process group.
#[derive(Debug)]
struct Running {
    child: Child,
    /// The exit status of the program, whose remaining descendants have been killed.
    ended: Option<ExitStatus>,
    stdout: ChildStdout,
    stderr_end: JoinHandle<Vec<u8>>,
    block: BytesMut,
    deadline: Instant,
    time_limit: Duration,
    program: String,
}

impl Running {
    async fn next(&mut self) -> Result<AgentEvent, Error> {
        let broken = |program: &str, source| Error::Broken { program: program.to_owned(), source };
        let timed_out = Error::TimedOut { program: self.program.clone(), limit: self.time_limit };
        match tokio::time::timeout_at(self.deadline, self.read()).await {
            Err(_) => Err(timed_out),
            Ok(Err(source)) => Err(broken(&self.program, source)),
            Ok(Ok(Some(text))) => Ok(AgentEvent::Text(text)),
            Ok(Ok(None)) => match tokio::time::timeout_at(self.deadline, self.status()).await {
                Err(_) => Err(timed_out),
                Ok(Err(source)) => Err(broken(&self.program, source)),
                Ok(Ok(status)) if status.success() => Ok(AgentEvent::End),
                Ok(Ok(status)) => Err(self.exited(status).await),
            },
        }
    }

    /// Reads the next chunk. The response ends when the program exits, even if a descendant still
    /// holds the pipe.
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        self.block.reserve(CHUNK_BYTES_MAX);
        while self.ended.is_none() {
            let mut stdout = (&mut self.stdout).take(CHUNK_BYTES_MAX as u64);
            tokio::select! {
                biased;
                count = stdout.read_buf(&mut self.block) => return Ok(self.split_chunk(count?)),
                status = self.child.wait() => self.ended = Some(status?),
            }
        }
        let count = (&mut self.stdout).take(CHUNK_BYTES_MAX as u64).read_buf(&mut self.block).await?;
        Ok(self.split_chunk(count))
    }

    fn split_chunk(&mut self, count: usize) -> Option<Bytes> {
        (count > 0).then(|| self.block.split().freeze())
    }

    async fn status(&mut self) -> io::Result<ExitStatus> {
        match self.ended {
            Some(status) => Ok(status),
            None => self.child.wait().await,
        }
    }

    async fn exited(&mut self, status: ExitStatus) -> Error {
        // The process group is dead, so the pipe is closed and the reader ends.
        let words = (&mut self.stderr_end).await.unwrap_or_default();
        let stderr = String::from_utf8_lossy(&words).trim().to_owned();
        Error::Exited { program: self.program.clone(), status, stderr }
    }
}

async fn write_prompt(mut stdin: ChildStdin, prompt: String) {
    // A program may ignore its prompt.
    if let Err(error) = stdin.write_all(prompt.as_bytes()).await {
        tracing::debug!(%error, "agent command did not read its whole prompt");
    }
}

async fn read_end(mut stderr: ChildStderr) -> Vec<u8> {
    let (mut end, mut block) = (Vec::new(), vec![0; 4096]);
    while let Ok(count @ 1..) = stderr.read(&mut block).await {
        end.extend_from_slice(&block[..count]);
        let excess = end.len().saturating_sub(STDERR_BYTES_MAX);
        end.drain(..excess);
    }
    end
}
