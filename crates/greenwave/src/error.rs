//! Errors of a run as a whole, and of one feature.

use std::path::{Path, PathBuf};
use std::time::Duration;

use humantime::format_duration;

use crate::confine::PathError;
use crate::plan::PlanError;
use crate::spending::BudgetExceeded;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Error that keeps a run from starting or continuing.
///
/// The error of one feature is a [`FeatureError`]. It ends that feature only, and its text is in
/// the [`Report`](crate::Report).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The plan is invalid.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An agent of the plan cannot be set up.
    #[error("cannot set up agent `{agent}`")]
    Agent {
        /// Name of the agent in the plan.
        agent: String,
        /// The cause.
        source: greenwave_agents::Error,
    },
    /// An agent of the plan is a model server, and the feature `http-agents` is disabled.
    #[error("cannot set up agent `{agent}`: the feature `http-agents` is disabled")]
    NoHttp {
        /// Name of the agent in the plan.
        agent: String,
    },
    /// The directory of recorded exchanges with model servers cannot be used.
    #[error(transparent)]
    Recording(greenwave_agents::Error),
    /// Agents and tests cannot be confined in the way that the plan or the settings demand.
    #[error("cannot confine agents and tests")]
    Confinement {
        /// The cause.
        source: greenwave_sandbox::Error,
    },
    /// Agents or tests cannot have the network that the plan demands.
    #[error("cannot restrict the network of agents and tests{}", if source.is_none() { ": they are not confined" } else { "" })]
    Network {
        /// The cause; `None` if they are not confined.
        source: Option<greenwave_sandbox::Error>,
    },
    /// The settings demand that tests are traced.
    #[error("cannot trace the tests of a run: their results depend on declared inputs only")]
    NotTraced,
    /// Another run uses the same project.
    #[error("cannot start a run in {}: another run is using it", project.display())]
    Busy {
        /// Directory of the project.
        project: PathBuf,
    },
    /// A file or directory cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// The operation, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// An agent named a file that it may not write.
    #[error(transparent)]
    InvalidPath(#[from] PathError),
    /// A file of the project changed while a merge was about to write it.
    #[error("cannot merge `{path}`: it was changed in the project during the run")]
    ConcurrentEdit {
        /// Path of the file, relative to the project.
        path: String,
    },
    /// Neither a setting nor the environment names a directory for working copies.
    #[error(
        "cannot locate the directory of working copies: neither XDG_STATE_HOME nor HOME is an absolute path"
    )]
    NoRunDirectory,
    /// The directory of working copies cannot be used.
    #[error("cannot create working copies in {}", path.display())]
    RunDirectory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Working copies cannot be made in the way that the settings demand.
    #[error("cannot create working copies in {} with `run.copies = \"{method}\"`", directory.display())]
    CopyMode {
        /// The method that the settings demand.
        method: &'static str,
        /// Directory of the working copies.
        directory: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The branch of the results cannot be used.
    #[error("cannot write branch `{branch}`: it is checked out in {}", worktree.display())]
    Branch {
        /// Name of the branch.
        branch: String,
        /// The worktree.
        worktree: PathBuf,
    },
    /// Git cannot have the branch of the results beside another one: `a` and `a/b` exclude each
    /// other.
    #[error("cannot write branch `{branch}`: branch `{existing}` exists")]
    BranchName {
        /// Name of the branch.
        branch: String,
        /// Name of the other one.
        existing: String,
    },
    /// The results of another plan are on the branch of this one.
    #[error("cannot write branch `{branch}`: it has the results of plan {plan}")]
    BranchOfPlan {
        /// Name of the branch.
        branch: String,
        /// File of the other plan, or its name.
        plan: String,
    },
    /// A plan asks for a branch, or for `HEAD`, and the project has no git repository.
    #[error("invalid value `{value}` for `{key}`: expected a project in a git repository")]
    NoRepository {
        /// Key of the plan.
        key: &'static str,
        /// Its value.
        value: &'static str,
    },
    /// A command that sets up a working copy failed.
    #[error("cannot set up a working copy: `{command}` {problem}")]
    Setup {
        /// The program and its arguments.
        command: String,
        /// The problem, as the rest of a sentence about its subject, with the end of the output.
        problem: String,
    },
    /// A call of git failed.
    #[error("cannot {operation} with git")]
    Git {
        /// The operation, as a verb.
        operation: &'static str,
        /// The cause, with the words of git.
        source: std::io::Error,
    },
    /// The files of the project cannot be read.
    #[error("cannot read the project's files")]
    Project {
        /// The cause.
        source: greenwave_testing::Error,
    },
    /// The store of files and attempts failed.
    #[error("cannot {operation} the store")]
    Store {
        /// The operation, as a verb.
        operation: &'static str,
        /// The cause.
        source: Source,
    },
    /// The cache of test results cannot be opened.
    #[error("cannot open the cache of test results in {}", path.display())]
    Cache {
        /// Directory of the cache.
        path: PathBuf,
        /// The cause.
        source: Source,
    },
    /// A blob that was stored cannot be read back.
    #[error("cannot read blob {id}: it is missing from the store or damaged")]
    MissingBlob {
        /// Hash of the blob's content.
        id: String,
    },
    /// The scheduler refused the plan's graph, or its journal failed.
    #[error("cannot schedule the run")]
    Schedule(#[from] greenwave_scheduler::Error),
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { operation, path, source }
    }

    pub(crate) fn store<E: Into<Source>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Error::Store { operation, source: source.into() }
    }
}

