//! Defines the `Agent` and `Session` traits and the request type.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::kept::KeptProgram;
use crate::tester::Tester;
use crate::{Error, ResponseStream};

/// A coding agent that sessions can be opened with.
///
/// # Contract
/// - **Concurrency**: `connect` may be called concurrently, and sessions coexist. Each session
///   handles one request at a time.
/// - **Cancellation**: dropping the future of `connect` releases all its resources.
/// - `Ok` from `connect` means that a request can be sent, not that it will be answered.
/// - **Retry**: an error of `connect` may be retried; no request was sent.
/// - **Panics** fail the call in an [`AgentPool`](crate::AgentPool) with an error.
#[async_trait]
pub trait Agent: Debug + Send + Sync + 'static {
    /// Opens a session, for example a connection. A backend without connections returns a value
    /// that holds no resource.
    async fn connect(&self) -> Result<Box<dyn Session>, Error>;

    /// Returns the kind of agent as one word, for output (`scripted`, `command`).
    fn kind(&self) -> &'static str;

    /// Checks whether requests can be sent at all, before any work is done: the program exists, the
    /// credentials are set. Cheap: starts nothing and sends nothing. The default accepts.
    ///
    /// # Errors
    /// A permanent error, which [`connect`](Self::connect) or [`Session::send`] would return too.
    fn preflight(&self, _context: &Preflight<'_>) -> Result<(), Error> {
        Ok(())
    }

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

/// The surroundings in which [`Agent::preflight`] checks an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preflight<'a> {
    /// The project. The agent will work in a copy of it.
    pub directory: &'a Path,
    /// The value of the variable `PATH`, if it is set.
    pub search_path: Option<&'a OsStr>,
}

impl<'a> Preflight<'a> {
    /// Creates a context from the project's directory and the value of `PATH`.
    pub fn new(directory: &'a Path, search_path: Option<&'a OsStr>) -> Self {
        Self { directory, search_path }
    }
}

/// A request to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The feature to implement.
    pub feature: String,
    /// Number of the attempt for this feature, from 1.
    pub attempt: u32,
    /// Number of the answer among those that the attempt asks for, from 1.
    pub candidate: u32,
    /// The prompt text.
    pub prompt: String,
    /// Id of an earlier session for this feature, which the agent continues if it can.
    pub session: Option<String>,
    /// The worktree with the current state of the project, for agents that read files themselves.
    pub directory: PathBuf,
    /// The directory that the agent may change: `directory`, or the repository or workspace around
    /// it.
    pub root: PathBuf,
    /// A directory outside of `root` for temporary files of the request, such as the prompt. It is
    /// created if it does not exist.
    pub temporary: PathBuf,
    /// Paths relative to `directory` of files that belong to the prompt, for agents that do not
    /// read files themselves.
    pub context: Vec<String>,
    /// Runs the tests of the request, for agents that cannot run them themselves.
    pub tester: Option<Tester>,
    /// Chooses the files that no tool shows to a model.
    pub withheld: Withheld,
    /// Where the agent may keep its program until the next request.
    pub kept: Option<KeptProgram>,
}

/// Chooses files by their paths, which are relative to the directory of a request. By default,
/// none.
#[derive(Debug, Clone, Copy)]
pub struct Withheld(fn(&str) -> bool);

impl Withheld {
    /// Chooses the files whose paths satisfy a function.
    #[must_use]
    pub fn new(is_withheld: fn(&str) -> bool) -> Self {
        Self(is_withheld)
    }

    /// Returns whether a file is chosen.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        (self.0)(path)
    }
}

impl Default for Withheld {
    fn default() -> Self {
        Self(|_| false)
    }
}

impl PartialEq for Withheld {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for Withheld {}

impl Request {
    /// Creates a request. `directory` is the worktree, and `temporary` a directory outside of it
    /// for temporary files.
    pub fn new(
        feature: impl Into<String>,
        attempt: u32,
        prompt: impl Into<String>,
        directory: impl Into<PathBuf>,
        temporary: impl Into<PathBuf>,
    ) -> Self {
        let directory = directory.into();
        Self {
            feature: feature.into(),
            attempt,
            candidate: 1,
            prompt: prompt.into(),
            session: None,
            root: directory.clone(),
            directory,
            temporary: temporary.into(),
            context: Vec::new(),
            tester: None,
            withheld: Withheld::default(),
            kept: None,
        }
    }

    /// Sets the number of the answer among those that the attempt asks for, from 1.
    #[must_use]
    pub fn as_candidate(self, candidate: u32) -> Self {
        Self { candidate, ..self }
    }

    /// Sets the directory that the agent may change, which contains `directory`.
    #[must_use]
    pub fn in_root(self, root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..self }
    }

    /// Sets the session that the agent continues if it can.
    #[must_use]
    pub fn continuing(self, session: Option<String>) -> Self {
        Self { session, ..self }
    }

    /// Sets the files that belong to the prompt.
    #[must_use]
    pub fn with_context(self, context: Vec<String>) -> Self {
        Self { context, ..self }
    }

    /// Sets the files that no tool shows to a model.
    #[must_use]
    pub fn withholding(self, withheld: Withheld) -> Self {
        Self { withheld, ..self }
    }

    /// Sets the place where the agent may keep its program until the next request with the same
    /// directories.
    #[must_use]
    pub fn keeping_in(self, kept: Option<KeptProgram>) -> Self {
        Self { kept, ..self }
    }

    /// Sets the tester, which runs the tests of the request for its agent.
    #[must_use]
    pub fn with_tester(self, tester: Option<Tester>) -> Self {
        Self { tester, ..self }
    }
}
