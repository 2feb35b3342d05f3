//! Distributes the tests of a candidate over the workers that are free.
//!
//! The worker of the merge runs the tests in their order. Others join once the tests have taken as
//! long as a further working copy will probably take, so that they at most double the cost of a
//! merge whose results are cached. No two workers use one copy: as with the tests of features, no
//! test runs beside another in one directory, where it could see what the other one builds.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use greenwave_scheduler::{NewTask, Step, TaskSender};
use greenwave_testing::{Outcome, Test};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::chain::{Chain, ChainProgress, ChainState};
use super::spare_copies::SpareCopies;
use crate::context::RunContext;
use crate::error::FeatureError;
use crate::plan::FeatureId;
use crate::report::FeatureReport;
use crate::resources;
use crate::test_results::run_test;
use crate::tree::Tree;

/// Label of the phase under which results are reported.
pub(super) const PHASE: &str = "merging";

/// Number of the next candidate, and of the next task of a worker that helps.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Returns the number of a new candidate.
pub(super) fn next_candidate() -> u64 {
    // Relaxed: only the number itself matters.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Runs a test, or takes its cached result. A panic is an error.
pub(super) async fn run_guarded(
    ctx: &RunContext,
    reporter: FeatureId,
    report: &mut FeatureReport,
    test: &Test,
    root: &Path,
) -> Result<Outcome, FeatureError> {
    let run = run_test(ctx, reporter, report, test, root, PHASE);
    let result = AssertUnwindSafe(run).catch_unwind().await;
    result.unwrap_or_else(|panic| Err(FeatureError::of_panic(&*panic)))
}

/// The workers that can help to test merges.
#[derive(Debug, Clone)]
pub(super) struct Helpers {
    pub(super) copies: Arc<SpareCopies>,
    /// Adds a task for each of them to the run.
    pub(super) tasks: Option<TaskSender<(), FeatureError>>,
}

impl Helpers {
    /// Adds this number of tasks to the run, for workers that may help. The scheduler starts them
    /// when no feature needs the worker.
    pub(super) async fn invite<F>(&self, count: usize, help: impl Fn() -> F + Clone + Send + Sync + 'static)
    where
        F: Future<Output = Step<(), FeatureError>> + Send + 'static,
    {
        let Some(tasks) = self.tasks.as_ref().filter(|_| self.copies.is_usable()) else { return };
        for _ in 0..count {
            let id = format!(":merge/{}", next_candidate());
            let task = NewTask { id, needs: resources::helper_needs(), ..NewTask::default() };
            let help = help.clone();
            // The run cannot be over, or has no use for it.
            let _ = tasks.add(task, move |_| help()).await;
        }
    }
}

/// The tests of one candidate.
#[derive(Debug)]
pub(super) struct TestPool {
    ctx: Arc<RunContext>,
    helpers: Helpers,
    /// Number of the candidate.
    candidate: u64,
    files: Tree,
    /// In the order in which they would run on one worker.
    chains: Vec<Chain>,
    state: Mutex<PoolState>,
    /// Notified when a chain stops running.
    stopped: Notify,
}

#[derive(Debug)]
struct PoolState {
    chains: Vec<ChainProgress>,
    pending: BTreeSet<usize>,
    running: BTreeSet<usize>,
    /// Chains that have stopped before their end.
    stuck: BTreeSet<usize>,
}

/// The chain and the failure that decide about a candidate.
#[derive(Debug)]
pub(super) enum Failure {
    /// This test of a chain failed.
    Test(usize, usize),
    /// A test could not run.
    Broken(FeatureError),
}

/// A chain that a worker runs. Dropping it makes the rest of it available to others.
struct TakenChain<'a> {
    pool: &'a TestPool,
    number: usize,
}

impl PoolState {
    /// Returns the first chain that has stopped before its end. Chains behind it need not run: on
    /// one worker, they would not have started.
    fn limit(&self) -> usize {
        self.stuck.first().copied().unwrap_or(usize::MAX)
    }
}

impl TestPool {
    pub(super) fn new(ctx: &Arc<RunContext>, helpers: Helpers, files: Tree, chains: Vec<Chain>) -> Arc<Self> {
        let state = PoolState {
            chains: chains.iter().map(|_| ChainProgress::default()).collect(),
            pending: (0..chains.len()).collect(),
            running: BTreeSet::new(),
            stuck: BTreeSet::new(),
        };
        let candidate = next_candidate();
        let (state, stopped) = (Mutex::new(state), Notify::new());
        Arc::new(Self { ctx: Arc::clone(ctx), helpers, candidate, files, chains, state, stopped })
    }

    /// Returns a chain.
    pub(super) fn chain(&self, number: usize) -> &Chain {
        &self.chains[number]
    }

    /// Runs tests until all chains are done, or until one has failed and all before it have passed,
    /// as on a single worker. Then no test runs any more.
    ///
    /// `root` has the files of the candidate, which took the time `preparation` to write.
    pub(super) async fn run(self: &Arc<Self>, root: &Path, preparation: Duration) -> Option<Failure> {
        let invite = async {
            tokio::time::sleep(self.helpers.copies.cost(preparation)).await;
            self.invite().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = self.work(root) => {}
            () = invite => {}
        }
        let mut state = self.state.lock();
        let first = state.stuck.first().copied()?;
        let progress = &mut state.chains[first];
        if let ChainState::Broken(_) = progress.state
            && let ChainState::Broken(error) = std::mem::replace(&mut progress.state, ChainState::Done)
        {
            return Some(Failure::Broken(error));
        }
        Some(Failure::Test(first, progress.next - 1))
    }

    /// Continues a chain behind a test whose failure does not count.
    pub(super) fn pass_over(&self, number: usize) {
        let mut state = self.state.lock();
        state.stuck.remove(&number);
        let is_done = state.chains[number].next >= self.chains[number].tests.len();
        state.chains[number].state = if is_done { ChainState::Done } else { ChainState::Pending };
        if !is_done {
            state.pending.insert(number);
        }
    }

    /// Takes the counts of the tests that ran since the last call: the place in the batch of the
    /// feature that they count for, and the numbers of tests that ran and that were cached.
    pub(super) fn take_counts(&self) -> BTreeMap<usize, (u32, u32)> {
        let mut counts = BTreeMap::new();
        for (chain, progress) in self.chains.iter().zip(&mut self.state.lock().chains) {
            let report = std::mem::take(&mut progress.report);
            let (run, cached): &mut (u32, u32) = counts.entry(chain.at).or_default();
            (*run, *cached) = (*run + report.tests_run, *cached + report.tests_cached);
        }
        counts
    }

    /// Takes the result of the last test of a chain, if it passed.
    pub(super) fn take_passed(&self, number: usize) -> Option<Outcome> {
        self.state.lock().chains[number].passed.take()
    }

    /// Runs chains in the order of their numbers until none is left, and waits for other workers.
    async fn work(&self, root: &Path) {
        loop {
            let stopped = self.stopped.notified();
            match self.take() {
                Some(chain) => chain.run(root).await,
                None if self.state.lock().running.is_empty() => return,
                None => stopped.await,
            }
        }
    }

    /// Returns the first chain that can start.
    fn next(&self, state: &PoolState) -> Option<usize> {
        let can_start = |number: &&usize| {
            let beside = |other: &usize| self.chains[**number].can_run_beside(&self.chains[*other]);
            state.running.iter().all(beside)
        };
        state.pending.range(..state.limit()).find(can_start).copied()
    }

    /// Takes the first chain that can start.
    fn take(&self) -> Option<TakenChain<'_>> {
        let mut state = self.state.lock();
        let number = self.next(&state)?;
        state.pending.remove(&number);
        state.running.insert(number);
        state.chains[number].state = ChainState::Running;
        Some(TakenChain { pool: self, number })
    }

    /// Adds a task to the run for each place that a test may take, apart from that of the merge.
    async fn invite(self: &Arc<Self>) {
        let places = match self.ctx.plan.setup.is_empty() {
            true => *self.ctx.slots.places().borrow(),
            // The commands run for each further copy.
            false => self.ctx.settings.parallel.workers,
        };
        let count = self.state.lock().pending.len().min((places as usize).saturating_sub(1));
        let pool = Arc::downgrade(self);
        self.helpers.invite(count, move || help(Weak::clone(&pool))).await;
    }

    /// Runs one chain in a copy of this worker. Returns `false` if there is nothing to do.
    async fn help_with_one(&self) -> bool {
        if self.next(&self.state.lock()).is_none() {
            return false;
        }
        let copies = &self.helpers.copies;
        let Some(copy) = copies.borrow(&self.ctx, self.candidate, &self.files).await else { return false };
        let (Some(workspace), Some(chain)) = (copy.workspace(), self.take()) else { return false };
        chain.run(workspace.root()).await;
        true
    }
}

