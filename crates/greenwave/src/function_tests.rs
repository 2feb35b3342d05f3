//! Tests that are a function of the caller's instead of commands.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_cache::TieredStats;
use greenwave_testing::{CacheDecision, Error, ExitReason, Outcome, Source, Status, Test, TestSlots};
use tokio::time::Instant;

use crate::test_runner::TestRunner;

/// Looks at the project in a working copy, and returns why the answer in it is not accepted.
type Check = Arc<dyn Fn(&Path) -> Result<(), String> + Send + Sync>;

/// Runs a function in the place of every test.
#[derive(Clone)]
pub(crate) struct FunctionTests {
    check: Check,
    slots: TestSlots,
}

impl FunctionTests {
    pub(crate) fn new(check: impl Fn(&Path) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { check: Arc::new(check), slots: TestSlots::new(1) }
    }
}

impl fmt::Debug for FunctionTests {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("FunctionTests").finish_non_exhaustive()
    }
}

#[async_trait]
impl TestRunner for FunctionTests {
    async fn run(&self, root: &Path, test: &Test) -> Result<Outcome, Error> {
        let (check, directory) = (Arc::clone(&self.check), root.join(&test.directory));
        let _slot = self.slots.take().await;
        let started = Instant::now();
        // The function reads files.
        let checked = tokio::task::spawn_blocking(move || check(&directory)).await;
        let checked = checked.unwrap_or_else(|error| Err(error.to_string()));
        Ok(outcome(checked, started.elapsed()))
    }

    async fn discover(&self, _root: &Path) -> Result<Vec<Test>, Error> {
        Ok(Vec::new())
    }

    fn set_slots(&mut self, slots: TestSlots) {
        self.slots = slots;
    }

    async fn run_again(&self, root: &Path, test: &Test) -> Result<Outcome, Error> {
        self.run(root, test).await
    }

    async fn cached(&self, _root: &Path, _test: &Test) -> Result<Option<Outcome>, Error> {
        Ok(None)
    }

    fn stats(&self) -> TieredStats {
        TieredStats::default()
    }

    async fn flush(&self) {}
}

fn outcome(checked: Result<(), String>, duration: Duration) -> Outcome {
    let (status, output) = match checked {
        Ok(()) => (Status::Passed, String::new()),
        Err(problem) => (Status::Failed(ExitReason::Code(1)), problem),
    };
    Outcome {
        status,
        count: None,
        output: Bytes::from(output),
        duration,
        cases: Vec::new(),
        source: Source::Ran(CacheDecision::NoCache),
        key: [0; 32],
        attempts: 1,
        undeclared: Vec::new(),
        coarse: None,
        interference: None,
        left_behind: Vec::new(),
        outputs: [].into(),
    }
}