/// Error that ends one feature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeatureError {
    /// The tests pass before any code is written.
    #[error("tests pass before anything is written, so they prove nothing: {}", tests.join(", "))]
    AlreadyPassing {
        /// Names of the tests.
        tests: Vec<String>,
    },
    /// A test command succeeds and runs no tests.
    #[error("test `{test}` succeeds but runs no tests, so it proves nothing")]
    NoTests {
        /// Name of the test.
        test: String,
    },
    /// An agent writes the tests of the feature, and has not done so yet.
    #[error("its tests are not written yet: agent `{agent}` writes them in a run")]
    TestsNotWritten {
        /// Name of the agent.
        agent: String,
    },
    /// A test failed before it could test anything, so it proves nothing.
    #[error("{role} `{test}` {problem}")]
    CouldNotRun {
        /// `test` or `review`.
        role: &'static str,
        /// Name of the test.
        test: String,
        /// Missing thing or other reason, as the rest of a sentence about the test.
        problem: String,
        /// Instruction that would remove the cause.
        hint: Option<String>,
    },
    /// A test cannot be run.
    #[error(transparent)]
    Test(#[from] greenwave_testing::Error),
    /// The agent failed in a way that another attempt would not cure.
    #[error("cannot send the request to the agent")]
    Agent(#[source] greenwave_agents::Error),
    /// The last attempt was refused.
    #[error("failed after {attempts} {}: {reason}", if *attempts == 1 { "attempt" } else { "attempts" })]
    AttemptsExhausted {
        /// Number of attempts.
        attempts: u32,
        /// Why the last attempt was refused.
        reason: String,
    },
    /// The attempt wrote the same code as the previous one, which was refused.
    #[error("stopped after {attempts} attempts: the last two wrote the same code: {reason}")]
    Repeated {
        /// Number of attempts.
        attempts: u32,
        /// Why the last attempt was refused.
        reason: String,
    },
    /// The user has to log in to the agent's provider.
    #[error("agent `{agent}` needs a login: {message}")]
    NeedsLogin {
        /// Name of the agent.
        agent: String,
        /// Message of its program.
        message: String,
        /// Instruction for the user.
        action: &'static str,
    },
    /// The provider of the agent limited requests for too long.
    #[error("agent `{agent}` could not work for {} (wait_max): {message}", format_duration(*waited))]
    AgentUnavailable {
        /// Name of the agent.
        agent: String,
        /// Time that the feature has waited.
        waited: Duration,
        /// Last message of the agent.
        message: String,
    },
    /// A request would use more than the budget allows.
    #[error("budget reached: {0}; no request was sent")]
    Budget(BudgetExceeded),
    /// A file system is full.
    #[error("no space left on the file system of {}", directory.display())]
    DiskFull {
        /// Directory on the full file system.
        directory: PathBuf,
    },
    /// The user changed lines of a file that the feature changes too.
    #[error(
        "cannot merge `{path}`: your change overlaps with that of this feature; the answer is stored, and no \
         file of this feature was written"
    )]
    ModifiedByUser {
        /// Path of the file, relative to the project.
        path: String,
    },
    /// A file that the feature creates exists in the project, ignored by version control or new.
    #[error(
        "cannot create `{path}`: the file exists in the project, ignored or new; the answer is stored, and no \
         file of this feature was written"
    )]
    FileExists {
        /// Path of the file, relative to the project.
        path: String,
    },
    /// The answer waits for the approval of the user, and the run has nothing else to do.
    #[error("attempt {attempt} passed, and waits for your approval")]
    Held {
        /// Number of the attempt.
        attempt: u32,
        /// Instruction for the user.
        action: String,
    },
    /// The user stopped the feature.
    #[error("stopped by you")]
    Stopped,
    /// Something that the whole run needs failed while the feature was worked on.
    #[error(transparent)]
    Run(#[from] Error),
    /// Greenwave, an agent or a test runner panicked. This is a bug.
    #[error("internal error: {0}")]
    Internal(String),
    /// A stage took longer than its limit.
    #[error("took longer than {}", format_duration(*.0))]
    TimedOut(Duration),
}

