//! The parts of a suite that its runs share.

use std::path::Path;
use std::sync::Arc;

use greenwave_inputs::{ProjectFiles, Snapshot};
use tokio::time::Instant;

use crate::run::blocking::blocking;
use crate::run::runner::Runner;
use crate::run::test_id::TestId;
use crate::{Error, Test};

/// A project with its tests and the runner of the tests.
#[derive(Debug)]
pub(super) struct SuiteContext {
    pub(super) project: ProjectFiles,
    pub(super) tests: Vec<Test>,
    pub(super) runner: Runner,
}

impl SuiteContext {
    /// Returns a test by its id.
    pub(super) fn test(&self, id: TestId) -> &Test {
        &self.tests[id.index()]
    }

    /// Returns the ids of all tests, in order.
    pub(super) fn ids(&self) -> impl Iterator<Item = TestId> + use<> {
        (0..self.tests.len()).map(TestId::new)
    }

    /// Returns the directory that must be built before a test runs.
    pub(super) fn build_directory(&self, id: TestId) -> Option<&Path> {
        let test = self.test(id);
        self.runner.harness(test).needs_build(test).then_some(test.directory.as_path())
    }

    /// Reads the state of the project, with the hashes of all inputs.
    ///
    /// # Errors
    /// If the project cannot be read.
    pub(super) async fn scan(self: &Arc<Self>) -> Result<Arc<Snapshot>, Error> {
        let snapshot = self.project.snapshot_after(Instant::now()).await?;
        let (context, of) = (Arc::clone(self), Arc::clone(&snapshot));
        blocking(move || context.project.hash_all(&of)).await;
        Ok(snapshot)
    }
}
