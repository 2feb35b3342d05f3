//! Implements an agent that runs a program: the prompt is its standard input, the response its
//! standard output.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use greenwave_process::{Child, Supervisor};
use greenwave_sandbox::{ChangedCopy, PrivateDir, Sandbox};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use crate::coding_program::CodingProgram;
use crate::output::OutputFormat;
use crate::placeholder;
use crate::program;
use crate::prompt_file::{PromptFile, open_temporary};
#[cfg(feature = "recording")]
use crate::recording::{Recording, record_program, replay_program};
use crate::{Agent, AgentEvent, Error, Preflight, Request, ResponseStream, Session};

/// Maximum size of a chunk in bytes.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of bytes of standard error included in an error. The end is included.
const STDERR_BYTES_MAX: usize = 2 * 1024;
/// Time without output after which a pipe counts as ended, once the program has exited. A process
/// that left the program's session may hold the pipe indefinitely.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// Placeholders that pass the prompt. A program that gets it as an argument has an empty standard
/// input, because some programs append their input to the prompt.
const PROMPT_PLACEHOLDERS: [&str; 2] = ["prompt", "prompt_file"];

/// An agent that starts a program for each request, in the request's directory.
///
/// The arguments may contain [placeholders](crate::PLACEHOLDERS). The program reads the prompt from
/// standard input, unless an argument contains `{prompt}` or `{prompt_file}`; its standard input is
/// empty then. It inherits the whole environment of this process, including credentials, with these
/// variables added:
///
/// - `GREENWAVE_FEATURE`, `GREENWAVE_ATTEMPT` and `GREENWAVE_CANDIDATE`, as in the [`Request`];
/// - `GREENWAVE_PROMPT_FILE`, a file with the prompt that only its owner can read (mode 0600). It
///   is removed when the program has ended;
/// - `TMPDIR`, the request's directory for temporary files, and `PWD`, the working directory;
/// - `TERM=dumb`, `NO_COLOR=1`, `GIT_TERMINAL_PROMPT=0`, `EDITOR=true` and others that keep
///   programs from waiting for a person.
///
/// The program has no terminal, so a question on `/dev/tty` fails at once. It is
/// killed with all its descendants when it exceeds its time limit and when the response is dropped.
/// Descendants that outlive the program are killed too.
#[derive(Debug, Clone)]
pub struct CommandAgent {
    command: Vec<String>,
    time_limit: Duration,
    supervisor: Option<Supervisor>,
    /// Variables to set, or to remove.
    variables: Vec<(OsString, Option<OsString>)>,
    sandbox: Option<Sandbox>,
    /// Decides which changed files of its state in the home directory are stored.
    accepts: fn(&ChangedCopy<'_>) -> bool,
    program: Option<CodingProgram>,
    output: OutputFormat,
    #[cfg(feature = "recording")]
    recording: Option<Recording>,
}

impl CommandAgent {
    /// Maximum time limit: ten years, which can be added to any clock without overflow.
    pub(crate) const TIME_LIMIT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

    /// Creates an agent that runs `command` (program and arguments), with a time limit for each
    /// response.
    pub fn new(command: Vec<String>, time_limit: Duration) -> Self {
        Self {
            command,
            time_limit: time_limit.min(Self::TIME_LIMIT_MAX),
            supervisor: None,
            variables: Vec::new(),
            sandbox: None,
            accepts: |_| true,
            program: None,
            output: OutputFormat::Answer,
            #[cfg(feature = "recording")]
            recording: None,
        }
    }

