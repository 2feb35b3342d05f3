//! Runs each batch of tests in a separate task, and sends the results to the coordinator.

mod processes;
mod serial;

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use greenwave_cache::Key;
use greenwave_inputs::InputSnapshot;
use greenwave_sandbox::TraceStatus;
use greenwave_scheduler::{Needs, Stage, Step};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::processes::{OneProcess, Processes, StartedProcess, Verdict, Verdicts};
use super::builds::Builds;
use super::company::Company;
use super::context::SuiteContext;
use crate::harness::batch_plan::can_share;
use crate::results::history::TestStatistics;
use crate::results::key_chain::KeyChain;
use crate::results::lookup::Lookup;
use crate::results::outcome::{CacheDecision, Outcome, Source};
use crate::run::runner::TestRun;
use crate::run::runner::prepare::Prepared;
use crate::run::test_id::TestId;
use crate::run::workspace::{Built, Workspace};
use crate::{Error, Test};

/// Results of a batch.
pub(super) type Results = Vec<(TestId, Result<TestRun, Error>)>;

/// Everything that the workers of a run read. Nothing in it changes during the run.
#[derive(Debug)]
pub(super) struct WorkerInputs {
    pub(super) context: Arc<SuiteContext>,
    pub(super) builds: Builds,
    /// Key chains for which the lookup found no result.
    pub(super) misses: HashMap<TestId, KeyChain>,
    /// Tests whose stored result must not be used, each with the reason.
    pub(super) distrusted: HashMap<TestId, CacheDecision>,
    /// Tests that run although their result is cached.
    pub(super) audited: HashSet<TestId>,
    pub(super) stress: Stress,
    /// The processes of this run.
    pub(super) company: Company,
    /// Statistics of earlier runs of tests whose own runner is serial.
    pub(super) earlier: HashMap<TestId, TestStatistics>,
}

impl WorkerInputs {
    /// Returns the results of a batch whose worker panicked.
    fn panicked(&self, batch: &[TestId], panic: &(dyn Any + Send)) -> Results {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let message = text.unwrap_or_else(|| "no message".to_owned());
        let error = |id: &TestId| {
            let test = self.context.test(*id).name.clone();
            Error::Panicked { test, message: message.clone() }
        };
        batch.iter().map(|id| (*id, Err(error(id)))).collect()
    }
}

/// Tests that run several times.
#[derive(Debug)]
pub(super) struct Stress {
    /// Number of runs of each of the tests.
    pub(super) runs: u32,
    pub(super) tests: HashSet<TestId>,
}

/// Starts a worker for each batch.
///
/// The task of a worker outlives the stage that started it, because the second stage of its batch
/// occupies no resources. It ends early when `stopped` closes. A clone of `results` lives until the
/// worker has dropped everything, including its processes.
#[derive(Clone)]
pub(super) struct Workers {
    pub(super) inputs: Arc<WorkerInputs>,
    /// The phase of each batch, by index.
    pub(super) phases: Arc<[watch::Sender<BatchPhase>]>,
    pub(super) results: mpsc::Sender<Results>,
    /// Closes when the run ends.
    pub(super) stopped: watch::Receiver<()>,
}

/// The progress of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum BatchPhase {
    /// The process has not ended.
    #[default]
    Running,
    /// The process has ended, and the results are being decided.
    Committing,
    /// The results were sent.
    Finished {
        /// Whether all tests of the batch passed.
        passed: bool,
    },
}

impl Workers {
    /// Runs one of the two stages of a batch. The first runs the process and occupies a worker
    /// slot. The second decides the results and occupies none.
    pub(super) async fn stage(self, stage: Stage, batch: Vec<TestId>) -> Step<(), ()> {
        let at = stage.task.index();
        let mut phases = self.phases[at].subscribe();
        let awaited = if stage.number == 0 {
            self.start(at, batch);
            BatchPhase::Committing
        } else {
            BatchPhase::Finished { passed: false }
        };
        let reached = phases.wait_for(|phase| *phase >= awaited).await.map(|phase| *phase);
        match reached {
            Ok(BatchPhase::Finished { passed: true }) => Step::Done(()),
            Ok(BatchPhase::Committing) => Step::Next(Needs::nothing()),
            Ok(_) | Err(_) => Step::Failed(()),
        }
    }

    fn start(self, at: usize, batch: Vec<TestId>) {
        let Self { inputs, phases, results, mut stopped } = self;
        tokio::spawn(async move {
            let phase = FinishOnDrop { phases, at };
            let workspace = ProjectWorkspace { inputs: &inputs, phase: &phase.phases[at] };
            let running = AssertUnwindSafe(workspace.run(batch.clone())).catch_unwind();
            let done = tokio::select! {
                done = running => done.unwrap_or_else(|panic| inputs.panicked(&batch, &*panic)),
                _ = stopped.changed() => return,
            };
            let passed = done.iter().all(|(_, run)| run.as_ref().is_ok_and(|run| run.outcome.passed()));
            // The channel has room for one message from each batch.
            let _ = results.try_send(done);
            phase.finish(passed);
            drop(results);
        });
    }
}

