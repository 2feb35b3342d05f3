//! The agent that is any program: prompt on its standard input, answer on its standard output. Knows nothing
//! of what the program is.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use greenwave_process::Child;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Agent, AgentEvent, Error, Request, ResponseStream, Session};

/// Most bytes of an answer that are read at once.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// Longer than anybody waits, and short enough to be added to any clock: ten years.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Most bytes of a program's last words that are kept.
const STDERR_BYTES_MAX: usize = 2 * 1024;

/// An agent that is a program, started anew for each question in the feature's copy of the project.
///
/// The program gets the whole environment of this process, credentials included: it is the user's own.
/// It is killed with everything it started when it exceeds its time, when the answer is dropped, and when
/// it has ended and something it started has not.
#[derive(Debug, Clone)]
pub struct CommandAgent {
    command: Vec<String>,
    time_max: Duration,
}

impl CommandAgent {
    /// An agent for a program with its arguments, and the longest that one answer may take.
    pub fn new(command: Vec<String>, time_max: Duration) -> Self {
        Self { command, time_max: time_max.min(FOREVER) }
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
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Child::spawn(&mut command).map_err(start)?;
        let pipes = (child.take_stdin(), child.take_stdout(), child.take_stderr());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(start(io::Error::other("its standard streams are not pipes")));
        };
        // Beside the reading: a program may answer before it has read everything, and neither side may block.
        tokio::spawn(write_prompt(stdin, request.prompt.clone()));
        let talk = Talk {
            child,
            ended: None,
            stdout,
            last_words: tokio::spawn(read_end(stderr)),
            block: BytesMut::new(),
            deadline: Instant::now() + self.time_max,
            time_max: self.time_max,
            program: self.program(),
        };
        Ok(ResponseStream::new(stream::unfold(Some(talk), |talk| async move {
            let mut talk = talk?;
            let event = talk.next().await;
            let goes_on = matches!(event, Ok(AgentEvent::Text(_)));
            Some((event, goes_on.then_some(talk)))
        })))
    }

    fn is_open(&self) -> bool {
        true
    }
}

/// A program that is answering. Dropping it kills the program's whole process group.
#[derive(Debug)]
struct Talk {
    child: Child,
    /// How the program itself has ended; what it had left running was killed then.
    ended: Option<ExitStatus>,
    stdout: ChildStdout,
    last_words: JoinHandle<Vec<u8>>,
    block: BytesMut,
    deadline: Instant,
    time_max: Duration,
    program: String,
}

impl Talk {
    async fn next(&mut self) -> Result<AgentEvent, Error> {
        let broken = |program: &str, source| Error::Broken { program: program.to_owned(), source };
        let timed_out = Error::TimedOut { program: self.program.clone(), limit: self.time_max };
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

    /// The next piece of the answer. It is whole when the program has ended: what the program has left running
    /// may hold the pipe, and is not waited for.
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        self.block.reserve(CHUNK_BYTES_MAX);
        while self.ended.is_none() {
            let mut stdout = (&mut self.stdout).take(CHUNK_BYTES_MAX as u64);
            tokio::select! {
                biased;
                count = stdout.read_buf(&mut self.block) => return Ok(self.taken(count?)),
                status = self.child.wait() => self.ended = Some(status?),
            }
        }
        let count = (&mut self.stdout).take(CHUNK_BYTES_MAX as u64).read_buf(&mut self.block).await?;
        Ok(self.taken(count))
    }

    fn taken(&mut self, count: usize) -> Option<Bytes> {
        (count > 0).then(|| self.block.split().freeze())
    }

    async fn status(&mut self) -> io::Result<ExitStatus> {
        match self.ended {
            Some(status) => Ok(status),
            None => self.child.wait().await,
        }
    }

    async fn exited(&mut self, status: ExitStatus) -> Error {
        // The group is gone, so the pipe has ended, and with it the reading.
        let words = (&mut self.last_words).await.unwrap_or_default();
        let stderr = String::from_utf8_lossy(&words).trim().to_owned();
        Error::Exited { program: self.program.clone(), status, stderr }
    }
}

async fn write_prompt(mut stdin: ChildStdin, prompt: String) {
    // A program need not read its prompt; what it answers is what counts.
    if let Err(error) = stdin.write_all(prompt.as_bytes()).await {
        tracing::debug!(%error, "an agent command did not read its whole prompt");
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