    /// Treats the command as that of a well-known coding program: reads its output, and continues
    /// its sessions. The program should also get its
    /// [variables](CodingProgram::variables).
    #[must_use]
    pub fn of_program(self, program: CodingProgram) -> Self {
        Self { program: Some(program), output: program.output(), ..self }
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

    /// Confines the program. It can write to the request's root and its temporary directory in
    /// addition to the paths of the sandbox.
    #[must_use]
    pub fn confined_by(self, sandbox: Option<Sandbox>) -> Self {
        Self { sandbox, ..self }
    }

    /// Sets which files are stored that a confined program has changed in its
    /// [private home directory](greenwave_sandbox::Confinement::private_in). By default, all are.
    #[must_use]
    pub fn storing_state_if(self, accepts: fn(&ChangedCopy<'_>) -> bool) -> Self {
        Self { accepts, ..self }
    }

    /// Records the runs of the program, or replays them instead of starting it, which needs no
    /// program.
    #[cfg(feature = "recording")]
    #[must_use]
    pub fn with_recording(self, recording: Option<Recording>) -> Self {
        Self { recording, ..self }
    }

    /// Starts the program for a request. Returns its output, which is not decoded.
    fn run(&self, request: &Request) -> Result<(ResponseStream, ChildStdin), Error> {
        self.launch(request).map(|(running, stdin)| (running.into_response(), stdin))
    }

    fn is_replayed(&self) -> bool {
        #[cfg(feature = "recording")]
        return self.recording.as_ref().is_some_and(Recording::is_replay);
        #[cfg(not(feature = "recording"))]
        false
    }

    /// Starts the program, confined if there is a sandbox.
    fn start(&self, request: &Request, mut command: Command) -> io::Result<(Child, Option<PrivateDir>)> {
        let supervisor = self.supervisor.as_ref();
        let Some(sandbox) = &self.sandbox else {
            return Ok((Child::spawn_piped(&mut command, supervisor)?, None));
        };
        let private = open_temporary(&request.temporary)?.temporary_subdirectory("home-", 0o700)?;
        let (sandbox, private) =
            match sandbox.private_dir(&private.path().join("home"), &request.directory)? {
                Some((sandbox, private)) => (sandbox, Some(private)),
                None => (sandbox.clone(), None),
            };
        let writable = [&request.root, &request.temporary];
        let Some(supervisor) = supervisor else {
            sandbox.attach(&mut command, &request.directory, writable).map_err(io::Error::other)?;
            return Ok((Child::spawn_piped(&mut command, None)?, private));
        };
        let mut spawn = supervisor.spawn(&command)?;
        sandbox.attach(&mut spawn, &request.directory, writable).map_err(io::Error::other)?;
        Ok((Child::start_piped(Some(supervisor), spawn)?, private))
    }

    /// Sets the time limit for each response.
    pub(crate) fn with_time_limit(self, time_limit: Duration) -> Self {
        Self { time_limit: time_limit.min(Self::TIME_LIMIT_MAX), ..self }
    }

    pub(crate) fn program(&self) -> String {
        self.command.first().cloned().unwrap_or_default()
    }

    fn arguments(&self) -> &[String] {
        self.command.get(1..).unwrap_or_default()
    }

    /// Returns the program and arguments for a request, which continue its session if possible.
    fn words(&self, request: &Request) -> Cow<'_, [String]> {
        let session = self.program.zip(request.session.as_deref());
        let resumed = session.and_then(|(program, session)| program.resumed(&self.command, session));
        resumed.map_or(Cow::Borrowed(&self.command[..]), Cow::Owned)
    }

    /// Writes the prompt to a file with a random name.
    fn write_prompt_file(&self, request: &Request) -> Result<PromptFile, Error> {
        let directory = &request.temporary;
        let written = PromptFile::create(directory, request.prompt.as_bytes());
        written.map_err(|source| Error::WritePrompt {
            program: self.program(),
            directory: directory.clone(),
            source,
        })
    }

    /// Returns the command for a request.
    fn command(&self, request: &Request, prompt_file: &Path) -> Command {
        let value = |name: &str| -> Cow<'_, str> {
            match name {
                "feature" => request.feature.as_str().into(),
                "attempt" => request.attempt.to_string().into(),
                "candidate" => request.candidate.to_string().into(),
                "prompt" => request.prompt.as_str().into(),
                "prompt_file" => prompt_file.to_string_lossy(),
                _ => request.directory.to_string_lossy(),
            }
        };
        let words = self.words(request);
        let mut command = Command::new(self.program());
        command.args(words.iter().skip(1).map(|argument| placeholder::expand(argument, value)));
        command.current_dir(&request.directory);
        program::set_unattended(&mut command);
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // Some programs take their working directory from here.
        command.env("PWD", &request.directory).env_remove("OLDPWD");
        command.env("TMPDIR", &request.temporary);
        command.env("GREENWAVE_FEATURE", &request.feature);
        command.env("GREENWAVE_ATTEMPT", request.attempt.to_string());
        command.env("GREENWAVE_CANDIDATE", request.candidate.to_string());
        command.env("GREENWAVE_PROMPT_FILE", prompt_file.as_os_str());
        command
    }