/// Marks a batch as failed if its worker is stopped, so that no stage waits for it.
struct FinishOnDrop {
    phases: Arc<[watch::Sender<BatchPhase>]>,
    at: usize,
}

impl FinishOnDrop {
    fn finish(&self, passed: bool) {
        let is_open = |phase: &BatchPhase| !matches!(phase, BatchPhase::Finished { .. });
        self.phases[self.at].send_if_modified(|phase| {
            let is_modified = is_open(phase);
            if is_modified {
                *phase = BatchPhase::Finished { passed };
            }
            is_modified
        });
    }
}

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        self.finish(false);
    }
}

/// The project that a batch runs in.
struct ProjectWorkspace<'a> {
    inputs: &'a WorkerInputs,
    phase: &'a watch::Sender<BatchPhase>,
}

#[async_trait]
impl Workspace for ProjectWorkspace<'_> {
    fn project(&self) -> &Path {
        self.inputs.context.project.root()
    }

    async fn before(&self, test: &Test) -> Result<InputSnapshot, Error> {
        let project = &self.inputs.context.project;
        let needs_build = self.inputs.context.runner.harness(test).needs_build(test);
        // The inputs of a compiled program are those of its build, even if they have changed since.
        let built = if needs_build { self.inputs.builds.snapshot(&test.directory) } else { None };
        let snapshot = match built {
            Some(snapshot) => Arc::clone(snapshot),
            None => project.latest().await?,
        };
        Ok(project.input_snapshot(&snapshot, &test.name).await?)
    }

    async fn after(&self, test: &Test, ended: Instant) -> Result<InputSnapshot, Error> {
        let project = &self.inputs.context.project;
        let later = project.snapshot_after(ended).await?;
        Ok(project.input_snapshot(&later, &test.name).await?)
    }

    fn built(&self, directory: &Path) -> Option<&Built> {
        self.inputs.builds.get(directory)
    }

    fn wants_explanations(&self) -> bool {
        true
    }

    fn ended(&self) {
        let is_first = self.phase.send_if_modified(|phase| {
            let is_running = *phase == BatchPhase::Running;
            if is_running {
                *phase = BatchPhase::Committing;
            }
            is_running
        });
        if is_first {
            self.inputs.context.project.test_ended();
        }
    }
}

/// The project for a run of a test that is not the last one.
struct Repeated<'a> {
    workspace: &'a ProjectWorkspace<'a>,
}

#[async_trait]
impl Workspace for Repeated<'_> {
    fn project(&self) -> &Path {
        self.workspace.project()
    }

    async fn before(&self, test: &Test) -> Result<InputSnapshot, Error> {
        self.workspace.before(test).await
    }

    async fn after(&self, test: &Test, ended: Instant) -> Result<InputSnapshot, Error> {
        self.workspace.after(test, ended).await
    }

    fn built(&self, directory: &Path) -> Option<&Built> {
        self.workspace.built(directory)
    }

    fn wants_explanations(&self) -> bool {
        true
    }
}

