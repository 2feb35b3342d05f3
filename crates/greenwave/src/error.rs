//! What can go wrong with a run as a whole, and with one feature of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::confine::PathError;
use crate::plan::PlanError;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What keeps a run from being begun or carried on. The failure of a feature is a [`FeatureError`] in the
/// [`Report`](crate::Report) instead, and leaves the others alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The plan is not sound.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An agent of the plan cannot be made ready.
    #[error("agent `{agent}` cannot be made ready")]
    Agent {
        /// The agent's name in the plan.
        agent: String,
        /// Why.
        source: greenwave_agents::Error,
    },
    /// Another run is at work in the same project.
    #[error("another run is at work in {}", project.display())]
    Busy {
        /// The project's folder.
        project: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that an agent named may not be written.
    #[error(transparent)]
    Refused(#[from] PathError),
    /// A file of the project was changed by others while a merge was about to write it.
    #[error("`{path}` was changed in the project during the run")]
    ConcurrentEdit {
        /// The file's path.
        path: String,
    },
    /// The project's files could not be read.
    #[error("cannot read the project's files")]
    Project {
        /// Why.
        source: greenwave_testing::Error,
    },
    /// The store that holds files and attempts failed.
    #[error("cannot {operation} the store")]
    Store {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        source: Source,
    },
    /// The cache of test results could not be opened.
    #[error("cannot open the cache of test results in {}", path.display())]
    Cache {
        /// Its folder.
        path: PathBuf,
        /// Why not.
        source: Source,
    },
    /// A content that was stored is not there any more.
    #[error("content {id} is missing from the store or damaged there")]
    MissingBlob {
        /// The content's hash.
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

/// Why a feature failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeatureError {
    /// Its tests passed before there was any code: they prove nothing.
    #[error("its tests pass before anything was written, so they would prove nothing: {}", tests.join(", "))]
    AlreadyPassing {
        /// The tests' names.
        tests: Vec<String>,
    },
    /// A test found nothing to run.
    #[error("test `{test}` ends with success but runs no test at all, so it would prove nothing")]
    NoTests {
        /// The test's name.
        test: String,
    },
    /// A test could not be run.
    #[error(transparent)]
    Test(#[from] greenwave_testing::Error),
    /// The agent cannot be asked.
    #[error("the agent cannot be asked")]
    Agent(#[source] greenwave_agents::Error),
    /// All attempts are used up.
    #[error("not done after {attempts} {}; the last one: {reason}", if *attempts == 1 { "attempt" } else { "attempts" })]
    AttemptsExhausted {
        /// How many there were.
        attempts: u32,
        /// What was wrong with the last.
        reason: String,
    },
    /// A file of the project is not what it was when the run began, or what the run had made of it.
    #[error("`{path}` was changed in the project during the run; nothing of this feature was written there")]
    ModifiedByUser {
        /// The file's path.
        path: String,
    },
    /// A file that the feature makes is in the project already, though not among those that the run goes by.
    #[error(
        "`{path}` is in the project already, as a file that is ignored there or that somebody has just made, and is \
         not overwritten; nothing of this feature was written"
    )]
    FileExists {
        /// The file's path.
        path: String,
    },
    /// Something of the run as a whole failed while the feature was being worked on.
    #[error(transparent)]
    Run(#[from] Error),
    /// The code that works on it panicked: a defect of Greenwave.
    #[error("an internal defect: {0}")]
    Internal(String),
    /// A phase of it took longer than any may.
    #[error("it took longer than {0:?}")]
    TimedOut(Duration),
}

/// An error and what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let cause_text = cause.to_string();
        // A transparent variant repeats its cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        at = cause.source();
    }
    text
}
