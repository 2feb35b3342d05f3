//! Errors of running tests. A test that runs and fails is an [`Outcome`](crate::Outcome), not an
//! error.

use std::path::PathBuf;
use std::sync::Arc;

/// A reason why a test could not be run.
///
/// `Display` writes one lower-case fragment without the cause, which
/// [`source`](std::error::Error::source) returns.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The test has no command.
    #[error("invalid value `[]` for `command` in test `{test}`: expected a program and its arguments")]
    EmptyCommand {
        /// Name of the test.
        test: String,
    },
    /// The test's program does not exist.
    #[error("cannot find program `{program}` of test `{test}` on the PATH or in the project")]
    NoSuchProgram {
        /// Name of the test.
        test: String,
        /// Program as configured.
        program: String,
    },
    /// The test's program exists but did not start.
    #[error("cannot start `{program}` of test `{test}` in {}", directory.display())]
    Start {
        /// Name of the test.
        test: String,
        /// Program as configured.
        program: String,
        /// Working directory of the test.
        directory: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The state of the input files could not be determined.
    #[error(transparent)]
    Inputs(#[from] greenwave_inputs::Error),
    /// Tracing or confinement is not available, or its files could not be opened.
    #[error(transparent)]
    Sandbox(#[from] greenwave_sandbox::Error),
    /// The tests of a project could not be discovered.
    #[error("cannot discover the {harness} tests in {}", directory.display())]
    Discover {
        /// Name of the harness.
        harness: &'static str,
        /// Directory that was searched.
        directory: PathBuf,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The programs of tests could not be built.
    #[error("cannot build the {harness} tests in {}", directory.display())]
    Build {
        /// Name of the harness.
        harness: &'static str,
        /// Directory that was built.
        directory: PathBuf,
        /// Cause, shared by all tests of the directory.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Two tests have the same name.
    #[error("duplicate test name `{test}`")]
    DuplicateName {
        /// The name.
        test: String,
    },
    /// The state directory belongs to another user.
    #[error("cannot use {}: it belongs to user {owner}, not to user {user}", path.display())]
    ForeignState {
        /// The directory.
        path: PathBuf,
        /// Its owner's user ID.
        owner: u32,
        /// User ID of this process.
        user: u32,
    },
    /// Tracing is required but not available.
    #[error("cannot trace tests: {reason}")]
    NotTraced {
        /// Reason why not.
        reason: String,
    },
    /// The code that runs the test panicked, such as its harness.
    #[error("cannot run test `{test}`: the code that runs it panicked: {message}")]
    Panicked {
        /// Name of the test.
        test: String,
        /// Message of the panic.
        message: String,
    },
    /// A harness panicked while it discovered, listed or built tests.
    #[error("the {harness} harness panicked: {message}")]
    HarnessPanicked {
        /// Name of the harness.
        harness: &'static str,
        /// Message of the panic.
        message: String,
    },
    /// The run was stopped.
    #[error("stopped")]
    Stopped,
    /// The tests cannot be run together.
    #[error("cannot schedule the tests")]
    Schedule(#[from] greenwave_scheduler::Error),
    /// A file or directory could not be accessed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// Operation that failed, as a verb: `read`, `write`.
        operation: &'static str,
        /// Path of the file or directory.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
}

impl Error {
    /// Returns a function that adds the operation and the path to an I/O error.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { operation, path, source }
    }
}
