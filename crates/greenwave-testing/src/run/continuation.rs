//! Processes that have collected tests and wait for the order to run some.

use std::fmt;
use std::io::{PipeWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::Test;
use crate::boxed::boxed;
use crate::harness::Harnesses;
use crate::run::blocking::blocking;
use crate::run::isolation::Isolation;
use crate::run::running_process::RunningProcess;

/// Maximum time that a process gets to exit if it is not to continue.
const EXIT_TIME_MAX: Duration = Duration::from_secs(5);

/// The processes of [collections](crate::Discovery::collections) that wait to run the tests which
/// they have found. Clones share them.
///
/// Pass the same to the suite of the collections and to the suite of the tests, in
/// [`RunnerOptions::continuations`](crate::RunnerOptions::continuations). Dropping the last clone
/// kills the processes that still wait.
#[derive(Clone, Default)]
pub struct Continuations(Arc<Mutex<Vec<WaitingProcess>>>);

/// A process that has collected tests and waits.
pub(crate) struct WaitingProcess {
    pub(crate) collection: Test,
    pub(crate) running: RunningProcess,
    pub(crate) isolation: Isolation,
    /// The other end of the process's standard input.
    pub(crate) order: PipeWriter,
}

impl Continuations {
    pub(crate) fn add(&self, process: WaitingProcess) {
        self.0.lock().push(process);
    }

    /// Returns whether a process waits that can run these tests.
    pub(crate) fn can_run(&self, harnesses: &Harnesses, tests: &[&Test]) -> bool {
        self.0.lock().iter().any(|process| process.order(harnesses, tests).is_some())
    }

    /// Takes a process that can run these tests, and orders it to.
    pub(crate) async fn run(
        &self,
        harnesses: &Harnesses,
        tests: &[&Test],
    ) -> Option<(RunningProcess, Isolation)> {
        let (process, text) = {
            let mut waiting = self.0.lock();
            let orders = waiting.iter().map(|process| process.order(harnesses, tests));
            let (at, text) = orders.enumerate().find_map(|(at, text)| Some((at, text?)))?;
            (waiting.swap_remove(at), text)
        };
        let WaitingProcess { running, isolation, mut order, .. } = process;
        // If the process has ended, it writes no results.
        let _ = blocking(move || order.write_all(&text)).await;
        Some((running, isolation))
    }

    /// Ends the processes that still wait. They run no tests.
    pub fn end(&self) -> impl Future<Output = ()> + Send {
        boxed(self.end_waiting())
    }

    async fn end_waiting(&self) {
        let waiting = std::mem::take(&mut *self.0.lock());
        for WaitingProcess { mut running, order, isolation, .. } in waiting {
            drop(order);
            running.exit(EXIT_TIME_MAX).await;
            drop(isolation);
        }
    }
}

impl WaitingProcess {
    fn order(&self, harnesses: &Harnesses, tests: &[&Test]) -> Option<Vec<u8>> {
        let harness = harnesses.get(&self.collection.harness);
        harness.continuation(&self.collection)?.order(&self.collection, tests)
    }
}

impl fmt::Debug for Continuations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Continuations").field("waiting", &self.0.lock().len()).finish()
    }
}
