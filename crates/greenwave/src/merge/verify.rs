//! Tests a batch of merges: the features' own tests, those of all green features, and the guards.
//!
//! A test that fails is repeated before the batch fails for it. Without the batch's changes, it
//! shows whether they are to blame; with them, whether the test is flaky.

use std::path::Path;
use std::time::Duration;

use greenwave_testing::{Outcome, Test};
use tokio::time::Instant;

use super::chain::Chain;
use super::joined::Joined;
use super::probes::FailedTest;
use super::test_pool::{Failure, PHASE, TestPool};
use super::{MERGE_COPY, MergeQueue, Trunk, Verified, new_workspace};
use crate::context::RunContext;
use crate::error::FeatureError;
use crate::event::Event;
use crate::feedback::failure_text;
use crate::guards::GuardRun;
use crate::plan::FeatureId;
use crate::report::FeatureReport;
use crate::state::StageResult;
use crate::test_results::repeat_test;
use crate::tree::Tree;
use crate::workspace::Workspace;

/// The features that are merged, and the files with their changes.
pub(super) struct Merge<'a> {
    pub(super) joined: &'a mut Joined,
    /// The feature whose tests run first, if they do at all: one of them has just failed.
    pub(super) first: Option<FeatureId>,
}

/// A candidate, and the files that its tests run on.
struct CandidateRun<'r, 'm> {
    merge: &'r mut Merge<'m>,
    trunk: &'r mut Trunk,
    workspace: &'r mut Workspace,
    /// Time that it took to write the files.
    preparation: Duration,
    /// Counts of each feature's tests.
    verified: Vec<Verified>,
}

impl CandidateRun<'_, '_> {
    /// Adds the counts of tests that have run.
    fn add(&mut self, pool: &TestPool) {
        for (at, (run, cached)) in pool.take_counts() {
            let (_, report) = self.merge.feature(at);
            (report.tests_run, report.tests_cached) = (report.tests_run + run, report.tests_cached + cached);
            self.verified[at].retested += run as usize;
            self.verified[at].cached += cached as usize;
        }
    }

    /// Records the results of guards that have passed. Returns a refusal, and records nothing, if
    /// one has run fewer single tests than before, unless each feature may change tests and so
    /// remove some.
    fn record_guards(&mut self, ctx: &RunContext, passed: &[(&Test, Outcome)]) -> Option<StageResult> {
        let mut features = self.merge.joined.features.iter();
        let may_edit = features.all(|(feature, _)| !ctx.feature(feature.id).may_edit.is_empty());
        for (test, outcome) in passed.iter().filter(|_| !may_edit) {
            if let Some(problem) = self.trunk.guards.missing_case(test, outcome) {
                let reason = format!("after merging, {problem} in test `{}`", test.name);
                return Some(StageResult::refused(reason));
            }
        }
        for (test, outcome) in passed {
            self.trunk.guards.record(test, outcome);
        }
        None
    }
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

/// A candidate that is refused.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) refusal: StageResult,
    /// The test that the changes broke, unless a guard has run fewer single tests.
    pub(super) by: Option<FailedTest>,
}

/// Counts of the tests of a candidate, or its refusal.
type Verification = Result<Vec<Verified>, Rejection>;

