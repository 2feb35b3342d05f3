//! Named points between two effects of a run, where the simulation interrupts it.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// Observes each step of a run before it is taken.
pub(crate) trait StepObserver: Debug + Send + Sync {
    /// Returns whether the process is still alive at this step. After `false` the run must have no
    /// further effect on disk.
    fn step(&self, name: &'static str) -> bool;
}

/// The steps of a run: the points between two effects where a process can be killed.
///
/// Only the simulation observes them. Without an observer, passing a step costs one comparison.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps(Option<Arc<dyn StepObserver>>);

impl Steps {
    #[cfg(test)]
    pub(crate) fn observed_by(observer: Arc<dyn StepObserver>) -> Self {
        Self(Some(observer))
    }

    /// Passes a step. Never returns in a process that was killed.
    pub(crate) async fn pass(&self, name: &'static str) {
        let Some(observer) = &self.0 else { return };
        if !observer.step(name) {
            std::future::pending::<()>().await;
        }
        // Lets a stop that was requested at this step take effect at this step.
        tokio::task::yield_now().await;
    }

    /// Passes a step outside of async code.
    ///
    /// # Errors
    /// Fails in a process that was killed, so that the caller ends.
    pub(crate) fn pass_blocking(&self, name: &'static str) -> io::Result<()> {
        match &self.0 {
            Some(observer) if !observer.step(name) => Err(io::Error::other("the process was killed")),
            _ => Ok(()),
        }
    }
}