/// A stage of a worker that helps: one chain. Between two of them, the scheduler can give the
/// worker to a feature.
async fn help(pool: Weak<TestPool>) -> Step<(), FeatureError> {
    let Some(pool) = pool.upgrade() else { return Step::Done(()) };
    if pool.help_with_one().await { Step::Next(resources::helper_needs()) } else { Step::Done(()) }
}

impl TakenChain<'_> {
    /// Runs the tests of the chain until one fails, or until another chain has failed behind which
    /// this one need not run.
    async fn run(self, root: &Path) {
        let (pool, number) = (self.pool, self.number);
        let chain = &pool.chains[number];
        loop {
            let next = {
                let state = pool.state.lock();
                if number > state.limit() {
                    return;
                }
                state.chains[number].next
            };
            let Some(test) = chain.tests.get(next) else { break };
            let mut report = FeatureReport::default();
            let result = run_guarded(&pool.ctx, chain.reporter, &mut report, test, root).await;
            let mut state = pool.state.lock();
            let progress = &mut state.chains[number];
            progress.next = next + 1;
            progress.report.tests_run += report.tests_run;
            progress.report.tests_cached += report.tests_cached;
            progress.passed = None;
            progress.state = match result {
                Ok(outcome) if outcome.passed() => {
                    progress.passed = chain.owner.is_none().then_some(outcome);
                    continue;
                }
                Ok(_) => ChainState::Failed,
                Err(error) => ChainState::Broken(error),
            };
            state.stuck.insert(number);
            return;
        }
        pool.state.lock().chains[number].state = ChainState::Done;
    }
}

impl Drop for TakenChain<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.running.remove(&self.number);
        if matches!(state.chains[self.number].state, ChainState::Running) {
            state.chains[self.number].state = ChainState::Pending;
            state.pending.insert(self.number);
        }
        drop(state);
        self.pool.stopped.notify_waiters();
    }
}
