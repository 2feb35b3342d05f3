//! The project that tests run in, as the runner sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::harness::launch::LaunchSpec;
use crate::results::dependencies::DependencyRecord;
use crate::run::blocking::blocking;
use crate::run::process::ProcessResult;
use crate::run::runner::Prepared;
use crate::{Error, Manifest, Runner, Test};
use greenwave_inputs::InputSnapshot;
use greenwave_inputs::PathStates;
use greenwave_inputs::StatCache;

/// A project that tests run in.
#[async_trait]
pub(crate) trait Workspace: Send + Sync {
    /// Returns the project directory.
    fn project(&self) -> &Path;

    /// Returns an earlier state of the inputs that has not been seen to change since.
    async fn before(&self, test: &Test) -> Result<InputSnapshot, Error>;

    /// Returns a state of the inputs that was read after this call began.
    async fn after(&self, test: &Test) -> Result<InputSnapshot, Error>;

    /// Returns the process to start for a test.
    async fn launch(&self, runner: &Runner, test: &Test) -> Result<LaunchSpec, Error> {
        let command = runner.launch_plain(self.project(), test)?;
        Ok(runner.harness(test).launch(test, None, command))
    }

    /// Returns whether cargo has built the workspace in this directory during this run.
    fn is_built(&self, _folder: &Path) -> bool {
        false
    }

    /// Returns diagnostics to append to the output of a test; runs while the worker slot is still
    /// held.
    async fn examine(
        &self,
        _runner: &Runner,
        _test: &Test,
        _prepared: &Prepared<'_>,
        _ran: &ProcessResult,
    ) -> Option<String> {
        None
    }

    /// Returns whether [`learn`](Self::learn) uses dependency records.
    fn wants_dependencies(&self) -> bool {
        false
    }

    /// Receives the dependencies of a test that ran, before its verdict is decided.
    fn learn(&self, _test: &Test, _facts: DependencyRecord, _inputs: &Manifest) {}

    /// Called when the process of a test has exited. The remaining work holds no worker slot.
    fn ended(&self) {}
}

/// A directory whose state is read again for each test.
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
            greenwave_sandbox::kernel_object_exists,
        ));
        let inputs = blocking(move || Manifest::read(&project, &spec)).await;
        let inputs = inputs.map_err(|error| error.for_test(&test.name))?;
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