impl FeatureError {
    /// Creates the error of a panic.
    pub(crate) fn of_panic(panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Self::Internal(format!("panicked: {}", text.as_deref().unwrap_or("no message")))
    }

    /// Returns the kind of the reason if only the user can remove it, see
    /// [`Event::NeedsYou`](crate::Event::NeedsYou).
    pub(crate) fn needs_you(&self) -> Option<&'static str> {
        match self {
            FeatureError::Budget(_) => Some("budget"),
            FeatureError::NeedsLogin { .. } => Some("login"),
            _ => None,
        }
    }

    /// Returns an instruction that would remove the cause, if there is one.
    pub fn hint(&self) -> Option<&str> {
        match self {
            FeatureError::CouldNotRun { hint, .. } => hint.as_deref(),
            FeatureError::Held { action, .. } => Some(action),
            FeatureError::NeedsLogin { action, .. } => Some(action),
            FeatureError::NoTests { .. } => Some("name a file or a test that exists, or remove the filter"),
            FeatureError::Agent(greenwave_agents::Error::PromptTooLarge { .. }) => {
                Some("write `{prompt_file}` instead of `{prompt}` in the agent's `command`")
            }
            FeatureError::Agent(greenwave_agents::Error::RequestRefused { status: 401 | 403, .. }) => {
                Some("check the key that `key_env` or `key_command` of the agent gives")
            }
            FeatureError::Agent(greenwave_agents::Error::RequestRefused { status: 404, .. }) => {
                Some("check `base_url` and `model` of the agent")
            }
            FeatureError::Agent(greenwave_agents::Error::ProtocolViolation { .. }) => {
                Some("check `base_url` of the agent: its scheme, its host and its port")
            }
            FeatureError::Agent(greenwave_agents::Error::NotRecorded { .. }) => {
                Some("record the run again with `--record`")
            }
            FeatureError::AlreadyPassing { .. } => Some("pass `--adopt` to take the code as it is"),
            FeatureError::Budget(_) => {
                Some("raise the limit and run the plan again, which continues from here")
            }
            FeatureError::DiskFull { .. } => {
                Some("free some space and run the plan again, which continues from here")
            }
            FeatureError::Stopped => Some("run the plan again, which continues from here"),
            FeatureError::ModifiedByUser { .. } => Some("move or undo your change and run the plan again"),
            FeatureError::FileExists { .. } => Some("move the file away and run the plan again"),
            _ => None,
        }
    }
}

/// Returns an error and its chain of causes in one line, separated by `: `.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_cause_once() {
        let io = || std::io::Error::other("disk full");
        let write = Error::io("write", "a.txt")(io());
        assert_eq!(chain(&write), "cannot write a.txt: disk full");
        // A transparent variant forwards `source` too, so it does not repeat its cause.
        assert_eq!(chain(&FeatureError::from(write)), "cannot write a.txt: disk full");
        // A cause is shown even if the text before it happens to end with the same words.
        let same = Error::Store { operation: "read disk full", source: io().into() };
        assert_eq!(chain(&same), "cannot read disk full the store: disk full");
        let same = FeatureError::Agent(greenwave_agents::Error::BrokeOff { bytes: 0 });
        assert!(chain(&same).starts_with("cannot send the request to the agent: "));
    }
}
