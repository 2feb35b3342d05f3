//! Where a test's inputs are, and their state at some moment. Knows nothing of commands or results.

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
    /// The project's folder.
    fn project(&self) -> &Path;

    /// A state before now that nothing is known to have changed since.
    async fn before(&self, test: &Test) -> Result<InputSnapshot, Error>;

    /// A state that was taken after this call began.
    async fn after(&self, test: &Test) -> Result<InputSnapshot, Error>;

    /// Returns the process to start for a test.
    async fn launch(&self, runner: &Runner, test: &Test) -> Result<LaunchSpec, Error> {
        let command = runner.launch_plain(self.project(), test)?;
        Ok(runner.harness(test).launch(test, None, command))
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
