//! Coordinates the run of tests without a cached result: builds, schedules, and collects results.
//!
//! One task owns the state of a run. Workers only read [`WorkerInputs`], which does not change
//! while they run, and send their results over a channel.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use greenwave_inputs::now_ms;
use greenwave_scheduler::{Executor, Job, Progress, TaskHistory, TaskId};
use tokio::sync::{mpsc, watch};

use super::builds::Builds;
use super::company::Company;
use super::context::SuiteContext;
use super::report::{Audit, Observe, SuiteEvent, SuiteReport};
use super::schedule::{Schedule, TestGroups, needs};
use super::worker::{ENDING_TIME_MAX, Results, Stress, WorkerInputs, Workers};
use crate::results::dependencies::{DependencyLog, DependencyRecord};
use crate::results::history::{Statistics, TestStatistics};
use crate::results::key_chain::KeyChain;
use crate::results::outcome::{CacheDecision, Outcome, Source};
use crate::run::options::{REPETITIONS_MAX, SuiteOptions};
use crate::run::runner::{Dependencies, TestRun};
use crate::run::test_id::TestId;
use crate::{Error, Test};

/// The tests that a run has to execute.
pub(super) struct PendingTests {
    /// The tests, ordered by id.
    pub(super) ids: Vec<TestId>,
    /// Key chains for which the lookup found no result.
    pub(super) misses: HashMap<TestId, KeyChain>,
    /// Tests whose stored result must not be used, each with the reason.
    pub(super) distrusted: HashMap<TestId, CacheDecision>,
    /// Cached results that are audited.
    pub(super) audits: HashMap<TestId, Outcome>,
    /// Directories that the lookup has built.
    pub(super) builds: Builds,
}

/// The owner of a run's state.
pub(super) struct Coordinator<'a> {
    pub(super) context: &'a Arc<SuiteContext>,
    pub(super) executor: &'a Executor,
    pub(super) options: &'a SuiteOptions,
    pub(super) statistics: &'a mut Statistics,
    pub(super) log: &'a mut DependencyLog,
    pub(super) report: &'a mut SuiteReport,
    pub(super) observe: &'a Observe<'a>,
}

