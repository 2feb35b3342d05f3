//! Many tests of one project at once: those whose results are known answer at once, the others run in a good order. Knows nothing of how tests are
//! found, or of how results are shown.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
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

use crate::harness::batch;
use crate::harness::cargo::Build;
use crate::harness::crash_bisect::Examination;
use crate::harness::functions;
use crate::results::dependencies::{DependencyLog, DependencyRecord, Difference};
use crate::results::history::Statistics;
use crate::results::outcome::{CacheDecision, Outcome, Source, Status};
use crate::results::state::StateDirectory;
use crate::results::up_to_date::{LookupInputs, RecordKey, UpToDateRecord};
use crate::run::process::{self as run, ProcessResult};
use crate::run::runner::{AttemptResult, BUILDS, KeyChain, Lookup, Prepared, Runner, RunnerOptions};
use crate::run::test_id::TestId;
use crate::run::workspace::{LaunchSpec, Workspace, blocking};
use crate::test::Harness;
use crate::{Environment, Error, Manifest, Test, TraceMode, TraceStatus};
use greenwave_inputs::AccessKind;
use greenwave_inputs::DirCache;
use greenwave_inputs::InputSnapshot;
use greenwave_inputs::StatCache;
use greenwave_inputs::now_ms;
use greenwave_inputs::{ProjectFiles, Snapshot};

/// The pool of the scheduler that every test takes one of.
const WORKERS: &str = "workers";
/// The lock that tests hold which run alone.
const ALONE: &str = "alone";

/// How the tests of a project are run together.
#[derive(Debug, Clone)]
pub struct SuiteOptions {
    /// Tests that run at once, from 1.
    pub workers: u32,
    /// Fewer run while the machine is busy with other things.
    pub follow_load: bool,
    /// Nothing new starts after the first failure.
    pub fail_fast: bool,
    /// Named resources that tests may need, and how much there is of each. Those that are not named exist once.
    pub resources: BTreeMap<String, u32>,
    /// In which order they start.
    pub rules: OrderRules,
    /// The share of known results that are made again and compared, between 0 and 1.
    pub audit: f64,
    /// Which ones those are.
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

/// The tests of a project, ready to be run.
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
    /// Places of tests whose results are there and are not believed, with what they read that could not be brought up to date.
    doubted: Mutex<HashMap<usize, PathBuf>>,
    /// Places of tests that are not traced, and read more than they declare.
    unseen: Mutex<HashSet<usize>>,
    /// Tasks that may have a process.
    alive: watch::Sender<usize>,
    statistics: Mutex<Statistics>,
    notes: Mutex<DependencyLog>,
    /// What tests that have run depend on, by their names.
    learned: Mutex<HashMap<String, (DependencyRecord, Manifest)>>,
    /// How far the tests were followed that are to run, by place.
    missing: Mutex<HashMap<usize, KeyChain>>,
    /// What results were last looked up by, if all were known.
    basis: Mutex<Option<LookupInputs>>,
}

/// Programs, and the state of the project that they were built from.
#[derive(Debug, Clone)]
struct Built {
    build: Arc<Build>,
    snapshot: Arc<Snapshot>,
    /// A file that changed each time while they were built.
    changing: Option<PathBuf>,
}

/// How often programs are built again because something changed meanwhile.
const BUILDS_MAX: u32 = 3;

