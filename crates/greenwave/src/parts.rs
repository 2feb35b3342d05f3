//! The parts of a run that the engine's own simulation replaces by values: what makes test results,
//! and the steps at which a run can be interrupted.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use greenwave_cache::TieredStats;
use greenwave_testing::{Error, Outcome, Runner, Test};

/// Makes and looks up test results. [`Runner`] is the one outside of tests.
#[async_trait]
pub(crate) trait Tests: Debug + Send + Sync + 'static {
    /// The result of a test in a directory: cached, or from running it.
    async fn run(&self, root: &Path, test: &Test) -> Result<Outcome, Error>;

    /// The result of a test in a directory, if it is cached.
    async fn known(&self, root: &Path, test: &Test) -> Result<Option<Outcome>, Error>;

    /// Figures of the cache.
    fn stats(&self) -> TieredStats;

    /// Makes stored results durable.
    async fn flush(&self);
}

#[async_trait]
impl Tests for Runner {
    async fn run(&self, root: &Path, test: &Test) -> Result<Outcome, Error> {
        Runner::run(self, root, test).await
    }

    async fn known(&self, root: &Path, test: &Test) -> Result<Option<Outcome>, Error> {
        Runner::known(self, root, test).await
    }

    fn stats(&self) -> TieredStats {
        Runner::stats(self)
    }

    async fn flush(&self) {
        Runner::flush(self).await;
    }
}

/// Sees each step of a run before it is taken.
pub(crate) trait Watch: Debug + Send + Sync {
    /// Whether the process is still alive at this step. After `false` nothing more may have an
    /// effect on disk.
    fn step(&self, name: &'static str) -> bool;
}

/// The steps of a run: the places between two effects at which a process can be killed. Nobody
/// watches them outside of the simulation, and passing one then costs a comparison.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps(Option<Arc<dyn Watch>>);

impl Steps {
    #[cfg(test)]
    pub(crate) fn watched_by(watch: Arc<dyn Watch>) -> Self {
        Self(Some(watch))
    }

    /// Passes a step; never returns in a process that was killed.
    pub(crate) async fn pass(&self, name: &'static str) {
        let Some(watch) = &self.0 else { return };
        if !watch.step(name) {
            std::future::pending::<()>().await;
        }
        // A stop that was asked for at this step is heeded at this step.
        tokio::task::yield_now().await;
    }

    /// Passes a step outside of async code.
    ///
    /// # Errors
    /// In a process that was killed, so that the caller ends.
    pub(crate) fn pass_blocking(&self, name: &'static str) -> io::Result<()> {
        match &self.0 {
            Some(watch) if !watch.step(name) => Err(io::Error::other("the process was killed")),
            _ => Ok(()),
        }
    }
}