    fn start_error(&self, request: &Request, source: io::Error) -> Error {
        let passes_prompt = placeholder::contains(self.arguments(), &["prompt"]);
        if source.kind() == io::ErrorKind::ArgumentListTooLong && passes_prompt {
            return Error::PromptTooLarge { program: self.program(), bytes: request.prompt.len() };
        }
        Error::Start { program: self.program(), directory: request.directory.clone(), source }
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

    fn preflight(&self, context: &Preflight<'_>) -> Result<(), Error> {
        let program = self.program();
        if self.is_replayed() || program::exists(&program, context) {
            Ok(())
        } else {
            Err(Error::NotFound { program })
        }
    }

    fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"command").update(format!("{:?}", self.output).as_bytes());
        for word in &self.command {
            hasher.update(&(word.len() as u64).to_le_bytes()).update(word.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

#[async_trait]
impl Session for CommandAgent {
    async fn send(&mut self, request: &Request) -> Result<ResponseStream, Error> {
        #[cfg(feature = "recording")]
        let (response, stdin) = match &self.recording {
            None => self.run(request)?,
            Some(recording) if recording.is_replay() => {
                let response = replay_program(recording, &self.words(request), request)?;
                return Ok(self.output.decode(self.program(), response));
            }
            Some(recording) => {
                record_program(recording, &self.words(request), request, || self.run(request)).await?
            }
        };
        #[cfg(not(feature = "recording"))]
        let (response, stdin) = self.run(request)?;
        if placeholder::contains(self.arguments(), &PROMPT_PLACEHOLDERS) {
            drop(stdin);
        } else {
            // Written concurrently with reading: a program may respond before it has read the
            // whole prompt.
            tokio::spawn(write_prompt(stdin, request.prompt.clone()));
        }
        Ok(self.output.decode(self.program(), response))
    }

    fn is_open(&self) -> bool {
        true
    }
}

impl CommandAgent {
    /// Starts the program for a request. Returns it with its standard input.
    pub(crate) fn launch(&self, request: &Request) -> Result<(Running, ChildStdin), Error> {
        let prompt_file = self.write_prompt_file(request)?;
        let started = self.start(request, self.command(request, prompt_file.path()));
        let (mut child, private) = started.map_err(|source| self.start_error(request, source))?;
        let pipes = (child.take_stdin(), child.take_stdout(), child.take_stderr());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(self.start_error(request, io::Error::other("standard streams are not pipes")));
        };
        let running = Running {
            child,
            private,
            accepts: self.accepts,
            ended: None,
            reported_exit: false,
            stdout: Some(stdout),
            stderr: Some(stderr),
            stderr_end: Vec::new(),
            block: BytesMut::new(),
            deadline: Instant::now() + self.time_limit,
            time_limit: self.time_limit,
            program: self.program(),
            _prompt_file: prompt_file,
        };
        Ok((running, stdin))
    }
}

/// A running program. Dropping it kills the program's process group.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// The directory that the program has in the place of the home directory.
    private: Option<PrivateDir>,
    accepts: fn(&ChangedCopy<'_>) -> bool,
    /// The exit status of the program, whose remaining descendants have been killed.
    ended: Option<ExitStatus>,
    /// Whether the exit was reported as an event.
    reported_exit: bool,
    /// `None` after its end.
    stdout: Option<ChildStdout>,
    /// `None` after its end.
    stderr: Option<ChildStderr>,
    /// The last bytes of standard error, for the error of a program that failed.
    stderr_end: Vec<u8>,
    block: BytesMut,
    deadline: Instant,
    time_limit: Duration,
    program: String,
    _prompt_file: PromptFile,
}

impl Running {
    /// Returns the output of the program, which is not decoded.
    fn into_response(self) -> ResponseStream {
        ResponseStream::new(stream::unfold(Some(self), |running| async move {
            let mut running = running?;
            let event = running.next().await;
            let continues = !matches!(event, Ok(AgentEvent::End) | Err(_));
            Some((event, continues.then_some(running)))
        }))
    }

    /// Suspends the program with all its descendants, and stores its state. Returns whether nothing
    /// of it runs. If it is not to continue, drop it.
    pub(crate) async fn suspend(&mut self) -> bool {
        match self.child.freeze().await {
            Ok(true) => self.store_state().await,
            Ok(false) => return false,
            Err(error) => {
                tracing::debug!(%error, program = self.program, "cannot suspend an agent");
                return false;
            }
        }
        true
    }

    /// Lets a suspended program continue for another response. Returns whether it still runs.
    pub(crate) async fn resume(&mut self, time_limit: Duration) -> bool {
        self.deadline = Instant::now() + time_limit.min(CommandAgent::TIME_LIMIT_MAX);
        self.stderr_end.clear();
        self.ended.is_none() && self.child.thaw().await.unwrap_or(false)
    }

    /// Writes the state that the program has in a private directory back to the user's.
    async fn store_state(&mut self) {
        let Some(mut private) = self.private.take() else { return };
        let accepts = self.accepts;
        let written = tokio::task::spawn_blocking(move || {
            let written = private.write_back_if(accepts);
            (private, written)
        });
        let written = match written.await {
            Ok((private, written)) => {
                self.private = Some(private);
                written
            }
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = written {
            tracing::warn!(%error, program = self.program, "cannot store the state of an agent");
        }
    }

    /// Returns the next event.
    pub(crate) async fn next(&mut self) -> Result<AgentEvent, Error> {
        match tokio::time::timeout_at(self.deadline, self.read()).await {
            Err(_) => Err(Error::TimedOut { program: self.program.clone(), limit: self.time_limit }),
            Ok(Err(source)) => Err(Error::Broken { program: self.program.clone(), source }),
            Ok(Ok(Some(event))) => Ok(event),
            Ok(Ok(None)) => match self.ended {
                Some(status) if !status.success() => Err(self.exited(status)),
                _ => Ok(AgentEvent::End),
            },
        }
    }

    /// Reads the next event. Returns `None` after the exit was reported. The response ends when the
    /// program exits, even if a descendant still holds a pipe.
    async fn read(&mut self) -> io::Result<Option<AgentEvent>> {
        loop {
            let drains = self.ended.is_some();
            self.block.reserve(CHUNK_BYTES_MAX);
            let Self { child, stdout, stderr, block, .. } = self;
            // One block for both pipes: only the read that completes puts bytes into it.
            let mut other = BytesMut::new();
            tokio::select! {
                biased;
                count = read_chunk(stdout, block, drains), if stdout.is_some() => match count? {
                    0 => *stdout = None,
                    _ => return Ok(Some(AgentEvent::Text(block.split().freeze()))),
                },
                count = read_chunk(stderr, &mut other, drains), if stderr.is_some() => match count? {
                    0 => *stderr = None,
                    _ => return Ok(Some(self.take_stderr(other.freeze()))),
                },
                status = child.wait(), if !drains => self.ended = Some(status?),
                else => break,
            }
        }
        let Some(status) = self.ended.filter(|_| !self.reported_exit) else { return Ok(None) };
        self.reported_exit = true;
        self.store_state().await;
        Ok(Some(AgentEvent::Exit(status)))
    }

    fn take_stderr(&mut self, chunk: Bytes) -> AgentEvent {
        self.stderr_end.extend_from_slice(&chunk);
        let excess = self.stderr_end.len().saturating_sub(STDERR_BYTES_MAX);
        self.stderr_end.drain(..excess);
        AgentEvent::Stderr(chunk)
    }

    fn exited(&self, status: ExitStatus) -> Error {
        let stderr = String::from_utf8_lossy(&self.stderr_end).trim().to_owned();
        Error::Exited { program: self.program.clone(), status, stderr }
    }
}

/// Reads a chunk from a pipe. Returns 0 at its end, and in a pipe that is being drained also if
/// nothing arrives. Cancel safe.
async fn read_chunk(
    pipe: &mut Option<impl AsyncRead + Unpin>,
    block: &mut BytesMut,
    drains: bool,
) -> io::Result<usize> {
    let Some(pipe) = pipe else { return Ok(0) };
    block.reserve(CHUNK_BYTES_MAX);
    let mut limited = pipe.take(CHUNK_BYTES_MAX as u64);
    let reading = limited.read_buf(block);
    if !drains {
        return reading.await;
    }
    tokio::time::timeout(DRAIN_MAX, reading).await.unwrap_or(Ok(0))
}

async fn write_prompt(mut stdin: ChildStdin, prompt: String) {
    // A program may ignore its prompt.
    if let Err(error) = stdin.write_all(prompt.as_bytes()).await {
        tracing::debug!(%error, "agent command did not read its whole prompt");
    }
}
