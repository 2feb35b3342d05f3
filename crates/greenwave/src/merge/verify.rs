//! Tests a batch of merges: the features' own tests, those of all green features, and the guards.
//!
//! A test that fails is repeated before the batch fails for it. Without the batch's changes, it
//! shows whether they are to blame; with them, whether the test is flaky.

use std::path::Path;

use greenwave_testing::{Outcome, Test};

use super::joined::Joined;
use super::{MergeQueue, Trunk, Verified};
use crate::error::FeatureError;
use crate::event::Event;
use crate::feedback::failure_text;
use crate::guards::GuardRun;
use crate::plan::FeatureId;
use crate::report::FeatureReport;
use crate::state::StageResult;
use crate::test_results::{repeat_test, run_test};
use crate::tree::Tree;
use crate::workspace::Workspace;

/// Label of the phase under which results are reported.
const PHASE: &str = "merging";

/// The features that are merged, and the files with their changes.
pub(super) struct Merge<'a> {
    pub(super) joined: &'a mut Joined,
}

impl Merge<'_> {
    /// Returns the files with the changes.
    fn candidate(&self) -> &Tree {
        &self.joined.files
    }

    /// Returns a feature of the batch, and its report.
    fn feature(&mut self, at: usize) -> (FeatureId, &mut FeatureReport) {
        let (candidate, _) = &mut self.joined.features[at];
        (candidate.id, &mut candidate.report)
    }
}

/// Verdict on a test that failed on the candidate.
#[expect(clippy::large_enum_variant, reason = "a merge has one of these")]
enum Blame {
    /// The changes broke it.
    Changes(Outcome),
    /// It fails without them, too.
    BrokenBefore,
    /// It passed when it was repeated.
    Flaky,
}

impl MergeQueue {
    /// Runs all tests that must pass on the candidate. Tests whose inputs are unchanged have cached
    /// results. Returns the counts of each feature's tests; the first counts those of green
    /// features and guards. The inner error refuses the batch.
    pub(super) async fn verify_candidate(
        &self,
        mut merge: Merge<'_>,
        trunk: &mut Trunk,
    ) -> Result<Result<Vec<Verified>, StageResult>, FeatureError> {
        let mut workspace = match trunk.workspace.take() {
            Some(workspace) => workspace,
            None => self.new_workspace()?,
        };
        let verified = self.verify_in(&mut merge, trunk, &mut workspace).await;
        trunk.workspace = Some(workspace);
        verified
    }

    async fn verify_in(
        &self,
        merge: &mut Merge<'_>,
        trunk: &mut Trunk,
        workspace: &mut Workspace,
    ) -> Result<Result<Vec<Verified>, StageResult>, FeatureError> {
        let ctx = &self.ctx;
        workspace.prepare(merge.candidate(), &ctx.store).await?;
        let count = merge.joined.features.len();
        let mut verified = vec![Verified::default(); count];
        let own: Vec<FeatureId> = merge.joined.features.iter().map(|(feature, _)| feature.id).collect();
        let own = own.into_iter().enumerate();
        for (at, owner) in own.chain(trunk.green.iter().map(|&owner| (0, owner))) {
            for test in &ctx.feature(owner).tests {
                let of = format!("`{}` of `{}`", test.name, ctx.feature(owner).id);
                let (id, report) = merge.feature(at);
                let outcome = run_test(ctx, id, report, test, workspace.root(), PHASE).await?;
                verified[at].add(&outcome);
                if outcome.passed() {
                    continue;
                }
                // Without the changes, the features' own tests are red.
                let without = trunk.green.contains(&owner).then_some(&trunk.tree);
                if let Blame::Changes(outcome) = self.blame(merge, at, without, workspace, test, &of).await? {
                    return Ok(Err(refused(&of, &outcome, &[workspace.root(), ctx.project.dir.path()])));
                }
            }
        }
        Ok(self.verify_guards(merge, trunk, workspace, &mut verified[0]).await?.map_or(Ok(verified), Err))
    }

