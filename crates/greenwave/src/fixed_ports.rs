//! Runs tests that bind a fixed port while no other test of the run does.

use std::collections::BTreeSet;

use greenwave_testing::{Outcome, Test};
use parking_lot::Mutex;
use tokio::sync::RwLock;

use crate::red;

/// Tests that failed because another test held their port. They run alone from then on.
#[derive(Debug, Default)]
pub(crate) struct FixedPorts {
    /// Read-locked by tests that run beside others, write-locked by a test that runs alone.
    running: RwLock<()>,
    /// Commands of the tests that run alone.
    alone: Mutex<BTreeSet<Vec<String>>>,
}

impl FixedPorts {
    /// Runs a test beside others, and once more without them if its port was in use. Returns
    /// whether that was the first time for this test.
    pub(crate) async fn run<E, F: Future<Output = Result<Outcome, E>>>(
        &self,
        test: &Test,
        start: impl Fn() -> F,
    ) -> Result<(Outcome, bool), E> {
        let is_alone = self.alone.lock().contains(&test.command);
        if !is_alone {
            let shared = self.running.read().await;
            let outcome = start().await?;
            drop(shared);
            if outcome.passed() || !red::has_port_conflict(&String::from_utf8_lossy(&outcome.output)) {
                return Ok((outcome, false));
            }
            self.alone.lock().insert(test.command.clone());
        }
        let _alone = self.running.write().await;
        Ok((start().await?, !is_alone))
    }
}
