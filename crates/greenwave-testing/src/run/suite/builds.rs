//! Builds the programs of tests, from a state of the project that did not change meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_inputs::Snapshot;
use tokio::time::Instant;

use super::context::SuiteContext;
use crate::harness::{BuildRequest, guarded};
use crate::run::test_id::TestId;
use crate::run::workspace::Built;
use crate::{Error, Test};

/// Maximum number of builds while inputs keep changing.
const BUILDS_MAX: u32 = 3;

/// The directories that were built in a run.
#[derive(Debug, Default)]
pub(super) struct Builds(HashMap<PathBuf, BuiltState>);

/// The output of a build and the snapshot of the sources that it was built from.
#[derive(Debug)]
struct BuiltState {
    built: Built,
    snapshot: Arc<Snapshot>,
}

impl Builds {
    /// Returns the output of the build of a directory, if there was one.
    pub(super) fn get(&self, directory: &Path) -> Option<&Built> {
        self.0.get(directory).map(|state| &state.built)
    }

    /// Returns the snapshot of the sources that a directory was built from.
    pub(super) fn snapshot(&self, directory: &Path) -> Option<&Arc<Snapshot>> {
        self.0.get(directory).map(|state| &state.snapshot)
    }

    /// Builds the programs of a directory's tests, unless that was done in this run. Repeats the
    /// build, up to three times, if the sources change meanwhile.
    ///
    /// # Errors
    /// If the build tool cannot be run, or the project cannot be read.
    pub(super) async fn build(&mut self, context: &SuiteContext, directory: &Path) -> Result<(), Error> {
        if self.0.contains_key(directory) {
            return Ok(());
        }
        let is_of_directory = |id: &TestId| context.build_directory(*id) == Some(directory);
        let tests: Vec<&Test> = context.ids().filter(is_of_directory).map(|id| context.test(id)).collect();
        let Some(harness) = tests.first().map(|test| context.runner.harness(test)) else { return Ok(()) };
        let (project, environment) = (context.project.root(), context.runner.environment());
        let request = BuildRequest { project, directory, environment, tests: &tests };
        let prepared = async {
            harness.prepare_build(&request).await;
            Ok(())
        };
        guarded(harness, prepared).await?;
        let mut before = context.project.snapshot_after(Instant::now()).await?;
        for attempt in 1.. {
            let built = guarded(harness, async { harness.build(&request).await }).await?;
            let Some(output) = built else { return Ok(()) };
            let after = context.project.snapshot_after(Instant::now()).await?;
            let changing = changed_input(context, &tests, [&before, &after]).await?;
            let is_last = attempt == BUILDS_MAX;
            let is_stale =
                !is_last && guarded(harness, async { output.discard_stale(&request).await }).await?;
            if !is_stale && (changing.is_none() || is_last) {
                let state = BuiltState { built: Built { output, changing }, snapshot: after };
                self.0.insert(directory.to_owned(), state);
                break;
            }
            before = after;
        }
        Ok(())
    }
}

/// Returns the first input of the tests that differs between two snapshots.
async fn changed_input(
    context: &SuiteContext,
    tests: &[&Test],
    [before, after]: [&Arc<Snapshot>; 2],
) -> Result<Option<PathBuf>, Error> {
    for test in tests {
        let then = context.project.input_snapshot(before, &test.name).await?;
        let now = context.project.input_snapshot(after, &test.name).await?;
        if let Some(path) = then.inputs.first_touched(&now.inputs) {
            return Ok(Some(path.to_owned()));
        }
    }
    Ok(None)
}