    /// Runs the guards. Returns a refusal if the changes broke one.
    async fn verify_guards(
        &self,
        merge: &mut Merge<'_>,
        trunk: &mut Trunk,
        workspace: &mut Workspace,
        verified: &mut Verified,
    ) -> Result<Option<StageResult>, FeatureError> {
        let ctx = &self.ctx;
        if !trunk.guards.is_ready() {
            workspace.prepare(&trunk.tree, &ctx.store).await?;
            let (id, report) = merge.feature(0);
            trunk.guards.prepare(GuardRun { ctx, id, report, root: workspace.root() }).await?;
            workspace.prepare(merge.candidate(), &ctx.store).await?;
        }
        // A feature that may change tests may remove some.
        let mut features = merge.joined.features.iter();
        let may_edit = features.all(|(feature, _)| !ctx.feature(feature.id).may_edit.is_empty());
        let mut outcomes = Vec::new();
        for test in trunk.guards.tests() {
            let of = format!("`{}`, which passed before,", test.name);
            let (id, report) = merge.feature(0);
            let outcome = run_test(ctx, id, report, &test, workspace.root(), PHASE).await?;
            verified.add(&outcome);
            if !outcome.passed() {
                match self.blame(merge, 0, Some(&trunk.tree), workspace, &test, &of).await? {
                    Blame::Changes(outcome) => {
                        return Ok(Some(refused(&of, &outcome, &[workspace.root(), ctx.project.dir.path()])));
                    }
                    Blame::BrokenBefore => {
                        trunk.guards.remove(&test);
                        continue;
                    }
                    Blame::Flaky => continue,
                }
            }
            if let Some(problem) = trunk.guards.missing_case(&test, &outcome).filter(|_| !may_edit) {
                let reason = format!("after merging, {problem} in test `{}`", test.name);
                return Ok(Some(StageResult::refused(reason)));
            }
            outcomes.push((test, outcome));
        }
        for (test, outcome) in &outcomes {
            trunk.guards.record(test, outcome);
        }
        Ok(None)
    }

    /// Repeats a test that failed on the candidate: first on the files `without` the changes, if
    /// there are any, then on the candidate. Leaves the candidate in the workspace. The results are
    /// reported for the feature `at` this place in the batch.
    async fn blame(
        &self,
        merge: &mut Merge<'_>,
        at: usize,
        without: Option<&Tree>,
        workspace: &mut Workspace,
        test: &Test,
        of: &str,
    ) -> Result<Blame, FeatureError> {
        let ctx = &self.ctx;
        if let Some(without) = without {
            workspace.prepare(without, &ctx.store).await?;
            let (id, report) = merge.feature(at);
            let outcome = repeat_test(ctx, id, report, test, workspace.root(), PHASE).await?;
            workspace.prepare(merge.candidate(), &ctx.store).await?;
            if !outcome.passed() {
                let message = format!("test {of} also fails without this feature's changes");
                self.note(id, "broken-before", message).await;
                return Ok(Blame::BrokenBefore);
            }
        }
        let (id, report) = merge.feature(at);
        let outcome = repeat_test(ctx, id, report, test, workspace.root(), PHASE).await?;
        if !outcome.passed() {
            return Ok(Blame::Changes(outcome));
        }
        let message = format!("test {of} failed and passed when it was repeated: it is flaky");
        self.note(id, "flaky-test", message).await;
        Ok(Blame::Flaky)
    }

    /// Returns the guards, which are found and run if they were not before.
    ///
    /// # Errors
    /// Fails if a guard of the plan cannot be run at all.
    pub(crate) async fn guards(
        &self,
        id: FeatureId,
        report: &mut FeatureReport,
    ) -> Result<Vec<Test>, FeatureError> {
        let ctx = &self.ctx;
        let mut trunk = self.trunk.lock().await;
        if !trunk.guards.is_ready() {
            let mut workspace = match trunk.workspace.take() {
                Some(workspace) => workspace,
                None => self.new_workspace()?,
            };
            workspace.prepare(&trunk.tree, &ctx.store).await?;
            let run = GuardRun { ctx, id, report, root: workspace.root() };
            let prepared = trunk.guards.prepare(run).await;
            trunk.workspace = Some(workspace);
            prepared?;
        }
        Ok(trunk.guards.tests())
    }

    async fn note(&self, id: FeatureId, code: &'static str, message: String) {
        let feature = Some(self.ctx.feature(id).id.clone());
        self.ctx.emit(Event::Note { code, feature, message, hint: None }).await;
    }
}

fn refused(of: &str, outcome: &Outcome, roots: &[&Path]) -> StageResult {
    let reason = format!("after merging, test {of} {}", outcome.status);
    let feedback = format!("{reason}\n\n{}", failure_text(&outcome.output, roots).text);
    StageResult::Refused { reason, feedback }
}