impl Coordinator<'_> {
    /// Runs the tests, and adds their results to the report.
    ///
    /// # Errors
    /// [`Error::Schedule`] if a test needs more of a resource than there is.
    pub(super) async fn run(&mut self, mut pending: PendingTests) -> Result<(), Error> {
        self.build_programs(&mut pending).await;
        let same_key = same_key(&pending);
        let stressed = self.new_tests(&pending);
        let schedule = self.schedule(&pending, &stressed)?;
        let PendingTests { misses, distrusted, audits, builds, .. } = pending;
        let audited = audits.keys().copied().collect();
        let context = Arc::clone(self.context);
        let stress = Stress { runs: self.options.stress_new.min(REPETITIONS_MAX), tests: stressed.clone() };
        self.report.stressed = stressed.into_iter().collect();
        self.report.stressed.sort_unstable();
        let (company, earlier) = (Company::default(), self.earlier());
        let inputs = WorkerInputs { context, builds, misses, distrusted, audited, stress, company, earlier };
        let finished = self.execute(&schedule, inputs, &same_key).await?;
        self.collect(finished, audits, &same_key);
        Ok(())
    }

    /// Builds the programs of the tests. Tests whose programs cannot be built are reported and
    /// removed.
    async fn build_programs(&mut self, pending: &mut PendingTests) {
        let context = self.context;
        let directories: BTreeSet<&Path> =
            pending.ids.iter().filter_map(|id| context.build_directory(*id)).collect();
        let stopper = self.executor.stopper();
        for directory in directories.into_iter() {
            if pending.builds.get(directory).is_some() {
                continue;
            }
            (self.observe)(SuiteEvent::Building(directory));
            let built = tokio::select! {
                built = pending.builds.build(context, directory) => built,
                // Dropping the future stops the build, and a stopped run starts no tests.
                () = stopper.stopped() => return,
            };
            (self.observe)(SuiteEvent::Built { directory, succeeded: built.is_ok() });
            if let Err(error) = built {
                let is_broken = |id: &TestId| context.build_directory(*id) == Some(directory);
                let broken: Vec<TestId> = pending.ids.extract_if(.., |id| is_broken(id)).collect();
                self.report_broken(broken, directory, error);
            }
        }
    }

    fn report_broken(&mut self, broken: Vec<TestId>, directory: &Path, error: Error) {
        let source: Arc<dyn std::error::Error + Send + Sync> = Arc::new(error);
        for id in broken {
            let error = Error::Build {
                harness: self.context.runner.harness(self.context.test(id)).name(),
                directory: directory.to_owned(),
                source: Arc::clone(&source),
            };
            (self.observe)(SuiteEvent::Broken(id, &error));
            self.statistics.observe_error(&self.context.test(id).name);
            self.report.results[id.index()] = Some(Err(error));
        }
    }

    /// Returns the tests that have never run, if new tests run more than once.
    fn new_tests(&self, pending: &PendingTests) -> HashSet<TestId> {
        if self.options.stress_new < 2 {
            return HashSet::new();
        }
        let is_new = |id: &TestId| {
            let name = self.context.test(*id).name.as_str();
            self.statistics.get(name).is_none() && self.log.last_stored(name).is_none()
        };
        pending.ids.iter().copied().filter(is_new).collect()
    }

    /// Returns the statistics of tests whose own runner is serial.
    fn earlier(&self) -> HashMap<TestId, TestStatistics> {
        let context = self.context;
        let is_serial = |id: &TestId| {
            let test = context.test(*id);
            context.runner.harness(test).is_serial(test)
        };
        let earlier = |id: TestId| Some((id, self.statistics.get(&context.test(id).name)?.clone()));
        context.ids().filter(is_serial).filter_map(earlier).collect()
    }

    fn schedule(&self, pending: &PendingTests, stressed: &HashSet<TestId>) -> Result<Schedule, Error> {
        let expect = |id: &TestId| {
            let name = self.context.test(*id).name.as_str();
            (*id, self.statistics.expect(name, self.log.last_stored(name).is_some()))
        };
        let histories: HashMap<TestId, TaskHistory> = pending.ids.iter().map(expect).collect();
        // Batches use stored results, so tests that must not use theirs run alone. A batch runs
        // once.
        let (alone, together): (Vec<TestId>, Vec<TestId>) = pending.ids.iter().partition(|id| {
            let is_not_believed = pending.audits.contains_key(id) || pending.distrusted.contains_key(id);
            is_not_believed || stressed.contains(id)
        });
        let of = |flag: fn(&TestStatistics) -> bool| {
            let has_flag =
                |id: &&TestId| self.statistics.get(&self.context.test(**id).name).is_some_and(flag);
            together.iter().filter(has_flag).copied().collect::<Vec<TestId>>()
        };
        let in_order = of(|it| it.depends_on_order);
        let mut without_company = of(|it| it.runs_alone);
        without_company.retain(|id| !in_order.contains(id));
        let free: Vec<TestId> = together
            .iter()
            .filter(|id| !in_order.contains(id) && !without_company.contains(id))
            .copied()
            .collect();
        let groups = TestGroups { alone, free, without_company, in_order };
        Schedule::plan(self.context, groups, &histories, self.options.workers)
    }

    /// Runs the batches. If the run is stopped, returns the results that arrived before.
    async fn execute(
        &mut self,
        schedule: &Schedule,
        inputs: WorkerInputs,
        same_key: &HashMap<TestId, TestId>,
    ) -> Result<BTreeMap<TestId, Result<TestRun, Error>>, Error> {
        let Schedule { graph, histories, .. } = schedule;
        let (ranks, order) = self.options.rules.order(histories, self.options.workers);
        let (sender, mut results) = mpsc::channel(graph.len().max(1));
        let (stop, stopped) = watch::channel(());
        let phases = graph.tasks().map(|_| watch::Sender::default()).collect();
        let workers = Workers { inputs: Arc::new(inputs), phases, results: sender, stopped };
        let mut finished = BTreeMap::new();
        let progress = |progress| {
            self.report_progress(progress, schedule, &mut results, &mut finished, same_key);
        };
        let context = self.context;
        let needs = |task| {
            let id = graph.payload(task)[0];
            needs(context.test(id), schedule.without_company.contains(&id))
        };
        let expected = |task: TaskId| histories[task.index()].duration;
        let job = Job::new().needs(needs).expected(expected).order(ranks, order).observe(progress);
        context.project.tests_started(graph.len());
        let stage = move |stage: greenwave_scheduler::Stage| {
            workers.clone().stage(stage, graph.payload(stage.task).clone())
        };
        let ended = self.executor.run_job(graph, job, stage).await;
        context.project.tests_started(0);
        // Stop the workers that were still unfinished when the run was stopped.
        drop(stop);
        // Wait until their processes have been killed: nobody else kills them once this program
        // exits. Results that arrive now were not reported, so the report leaves them out.
        let workers_ended = async { while results.recv().await.is_some() {} };
        let _ = tokio::time::timeout(ENDING_TIME_MAX, workers_ended).await;
        // Remove the directories now, because a caller that exits immediately runs no destructors.
        context.runner.remove_isolations();
        self.report.lower_bound = ended?.lower_bound;
        Ok(finished)
    }

    fn report_progress(
        &self,
        progress: Progress,
        schedule: &Schedule,
        results: &mut mpsc::Receiver<Results>,
        finished: &mut BTreeMap<TestId, Result<TestRun, Error>>,
        same_key: &HashMap<TestId, TestId>,
    ) {
        match progress {
            Progress::Started(stage) if stage.number == 0 => {
                let batch = schedule.graph.payload(stage.task);
                batch.iter().for_each(|id| (self.observe)(SuiteEvent::Started(*id)));
            }
            Progress::Done(task) | Progress::Failed(task) => {
                // A worker sends its results before its task ends.
                while let Ok(batch) = results.try_recv() {
                    finished.extend(batch);
                }
                for id in schedule.graph.payload(task) {
                    if let Some(result) = finished.get(id) {
                        self.report_result(*id, result, same_key);
                    }
                }
            }
            _ => {}
        }
    }

    fn report_result(&self, id: TestId, result: &Result<TestRun, Error>, same_key: &HashMap<TestId, TestId>) {
        let event = match result {
            Ok(TestRun { outcome, .. }) => match same_key.get(&id).filter(|_| outcome.is_cached()) {
                Some(other) => SuiteEvent::Deduplicated(id, *other, outcome),
                None => SuiteEvent::Ran(id, outcome),
            },
            Err(error) => SuiteEvent::Broken(id, error),
        };
        (self.observe)(event);
    }

    /// Adds results to the report, the statistics and the log.
    fn collect(
        &mut self,
        finished: BTreeMap<TestId, Result<TestRun, Error>>,
        mut audits: HashMap<TestId, Outcome>,
        same_key: &HashMap<TestId, TestId>,
    ) {
        for (id, result) in finished {
            if let Ok(run) = &result {
                let outcome = &run.outcome;
                match same_key.get(&id).filter(|_| outcome.is_cached()) {
                    Some(other) => self.report.deduplicated.push((id, *other)),
                    // Another process has stored the result in the meantime.
                    None if outcome.is_cached() => self.report.saved += outcome.duration,
                    None => {}
                }
                self.statistics.observe(&self.context.test(id).name, outcome);
                if let Some(cached) = audits.remove(&id) {
                    self.audit(id, cached, outcome);
                }
            }
            let log = &mut *self.log;
            let test = self.context.test(id);
            if result.is_err() {
                self.statistics.observe_error(&test.name);
            }
            self.report.results[id.index()] = Some(result.map(|run| note(log, test, run)));
        }
    }

    /// Compares a cached result with that of a new run.
    fn audit(&mut self, id: TestId, cached: Outcome, actual: &Outcome) {
        self.report.audited += 1;
        if cached.status != actual.status {
            let audit = Audit { cached, actual: actual.clone() };
            (self.observe)(SuiteEvent::AuditFailed(id, &audit));
            self.report.audits_failed.push((id, audit));
        }
    }
}

/// Adds the dependencies of a test that ran to the log, and returns its outcome.
fn note(log: &mut DependencyLog, test: &Test, run: TestRun) -> Outcome {
    let TestRun { outcome, dependencies } = run;
    if let (Source::Ran(decision), Some(Dependencies { record, inputs })) = (&outcome.source, dependencies) {
        let (at, status) = (now_ms(), outcome.status);
        let (not_stored, setting) = (decision.reason(), decision.setting());
        log.put(&test.name, DependencyRecord { at, status, not_stored, setting, ..record }, &inputs);
    }
    outcome
}

/// Maps each missing test that shares its key with others to one of the others.
fn same_key(pending: &PendingTests) -> HashMap<TestId, TestId> {
    let mut by_key: HashMap<[u8; 32], Vec<TestId>> = HashMap::new();
    for (id, chain) in pending.ids.iter().filter_map(|id| Some((*id, pending.misses.get(id)?))) {
        by_key.entry(*chain.last().as_bytes()).or_default().push(id);
    }
    let groups = by_key.into_values().filter(|group| group.len() > 1);
    groups.flat_map(|group| group.clone().into_iter().zip(group.into_iter().cycle().skip(1))).collect()
}
