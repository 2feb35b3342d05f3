//! The project that tests run in, as the runner sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::harness::BuildOutput;
use crate::run::blocking::blocking;
use crate::{Error, Test};
use greenwave_inputs::ContentHashes;
use greenwave_inputs::InputSnapshot;
use greenwave_inputs::MaintainedFiles;
use greenwave_inputs::PathStates;
use greenwave_inputs::StatCache;

/// A project that tests run in.
#[async_trait]
pub(crate) trait Workspace: Send + Sync {
    /// Returns the project directory.
    fn project(&self) -> &Path;

    /// Returns an earlier state of the inputs that has not been seen to change since.
    async fn before(&self, test: &Test) -> Result<InputSnapshot, Error>;

    /// Returns a state of the inputs that was read after the process of the test had ended.
    async fn after(&self, test: &Test, ended: Instant) -> Result<InputSnapshot, Error>;

    /// Returns the output of a directory's build during this run.
    fn built(&self, _directory: &Path) -> Option<&Built> {
        None
    }

    /// Returns whether crashes are explained and dependencies recorded, for a person who reads
    /// them.
    fn wants_explanations(&self) -> bool {
        false
    }

    /// Called when the process of a test has exited. The remaining work holds no worker slot.
    fn ended(&self) {}
}

/// The output of a build in a directory.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) output: Arc<dyn BuildOutput>,
    /// An input that was still changing during the last build, so that either state of it may have
    /// been compiled.
    pub(crate) changing: Option<PathBuf>,
}

/// A directory whose state is read again for each test.
#[derive(Debug)]
pub(crate) struct DirectoryWorkspace {
    project: PathBuf,
    index: Arc<Mutex<StatCache>>,
    hashes: Arc<ContentHashes>,
    maintained: Arc<MaintainedFiles>,
}

impl DirectoryWorkspace {
    pub(crate) fn new(
        project: &Path,
        index: Arc<Mutex<StatCache>>,
        hashes: Arc<ContentHashes>,
        maintained: Arc<MaintainedFiles>,
    ) -> Self {
        Self { project: project.to_owned(), index, hashes, maintained }
    }

    async fn read(&self, test: &Test) -> Result<InputSnapshot, Error> {
        let (project, spec) = (self.project.clone(), test.input_spec());
        let object_exists = greenwave_sandbox::kernel_object_exists;
        let states = PathStates::new(&self.project, Arc::clone(&self.index), object_exists);
        let states = Arc::new(states.with_maintained(Arc::clone(&self.maintained)));
        let states = if spec.outputs.is_empty() {
            states
        } else {
            Arc::new(PathStates::without_outputs(&states, &test.selection()?))
        };
        let hashes = Arc::clone(&self.hashes);
        let inputs = blocking(move || hashes.manifest(&project, &spec)).await;
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

    async fn after(&self, test: &Test, _ended: Instant) -> Result<InputSnapshot, Error> {
        self.read(test).await
    }
}
