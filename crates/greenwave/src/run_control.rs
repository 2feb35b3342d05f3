//! Shows and steers a run while it lasts.

use std::sync::Arc;

use crate::approval::Decision;
use crate::attempt_log::{AttemptLog, StoredAttempt};
use crate::boxed::boxed;
use crate::context::RunContext;
use crate::error::Error;
use crate::plan::FeatureId;
use crate::stage::holds;

/// A handle of a run that shows the work of its agents and takes decisions of the user, from
/// [`Engine::control`](crate::Engine::control). It outlives the run.
#[derive(Debug, Clone)]
pub struct RunControl(Arc<RunContext>);

impl RunControl {
    pub(crate) fn new(ctx: Arc<RunContext>) -> Self {
        Self(ctx)
    }

    /// Pauses the run, or resumes it. In a paused run, agents and tests that are at work continue,
    /// and nothing else begins.
    pub fn set_paused(&self, is_paused: bool) {
        self.0.steering.set_paused(is_paused);
    }

    /// Returns whether the run is paused.
    pub fn is_paused(&self) -> bool {
        self.0.steering.is_paused()
    }

    /// Stops a feature, whose agent or test is killed. The next run continues with it. A feature
    /// that waits in the merge queue or is merged goes on. Does nothing if the plan does not have
    /// the feature.
    pub fn stop(&self, feature: &str) {
        if let Some(id) = self.id(feature) {
            self.0.steering.stop(id);
        }
    }

    /// Lets a feature wait for approval before its merge, in this run and in later ones. `false`
    /// takes that back, but not `hold` of the plan.
    ///
    /// # Errors
    /// [`Error::Io`] if the decision cannot be stored.
    pub fn set_held(&self, feature: &str, is_held: bool) -> Result<(), Error> {
        let Some(id) = self.id(feature) else { return Ok(()) };
        self.0.steering.set_held(id, is_held);
        self.0.approvals.set_wanted(feature, self.0.definition(id), is_held)
    }

    /// Returns whether a feature waits, or will wait, for approval before its merge.
    pub fn is_held(&self, feature: &str) -> bool {
        self.id(feature).is_some_and(|id| holds(&self.0, id))
    }

    /// Returns the number of the attempt of a feature whose answer waits for the user's approval.
    ///
    /// # Errors
    /// [`Error::Io`] if the project's state cannot be read.
    pub fn held_attempt(&self, feature: &str) -> Result<Option<u32>, Error> {
        let Some(id) = self.id(feature) else { return Ok(None) };
        self.0.approvals.held_attempt(feature, self.0.definition(id))
    }

    /// Stores the user's decision about the answer of a feature that waits for approval, as
    /// [`decide`](crate::decide) does. Returns the number of the attempt that the decision is
    /// about, or `None` if no answer of the feature waits.
    ///
    /// # Errors
    /// [`Error::Io`] if the project's state cannot be read or written.
    pub fn decide(&self, feature: &str, decision: &Decision) -> Result<Option<u32>, Error> {
        let Some(id) = self.id(feature) else { return Ok(None) };
        self.0.approvals.decide(feature, self.0.definition(id), decision)
    }

    /// Returns the cost of a feature in this run, in millionths of a US dollar, as far as its agent
    /// reports it.
    pub fn cost(&self, feature: &str) -> u64 {
        self.id(feature).map_or(0, |id| self.0.budget.cost(id))
    }

    /// Returns the newest lines of a feature's agent, at most `count`, oldest first: its words and
    /// the tools that it calls, without secrets and control characters.
    pub fn lines(&self, feature: &str, count: usize) -> Vec<String> {
        self.0.live.get().map_or_else(Vec::new, |live| live.newest_lines(feature, count))
    }

    /// Returns the last stored attempt at a feature.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn last_attempt(
        &self,
        feature: &str,
    ) -> impl Future<Output = Result<Option<StoredAttempt>, Error>> + Send {
        let (ctx, feature) = (Arc::clone(&self.0), feature.to_owned());
        boxed(async move { Ok(AttemptLog::of(ctx.attempts.clone()).newest(&feature, 1).await?.pop()) })
    }

    fn id(&self, feature: &str) -> Option<FeatureId> {
        self.0.ids().find(|id| self.0.feature(*id).id == feature)
    }
}
