//! Waits for the user's decision about an answer that is held before its merge.

use std::time::Duration;

use super::Stage;
use crate::approval::{Decision, HeldAnswer};
use crate::context::RunContext;
use crate::error::FeatureError;
use crate::event::Event;
use crate::phase::PhaseEvent;
use crate::plan::FeatureId;
use crate::state::{ActiveFeature, StageResult};
use crate::tree;

/// Time between two looks for a decision.
const POLL: Duration = Duration::from_millis(100);

/// Returns whether a feature waits for approval before its merge: by the plan, or by a decision of
/// the user during a run.
pub(crate) fn holds(ctx: &RunContext, id: FeatureId) -> bool {
    ctx.feature(id).hold || ctx.steering.is_held(id)
}

/// Returns what is stored of the current answer of a feature while it waits for approval.
pub(crate) fn held_answer(
    ctx: &RunContext,
    id: FeatureId,
    active: &ActiveFeature,
    attempt: u32,
) -> HeldAnswer {
    let changes = tree::changes(&active.base, active.workspace.tree());
    HeldAnswer::new(ctx.feature(id), ctx.definition(id), attempt, &changes)
}

impl Stage<'_> {
    /// Waits until the user approves or rejects the answer.
    ///
    /// # Errors
    /// [`FeatureError::Held`] once the run has nothing left to do, unless it waits for approvals.
    pub(super) async fn wait_for_approval(&mut self, attempt: u32) -> Result<StageResult, FeatureError> {
        let ctx = self.ctx;
        let (feature, held) = (&ctx.feature(self.id).id, self.held_answer(attempt));
        if ctx.is_crowded() {
            // Other features need the slot, and the disk.
            self.active.kept.clear();
            self.active.workspace.suspend().await;
        }
        let mut is_announced = false;
        loop {
            // The user may have removed the state directory.
            ctx.approvals.hold(feature, &held)?;
            match ctx.approvals.decision(feature, &held)? {
                Some(Decision::Approve) => return Ok(StageResult::Completed(PhaseEvent::Approved)),
                Some(Decision::Reject { comment }) => return self.reject(&comment).await,
                None => {}
            }
            if !is_announced {
                ctx.emit(self.needs_approval(attempt)).await;
                is_announced = true;
            }
            if !ctx.scope.wait_for_approval && self.queue.is_idle() {
                return Err(FeatureError::Held { attempt, action: self.action() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Returns whether the current answer was held in an earlier run, so that its review has
    /// approved it.
    pub(super) fn was_held(&self) -> bool {
        let held = self.held_answer(self.active.phase.attempt());
        holds(self.ctx, self.id) && self.ctx.approvals.is_held(&self.feature().id, &held)
    }

    async fn reject(&mut self, comment: &str) -> Result<StageResult, FeatureError> {
        self.ctx.steps.pass("reject an answer").await;
        let files = self.active.workspace.tree().clone();
        self.active.workspace.wake()?;
        self.active.workspace.reset(&files, &self.ctx.store).await?;
        let comment = comment.trim();
        let first = comment.lines().next().unwrap_or_default();
        let (reason, comment) = match first {
            "" => ("rejected by the user".to_owned(), "There is no comment.".to_owned()),
            first => (format!("rejected by the user: {first}"), comment.to_owned()),
        };
        let feedback = format!(
            "The tests pass, but the user has reviewed your changes and rejected them:\n\n{comment}\n\nThe \
             files are as you left them. Change them as the user demands, and keep the tests passing."
        );
        Ok(StageResult::Refused { reason, feedback })
    }

    fn held_answer(&self, attempt: u32) -> HeldAnswer {
        held_answer(self.ctx, self.id, self.active, attempt)
    }

    fn needs_approval(&self, attempt: u32) -> Event {
        Event::NeedsYou {
            feature: self.feature().id.clone(),
            attempt,
            kind: "approval",
            reason: format!("attempt {attempt} passed, and waits for your approval"),
            action: self.action(),
        }
    }

    /// Returns the instruction for the user.
    fn action(&self) -> String {
        let feature = &self.feature().id;
        let plan = self.ctx.plan.file.as_ref().map_or_else(|| "PLAN".into(), |file| file.to_string_lossy());
        format!(
            "run `greenwave approve {plan} {feature}`, or `greenwave reject {plan} {feature} --comment TEXT`"
        )
    }
}
