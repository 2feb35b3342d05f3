//! Runs each batch of tests in a separate task, and sends the results to the coordinator.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use greenwave_cache::Key;
use greenwave_inputs::InputSnapshot;
use greenwave_scheduler::{Needs, Stage, Step};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::builds::Builds;
use super::context::SuiteContext;
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
            let done = tokio::select! {
                done = workspace.run(batch) => done,
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

/// Marks a batch as failed if its worker panics or is stopped, so that no stage waits for it.
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

    async fn after(&self, test: &Test) -> Result<InputSnapshot, Error> {
        let project = &self.inputs.context.project;
        let later = project.snapshot_after(Instant::now()).await?;
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

    async fn after(&self, test: &Test) -> Result<InputSnapshot, Error> {
        self.workspace.after(test).await
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
            [id] => vec![(*id, self.run_one(*id).await)],
            _ => self.run_together(&batch).await,
        }
    }

    async fn run_one(&self, id: TestId) -> Result<TestRun, Error> {
        let WorkerInputs { context, misses, distrusted, audited, .. } = self.inputs;
        let (runner, test) = (&context.runner, context.test(id));
        if let Some(failed) = self.stress(id).await? {
            return Ok(failed);
        }
        let (is_audited, reason) = (audited.contains(&id), distrusted.get(&id));
        if !is_audited && reason.is_none() {
            return runner.run_from(self, test, misses.get(&id).cloned()).await;
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
        let mut hasher = blake3::Hasher::new();
        let mut valid = Vec::new();
        for id in batch {
            match context.runner.prepare(self, context.test(*id)).await {
                Ok(prepared) => {
                    hasher.update(prepared.key.as_bytes());
                    valid.push(*id);
                }
                Err(error) => results.push((*id, Err(error))),
            }
        }
        let key = Key::from_bytes(*hasher.finalize().as_bytes());
        let mut made = Vec::new();
        let (into, of) = (&mut made, &valid);
        let work = move || async move {
            *into = self.run_batch(of).await?;
            Ok::<(), Error>(())
        };
        // A failed batch proves nothing about its tests, which run alone afterwards.
        let _ = context.runner.alone(&key, work).await;
        results.append(&mut made);
        for id in valid {
            if !results.iter().any(|(done, _)| *done == id) {
                results.push((id, context.runner.run_in(self, context.test(id)).await));
            }
        }
        self.ended();
        results
    }

    /// Runs the missing tests of a batch in one process. Returns only the results of passing tests.
    async fn run_batch(&self, batch: &[TestId]) -> Result<Results, Error> {
        let SuiteContext { runner, .. } = &*self.inputs.context;
        let missing = self.missing(batch).await?;
        let tests: Vec<&Test> = missing.iter().map(|(id, ..)| self.inputs.context.test(*id)).collect();
        let [first, _, ..] = tests.as_slice() else { return Ok(Vec::new()) };
        let first = Test { time_max: tests.iter().map(|test| test.time_max).sum(), ..(*first).clone() };
        let Some(batch) = runner.harness(&first).batch(&first) else { return Ok(Vec::new()) };
        let (_, prepared, _) = &missing[0];
        let prepare = |directory: &Path| batch.prepare(&tests, directory, runner.environment());
        let (attempt, isolation) = runner.run_together(self, &first, prepared, prepare).await?;
        let results = batch.results(&tests, attempt.process.status, isolation.directory());
        drop(isolation);
        // Commit concurrently, because all results wait for the same snapshot.
        let committing = missing.into_iter().zip(results).filter_map(|((id, prepared, chain), result)| {
            let (attempt, test) = (attempt.share(result?), self.inputs.context.test(id));
            Some(async move { (id, runner.commit_batched(self, test, &prepared, &chain, attempt).await) })
        });
        Ok(join_all(committing).await)
    }

    /// Returns the tests of a batch that have no cached result.
    async fn missing(&self, batch: &[TestId]) -> Result<Vec<(TestId, Prepared<'_>, KeyChain)>, Error> {
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

/// Maximum time to wait for the processes of tests after a run has ended or was stopped.
pub(super) const ENDING_TIME_MAX: Duration = Duration::from_secs(5);
