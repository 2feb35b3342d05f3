//! Runs one test of a group that failed on the joined files of its first features, for several
//! numbers of them side by side.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use greenwave_scheduler::Step;
use greenwave_testing::Test;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::chain::Chain;
use super::test_pool::{Helpers, next_candidate, run_guarded};
use crate::context::RunContext;
use crate::error::FeatureError;
use crate::plan::FeatureId;
use crate::report::FeatureReport;
use crate::resources;
use crate::tree::Tree;
use crate::workspace::Workspace;

/// Maximum number of candidates whose tests run at once.
const AT_ONCE_MAX: u32 = 4;

/// A test that failed for a batch, with those of its chain before it.
#[derive(Debug)]
pub(super) struct FailedTest {
    /// The feature whose test it is. `None` for a guard.
    pub(super) owner: Option<FeatureId>,
    /// The last one failed.
    tests: Vec<Test>,
    /// Whether it can run beside itself.
    is_free: bool,
}

impl FailedTest {
    /// Returns a test of a chain.
    pub(super) fn of(chain: &Chain, test: usize) -> Self {
        let tests = chain.tests[..=test].to_vec();
        Self { owner: chain.owner, tests, is_free: chain.can_run_beside(chain) }
    }

    /// Returns on how many candidates the test may run at once.
    pub(super) fn at_once(&self, ctx: &RunContext) -> usize {
        let workers = ctx.settings.parallel.workers.clamp(1, AT_ONCE_MAX);
        if self.is_free { workers as usize } else { 1 }
    }
}

/// The first features of a group.
#[derive(Debug)]
pub(super) struct Probe {
    /// Number of features.
    pub(super) length: usize,
    /// The project with the files of these features.
    pub(super) files: Tree,
    /// Number of the candidate, for the working copies.
    candidate: u64,
}

impl Probe {
    pub(super) fn new(length: usize, files: Tree) -> Self {
        Self { length, files, candidate: next_candidate() }
    }
}

/// A test that runs on several candidates.
#[derive(Debug)]
pub(super) struct Probes {
    ctx: Arc<RunContext>,
    helpers: Helpers,
    failed: Arc<FailedTest>,
    /// Feature for which results are reported.
    reporter: FeatureId,
    probes: Vec<Probe>,
    state: Mutex<ProbesState>,
    /// Notified when a test has ended.
    stopped: Notify,
}

#[derive(Debug, Default)]
struct ProbesState {
    pending: BTreeSet<usize>,
    running: usize,
    results: Vec<(usize, bool)>,
    report: FeatureReport,
}

/// A probe that a worker runs. Dropping it before it has a result makes it available to others.
struct TakenProbe<'a> {
    probes: &'a Probes,
    at: usize,
    is_done: bool,
}

impl Probes {
    pub(super) fn new(
        ctx: &Arc<RunContext>,
        helpers: Helpers,
        failed: &Arc<FailedTest>,
        reporter: FeatureId,
        probes: Vec<Probe>,
    ) -> Arc<Self> {
        let state = ProbesState { pending: (0..probes.len()).collect(), ..ProbesState::default() };
        let (state, stopped) = (Mutex::new(state), Notify::new());
        Arc::new(Self {
            ctx: Arc::clone(ctx),
            helpers,
            failed: Arc::clone(failed),
            reporter,
            probes,
            state,
            stopped,
        })
    }

    /// Runs the test on all candidates. Returns the numbers of features with which it passed or
    /// failed, without those with which it could not run, and the counts of tests.
    pub(super) async fn run(
        self: &Arc<Self>,
        workspace: &mut Workspace,
    ) -> (Vec<(usize, bool)>, FeatureReport) {
        let others = self.probes.len().saturating_sub(1);
        let probes = Arc::downgrade(self);
        self.helpers.invite(others, move || help(Weak::clone(&probes))).await;
        loop {
            let stopped = self.stopped.notified();
            let Some(taken) = self.take() else {
                if self.state.lock().running == 0 {
                    break;
                }
                stopped.await;
                continue;
            };
            let prepared = workspace.prepare(&self.probes[taken.at].files, &self.ctx.store).await;
            taken.run(prepared.ok().map(|()| workspace.root())).await;
        }
        let ProbesState { results, report, .. } = std::mem::take(&mut *self.state.lock());
        (results, report)
    }

    fn take(&self) -> Option<TakenProbe<'_>> {
        let mut state = self.state.lock();
        let at = state.pending.pop_first()?;
        state.running += 1;
        Some(TakenProbe { probes: self, at, is_done: false })
    }

    /// Runs one probe in a copy of this worker. Returns `false` if there is nothing to do.
    async fn help_with_one(&self) -> bool {
        let Some(taken) = self.take() else { return false };
        let Probe { candidate, files, .. } = &self.probes[taken.at];
        let copies = &self.helpers.copies;
        let Some(copy) = copies.borrow(&self.ctx, *candidate, files).await else { return false };
        let Some(workspace) = copy.workspace() else { return false };
        taken.run(Some(workspace.root())).await;
        true
    }
}

/// A stage of a worker that helps: one probe.
async fn help(probes: Weak<Probes>) -> Step<(), FeatureError> {
    let Some(probes) = probes.upgrade() else { return Step::Done(()) };
    if probes.help_with_one().await { Step::Next(resources::helper_needs()) } else { Step::Done(()) }
}

impl TakenProbe<'_> {
    /// Runs the tests in a copy, up to the first that does not pass. Has no result without a copy.
    async fn run(mut self, root: Option<&std::path::Path>) {
        let Probes { ctx, failed, reporter, .. } = self.probes;
        let mut report = FeatureReport::default();
        let mut passed = root.map(|_| true);
        for test in &failed.tests {
            let (Some(root), Some(true)) = (root, passed) else { break };
            let outcome = run_guarded(ctx, *reporter, &mut report, test, root).await;
            passed = outcome.ok().map(|outcome| outcome.passed());
        }
        self.is_done = true;
        let mut state = self.probes.state.lock();
        state.report.tests_run += report.tests_run;
        state.report.tests_cached += report.tests_cached;
        state.results.extend(passed.map(|passed| (self.probes.probes[self.at].length, passed)));
    }
}

impl Drop for TakenProbe<'_> {
    fn drop(&mut self) {
        let mut state = self.probes.state.lock();
        state.running = state.running.saturating_sub(1);
        if !self.is_done {
            state.pending.insert(self.at);
        }
        drop(state);
        self.probes.stopped.notify_waiters();
    }
}