impl ProjectWorkspace<'_> {
    async fn run(&self, batch: Vec<TestId>) -> Results {
        match batch.as_slice() {
            [first, ..] if self.runs_in_order(*first) => self.run_in_order(&batch).await,
            [id] => match self.continue_one(*id).await {
                Some(run) => vec![(*id, Ok(run))],
                None => vec![(*id, self.run_one(*id).await)],
            },
            _ => self.run_together(&batch).await,
        }
    }

    /// Returns whether the process of a collection waits that can run a test.
    fn can_continue(&self, id: TestId) -> bool {
        let WorkerInputs { context, misses, distrusted, audited, stress, .. } = self.inputs;
        let (options, test) = (context.runner.options(), context.test(id));
        let is_plain = misses.contains_key(&id)
            && !distrusted.contains_key(&id)
            && !audited.contains(&id)
            && !stress.tests.contains(&id)
            && can_share(&options.harnesses, test, test);
        let waiting = options.continuations.as_ref().filter(|_| is_plain);
        waiting.is_some_and(|waiting| waiting.can_run(&options.harnesses, &[test]))
    }

    /// Runs a test in the process of its collection. Returns `None` if no process waits, or if the
    /// test does not clearly pass there.
    async fn continue_one(&self, id: TestId) -> Option<TestRun> {
        if !self.can_continue(id) {
            return None;
        }
        let runner = &self.inputs.context.runner;
        let prepared = runner.prepare(self, self.inputs.context.test(id)).await.ok()?;
        let mut ran = OneProcess::default();
        let into = &mut ran;
        let work = move || async move {
            *into = self.run_batch(&[id]).await?;
            Ok::<(), Error>(())
        };
        runner.alone(&batch_key([&prepared]), work).await.ok()?;
        let (_, run) = ran.passed.pop()?;
        self.ended();
        run.ok()
    }

    /// Runs a test alone in its process.
    async fn run_one(&self, id: TestId) -> Result<TestRun, Error> {
        let WorkerInputs { context, misses, distrusted, audited, company, .. } = self.inputs;
        let (runner, test) = (&context.runner, context.test(id));
        if let Some(failed) = self.stress(id).await? {
            return Ok(failed);
        }
        let (is_audited, reason) = (audited.contains(&id), distrusted.get(&id));
        let companion = company.join().await;
        if !is_audited && reason.is_none() {
            let run = runner.run_from(self, test, misses.get(&id).cloned()).await?;
            return Ok(self.confirm(id, run, companion.leave()).await);
        }
        let TestRun { outcome, dependencies } = runner.run_again(self, test).await?;
        let outcome = match reason.filter(|_| outcome.passed() && !is_audited) {
            Some(reason) => Outcome { source: Source::Ran(reason.clone()), ..outcome },
            None => outcome,
        };
        Ok(TestRun { outcome, dependencies })
    }

    /// Runs a new test as often as it has to pass before the run whose result counts. Returns the
    /// first run that fails.
    async fn stress(&self, id: TestId) -> Result<Option<TestRun>, Error> {
        let WorkerInputs { context, stress, .. } = self.inputs;
        if !stress.tests.contains(&id) {
            return Ok(None);
        }
        let test = &Test { retries: 0, ..context.test(id).clone() };
        for run in 1..stress.runs {
            let TestRun { mut outcome, dependencies } =
                context.runner.run_again(&Repeated { workspace: self }, test).await?;
            if !outcome.passed() {
                self.ended();
                let note = format!("\n[this new test failed at run {run} of {}]\n", stress.runs);
                outcome.output = [outcome.output.as_ref(), note.as_bytes()].concat().into();
                outcome.source = Source::Ran(CacheDecision::NotAPass);
                return Ok(Some(TestRun { outcome, dependencies }));
            }
        }
        Ok(None)
    }

    /// Runs several tests in one process, then runs each test alone that did not pass there.
    async fn run_together(&self, batch: &[TestId]) -> Results {
        let context = &self.inputs.context;
        let mut results: Results = Vec::new();
        let (mut valid, mut all) = (Vec::new(), Vec::new());
        for id in batch {
            match context.runner.prepare(self, context.test(*id)).await {
                Ok(prepared) => {
                    all.push(prepared);
                    valid.push(*id);
                }
                Err(error) => results.push((*id, Err(error))),
            }
        }
        let key = batch_key(&all);
        let mut ran = OneProcess::default();
        let (into, of) = (&mut ran, &valid);
        let work = move || async move {
            *into = self.run_batch(of).await?;
            Ok::<(), Error>(())
        };
        // A failed batch proves nothing about its tests, which run alone afterwards.
        let _ = context.runner.alone(&key, work).await;
        let failed = std::mem::take(&mut ran.failed);
        results.append(&mut ran.passed);
        let failed: Vec<TestId> = failed.into_iter().map(|(id, _)| id).collect();
        results.extend(self.confirm_failed(&failed, ran.had_company).await);
        for id in valid {
            if !results.iter().any(|(done, _)| *done == id) {
                let companion = self.inputs.company.join().await;
                results.push((id, context.runner.run_in(self, context.test(id)).await));
                drop(companion);
            }
        }
        self.ended();
        results
    }

    /// Runs the missing tests of a batch in one process.
    async fn run_batch(&self, batch: &[TestId]) -> Result<OneProcess, Error> {
        let missing = self.missing(batch).await?;
        let ids: Vec<TestId> = missing.iter().map(|(id, ..)| *id).collect();
        let processes = self.processes(&missing).await;
        if ids.len() < 2 && processes != Processes::Continued {
            return Ok(OneProcess::default());
        }
        let companion = self.inputs.company.join().await;
        let mut ran = self.run_process(&ids, missing, processes).await?;
        ran.had_company = companion.leave();
        Ok(ran)
    }

    /// Returns how to run a batch. The first run of tests uses one process, as their runner does.
    /// Later runs trace each test separately.
    async fn processes(&self, missing: &[Missing<'_>]) -> Processes {
        let mut traces = 0;
        for (_, prepared, _) in missing {
            traces += usize::from(self.inputs.context.runner.latest_trace(prepared).await.is_some());
        }
        match traces {
            0 => Processes::Continued,
            all if all == missing.len() => Processes::Apart,
            _ => Processes::Shared,
        }
    }

    /// Runs tests in one process, and stores the results of `wanted` ones that pass.
    async fn run_process(
        &self,
        ids: &[TestId],
        wanted: Vec<Missing<'_>>,
        processes: Processes,
    ) -> Result<OneProcess, Error> {
        let SuiteContext { runner, .. } = &*self.inputs.context;
        let Some((_, prepared, _)) = wanted.first() else { return Ok(OneProcess::default()) };
        let Some(first) = self.start_process(ids, prepared, processes).await? else {
            return Ok(OneProcess::default());
        };
        // Files can depend on each other through their process: the verdict in one process counts.
        let again = match first.failed_apart_up_to(ids) {
            Some(end) => Some((end, self.start_process(&ids[..end], prepared, Processes::Shared).await?)),
            None => None,
        };
        let verdicts = Verdicts { ids, first, again };
        let mut ran = OneProcess::default();
        // Commit concurrently, because all results wait for the same snapshot.
        let committing = wanted.into_iter().filter_map(|(id, prepared, chain)| match verdicts.of(id)? {
            Verdict::Passed(attempt) => {
                let test = self.inputs.context.test(id);
                Some(
                    async move { (id, runner.commit_batched(self, test, &prepared, &chain, *attempt).await) },
                )
            }
            Verdict::Failed(result) => {
                ran.failed.push((id, result));
                None
            }
        });
        let committing: Vec<_> = committing.collect();
        ran.passed = join_all(committing).await;
        Ok(ran)
    }

    /// Runs tests in one process, and returns the results of the tests that clearly passed or
    /// failed.
    async fn start_process(
        &self,
        ids: &[TestId],
        prepared: &Prepared<'_>,
        processes: Processes,
    ) -> Result<Option<StartedProcess>, Error> {
        let SuiteContext { runner, .. } = &*self.inputs.context;
        let tests: Vec<&Test> = ids.iter().map(|id| self.inputs.context.test(*id)).collect();
        let Some(first) = tests.first() else { return Ok(None) };
        let first = Test { time_max: tests.iter().map(|test| test.time_max).sum(), ..(*first).clone() };
        let Some(batch) = runner.harness(&first).batch(&first) else { return Ok(None) };
        if processes == Processes::Continued {
            let continued = runner.continue_together(self, &first, prepared, &tests).await?;
            if let Some((attempt, isolation)) = continued {
                let results = batch.results(&tests, attempt.process.status, isolation.directory());
                return Ok(Some(StartedProcess::new(ids, attempt, results, false)));
            }
            if ids.len() < 2 {
                return Ok(None);
            }
        }
        // Without a trace, separate processes have no advantage.
        let is_traced = runner.trace_status() == TraceStatus::Traced && prepared.trace_decides();
        let may_fork = processes == Processes::Apart && is_traced;
        let prepare = |directory: &Path| {
            let apart =
                if may_fork { batch.prepare_apart(&tests, directory, runner.environment())? } else { None };
            apart.map_or_else(|| batch.prepare(&tests, directory, runner.environment()), Ok)
        };
        let (attempt, isolation) = runner.run_together(self, &first, prepared, may_fork, prepare).await?;
        let ran_apart = may_fork && batch.ran_apart(isolation.directory());
        let results = batch.results(&tests, attempt.process.status, isolation.directory());
        Ok(Some(StartedProcess::new(ids, attempt, results, ran_apart)))
    }

    /// Returns the tests of a batch that have no cached result.
    async fn missing(&self, batch: &[TestId]) -> Result<Vec<Missing<'_>>, Error> {
        let SuiteContext { runner, .. } = &*self.inputs.context;
        let mut missing = Vec::new();
        for id in batch {
            let prepared = runner.prepare(self, self.inputs.context.test(*id)).await?;
            if let Lookup::Miss(chain) = runner.lookup(&prepared).await {
                missing.push((*id, prepared, chain));
            }
        }
        Ok(missing)
    }
}

/// Returns the key under which tests run in one process.
fn batch_key<'p>(tests: impl IntoIterator<Item = &'p Prepared<'p>>) -> Key {
    let mut hasher = blake3::Hasher::new();
    for prepared in tests {
        hasher.update(prepared.key.as_bytes());
    }
    Key::from_bytes(*hasher.finalize().as_bytes())
}

/// A test without a cached result, ready to run.
type Missing<'a> = (TestId, Prepared<'a>, KeyChain);

/// Maximum time to wait for the processes of tests after a run has ended or was stopped.
pub(super) const ENDING_TIME_MAX: Duration = Duration::from_secs(5);
