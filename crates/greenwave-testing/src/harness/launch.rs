//! The process that is started for a test.

use std::ffi::OsString;
use std::path::PathBuf;

use bytes::Bytes;
use greenwave_inputs::AccessKind;

use super::cargo::products::Products;

/// A process that is started for a test's command.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: PathBuf,
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// Variables that replace those of the test as well.
    pub(crate) replaced: Vec<(OsString, OsString)>,
    /// Dependencies of the program itself, beside the test's inputs.
    pub(crate) dependencies: Vec<(PathBuf, AccessKind)>,
    /// Start of the build that produced the program, in nanoseconds since the Unix epoch.
    pub(crate) since: i64,
    /// Directories that the program was built into.
    pub(crate) products: Option<Products>,
    /// An input that changed during the build, so that either state of it may have been compiled.
    pub(crate) changing: Option<PathBuf>,
    /// The result of the test, if it has no program. Then no process is started.
    pub(crate) failure: Option<BuildFailure>,
    /// Whether the process announces the parts of its tests.
    pub(crate) has_parts: bool,
}

/// The result of a build, which takes the place of a test's process. Exit code 0 is a pass.
#[derive(Debug, Clone)]
pub(crate) struct BuildFailure {
    pub(crate) messages: Bytes,
    pub(crate) exit_code: i32,
}

impl LaunchSpec {
    /// Creates a process that runs a program in a directory, both absolute paths.
    pub fn new(program: impl Into<PathBuf>, directory: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            directory: directory.into(),
            variables: Vec::new(),
            replaced: Vec::new(),
            dependencies: Vec::new(),
            since: i64::MAX,
            products: None,
            changing: None,
            failure: None,
            has_parts: false,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = OsString>) -> Self {
        self.arguments.extend(arguments);
        self
    }

    /// Adds environment variables, in addition to the variables that the test declares.
    #[must_use]
    pub fn variables(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// Sets environment variables, also if the test declares other values.
    #[must_use]
    pub fn replace_variables(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.replaced.extend(variables);
        self
    }

    /// Adds files that the program was built from, as absolute paths, in a build that began at
    /// `since` (nanoseconds since the Unix epoch).
    ///
    /// The result of the test depends on them, and is not stored if one of them changed after
    /// `since`.
    #[must_use]
    pub fn built_from(mut self, sources: impl IntoIterator<Item = PathBuf>, since: i64) -> Self {
        self.dependencies.extend(sources.into_iter().map(|path| (path, AccessKind::Content)));
        self.since = self.since.min(since);
        self
    }

    /// Replaces the process by the failure of its build: the test fails with these messages as its
    /// output, and with this exit code. Such a failure is never cached.
    #[must_use]
    pub fn build_failed(mut self, messages: impl Into<Bytes>, exit_code: i32) -> Self {
        self.failure = Some(BuildFailure { messages: messages.into(), exit_code });
        self
    }

    /// Replaces the process by a pass with this output, since the build tool leaves the test out
    /// without an error. Such a pass is never cached.
    #[must_use]
    pub(crate) fn left_out(self, reason: impl Into<Bytes>) -> Self {
        self.build_failed(reason, 0)
    }
}
