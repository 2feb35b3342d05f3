//! Why a test could not be run at all. A test that fails is no error: it is an outcome.

use std::path::PathBuf;

/// Everything that keeps a test from giving a verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The test has no command.
    #[error("test `{test}` has an empty command")]
    EmptyCommand {
        /// The test's name.
        test: String,
    },
    /// The test's program is not to be found.
    #[error("test `{test}` runs `{program}`, which is neither on the PATH nor in the project")]
    NoSuchProgram {
        /// The test's name.
        test: String,
        /// The program as configured.
        program: String,
    },
    /// The test's program is there, but did not start.
    #[error("cannot start `{program}` of test `{test}` in {}", directory.display())]
    Start {
        /// The test's name.
        test: String,
        /// The program as configured.
        program: String,
        /// Where it was to run.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The state of the input files could not be determined.
    #[error(transparent)]
    Inputs(#[from] greenwave_inputs::Error),
    /// Tracing or confinement is not available, or its files could not be opened.
    #[error(transparent)]
    Sandbox(#[from] greenwave_sandbox::Error),
    /// The tests of a project could not be found out.
    #[error("cannot find out the tests of {runner} in {}: {problem}", folder.display())]
    Discover {
        /// Who knows them.
        runner: &'static str,
        /// Where.
        folder: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Two tests have the same name.
    #[error("there are two tests called `{test}`")]
    DuplicateName {
        /// The name.
        test: String,
    },
    /// A test is none of the suite's.
    #[error("there is no test called `{test}` in this suite")]
    UnknownTest {
        /// Its name.
        test: String,
    },
    /// The folder of what is remembered belongs to somebody else.
    #[error("{} belongs to user {owner}, and this is user {me}", path.display())]
    ForeignState {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who wants to use it.
        me: u32,
    },
    /// Tests have to be traced, and cannot be.
    #[error("tests cannot be traced: {reason}")]
    NotTraced {
        /// Why not.
        reason: String,
    },
    /// The run was stopped.
    #[error("stopped")]
    Stopped,
    /// The tests cannot be run together.
    #[error("these tests cannot be run together")]
    Schedule(#[from] greenwave_scheduler::Error),
    /// A file or folder could not be read.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { operation, path, source }
    }
}
