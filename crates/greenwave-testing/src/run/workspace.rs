//! Where a test's inputs are, and their state at some moment. Knows nothing of commands or results.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::harness::products::Products;
use crate::results::dependencies::DependencyRecord;
use crate::run::process::ProcessResult;
use crate::run::runner::Prepared;
use crate::{Error, Manifest, Runner, Test};
use greenwave_inputs::InputSnapshot;
use greenwave_inputs::StatCache;
use greenwave_inputs::{AccessKind, PathStates};

/// A program that stands for a test's command.
#[derive(Debug, Clone)]
pub(crate) struct LaunchSpec {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: PathBuf,
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// What was looked at to make it, beside the test's inputs.
    pub(crate) looks: Vec<(PathBuf, AccessKind)>,
    /// When making it began, in nanoseconds since the Unix epoch.
    pub(crate) since: i64,
    /// Where what was made is.
    pub(crate) products: Option<Products>,
    /// A file that changed while it was made, so that nobody knows which state of it went in.
    pub(crate) changing: Option<PathBuf>,
}

/// A project that tests run in.
#[async_trait]
pub(crate) trait Workspace: Send + Sync {
    /// The project's folder.
    fn project(&self) -> &Path;

    /// A state before now that nothing is known to have changed since.
    async fn before(&self, test: &Test) -> Result<InputSnapshot, Error>;

    /// A state that was taken after this call began.
    async fn after(&self, test: &Test) -> Result<InputSnapshot, Error>;

    /// What to start in place of the test's command, where that is another program that has to be made first.
    async fn launch(&self, _runner: &Runner, _test: &Test) -> Result<Option<LaunchSpec>, Error> {
        Ok(None)
    }

    /// Whether cargo has brought everything up to date that it builds in the workspace in this folder.
    fn is_built(&self, _folder: &Path) -> bool {
        false
    }

    /// What more is to be said of a test that has ended so, as text that follows its output. It still keeps its worker busy.
    async fn examine(
        &self,
        _runner: &Runner,
        _test: &Test,
        _prepared: &Prepared<'_>,
        _ran: &ProcessResult,
    ) -> Option<String> {
        None
    }

    /// Whether it is told what tests that ran depend on.
    fn wants_dependencies(&self) -> bool {
        false
    }

    /// What a test that ran depends on. How it ended is not known yet.
    fn learn(&self, _test: &Test, _facts: DependencyRecord, _inputs: &Manifest) {}

    /// The test's process has ended; what is left to do keeps no worker busy.
    fn ended(&self) {}
}

/// A folder of which nothing is remembered.
#[derive(Debug)]
pub(crate) struct DirectoryWorkspace {
    project: PathBuf,
    index: Arc<Mutex<StatCache>>,
}

impl DirectoryWorkspace {
    pub(crate) fn new(project: &Path, index: Arc<Mutex<StatCache>>) -> Self {
        Self { project: project.to_owned(), index }
    }

    async fn read(&self, test: &Test) -> Result<InputSnapshot, Error> {
        let (project, spec) = (self.project.clone(), test.input_spec());
        let states = Arc::new(PathStates::new(
            &self.project,
            Arc::clone(&self.index),
            greenwave_sandbox::object_exists,
        ));
        let inputs = blocking(move || Manifest::read(&project, &spec)).await;
        let inputs = inputs.map_err(|error| error.of_test(&test.name))?;
        Ok(InputSnapshot { inputs, states })
    }
}

#[async_trait]
impl Workspace for DirectoryWorkspace {
    fn project(&self) -> &Path {
        &self.project
    }

    async fn before(&self, test: &Test) -> Result<InputSnapshot, Error> {
        self.read(test).await
    }

    async fn after(&self, test: &Test) -> Result<InputSnapshot, Error> {
        self.read(test).await
    }
}

/// Runs what waits for a disk where waiting is allowed.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
