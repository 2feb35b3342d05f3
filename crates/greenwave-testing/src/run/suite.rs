//! Runs the tests of a project: looks up cached results and schedules the tests without one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use greenwave_cache::Tiered;
use greenwave_scheduler::{
    Executor, GraphBuilder, Job, Limits, LoadOptions, Needs, OnFailure, OrderRules, Progress, Resources,
    Stage, Step, Stopper, TaskHistory, Workers,
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::harness::batch_plan;
use crate::harness::{BuildOutput, BuildRequest, Crash, FinishedProcess, Harnesses, LaunchSpec, Rerun};
use crate::results::dependencies::{DependencyLog, DependencyRecord, Difference};
use crate::results::history::Statistics;
use crate::results::outcome::{CacheDecision, Outcome, Source, Status};
use crate::results::state::StateDirectory;
use crate::results::up_to_date::{LookupInputs, RecordKey, UpToDateRecord};
use crate::run::blocking::blocking;
use crate::run::process::ProcessResult;
use crate::run::runner::{AttemptResult, BUILDS, KeyChain, Lookup, Prepared, Runner, RunnerOptions};
use crate::run::test_id::TestId;
use crate::run::workspace::Workspace;
use crate::{Environment, Error, Manifest, Test, TraceMode, TraceStatus};
use greenwave_inputs::AccessKind;
use greenwave_inputs::DirCache;
use greenwave_inputs::InputSnapshot;
use greenwave_inputs::StatCache;
use greenwave_inputs::now_ms;
use greenwave_inputs::{ProjectFiles, Snapshot};

/// Scheduler resource that bounds the number of running tests: each takes one unit.
const WORKERS: &str = "workers";
/// Scheduler lock that a test holds exclusively if it must not run in parallel with others.
const ALONE: &str = "alone";

/// Options for running the tests of a project.
#[derive(Debug, Clone)]
pub struct SuiteOptions {
    /// Maximum number of tests that run at the same time, at least 1.
    pub workers: u32,
    /// Whether fewer tests run at the same time while the machine is busy with other work.
    pub follow_load: bool,
    /// Whether no test starts after the first failure.
    pub fail_fast: bool,
    /// Units of each named resource that tests may need. A resource that is not listed has one
    /// unit.
    pub resources: BTreeMap<String, u32>,
    /// Rules for the order in which tests start.
    pub rules: OrderRules,
    /// Share of cached results that are audited, that is, run again and compared, from 0 to 1.
    pub audit: f64,
    /// Seed for the selection of results to audit.
    pub audit_seed: u64,
}

impl Default for SuiteOptions {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            follow_load: false,
            fail_fast: false,
            resources: BTreeMap::new(),
            rules: OrderRules::default(),
            audit: 0.0,
            audit_seed: 0,
        }
    }
}

/// The tests of a project, ready to be looked up and run.
#[derive(Debug)]
pub struct Suite {
    shared: Arc<Shared>,
    options: SuiteOptions,
    state: StateDirectory,
    executor: Executor,
}

#[derive(Debug)]
struct Shared {
    runner: Runner,
    project: ProjectFiles,
    tests: Vec<Test>,
    builds: Mutex<HashMap<PathBuf, Built>>,
    running: Mutex<HashMap<usize, Running>>,
    /// Tests whose stored result may be stale because their programs could not be built completely,
    /// each with a build product that it read. By index.
    doubted: Mutex<HashMap<usize, PathBuf>>,
    /// Indices of untraced tests that read undeclared files when they were traced.
    unseen: Mutex<HashSet<usize>>,
    /// Number of tasks that may still own a process.
    alive: watch::Sender<usize>,
    statistics: Mutex<Statistics>,
    notes: Mutex<DependencyLog>,
    /// Dependencies of the tests that ran, by test name.
    learned: Mutex<HashMap<String, (DependencyRecord, Manifest)>>,
    /// Key chains for which the last lookup found no result, by test index.
    missing: Mutex<HashMap<usize, KeyChain>>,
    /// Inputs of the last lookup, if all of its results were cached.
    basis: Mutex<Option<LookupInputs>>,
}

/// The output of a build and the snapshot of the sources that it was built from.
#[derive(Debug, Clone)]
struct Built {
    build: Arc<dyn BuildOutput>,
    snapshot: Arc<Snapshot>,
    /// An input that was still changing during the last of [`BUILDS_MAX`] builds.
    changing: Option<PathBuf>,
}

/// Maximum number of builds while inputs keep changing.
const BUILDS_MAX: u32 = 3;