impl MergeQueue {
    /// Runs all tests that must pass on the candidate. Tests whose inputs are unchanged have cached
    /// results. Returns the counts of each feature's tests; the first counts those of green
    /// features and guards. The inner error refuses the batch.
    pub(super) async fn verify_candidate(
        &self,
        mut merge: Merge<'_>,
        trunk: &mut Trunk,
    ) -> Result<Verification, FeatureError> {
        let mut workspace = match trunk.workspace.take() {
            Some(workspace) => workspace,
            None => new_workspace(&self.ctx, MERGE_COPY)?,
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
    ) -> Result<Verification, FeatureError> {
        let ctx = &self.ctx;
        let (started, is_new) = (Instant::now(), workspace.is_fresh());
        workspace.prepare(merge.candidate(), &ctx.store).await?;
        if is_new {
            self.spare.record_cost(started.elapsed());
        }
        let mut run =
            CandidateRun { preparation: started.elapsed(), verified: Vec::new(), merge, trunk, workspace };
        run.verified = vec![Verified::default(); run.merge.joined.features.len()];
        let (first, _) = run.merge.feature(0);
        let own = run.merge.joined.features.iter().map(|(feature, _)| feature.id).enumerate();
        let own = own.filter_map(|(at, id)| Chain::of_feature(ctx, id, (at, id)));
        let green = run.trunk.green.iter().filter_map(|&id| Chain::of_feature(ctx, id, (0, first)));
        let mut chains: Vec<Chain> = own.chain(green).collect();
        if let Some(at) = chains.iter().position(|chain| chain.owner == run.merge.first) {
            chains[..=at].rotate_right(1);
        }
        if let Some(rejection) = self.run_chains(&mut run, chains).await? {
            return Ok(Err(rejection));
        }
        Ok(match self.verify_guards(&mut run).await? {
            Some(rejection) => Err(rejection),
            None => Ok(run.verified),
        })
    }

    /// Runs the tests of a candidate. Returns a rejection if the changes broke one. Results of
    /// guards that pass are recorded, unless a single test is missing.
    async fn run_chains(
        &self,
        run: &mut CandidateRun<'_, '_>,
        chains: Vec<Chain>,
    ) -> Result<Option<Rejection>, FeatureError> {
        let count = chains.len();
        let pool = TestPool::new(&self.ctx, self.helpers(), run.merge.candidate().clone(), chains);
        loop {
            let failure = pool.run(run.workspace.root(), run.preparation).await;
            run.add(&pool);
            let (number, test) = match failure {
                None => break,
                Some(Failure::Broken(error)) => return Err(error),
                Some(Failure::Test(number, test)) => (number, test),
            };
            if let Some(refusal) = self.judge_failure(run, pool.chain(number), test).await? {
                let by = Some(FailedTest::of(pool.chain(number), test));
                return Ok(Some(Rejection { refusal, by }));
            }
            pool.pass_over(number);
        }
        let passed = (0..count).filter_map(|at| Some((&pool.chain(at).tests[0], pool.take_passed(at)?)));
        let refusal = run.record_guards(&self.ctx, &passed.collect::<Vec<_>>());
        Ok(refusal.map(|refusal| Rejection { refusal, by: None }))
    }

    /// Decides about a test that failed on the candidate. Returns a refusal if the changes broke
    /// it.
    async fn judge_failure(
        &self,
        run: &mut CandidateRun<'_, '_>,
        chain: &Chain,
        test: usize,
    ) -> Result<Option<StageResult>, FeatureError> {
        let ctx = &self.ctx;
        let test = &chain.tests[test];
        let of = match chain.owner {
            Some(owner) => format!("`{}` of `{}`", test.name, ctx.feature(owner).id),
            None => format!("`{}`, which passed before,", test.name),
        };
        // Without the changes, the features' own tests are red.
        let is_new = chain.owner.is_some_and(|owner| !run.trunk.green.contains(&owner));
        let without = (!is_new).then_some(&run.trunk.tree);
        match self.blame(run.merge, chain.at, without, run.workspace, test, &of).await? {
            Blame::Changes(outcome) => {
                let roots = [run.workspace.root(), ctx.project.dir.path()];
                return Ok(Some(refused(&of, &outcome, &roots)));
            }
            Blame::BrokenBefore if chain.owner.is_none() => run.trunk.guards.remove(test),
            Blame::BrokenBefore | Blame::Flaky => {}
        }
        Ok(None)
    }

    /// Runs the guards. Returns a rejection if the changes broke one.
    async fn verify_guards(&self, run: &mut CandidateRun<'_, '_>) -> Result<Option<Rejection>, FeatureError> {
        let ctx = &self.ctx;
        let (first, _) = run.merge.feature(0);
        if !run.trunk.guards.is_ready() {
            run.workspace.prepare(&run.trunk.tree, &ctx.store).await?;
            let (id, report) = run.merge.feature(0);
            run.trunk.guards.prepare(GuardRun { ctx, id, report, root: run.workspace.root() }).await?;
            run.workspace.prepare(run.merge.candidate(), &ctx.store).await?;
        }
        let guards = run.trunk.guards.tests().into_iter();
        self.run_chains(run, guards.map(|test| Chain::of_guard(test, first)).collect()).await
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
                None => new_workspace(ctx, MERGE_COPY)?,
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
