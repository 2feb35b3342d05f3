//! The seam of executors: a command in a tree of files, its events and its outcome.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Error;
use crate::tree::{Tree, check_path};

/// Executes commands in trees of files, on this machine or on others.
///
/// # Contract
///
/// - The command sees the tree of its action as its files, and exactly the variables of the action.
///   Actions share no files. Files that are not outputs are lost.
/// - `submit` returns an error only for an action that could never run ([`Action::check`]). All
///   else, such as a server that is down, is [`Outcome::Lost`].
/// - The stream ends with exactly one [`Event::Finished`], and nothing follows it.
///   [`Event::Output`] is optional and for people to watch: the output in the outcome counts.
/// - `Done` means that the command has run to its end and that everything it has printed, and each
///   output that exists, is complete. An output that was not written is absent and no error.
/// - `Lost` means that nobody knows the result. The action may have run, may be running, and may be
///   submitted again, here or elsewhere. An executor may do so itself, so actions are repeatable.
/// - An action that takes longer than its [time limit](Action::time_limit) is lost, and is ended.
/// - Dropping the stream cancels the action: it ends soon if it runs, and does not start otherwise.
///   Where a server cannot be asked to cancel, it ends at its time limit.
/// - Calls are concurrent. An executor limits how many actions run at once; others wait.
#[async_trait]
pub trait Executor: Debug + Send + Sync + 'static {
    /// Starts an action.
    ///
    /// # Errors
    /// Returns [`Error::InvalidAction`] if the action cannot run on any executor.
    async fn submit(&self, action: Action) -> Result<Events, Error>;
}

/// Conveniences for every [`Executor`].
pub trait ExecutorExt: Executor {
    /// Executes an action to its end.
    ///
    /// # Errors
    /// Returns the error of [`submit`](Executor::submit).
    fn execute(&self, action: Action) -> impl Future<Output = Result<Outcome, Error>> + Send {
        async move {
            let mut events = self.submit(action).await?;
            while let Some(event) = events.next().await {
                if let Event::Finished(outcome) = event {
                    return Ok(outcome);
                }
            }
            Ok(Outcome::Lost("the executor reported no outcome".to_owned()))
        }
    }
}

impl<E: Executor + ?Sized> ExecutorExt for E {}

/// Events of an action. Dropping the stream cancels the action.
pub type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// Value of `PATH` where an action sets none.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Returns the events of a task, which is aborted when they are dropped.
pub(crate) fn events_of(
    receiver: mpsc::Receiver<Event>,
    running: impl Future<Output = ()> + Send + 'static,
) -> Events {
    let mut tasks = JoinSet::new();
    tasks.spawn(running);
    let next = |(mut receiver, tasks): (mpsc::Receiver<Event>, JoinSet<()>)| async move {
        Some((receiver.recv().await?, (receiver, tasks)))
    };
    Box::pin(stream::unfold((receiver, tasks), next))
}

/// A command and everything that it needs.
#[derive(Debug, Clone)]
pub struct Action {
    /// Program and arguments. A program without `/` is searched in `PATH`, which the executor
    /// chooses if [`variables`](Self::variables) has none; a relative one starts at the directory.
    pub command: Vec<String>,
    /// The files of the command.
    pub tree: Tree,
    /// Working directory, relative to the tree, which must have it. Empty for the tree itself.
    pub directory: String,
    /// All variables of the command.
    pub variables: BTreeMap<String, String>,
    /// Files and directories to return, relative to the working directory. Links below them come
    /// back too; an executor may refuse one in the place of an output.
    pub outputs: Vec<String>,
    /// Maximum duration of the command, above zero. Time in a queue does not count.
    pub time_limit: Duration,
    /// Requirements on the worker, such as `("OSFamily", "linux")`. Executors may ignore it.
    pub platform: BTreeMap<String, String>,
    /// Whether the result may come from, and go to, a cache of the executor.
    pub is_cacheable: bool,
    /// Distinguishes results of equal actions in such a cache, such as the hash of a toolchain that
    /// the workers have.
    pub salt: Bytes,
}

impl Action {
    /// Maximum total length of the command's words and variables, in bytes.
    pub const COMMAND_BYTES_MAX: usize = 1 << 20;

    /// Creates an action in a tree that has a minute, prints its result only, and is not cached.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>, tree: Tree) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            tree,
            directory: String::new(),
            variables: BTreeMap::new(),
            outputs: Vec::new(),
            time_limit: Duration::from_secs(60),
            platform: BTreeMap::new(),
            is_cacheable: false,
            salt: Bytes::new(),
        }
    }

    /// Checks that the action can run. Every executor calls it first.
    ///
    /// # Errors
    /// Returns [`Error::InvalidAction`].
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |problem: String| Err(Error::InvalidAction { problem });
        if self.command.first().is_none_or(String::is_empty) {
            return invalid("the command is empty".to_owned());
        }
        if self.time_limit.is_zero() {
            return invalid("the time limit is zero".to_owned());
        }
        let variables = || self.variables.iter().flat_map(|(name, value)| [name, value]);
        let bytes: usize = self.command.iter().chain(variables()).map(String::len).sum();
        if bytes > Self::COMMAND_BYTES_MAX {
            return invalid(format!("the command has more than {} bytes", Self::COMMAND_BYTES_MAX));
        }
        if self.command.iter().chain(variables()).any(|text| text.contains('\0')) {
            return invalid("the command or a variable has a null byte".to_owned());
        }
        if self.variables.keys().any(|name| name.is_empty() || name.contains('=')) {
            return invalid("a variable has an empty name or one with `=`".to_owned());
        }
        if !self.directory.is_empty() {
            check_path(&self.directory)?;
            if !self.tree.has_directory(&self.directory) {
                return invalid(format!("the tree has no directory `{}`", self.directory));
            }
        }
        self.outputs.iter().try_for_each(|output| check_path(output))
    }
}

/// An event of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The action waits for a worker.
    Queued,
    /// A worker runs the action. May come again if the worker is lost and another one runs it.
    Started,
    /// The command has printed something.
    Output {
        /// Whether it is from standard error.
        is_error: bool,
        /// The bytes.
        bytes: Bytes,
    },
    /// The action has ended. Always the last event.
    Finished(Outcome),
}

/// The end of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command has run to its end.
    Done(ActionOutput),
    /// Nobody knows the result, for this reason.
    Lost(String),
}

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ActionOutput {
    /// Exit code; 128 and the number of the signal that ended the command.
    pub exit_code: i32,
    /// All of standard output.
    pub stdout: Bytes,
    /// All of standard error.
    pub stderr: Bytes,
    /// The outputs that exist, relative to the working directory.
    pub outputs: Tree,
    /// Whether the result comes from a cache, so that the command did not run now.
    pub is_cached: bool,
    /// Name of the worker, if it has one.
    pub worker: String,
}