/// A task whose process has exited and whose results are being decided. Dropping it aborts the
/// task.
#[derive(Debug)]
struct Running(JoinHandle<Results>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a task in [`Shared::alive`] until it is dropped.
struct Alive(Arc<Shared>);

impl Alive {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.alive.send_modify(|alive| *alive += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.send_modify(|alive| *alive -= 1);
    }
}

/// Maximum time to wait for the processes of tests after a run has ended or was stopped.
const ENDING_TIME_MAX: Duration = Duration::from_secs(5);

/// An event of a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum SuiteEvent<'a> {
    /// The lookup has finished.
    LookedUp {
        /// Number of tests with a cached result.
        cached: usize,
        /// Number of tests that will run.
        running: usize,
    },
    /// A build has started in this directory of the project.
    Building(&'a Path),
    /// A test has a cached result.
    Cached(TestId, &'a Outcome),
    /// A test has started.
    Started(TestId),
    /// A test has run.
    Ran(TestId, &'a Outcome),
    /// The first test did not run, because the second has the same command and inputs and has just
    /// produced the result.
    Deduplicated(TestId, TestId, &'a Outcome),
    /// A test could not be run.
    Broken(TestId, &'a Error),
    /// An audited test ended with another status than the cached one.
    AuditFailed(TestId, &'a Audit),
}

/// A cached result and the result of running the test again.
#[derive(Debug)]
pub struct Audit {
    /// The cached result.
    pub cached: Outcome,
    /// The new result.
    pub actual: Outcome,
}

/// The results and statistics of a run.
#[derive(Debug)]
pub struct SuiteReport {
    /// Results by test index; `None` for tests that were not requested or did not get to run.
    pub results: Vec<Option<Result<Outcome, Error>>>,
    /// Number of cached results that were compared with a new run, including failed audits.
    pub audited: usize,
    /// Audits whose new status differs from the cached one.
    pub audits_failed: Vec<(TestId, Audit)>,
    /// Duration of the run, including the lookup.
    pub wall: Duration,
    /// Tests that did not run, each with the test of the same command and inputs that produced its
    /// result.
    pub deduplicated: Vec<(TestId, TestId)>,
    /// Total duration of the runs that originally produced the cached results.
    pub saved: Duration,
    /// Lower bound on the time that the tests take in any order.
    pub lower_bound: Duration,
    /// Duration of the lookup.
    pub looked_up: Duration,
    /// Whether the tests were traced.
    pub tracing: TraceStatus,
    /// Input patterns that match no file, with the tests that declare them. Covers only tests
    /// that had to run.
    pub unmatched: Vec<(TestId, String)>,
}

/// An explanation of why a test has a cached result or has none.
#[derive(Debug)]
pub struct Explanation {
    /// The cached result.
    pub cached: Option<Outcome>,
    /// Age and status of the last run in this project, and the reason why its result was not
    /// stored.
    pub last: Option<(Duration, Status, Option<String>)>,
    /// Age of the last run in this project whose result was stored.
    pub stored: Option<Duration>,
    /// Changes since the last run whose result was stored.
    pub differences: Vec<Difference>,
    /// Number of input files.
    pub inputs: usize,
    /// Paths of discovered dependencies.
    pub discovered: Vec<PathBuf>,
}

impl Suite {
    /// Opens the suite for a project directory. State is stored in its `.greenwave` directory.
    ///
    /// # Errors
    /// Returns [`Error::DuplicateName`] if two tests have the same name, [`Error::NotTraced`] if
    /// tracing is required but not available, [`Error::Inputs`] if an input pattern is invalid, and
    /// [`Error::Io`] if the state directory cannot be created.
    pub fn open(
        project: &Path,
        tests: Vec<Test>,
        environment: Environment,
        cache: Option<Tiered>,
        runner: RunnerOptions,
        options: SuiteOptions,
    ) -> Result<Self, Error> {
        let root = project.canonicalize().map_err(Error::io("find", project))?;
        let tracing = TraceStatus::of(runner.trace);
        if let (TraceMode::Required, TraceStatus::Unavailable(reason)) = (runner.trace, &tracing) {
            return Err(Error::NotTraced { reason: reason.clone() });
        }
        let mut names = HashSet::new();
        if let Some(twice) = tests.iter().find(|test| !names.insert(test.name.as_str())) {
            return Err(Error::DuplicateName { test: twice.name.clone() });
        }
        let state = StateDirectory::open(&root)?;
        // An outer tracer sees the names in a directory only if this process reads them.
        let tree = match tracing {
            TraceStatus::TracedByOuter => None,
            _ => DirCache::load(&state.file(TREE)),
        };
        let mut index = StatCache::load(&state.file(INDEX));
        if let Some(files) = &runner.files {
            index.share_with(files);
        }
        let index = Arc::new(Mutex::new(index));
        let specs: Vec<_> = tests.iter().map(|test| (test.name.clone(), test.input_spec())).collect();
        let shared = Shared {
            project: ProjectFiles::new(
                &root,
                Arc::clone(&index),
                tree,
                specs,
                greenwave_sandbox::kernel_object_exists,
            )?,
            runner: Runner::with_index(environment, cache, runner, index),
            tests,
            builds: Mutex::default(),
            running: Mutex::default(),
            doubted: Mutex::default(),
            unseen: Mutex::default(),
            alive: watch::Sender::new(0),
            statistics: Mutex::new(Statistics::load(&state.file(STATISTICS))),
            notes: Mutex::default(),
            learned: Mutex::default(),
            missing: Mutex::default(),
            basis: Mutex::default(),
        };
        shared.runner.tools().load(&state.file(TOOLS));
        let mut executor = Executor::new(limits(&shared.tests, &options));
        executor.workers = Workers { follow: options.follow_load.then(LoadOptions::default) };
        if let Some(jobserver) = &shared.runner.options().jobserver {
            executor = executor.with_jobserver(jobserver.clone());
        }
        Ok(Self { shared: Arc::new(shared), options, state, executor })
    }

    /// Returns all tests, ordered by id.
    pub fn tests(&self) -> &[Test] {
        &self.shared.tests
    }

    /// Returns the ids of all tests, in order.
    pub fn ids(&self) -> impl Iterator<Item = TestId> {
        (0..self.shared.tests.len()).map(TestId::new)
    }

    /// Returns the harnesses of the tests.
    pub fn harnesses(&self) -> &Harnesses {
        &self.shared.runner.options().harnesses
    }

    /// Returns a handle that stops a run.
    pub fn stopper(&self) -> Stopper {
        self.executor.stopper()
    }

    /// Looks up the results of all tests, ordered by id, without running any. Builds programs if a
    /// result depends on them.
    ///
    /// # Errors
    /// Returns an error if the project cannot be read.
    pub async fn cached_results(&self) -> Result<Vec<Result<Option<Outcome>, Error>>, Error> {
        let snapshot = self.look().await?;
        let all: Vec<usize> = (0..self.shared.tests.len()).collect();
        let looked_up = self.lookup(&snapshot, &all).await;
        self.remember();
        Ok(looked_up
            .into_iter()
            .map(|(_, found)| {
                found.map(|found| match found {
                    Lookup::Hit(outcome, _) => Some(outcome),
                    Lookup::Miss(_) | Lookup::Corrupt => None,
                })
            })
            .collect())
    }

    /// Runs the given tests, except those with a cached result.
    ///
    /// # Errors
    /// Returns an error if the project cannot be read, or if a test needs more of a resource than
    /// [`SuiteOptions::resources`] provides.
    pub async fn run(
        &self,
        wanted: &[TestId],
        observe: impl Fn(SuiteEvent<'_>) + Send + Sync,
    ) -> Result<SuiteReport, Error> {
        let wanted: Vec<usize> = wanted.iter().map(|test| test.index()).collect();
        let wanted = wanted.as_slice();
        let started = Instant::now();
        let shared = &self.shared;
        shared.builds.lock().clear();
        shared.doubted.lock().clear();
        shared.unseen.lock().clear();
        let snapshot = self.look().await?;
        let mut report = SuiteReport {
            results: shared.tests.iter().map(|_| None).collect(),
            audited: 0,
            audits_failed: Vec::new(),
            deduplicated: Vec::new(),
            wall: Duration::ZERO,
            saved: Duration::ZERO,
            lower_bound: Duration::ZERO,
            looked_up: Duration::ZERO,
            tracing: shared.runner.trace_status(),
            unmatched: Vec::new(),
        };
        let (mut missing, mut audits) = (Vec::new(), Vec::new());
        for (at, found) in self.lookup(&snapshot, wanted).await {
            match found {
                Ok(Lookup::Hit(outcome, _)) if self.is_audited(at, &outcome) => audits.push((at, outcome)),
                Ok(Lookup::Hit(outcome, _)) => report.results[at] = Some(Ok(outcome)),
                Ok(Lookup::Miss(chain)) => {
                    shared.missing.lock().insert(at, chain);
                    missing.push(at);
                }
                Ok(Lookup::Corrupt) => missing.push(at),
                Err(error) => report.results[at] = Some(Err(error)),
            }
        }
        report.looked_up = started.elapsed();
        let cached = report.results.iter().filter(|result| matches!(result, Some(Ok(_)))).count();
        observe(SuiteEvent::LookedUp { cached, running: missing.len() + audits.len() });
        for (at, result) in report.results.iter().enumerate() {
            match result {
                Some(Ok(outcome)) => {
                    report.saved += outcome.duration;
                    observe(SuiteEvent::Cached(TestId::new(at), outcome));
                }
                Some(Err(error)) => observe(SuiteEvent::Broken(TestId::new(at), error)),
                None => {}
            }
        }
        let again: HashMap<usize, Outcome> = audits.into_iter().collect();
        missing.extend(again.keys().copied());
        missing.sort_unstable();
        let unmatched = |at: &usize| {
            let pattern = shared.project.unmatched_pattern(&snapshot, &shared.tests[*at].inputs);
            pattern.map(|pattern| (TestId::new(*at), pattern.to_owned()))
        };
        report.unmatched = missing.iter().filter_map(unmatched).collect();
        if !missing.is_empty() {
            self.execute(&missing, again, &mut report, &observe).await?;
        }
        self.shared.runner.flush().await;
        self.remember();
        report.wall = started.elapsed();
        Ok(report)
    }

    /// Stores a record for [`UpToDateRecord::check`] if all tests of the project have a cached
    /// result. Returns whether it was stored. The record expires when its oldest result reaches
    /// `age_max`.
    pub fn record_up_to_date(&self, report: &SuiteReport, terms: &RecordKey, age_max: Duration) -> bool {
        let Shared { project, tests, runner, basis, .. } = &*self.shared;
        let Some(basis) = &*basis.lock() else { return false };
        let stored = UpToDateRecord::record(project, tests, runner, basis, report, terms, age_max);
        stored.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot store the up-to-date record");
            false
        })
    }

    async fn execute(
        &self,
        missing: &[usize],
        again: HashMap<usize, Outcome>,
        report: &mut SuiteReport,
        observe: &(impl Fn(SuiteEvent<'_>) + Send + Sync),
    ) -> Result<(), Error> {
        let shared = &self.shared;
        *shared.notes.lock() = DependencyLog::load(&self.state.file(NOTES));
        let mut missing = missing.to_vec();
        let folders: BTreeSet<&Path> =
            missing.iter().filter_map(|at| shared.built_in(&shared.tests[*at])).collect();
        for folder in folders {
            if shared.builds.lock().contains_key(folder) {
                continue;
            }
            observe(SuiteEvent::Building(folder));
            let stopper = self.executor.stopper();
            let built = tokio::select! {
                built = shared.build(folder) => built,
                // Dropping the future stops the build, and a stopped run starts no tests.
                () = stopper.stopped() => break,
            };
            if let Err(error) = built {
                let (broken, others) =
                    missing.iter().partition(|at| shared.built_in(&shared.tests[**at]) == Some(folder));
                missing = others;
                let broken: Vec<usize> = broken;
                let source: Arc<dyn std::error::Error + Send + Sync> = Arc::new(error);
                for at in broken {
                    let error = Error::Build {
                        harness: shared.runner.harness(&shared.tests[at]).name(),
                        directory: folder.to_owned(),
                        source: Arc::clone(&source),
                    };
                    observe(SuiteEvent::Broken(TestId::new(at), &error));
                    report.results[at] = Some(Err(error));
                }
            }
        }
        let alike = self.alike(&missing);
        let histories: HashMap<usize, TaskHistory> = {
            let (statistics, notes) = (shared.statistics.lock(), shared.notes.lock());
            let expect = |at: &usize| {
                let name = shared.tests[*at].name.as_str();
                (*at, statistics.expect(name, notes.last_stored(name).is_some()))
            };
            missing.iter().map(expect).collect()
        };
        let duration = |at: usize| {
            let history = histories.get(&at).filter(|history| history.runs > 0.0);
            history.map(|history| history.duration)
        };
        // Batches use stored results, so tests that must not use theirs run alone.
        let (alone, together): (Vec<usize>, Vec<usize>) =
            missing.iter().partition(|at| again.contains_key(at) || self.is_doubted(**at));
        let together: Vec<(usize, &Test)> = together.iter().map(|at| (*at, &shared.tests[*at])).collect();
        let mut batches =
            batch_plan::plan(&shared.runner.options().harnesses, &together, duration, self.options.workers);
        batches.extend(alone.into_iter().map(|at| vec![at]));
        let mut graph = GraphBuilder::new();
        for batch in batches {
            let name = shared.tests[batch[0]].name.clone();
            graph.task(name, batch);
        }
        let graph = graph.build()?;
        let histories: Vec<TaskHistory> =
            graph.tasks().map(|task| of_batch(&histories, graph.payload(task))).collect();
        let (ranks, order) = self.options.rules.order(&histories, self.options.workers);
        let again = Arc::new(again);
        let finished: Arc<Mutex<HashMap<usize, Result<Outcome, Error>>>> = Arc::default();
        let stage = |stage: Stage| {
            let (shared, finished, again) = (Arc::clone(shared), Arc::clone(&finished), Arc::clone(&again));
            let batch = graph.payload(stage.task).clone();
            async move { step(&shared, stage, batch, &again, &finished).await }
        };
        let report_progress = |progress: Progress| match progress {
            Progress::Started(stage) if stage.number == 0 => {
                graph
                    .payload(stage.task)
                    .iter()
                    .for_each(|at| observe(SuiteEvent::Started(TestId::new(*at))));
            }
            Progress::Done(task) | Progress::Failed(task) => {
                for at in graph.payload(task) {
                    match finished.lock().get(at) {
                        Some(Ok(outcome)) => match alike.get(at).filter(|_| outcome.is_cached()) {
                            Some(other) => observe(SuiteEvent::Deduplicated(
                                TestId::new(*at),
                                TestId::new(*other),
                                outcome,
                            )),
                            None => observe(SuiteEvent::Ran(TestId::new(*at), outcome)),
                        },
                        Some(Err(error)) => observe(SuiteEvent::Broken(TestId::new(*at), error)),
                        None => {}
                    }
                }
            }
            _ => {}
        };
        let needs = |task| needs(&shared.tests[graph.payload(task)[0]]);
        let expected = |task: greenwave_scheduler::TaskId| histories[task.index()].duration;
        let job = Job::new().needs(needs).expected(expected).order(ranks, order).observe(report_progress);
        shared.project.tests_started(graph.len());
        let ended = self.executor.run_job(&graph, job, stage).await;
        shared.project.tests_started(0);
        // Abort the tests that were still unfinished when the run was stopped.
        shared.running.lock().clear();
        // Wait until their processes have been killed: nobody else kills them once this program
        // exits.
        let mut alive = shared.alive.subscribe();
        let _ = tokio::time::timeout(ENDING_TIME_MAX, alive.wait_for(|alive| *alive == 0)).await;
        // Remove the directories now, because a caller that exits immediately runs no destructors.
        shared.runner.remove_folders();
        report.lower_bound = ended?.lower_bound;
        let mut again = Arc::try_unwrap(again).unwrap_or_default();
        let finished = std::mem::take(&mut *finished.lock());
        for (at, result) in finished {
            if let Ok(outcome) = &result {
                match alike.get(&at).filter(|_| outcome.is_cached()) {
                    Some(other) => report.deduplicated.push((TestId::new(at), TestId::new(*other))),
                    // Another process has stored the result in the meantime.
                    None if outcome.is_cached() => report.saved += outcome.duration,
                    None => {}
                }
                shared.statistics.lock().observe(&shared.tests[at].name, outcome);
                self.note(at, outcome);
            }
            if let (Some(cached), Ok(now)) = (again.remove(&at), &result) {
                report.audited += 1;
                if cached.status != now.status {
                    let audit = Audit { cached, actual: now.clone() };
                    observe(SuiteEvent::AuditFailed(TestId::new(at), &audit));
                    report.audits_failed.push((TestId::new(at), audit));
                }
            }
            report.results[at] = Some(result);
        }
        Ok(())
    }

    /// Maps each missing test that shares its key with others to one of the others.
    fn alike(&self, missing: &[usize]) -> HashMap<usize, usize> {
        let chains = self.shared.missing.lock();
        let mut by_key: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
        for (at, chain) in missing.iter().filter_map(|at| Some((*at, chains.get(at)?))) {
            by_key.entry(*chain.key.as_bytes()).or_default().push(at);
        }
        let groups = by_key.into_values().filter(|group| group.len() > 1);
        groups.flat_map(|group| group.clone().into_iter().zip(group.into_iter().cycle().skip(1))).collect()
    }

    /// Explains why a test has a cached result or has none.
    ///
    /// # Errors
    /// Returns an error if the project cannot be read or the test cannot be run.
    pub async fn explain(&self, test: TestId) -> Result<Explanation, Error> {
        let at = test.index();
        let snapshot = self.look().await?;
        // This lookup also builds the programs that the result depends on.
        let is_hit = matches!(self.lookup(&snapshot, &[at]).await.pop(), Some((_, Ok(Lookup::Hit(..)))));
        let snapshot = self.look().await?;
        let test = &self.shared.tests[at];
        let notes = DependencyLog::load(&self.state.file(NOTES));
        let moment = self.shared.project.input_snapshot(&snapshot, &test.name).await?;
        let workspace = ProjectWorkspace {
            shared: Arc::clone(&self.shared),
            moment: Some(moment),
            ended: Mutex::default(),
        };
        let prepared = self.shared.runner.prepare(&workspace, test).await?;
        let (cached, chain) = match self.shared.runner.lookup(&prepared).await {
            Lookup::Hit(outcome, chain) => (is_hit.then_some(outcome), Some(chain)),
            Lookup::Miss(chain) => (None, Some(chain)),
            Lookup::Corrupt => (None, None),
        };
        let last = notes.last(&test.name);
        let then = notes.last_stored(&test.name);
        let discovered = chain.map(|chain| chain.looked).unwrap_or_default();
        let mut now = prepared.facts(test, &discovered, &prepared.moment.states);
        if let Some(then) = then {
            // Compare the current states of the same paths.
            now.looked = Arc::new(prepared.states_of(notes.looks_of(then).map(|(path, _)| path)));
        }
        let differences = match (cached.is_some(), then) {
            (false, Some(then)) => notes.differences(then, &now, &prepared.moment.inputs),
            _ => Vec::new(),
        };
        Ok(Explanation {
            last: last.map(|facts| (facts.age(), facts.status, facts.not_kept.clone())),
            stored: then.map(DependencyRecord::age),
            differences,
            inputs: prepared.moment.inputs.len(),
            discovered: discovered
                .iter()
                .flat_map(|set| &set.accesses)
                .filter(|(_, look)| *look != AccessKind::Build)
                .map(|(path, _)| path.clone())
                .collect(),
            cached,
        })
    }

    /// Returns the key at which the lookup of each test ends, ordered by id. A key that differs
    /// between two calls means that a dependency of the test has changed. Tests without a usable
    /// key have `None`.
    ///
    /// # Errors
    /// Returns an error if the project cannot be read.
    pub async fn keys(&self) -> Result<Vec<Option<[u8; 32]>>, Error> {
        let snapshot = self.look().await?;
        let all: Vec<usize> = (0..self.shared.tests.len()).collect();
        let key = |found: Result<Lookup, Error>| match found {
            Ok(Lookup::Hit(_, chain) | Lookup::Miss(chain)) => Some(*chain.key.as_bytes()),
            Ok(Lookup::Corrupt) | Err(_) => None,
        };
        Ok(self.lookup(&snapshot, &all).await.into_iter().map(|(_, found)| key(found)).collect())
    }

    /// Returns the tests that may read one of these paths of the project, which need not exist:
    /// their inputs include the path, or an earlier run saw them access it.
    ///
    /// # Errors
    /// Returns [`Error::Inputs`] if an input pattern is invalid.
    pub fn tests_reading(&self, paths: &[PathBuf]) -> Result<Vec<TestId>, Error> {
        let notes = DependencyLog::load(&self.state.file(NOTES));
        let is_one = |path: &Path| paths.iter().any(|other| other == path);
        // Any path may be a source of a cargo build.
        let is_built = |path: &Path| !paths.is_empty() && path.to_string_lossy().ends_with(BUILDS);
        let seen: HashSet<&str> = notes.have_accessed(|path| is_one(path) || is_built(path)).collect();
        let mut readers = Vec::new();
        for (at, test) in self.shared.tests.iter().enumerate() {
            let selection = test.selection()?;
            if seen.contains(test.name.as_str()) || paths.iter().any(|path| selection.includes(path, false)) {
                readers.push(TestId::new(at));
            }
        }
        Ok(readers)
    }

    /// Calls a function with the statistics of earlier runs.
    pub fn with_statistics<T>(&self, read: impl FnOnce(&Statistics) -> T) -> T {
        read(&self.shared.statistics.lock())
    }

    /// Returns the statistics of the result cache.
    pub fn cache_stats(&self) -> greenwave_cache::TieredStats {
        self.shared.runner.stats()
    }

    /// Returns the number of times that the whole project was scanned.
    pub fn looks(&self) -> usize {
        self.shared.project.snapshot_count()
    }

    async fn look(&self) -> Result<Arc<Snapshot>, Error> {
        let snapshot = self.shared.project.snapshot_after(Instant::now()).await?;
        let (shared, of) = (Arc::clone(&self.shared), Arc::clone(&snapshot));
        blocking(move || shared.project.hash_all(&of)).await;
        Ok(snapshot)
    }

    /// Looks up results. Results that depend on cargo builds are looked up again after the build.
    async fn lookup(
        &self,
        snapshot: &Arc<Snapshot>,
        wanted: &[usize],
    ) -> Vec<(usize, Result<Lookup, Error>)> {
        let shared = &self.shared;
        let mut found = self.lookup_once(snapshot, wanted).await;
        let tests: Vec<&Test> = wanted.iter().map(|at| &shared.tests[*at]).collect();
        for ((at, found), reads_more) in
            found.iter_mut().zip(shared.runner.have_undeclared_reads(&tests).await)
        {
            if reads_more && found.is_ok() {
                *found = Ok(Lookup::Corrupt);
                shared.unseen.lock().insert(*at);
                *shared.basis.lock() = None;
            }
        }
        let hangs_on_build = |(at, found): &(usize, Result<Lookup, Error>)| match found {
            Ok(Lookup::Hit(_, chain)) if chain.builds().next().is_some() => Some(*at),
            _ => None,
        };
        let hanging: Vec<usize> = found.iter().filter_map(hangs_on_build).collect();
        if hanging.is_empty() {
            return found;
        }
        // These results are valid only after a build, which an up-to-date check does not run.
        *shared.basis.lock() = None;
        let folders: BTreeSet<&Path> =
            hanging.iter().filter_map(|at| shared.built_in(&shared.tests[*at])).collect();
        for folder in folders {
            if !shared.builds.lock().contains_key(folder) {
                // A failed build is not an error here: the tests that depend on it will run.
                let _ = shared.build(folder).await;
            }
        }
        let mut doubted: HashMap<usize, PathBuf> = HashMap::new();
        for (at, found) in &found {
            let (true, Ok(Lookup::Hit(_, chain))) = (hanging.contains(at), found) else { continue };
            let builds = shared.builds.lock();
            let built = shared.built_in(&shared.tests[*at]).and_then(|folder| builds.get(folder));
            if !built.is_some_and(|built| built.build.is_complete()) {
                let roots = built.map(|built| built.build.output_directories()).unwrap_or_default();
                doubted.insert(*at, chain.built_path(shared.project.root(), roots).unwrap_or_default());
            }
        }
        let good: Vec<usize> = hanging.into_iter().filter(|at| !doubted.contains_key(at)).collect();
        let mut again: HashMap<usize, Result<Lookup, Error>> = match self.look().await {
            Ok(later) => self.lookup_once(&later, &good).await.into_iter().collect(),
            Err(_) => good.iter().map(|at| (*at, Ok(Lookup::Corrupt))).collect(),
        };
        *shared.basis.lock() = None;
        for (at, found) in &mut found {
            if let Some(later) = again.remove(at) {
                *found = later;
            } else if doubted.contains_key(at) {
                *found = Ok(Lookup::Corrupt);
            }
        }
        shared.doubted.lock().extend(doubted);
        found
    }

    async fn lookup_once(
        &self,
        snapshot: &Arc<Snapshot>,
        wanted: &[usize],
    ) -> Vec<(usize, Result<Lookup, Error>)> {
        let shared = &self.shared;
        let tests: Vec<&Test> = wanted.iter().map(|at| &shared.tests[*at]).collect();
        let prepared = shared.runner.prepare_all(&shared.project, snapshot, &tests).await;
        let good: Vec<&Prepared<'_>> = prepared.iter().flatten().collect();
        let found = shared.runner.lookup_all(&good).await;
        *shared.basis.lock() = LookupInputs::of(snapshot, wanted, &shared.tests, &prepared, &found);
        let mut found = found.into_iter();
        let mut all = Vec::with_capacity(wanted.len());
        for (at, prepared) in wanted.iter().zip(prepared) {
            let found = prepared.and_then(|_| found.next().ok_or(Error::Stopped));
            all.push((*at, found));
        }
        all
    }

    /// Returns whether the stored result of a test must not be used.
    fn is_doubted(&self, at: usize) -> bool {
        self.shared.doubted.lock().contains_key(&at) || self.shared.unseen.lock().contains(&at)
    }

    fn is_audited(&self, at: usize, cached: &Outcome) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.options.audit_seed.to_le_bytes()).update(&cached.key).update(&at.to_le_bytes());
        let bytes = hasher.finalize();
        let number = u32::from_le_bytes([
            bytes.as_bytes()[0],
            bytes.as_bytes()[1],
            bytes.as_bytes()[2],
            bytes.as_bytes()[3],
        ]);
        f64::from(number) < self.options.audit * f64::from(u32::MAX)
    }

    /// Records the dependencies of a test that ran.
    fn note(&self, at: usize, outcome: &Outcome) {
        let Source::Ran(stored) = &outcome.source else { return };
        let shared = &self.shared;
        let name = &shared.tests[at].name;
        let Some((facts, inputs)) = shared.learned.lock().remove(name) else { return };
        let facts =
            DependencyRecord { at: now_ms(), status: outcome.status, not_kept: stored.reason(), ..facts };
        shared.notes.lock().put(name, facts, &inputs);
    }

    /// Saves the state of the suite. Failures are only logged: the next run then repeats some
    /// work.
    fn remember(&self) {
        let shared = &self.shared;
        let saved = [
            shared.project.save(&self.state.file(INDEX), &self.state.file(TREE)).map_err(Error::from),
            shared.runner.tools().save(&self.state.file(TOOLS)),
            shared.statistics.lock().save(&self.state.file(STATISTICS)),
            shared.notes.lock().save(&self.state.file(NOTES)),
        ];
        for error in saved.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "cannot save the state of the test suite");
        }
    }
}

const INDEX: &str = "index";
pub(crate) const TOOLS: &str = "tools.json";
const TREE: &str = "tree";
const STATISTICS: &str = "statistics.json";
const NOTES: &str = "notes.json";

fn limits(tests: &[Test], options: &SuiteOptions) -> Limits {
    let mut resources: BTreeMap<String, u32> = BTreeMap::new();
    for name in tests.iter().flat_map(|test| test.needs.keys()) {
        resources.entry(resource(name)).or_insert(1);
    }
    resources.extend(options.resources.iter().map(|(name, units)| (resource(name), *units)));
    resources.insert(WORKERS.to_owned(), options.workers.max(1));
    Limits {
        resources: Resources::new(resources),
        on_failure: if options.fail_fast { OnFailure::StopAtFirst } else { OnFailure::KeepGoing },
        ..Limits::default()
    }
}

/// Returns the scheduler's name for a resource. The prefix avoids collisions with [`WORKERS`] and
/// [`ALONE`].
fn resource(name: &str) -> String {
    format!("resource {name}")
}

fn needs(test: &Test) -> Needs {
    let needs = Needs::nothing().of(WORKERS, 1);
    let needs = if test.parallel_safe { needs.shared(ALONE) } else { needs.exclusive(ALONE) };
    test.needs.iter().fold(needs, |needs, (name, units)| needs.of(resource(name), *units))
}

/// Combines the histories of the tests of a batch: their total duration and the most failures of
/// any.
fn of_batch(histories: &HashMap<usize, TaskHistory>, batch: &[usize]) -> TaskHistory {
    let mut all = batch.iter().filter_map(|at| histories.get(at));
    let first = all.next().copied().unwrap_or(TaskHistory::unknown(Duration::ZERO));
    all.fold(first, |sum, next| TaskHistory {
        duration: sum.duration + next.duration,
        runs: sum.runs.min(next.runs),
        failures: sum.failures.max(next.failures),
        failed_last: sum.failed_last || next.failed_last,
        changed: sum.changed || next.changed,
    })
}

type Finished = Mutex<HashMap<usize, Result<Outcome, Error>>>;

/// Runs one of the two stages of a batch. The first runs the process and occupies a worker. The
/// second decides the results and occupies none.
async fn step(
    shared: &Arc<Shared>,
    stage: Stage,
    batch: Vec<usize>,
    again: &HashMap<usize, Outcome>,
    finished: &Finished,
) -> Step<(), ()> {
    let first = batch[0];
    let running = match stage.number {
        0 => {
            let (sender, ended) = oneshot::channel();
            let (of, is_audit) = (Arc::clone(shared), again.contains_key(&first));
            let alive = Alive::new(shared);
            let mut running = Running(tokio::spawn(async move {
                // Dropped last, after everything that the task has started.
                let _alive = alive;
                run(of, batch, is_audit, sender).await
            }));
            tokio::select! {
                biased;
                done = &mut running.0 => return done_with(done, finished),
                _ = ended => {}
            }
            shared.running.lock().insert(first, running);
            return Step::Next(Needs::nothing());
        }
        _ => shared.running.lock().remove(&first),
    };
    match running {
        Some(mut running) => done_with((&mut running.0).await, finished),
        None => Step::Failed(()),
    }
}

fn done_with(done: Result<Results, tokio::task::JoinError>, finished: &Finished) -> Step<(), ()> {
    let results = match done {
        Ok(results) => results,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return Step::Failed(()),
    };
    let are_passes = results.iter().all(|(_, result)| matches!(result, Ok(outcome) if outcome.passed()));
    finished.lock().extend(results);
    if are_passes { Step::Done(()) } else { Step::Failed(()) }
}

/// Results with the indices of their tests.
type Results = Vec<(usize, Result<Outcome, Error>)>;

async fn run(shared: Arc<Shared>, batch: Vec<usize>, is_audit: bool, ended: oneshot::Sender<()>) -> Results {
    let workspace =
        ProjectWorkspace { shared: Arc::clone(&shared), moment: None, ended: Mutex::new(Some(ended)) };
    let [at] = batch.as_slice() else { return shared.run_together(&workspace, &batch).await };
    let test = &shared.tests[*at];
    let is_unseen = shared.unseen.lock().contains(at);
    let unbuilt = shared.doubted.lock().get(at).cloned();
    let is_doubted = is_unseen || unbuilt.is_some();
    let result = match is_audit || is_doubted {
        false => {
            let missing = shared.missing.lock().remove(at);
            shared.runner.run_from(&workspace, test, missing).await
        }
        true => shared.runner.run_again(&workspace, test).await,
    };
    let result = result.map(|outcome| {
        let reason =
            unbuilt.map(CacheDecision::NotBuilt).or(is_unseen.then_some(CacheDecision::UndeclaredReads));
        match reason.filter(|_| outcome.passed() && !is_audit) {
            Some(stored) => Outcome { source: Source::Ran(stored), ..outcome },
            None => outcome,
        }
    });
    vec![(*at, result)]
}

/// The project that a batch runs in.
struct ProjectWorkspace {
    shared: Arc<Shared>,
    moment: Option<InputSnapshot>,
    ended: Mutex<Option<oneshot::Sender<()>>>,
}

#[async_trait]
impl Workspace for ProjectWorkspace {
    fn project(&self) -> &Path {
        self.shared.project.root()
    }

    async fn before(&self, test: &Test) -> Result<InputSnapshot, Error> {
        if let Some(moment) = &self.moment {
            return Ok(moment.clone());
        }
        // The inputs of a compiled program are those of its build, even if they have changed since.
        let built =
            self.shared.built_in(test).and_then(|folder| self.shared.builds.lock().get(folder).cloned());
        let snapshot = match built {
            Some(built) => built.snapshot,
            None => self.shared.project.latest().await?,
        };
        Ok(self.shared.project.input_snapshot(&snapshot, &test.name).await?)
    }

    async fn after(&self, test: &Test) -> Result<InputSnapshot, Error> {
        let later = self.shared.project.snapshot_after(Instant::now()).await?;
        Ok(self.shared.project.input_snapshot(&later, &test.name).await?)
    }

    async fn launch(&self, runner: &Runner, test: &Test) -> Result<LaunchSpec, Error> {
        let command = runner.launch_plain(self.project(), test)?;
        let built = self.shared.builds.lock().get(&test.directory).cloned();
        let output = built.as_ref().map(|built| &*built.build);
        let launch = runner.harness(test).launch(test, output, command);
        Ok(LaunchSpec { changing: built.and_then(|built| built.changing), ..launch })
    }

    fn is_built(&self, folder: &Path) -> bool {
        self.shared.builds.lock().get(folder).is_some_and(|built| built.build.is_complete())
    }

    async fn examine(
        &self,
        runner: &Runner,
        test: &Test,
        prepared: &Prepared<'_>,
        ran: &ProcessResult,
    ) -> Option<String> {
        let rerun = ProjectRerun { runner, workspace: self, prepared };
        let process = FinishedProcess { status: ran.status, count: ran.count, output: ran.output.clone() };
        runner.harness(test).explain_crash(&Crash { test, process: &process, rerun: &rerun }).await
    }

    fn wants_dependencies(&self) -> bool {
        true
    }

    fn learn(&self, test: &Test, facts: DependencyRecord, inputs: &Manifest) {
        self.shared.learned.lock().insert(test.name.clone(), (facts, inputs.clone()));
    }

    fn ended(&self) {
        if let Some(ended) = self.ended.lock().take() {
            self.shared.project.test_ended();
            // Nobody receives this when the scheduler does not run the test.
            let _ = ended.send(());
        }
    }
}

/// Runs variations of a test in its project, with the environment that it had.
struct ProjectRerun<'a> {
    runner: &'a Runner,
    workspace: &'a ProjectWorkspace,
    prepared: &'a Prepared<'a>,
}

#[async_trait]
impl Rerun for ProjectRerun<'_> {
    async fn rerun(&self, test: &Test) -> Result<FinishedProcess, Error> {
        let launch = self.workspace.launch(self.runner, test).await?;
        let ran = self.runner.run_program(self.workspace, test, self.prepared, &launch).await?;
        Ok(FinishedProcess { status: ran.status, count: ran.count, output: ran.output })
    }
}

impl Shared {
    /// Runs several tests in one process, then runs each test alone that did not pass there.
    async fn run_together(&self, workspace: &ProjectWorkspace, batch: &[usize]) -> Results {
        let mut results: Results = Vec::new();
        let mut hasher = blake3::Hasher::new();
        let mut keys = Vec::new();
        for at in batch {
            match self.runner.prepare(workspace, &self.tests[*at]).await {
                Ok(prepared) => {
                    hasher.update(prepared.key.as_bytes());
                    keys.push(*at);
                }
                Err(error) => results.push((*at, Err(error))),
            }
        }
        let key = greenwave_cache::Key::from_bytes(*hasher.finalize().as_bytes());
        let mut made = Vec::new();
        let (into, of) = (&mut made, &keys);
        let work = move || async move {
            *into = self.run_batch(workspace, of).await?;
            Ok::<(), Error>(())
        };
        // A failed batch proves nothing about its tests, which run alone afterwards.
        let _ = self.runner.alone(&key, work).await;
        results.append(&mut made);
        for at in keys {
            if !results.iter().any(|(done, _)| *done == at) {
                results.push((at, self.runner.run_in(workspace, &self.tests[at]).await));
            }
        }
        workspace.ended();
        results
    }

    /// Runs the missing tests of a batch in one process. Returns only the results of passing tests.
    async fn run_batch(&self, workspace: &ProjectWorkspace, batch: &[usize]) -> Result<Results, Error> {
        let mut missing = Vec::new();
        for at in batch {
            let prepared = self.runner.prepare(workspace, &self.tests[*at]).await?;
            if let Lookup::Miss(chain) = self.runner.lookup(&prepared).await {
                missing.push((*at, prepared, chain));
            }
        }
        if missing.len() < 2 {
            return Ok(Vec::new());
        }
        let tests: Vec<&Test> = missing.iter().map(|(at, ..)| &self.tests[*at]).collect();
        let all: Duration = tests.iter().map(|test| test.time_max).sum();
        let first = Test { time_max: all, ..tests[0].clone() };
        let Some(batch) = self.runner.harness(&first).batch(&first) else { return Ok(Vec::new()) };
        let (_, prepared, _) = &missing[0];
        let prepare = |directory: &Path| batch.prepare(&tests, directory, self.runner.environment());
        let (attempt_result, isolation) =
            self.runner.run_together(workspace, &first, prepared, prepare).await?;
        let results = batch.results(&tests, attempt_result.ran.status, isolation.directory());
        drop(isolation);
        // Commit concurrently, because all results wait for the same snapshot.
        let mut settling = Vec::new();
        for ((at, prepared, chain), result) in missing.into_iter().zip(results) {
            if let Some(result) = result {
                settling.push(self.commit(workspace, at, prepared, chain, attempt_result.share(result)));
            }
        }
        Ok(join_all(settling).await)
    }

    async fn commit(
        &self,
        workspace: &ProjectWorkspace,
        at: usize,
        prepared: Prepared<'_>,
        chain: KeyChain,
        attempt_result: AttemptResult,
    ) -> (usize, Result<Outcome, Error>) {
        let test = &self.tests[at];
        (at, self.runner.commit_batched(workspace, test, &prepared, &chain, attempt_result).await)
    }

    /// Returns the directory that must be built before a test runs.
    fn built_in<'t>(&self, test: &'t Test) -> Option<&'t Path> {
        self.runner.harness(test).needs_build(test).then_some(test.directory.as_path())
    }

    /// Builds the programs of a directory's tests from a state of the project that did not change
    /// meanwhile, if that can be had.
    async fn build(&self, folder: &Path) -> Result<(), Error> {
        let tests: Vec<&Test> =
            self.tests.iter().filter(|test| self.built_in(test) == Some(folder)).collect();
        let Some(harness) = tests.first().map(|test| self.runner.harness(test)) else { return Ok(()) };
        let environment = self.runner.environment();
        let request = BuildRequest { project: self.project.root(), directory: folder, environment };
        let mut before = self.project.snapshot_after(Instant::now()).await?;
        for attempt in 1.. {
            let Some(build) = harness.build(&request).await? else { return Ok(()) };
            let after = self.project.snapshot_after(Instant::now()).await?;
            let mut changing = None;
            for test in &tests {
                let (then, now) = (
                    self.project.input_snapshot(&before, &test.name).await?,
                    self.project.input_snapshot(&after, &test.name).await?,
                );
                changing = changing.or(then.inputs.first_touched(&now.inputs).map(Path::to_owned));
            }
            let is_last = attempt == BUILDS_MAX;
            let is_stale = !is_last && build.discard_stale(&request).await?;
            if !is_stale && (changing.is_none() || is_last) {
                let built = Built { build, snapshot: after, changing };
                self.builds.lock().insert(folder.to_owned(), built);
                break;
            }
            before = after;
        }
        Ok(())
    }
}