/// A test whose process has ended and whose result is being judged. Dropped, it is given up.
#[derive(Debug)]
struct Running(JoinHandle<Results>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a task for as long as it is there.
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

/// How long tests may take to go when a run is stopped.
const ENDING_TIME_MAX: Duration = Duration::from_secs(5);

/// Something that happens in a run. The numbers are the tests' places.
#[derive(Debug)]
#[non_exhaustive]
pub enum SuiteEvent<'a> {
    /// What is known was looked up: so many results are, and so many tests have to run.
    LookedUp {
        /// Tests with a cached result.
        cached: usize,
        /// Tests that are to run.
        running: usize,
    },
    /// The programs of the tests in this folder of the project are built.
    Building(&'a Path),
    /// A result was known.
    Cached(TestId, &'a Outcome),
    /// A test starts.
    Started(TestId),
    /// A test has run.
    Ran(TestId, &'a Outcome),
    /// A test did not run, since the other one, of the same command and inputs, has just given its result.
    Deduplicated(TestId, TestId, &'a Outcome),
    /// A test could not be run.
    Broken(TestId, &'a Error),
    /// A known result was made again, and is another.
    AuditFailed(TestId, &'a Audit),
}

/// A known result that was made again.
#[derive(Debug)]
pub struct Audit {
    /// The cached result.
    pub cached: Outcome,
    /// The result of running the test again.
    pub actual: Outcome,
}

/// What became of the tests.
#[derive(Debug)]
pub struct SuiteReport {
    /// By place; `None` for those that did not get to run.
    pub results: Vec<Option<Result<Outcome, Error>>>,
    /// Known results that were made again, by place, and were the same.
    pub audited: usize,
    /// Those that were not.
    pub audits_failed: Vec<(TestId, Audit)>,
    /// How long it all took.
    pub wall: Duration,
    /// Tests that did not run, since another of the same command and inputs has just given their result: their place, and the other's.
    pub deduplicated: Vec<(TestId, TestId)>,
    /// How long the known results took to make back then.
    pub saved: Duration,
    /// No order could have been faster than this.
    pub lower_bound: Duration,
    /// How long looking up took.
    pub looked_up: Duration,
    /// Whether the tests were traced.
    pub tracing: TraceStatus,
    /// Patterns of tests that ran, by place, that match no file.
    pub unmatched: Vec<(TestId, String)>,
}

/// Why a result is known, or not.
#[derive(Debug)]
pub struct Explanation {
    /// The cached result.
    pub cached: Option<Outcome>,
    /// When it last ran here, how that ended, and why the result was not kept.
    pub last: Option<(Duration, Status, Option<String>)>,
    /// How long ago it ran here and its result was kept.
    pub stored: Option<Duration>,
    /// What has changed since the run whose result was kept.
    pub differences: Vec<Difference>,
    /// Input files it declares or is given.
    pub inputs: usize,
    /// What else it was seen to look at.
    pub discovered: Vec<PathBuf>,
}

impl Suite {
    /// Tests of the project in a folder. Whatever is remembered of the project is in its folder `.greenwave`.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`], [`Error::DuplicateName`], or [`Error::Io`] if the folder for what is remembered cannot be made.
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
        // Whoever traces this process sees the names in a directory only if they are read.
        let tree = match tracing {
            TraceStatus::TracedByOuter => None,
            _ => DirCache::load(&state.file(TREE)),
        };
        let mut index = StatCache::load(&state.file(INDEX));
        if let Some(files) = &runner.files {
            index.share(files);
        }
        let index = Arc::new(Mutex::new(index));
        let specs: Vec<_> = tests.iter().map(|test| (test.name.clone(), test.input_spec())).collect();
        let shared = Shared {
            project: ProjectFiles::new(
                &root,
                Arc::clone(&index),
                tree,
                specs,
                greenwave_sandbox::object_exists,
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

    /// The tests, by place.
    pub fn tests(&self) -> &[Test] {
        &self.shared.tests
    }

    /// Returns the ids of all tests, in order.
    pub fn ids(&self) -> impl Iterator<Item = TestId> {
        (0..self.shared.tests.len()).map(TestId::new)
    }

    /// A handle that stops a run.
    pub fn stopper(&self) -> Stopper {
        self.executor.stopper()
    }

    /// The results that are known, by place.
    ///
    /// # Errors
    /// If the project cannot be looked at.
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

    /// Runs the tests in these places, but for those whose results are known.
    ///
    /// # Errors
    /// If the project cannot be looked at, or the tests need what there is not.
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
            let pattern = shared.project.unmatched(&snapshot, &shared.tests[*at].inputs);
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

    /// Remembers what a run said, if all of the project's tests were known, for [`UpToDateRecord::check`]; says whether that is so. Results count for so
    /// long after they were made.
    pub fn record_up_to_date(&self, report: &SuiteReport, terms: &RecordKey, age_max: Duration) -> bool {
        let Shared { project, tests, runner, basis, .. } = &*self.shared;
        let Some(basis) = &*basis.lock() else { return false };
        let kept = UpToDateRecord::record(project, tests, runner, basis, report, terms, age_max);
        kept.unwrap_or_else(|error| {
            tracing::warn!(%error, "what was learned is not remembered");
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
        let folders: BTreeSet<&Path> = missing.iter().filter_map(|at| shared.tests[*at].built_in()).collect();
        for folder in folders {
            if shared.builds.lock().contains_key(folder) {
                continue;
            }
            observe(SuiteEvent::Building(folder));
            let stopper = self.executor.stopper();
            let built = tokio::select! {
                built = shared.build(folder) => built,
                // What is being built ends with its future, and nothing starts any more.
                () = stopper.stopped() => break,
            };
            if let Err(error) = built {
                let (broken, others) =
                    missing.iter().partition(|at| shared.tests[**at].built_in() == Some(folder));
                missing = others;
                let broken: Vec<usize> = broken;
                let source: Arc<dyn std::error::Error + Send + Sync> = Arc::new(error);
                for at in broken {
                    let error = Error::Build {
                        harness: "cargo",
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
        // What is made again is to be compared with a run alone.
        let (alone, together): (Vec<usize>, Vec<usize>) =
            missing.iter().partition(|at| again.contains_key(at) || self.is_doubted(**at));
        let mut batches = batch::batches(&shared.tests, &together, duration, self.options.workers);
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
        let told = |progress: Progress| match progress {
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
        let job = Job::new().needs(needs).expected(expected).order(ranks, order).observe(told);
        shared.project.begin(graph.len());
        let ended = self.executor.run_job(&graph, job, stage).await;
        shared.project.begin(0);
        // Whoever was not done when the run was stopped is given up.
        shared.running.lock().clear();
        // Their processes end with them, and nobody else would see to that once this program is gone.
        let mut alive = shared.alive.subscribe();
        let _ = tokio::time::timeout(ENDING_TIME_MAX, alive.wait_for(|alive| *alive == 0)).await;
        // Now, since whoever ends a program at once drops nothing.
        shared.runner.remove_folders();
        report.lower_bound = ended?.lower_bound;
        let mut again = Arc::try_unwrap(again).unwrap_or_default();
        let finished = std::mem::take(&mut *finished.lock());
        for (at, result) in finished {
            if let Ok(outcome) = &result {
                match alike.get(&at).filter(|_| outcome.is_cached()) {
                    Some(other) => report.deduplicated.push((TestId::new(at), TestId::new(*other))),
                    // Another process has made it meanwhile.
                    None if outcome.is_cached() => report.saved += outcome.duration,
                    None => {}
                }
                shared.statistics.lock().observe(&shared.tests[at].name, outcome);
                self.note(at, outcome);
            }
            if let (Some(known), Ok(now)) = (again.remove(&at), &result) {
                report.audited += 1;
                if known.status != now.status {
                    let audit = Audit { cached: known, actual: now.clone() };
                    observe(SuiteEvent::AuditFailed(TestId::new(at), &audit));
                    report.audits_failed.push((TestId::new(at), audit));
                }
            }
            report.results[at] = Some(result);
        }
        Ok(())
    }

    /// For each of the tests that are to run, another that would have the same result, if there is one.
    fn alike(&self, missing: &[usize]) -> HashMap<usize, usize> {
        let chains = self.shared.missing.lock();
        let mut by_key: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
        for (at, chain) in missing.iter().filter_map(|at| Some((*at, chains.get(at)?))) {
            by_key.entry(*chain.key.as_bytes()).or_default().push(at);
        }
        let groups = by_key.into_values().filter(|group| group.len() > 1);
        groups.flat_map(|group| group.clone().into_iter().zip(group.into_iter().cycle().skip(1))).collect()
    }

    /// Why the result of the test in this place is known, or not.
    ///
    /// # Errors
    /// If the project cannot be looked at, or the test could not be run.
    pub async fn explain(&self, test: TestId) -> Result<Explanation, Error> {
        let at = test.index();
        let snapshot = self.look().await?;
        // With what has to be built for it.
        let is_known = matches!(self.lookup(&snapshot, &[at]).await.pop(), Some((_, Ok(Lookup::Hit(..)))));
        let snapshot = self.look().await?;
        let test = &self.shared.tests[at];
        let notes = DependencyLog::load(&self.state.file(NOTES));
        let moment = self.shared.project.moment(&snapshot, &test.name).await?;
        let workspace = ProjectWorkspace {
            shared: Arc::clone(&self.shared),
            moment: Some(moment),
            ended: Mutex::default(),
        };
        let prepared = self.shared.runner.prepare(&workspace, test).await?;
        let (known, chain) = match self.shared.runner.lookup(&prepared).await {
            Lookup::Hit(outcome, chain) => (is_known.then_some(outcome), Some(chain)),
            Lookup::Miss(chain) => (None, Some(chain)),
            Lookup::Corrupt => (None, None),
        };
        let last = notes.last(&test.name);
        let then = notes.last_stored(&test.name);
        let looked = chain.map(|chain| chain.looked).unwrap_or_default();
        let mut now = prepared.facts(test, &looked, &prepared.moment.states);
        if let Some(then) = then {
            // What it looked at then, as it is now.
            now.looked = Arc::new(prepared.states_of(notes.looks_of(then).map(|(path, _)| path)));
        }
        let differences = match (known.is_some(), then) {
            (false, Some(then)) => notes.differences(then, &now, &prepared.moment.inputs),
            _ => Vec::new(),
        };
        Ok(Explanation {
            last: last.map(|facts| (facts.age(), facts.status, facts.not_kept.clone())),
            stored: then.map(DependencyRecord::age),
            differences,
            inputs: prepared.moment.inputs.lines().len(),
            discovered: looked
                .iter()
                .flat_map(|set| &set.looks)
                .filter(|(_, look)| *look != AccessKind::Build)
                .map(|(path, _)| path.clone())
                .collect(),
            cached: known,
        })
    }

    /// The keys that results of the tests would stand under now, as far as is known, by place: those that differ from an earlier answer belong to
    /// tests that something has changed for.
    ///
    /// # Errors
    /// If the project cannot be looked at.
    pub async fn keys(&self) -> Result<Vec<Option<[u8; 32]>>, Error> {
        let snapshot = self.look().await?;
        let all: Vec<usize> = (0..self.shared.tests.len()).collect();
        let key = |found: Result<Lookup, Error>| match found {
            Ok(Lookup::Hit(_, chain) | Lookup::Miss(chain)) => Some(*chain.key.as_bytes()),
            Ok(Lookup::Corrupt) | Err(_) => None,
        };
        Ok(self.lookup(&snapshot, &all).await.into_iter().map(|(_, found)| key(found)).collect())
    }

    /// The places of tests that may read one of these files of the project, whether it is there or not: that name it, or were seen to look at it.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`].
    pub fn tests_reading(&self, paths: &[PathBuf]) -> Result<Vec<TestId>, Error> {
        let notes = DependencyLog::load(&self.state.file(NOTES));
        let is_one = |path: &Path| paths.iter().any(|other| other == path);
        // What cargo builds may be made from any of these.
        let is_built = |path: &Path| !paths.is_empty() && path.to_string_lossy().ends_with(BUILDS);
        let seen: HashSet<&str> = notes.have_accessed(|path| is_one(path) || is_built(path)).collect();
        let mut places = Vec::new();
        for (at, test) in self.shared.tests.iter().enumerate() {
            let selection = test.selection()?;
            if seen.contains(test.name.as_str()) || paths.iter().any(|path| selection.has(path, false)) {
                places.push(TestId::new(at));
            }
        }
        Ok(places)
    }

    /// How the tests have fared in earlier runs.
    pub fn with_statistics<T>(&self, read: impl FnOnce(&Statistics) -> T) -> T {
        read(&self.shared.statistics.lock())
    }

    /// What the cache has done.
    pub fn cache_stats(&self) -> greenwave_cache::TieredStats {
        self.shared.runner.stats()
    }

    /// How often the whole project was looked at.
    pub fn looks(&self) -> usize {
        self.shared.project.looks()
    }

    async fn look(&self) -> Result<Arc<Snapshot>, Error> {
        let snapshot = self.shared.project.look(Instant::now()).await?;
        let (shared, of) = (Arc::clone(&self.shared), Arc::clone(&snapshot));
        blocking(move || shared.project.read_all(&of)).await?;
        Ok(snapshot)
    }

    /// ObservedStates results up. What hangs on programs that cargo builds is looked up again after it has built them.
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
        // Nobody may remember an answer that is right only after a build.
        *shared.basis.lock() = None;
        let folders: BTreeSet<&Path> = hanging.iter().filter_map(|at| shared.tests[*at].built_in()).collect();
        for folder in folders {
            if !shared.builds.lock().contains_key(folder) {
                // What cannot be built is no reason to stop: the tests that need it run.
                let _ = shared.build(folder).await;
            }
        }
        let mut doubted: HashMap<usize, PathBuf> = HashMap::new();
        for (at, found) in &found {
            let (true, Ok(Lookup::Hit(_, chain))) = (hanging.contains(at), found) else { continue };
            let builds = shared.builds.lock();
            let built = shared.tests[*at].built_in().and_then(|folder| builds.get(folder));
            if !built.is_some_and(|built| built.build.is_complete) {
                let roots = built.map(|built| built.build.roots()).unwrap_or_default();
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

    /// Whether the result that is there of a test is not believed.
    fn is_doubted(&self, at: usize) -> bool {
        self.shared.doubted.lock().contains_key(&at) || self.shared.unseen.lock().contains(&at)
    }

    fn is_audited(&self, at: usize, known: &Outcome) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.options.audit_seed.to_le_bytes()).update(&known.key).update(&at.to_le_bytes());
        let bytes = hasher.finalize();
        let number = u32::from_le_bytes([
            bytes.as_bytes()[0],
            bytes.as_bytes()[1],
            bytes.as_bytes()[2],
            bytes.as_bytes()[3],
        ]);
        f64::from(number) < self.options.audit * f64::from(u32::MAX)
    }

    /// DependencyLog what a test that ran depends on.
    fn note(&self, at: usize, outcome: &Outcome) {
        let Source::Ran(stored) = &outcome.source else { return };
        let shared = &self.shared;
        let name = &shared.tests[at].name;
        let Some((facts, inputs)) = shared.learned.lock().remove(name) else { return };
        let facts =
            DependencyRecord { at: now_ms(), status: outcome.status, not_kept: stored.reason(), ..facts };
        shared.notes.lock().put(name, facts, &inputs);
    }

    /// Saves what has been learned. That a later run has to look again is no reason to fail this one.
    fn remember(&self) {
        let shared = &self.shared;
        let saved = [
            shared.project.save(&self.state.file(INDEX), &self.state.file(TREE)).map_err(Error::from),
            shared.runner.tools().save(&self.state.file(TOOLS)),
            shared.statistics.lock().save(&self.state.file(STATISTICS)),
            shared.notes.lock().save(&self.state.file(NOTES)),
        ];
        for error in saved.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "what was learned is not remembered");
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

/// The name of a resource among those of the scheduler, which has names of its own.
fn resource(name: &str) -> String {
    format!("resource {name}")
}

fn needs(test: &Test) -> Needs {
    let needs = Needs::nothing().of(WORKERS, 1);
    let needs = if test.parallel_safe { needs.shared(ALONE) } else { needs.exclusive(ALONE) };
    test.needs.iter().fold(needs, |needs, (name, units)| needs.of(resource(name), *units))
}

/// What is to be expected of tests that run together: their time, and the most probable failure of any.
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

/// The two stages of a test, or of several: the process, which keeps a worker busy, and the judgement of results, which does not.
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
                // Dropped last, when whatever the task has started is gone.
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

/// Of each test in its place.
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

/// A test's project, as the scheduler's stage of this test sees it.
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
        // A program's inputs are those that it was built from, whatever has become of them since.
        let built = test.built_in().and_then(|folder| self.shared.builds.lock().get(folder).cloned());
        let snapshot = match built {
            Some(built) => built.snapshot,
            None => self.shared.project.newest().await?,
        };
        Ok(self.shared.project.moment(&snapshot, &test.name).await?)
    }

    async fn after(&self, test: &Test) -> Result<InputSnapshot, Error> {
        let later = self.shared.project.look(Instant::now()).await?;
        Ok(self.shared.project.moment(&later, &test.name).await?)
    }

    async fn launch(&self, runner: &Runner, test: &Test) -> Result<Option<LaunchSpec>, Error> {
        let Harness::Cargo { package, kind, target } = &test.harness else { return Ok(None) };
        let built = self.shared.builds.lock().get(&test.directory).cloned();
        let Some(Built { build, changing, .. }) = built else { return Ok(None) };
        let program = build.launch(package, kind, target).filter(|_| !functions::is_for_nextest(test));
        if let Some(mut launch) = program {
            launch.arguments.extend(test.program_arguments().iter().map(OsString::from));
            return Ok(Some(LaunchSpec { changing, ..launch }));
        }
        // What was not built says why when cargo is asked for it alone, and documentation is run by cargo anyway.
        let launch = runner.launch_plain(self.project(), test)?;
        Ok(Some(LaunchSpec {
            looks: build.looks(package),
            since: build.began,
            variables: build.variables_for_cargo(),
            products: Some(build.products(package, true)),
            changing,
            ..launch
        }))
    }

    fn is_built(&self, folder: &Path) -> bool {
        self.shared.builds.lock().get(folder).is_some_and(|built| built.build.is_complete)
    }

    async fn examine(
        &self,
        runner: &Runner,
        test: &Test,
        prepared: &Prepared<'_>,
        ran: &ProcessResult,
    ) -> Option<String> {
        let Harness::Cargo { package, kind, target } = &test.harness else { return None };
        let built = self.shared.builds.lock().get(&test.directory).cloned()?;
        let launch = built.build.launch(package, kind, target)?;
        Examination { runner, workspace: self, test, prepared, launch }.of(ran).await
    }

    fn wants_dependencies(&self) -> bool {
        true
    }

    fn learn(&self, test: &Test, facts: DependencyRecord, inputs: &Manifest) {
        self.shared.learned.lock().insert(test.name.clone(), (facts, inputs.clone()));
    }

    fn ended(&self) {
        if let Some(ended) = self.ended.lock().take() {
            self.shared.project.end();
            // Nobody listens to one that is not run by the scheduler.
            let _ = ended.send(());
        }
    }
}

impl Shared {
    /// Runs several tests in one process, and alone those of which that does not say that they pass.
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
        // That it did not work together says nothing of each alone.
        let _ = self.runner.alone(&key, work).await;
        results.append(&mut made);
        for at in keys {
            if !results.iter().any(|(known, _)| *known == at) {
                results.push((at, self.runner.run_in(workspace, &self.tests[at]).await));
            }
        }
        workspace.ended();
        results
    }

    /// The results of those that pass together.
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
        let mut first = Test { time_max: all, ..tests[0].clone() };
        // Told with what is put before it.
        first.set.remove(batch::PYTHON_PATH);
        let (_, prepared, _) = &missing[0];
        let told = |folder: &Path| {
            let path = batch::prepare(tests[0], folder, self.runner.environment())?;
            Ok((batch::arguments(&tests, folder), vec![path]))
        };
        let (attempt_result, isolation) = self.runner.run_together(workspace, &first, prepared, told).await?;
        let report = std::fs::read(isolation.folder().join(batch::REPORT)).unwrap_or_default();
        let mut shares = batch::shares(&report).unwrap_or_default();
        // Files that could not be collected are in neither, and keep pytest from running any.
        if batch::has_run(attempt_result.ran.status) && !run::says_what_to_leave_out(tests[0]) {
            for file in batch::left_out(isolation.folder()) {
                shares.entry(file).or_insert_with(batch::Share::left_out);
            }
        }
        drop(isolation);
        // At once, since all of them wait for the same look at the project.
        let mut settling = Vec::new();
        for (at, prepared, chain) in missing {
            let share = self.tests[at].command.last().and_then(|file| shares.get(file));
            if let Some(share) = share.filter(|share| share.is_pass() || **share == batch::Share::left_out())
            {
                settling.push(self.commit(workspace, at, prepared, chain, attempt_result.share(share)));
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

    /// Builds the programs of a folder's tests from a state of the project that did not change meanwhile, if that can be had.
    async fn build(&self, folder: &Path) -> Result<(), Error> {
        let tests: Vec<&Test> = self.tests.iter().filter(|test| test.built_in() == Some(folder)).collect();
        let mut before = self.project.look(Instant::now()).await?;
        for attempt in 1.. {
            let build = Build::run(self.project.root(), folder, self.runner.environment()).await?;
            let after = self.project.look(Instant::now()).await?;
            let mut changing = None;
            for test in &tests {
                let (then, now) = (
                    self.project.moment(&before, &test.name).await?,
                    self.project.moment(&after, &test.name).await?,
                );
                changing = changing.or(then.inputs.first_touched(&now.inputs).map(Path::to_owned));
            }
            // What cargo takes for fresh by its times, and may not be, is built anew.
            let doubtful = if attempt < BUILDS_MAX { build.doubtful() } else { None };
            if let Some(packages) = doubtful {
                build.forget(self.project.root(), folder, self.runner.environment(), packages).await?;
            } else if changing.is_none() || attempt == BUILDS_MAX {
                let built = Built { build: Arc::new(build), snapshot: after, changing };
                self.builds.lock().insert(folder.to_owned(), built);
                break;
            }
            before = after;
        }
        Ok(())
    }
}
