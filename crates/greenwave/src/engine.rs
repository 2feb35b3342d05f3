//! Runs a plan: opens what it needs, finds what is done already, hands the features to the scheduler, reports.
//!
//! What a feature does in each phase stands in `stage.rs`, how it comes into the project in `merge.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_agents::AgentPool;
use greenwave_scheduler::{
    Durations, Executor, Graph, Journal, Limits, Needs, Outcome, Progress, Resources, Stats, Stopper, TaskId,
};
use greenwave_storage::{Attempts, Store};
use greenwave_streaming::{Budget, Fanout, Policy, Subscription};
use greenwave_telemetry::{CacheFigures, ParallelFigures, Snapshot};
use greenwave_testing::{Environment, Manifest, Runner, STATE_DIRECTORY};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, RwLock};
use tokio::time::Instant;

use crate::adapters::{self, Flusher};
use crate::error::{Error, FeatureError, chain};
use crate::event::Event;
use crate::feature::{FeaturePolicy, Phase, PhaseEvent};
use crate::merge::Trunk;
use crate::parts::{Steps, Tests};
use crate::plan::Plan;
use crate::profile::Settings;
use crate::record::{self, Record};
use crate::report::{FeatureReport, Report, Totals};
use crate::tree::{Change, File, Tree};
use crate::workspace::{self, Place, Workspace};

// The scheduler's names for what stages hold, with a colon, which no resource of a plan has in its name.
pub(crate) const WORKERS: &str = ":workers";
pub(crate) const AGENTS: &str = ":agents";
pub(crate) const MERGE: &str = ":merge";

/// Most events that wait for a slow watcher before the run waits with them.
const EVENTS_QUEUED_MAX: usize = 1024;
/// Most bytes of answers that are in memory at once, over all of them.
const ANSWERS_BYTES_MAX: usize = 32 << 20;

/// A plan, ready to be run.
#[derive(Debug)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    graph: Graph<usize>,
    executor: Executor,
}

/// What all stages of all features share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) settings: Settings,
    pub(crate) state_dir: PathBuf,
    pub(crate) store: Store,
    pub(crate) flusher: Flusher,
    pub(crate) attempts: Attempts,
    pub(crate) journal: Journal,
    pub(crate) runner: Arc<dyn Tests>,
    pub(crate) steps: Steps,
    /// Where merges are written.
    pub(crate) project: Place,
    pub(crate) agents: BTreeMap<String, AgentPool>,
    pub(crate) answers: Budget,
    pub(crate) events: Fanout<Event>,
    /// What every feature depends on, directly or not, each after what it depends on itself.
    pub(crate) ancestors: Vec<Vec<usize>>,
    pub(crate) features: Vec<AsyncMutex<FeatureState>>,
    pub(crate) trunk: AsyncMutex<Trunk>,
    /// Green features by position in the plan, with the changes of those that became so in this run; those of
    /// earlier runs are in `start`.
    pub(crate) green: Mutex<BTreeMap<usize, Vec<Change>>>,
    /// The project as it was when this run began.
    pub(crate) start: Mutex<Tree>,
    pub(crate) counters: Mutex<Totals>,
    pub(crate) specs: Vec<String>,
}

/// What is known of a feature while it is worked on.
#[derive(Debug, Default)]
pub(crate) struct FeatureState {
    pub(crate) phase: Option<Phase>,
    /// What an earlier run remembered.
    pub(crate) kept: Option<Record>,
    pub(crate) workspace: Option<Workspace>,
    /// What the workspace began with.
    pub(crate) base: Tree,
    /// What the agent is told of what went wrong before.
    pub(crate) feedback: String,
    /// What the last answer held of files that it did not give whole.
    pub(crate) partial: Vec<String>,
    /// Tests that the merge ran, and results that it knew.
    pub(crate) merged: (usize, usize),
    pub(crate) report: FeatureReport,
}

impl Engine {
    /// Checks a plan and opens everything it needs. `environment` holds the variables that tests may see.
    ///
    /// # Errors
    /// [`Error::Plan`], [`Error::Agent`], [`Error::Busy`] if another run is at work in the project, or what
    /// kept the project's state from being opened.
    pub fn open(plan: Plan, settings: Settings, environment: Environment) -> Result<Self, Error> {
        plan.graph()?;
        let agents = adapters::agents(&plan, &settings)?;
        Self::assemble(plan, settings, agents, Steps::default(), |settings, state_dir| {
            let cache = adapters::cache(settings, state_dir)?;
            Ok(Arc::new(Runner::new(environment, cache)))
        })
    }

    /// An engine from its parts. `tests` makes what test results come from, given the settings and the
    /// directory of the project's state.
    pub(crate) fn assemble(
        plan: Plan,
        settings: Settings,
        agents: BTreeMap<String, AgentPool>,
        steps: Steps,
        tests: impl FnOnce(&Settings, &Path) -> Result<Arc<dyn Tests>, Error>,
    ) -> Result<Self, Error> {
        let graph = plan.graph()?;
        let (state_dir, lock) = lock_state(&plan.project)?;
        let store = adapters::store(&settings, &state_dir.join("store"))?;
        let runner = tests(&settings, &state_dir)?;
        let shared = Shared {
            specs: plan.features.iter().map(record::spec).collect(),
            flusher: Flusher::new(store.clone()),
            attempts: Attempts::new(store.clone(), "attempts"),
            journal: Journal::open(state_dir.join("journal"))?,
            runner,
            project: Place {
                root: plan.project.clone(),
                in_flight: Arc::new(RwLock::new(Some(lock))),
                steps: steps.clone(),
                is_project: true,
            },
            steps,
            agents,
            answers: Budget::new(ANSWERS_BYTES_MAX),
            events: Fanout::new(),
            ancestors: plan.features.iter().map(|feature| ancestors(&graph, &feature.id)).collect(),
            features: plan.features.iter().map(|_| AsyncMutex::default()).collect(),
            trunk: AsyncMutex::default(),
            green: Mutex::default(),
            start: Mutex::default(),
            counters: Mutex::default(),
            store,
            state_dir,
            plan,
            settings,
        };
        let executor = Executor::new(limits(&shared.plan, &shared.settings));
        Ok(Self { shared: Arc::new(shared), graph, executor })
    }

    /// Everything that happens from now on. A subscriber that does not read holds the run up, so that no event is lost.
    pub fn events(&self) -> Subscription<Event> {
        self.shared.events.subscribe(Policy::Wait { queue_max: EVENTS_QUEUED_MAX })
    }

    /// The live figures of the run, for an endpoint.
    pub fn metrics(&self) -> impl Fn() -> Snapshot + Send + Sync + use<> {
        let (stats, shared) = (self.executor.stats_reader(), Arc::clone(&self.shared));
        move || snapshot(&stats(), &shared)
    }

    /// A handle that stops the run: what it started is killed and waited for, and [`run`](Engine::run) returns
    /// with what became green until then.
    pub fn stopper(&self) -> Stopper {
        self.executor.stopper()
    }

    /// Runs the plan until every feature is green, failed or skipped, or the run is [stopped](Engine::stopper).
    /// A later run goes on where it was.
    ///
    /// Dropping the future stops the run as well, but waits for nothing: what it started is killed soon after.
    ///
    /// # Errors
    /// Only what keeps the run as a whole from going on. Features that fail are in the report.
    pub async fn run(self) -> Result<Report, Error> {
        let started = Instant::now();
        let shared = &self.shared;
        shared.emit(shared.started()).await;
        let done = shared.find_kept().await?;
        if done.len() < shared.plan.features.len() {
            shared.prepare().await?;
        } else if shared.work().exists() {
            // Copies of a run that was interrupted after its last merge.
            set_aside_stale(&shared.state_dir, &shared.work())?;
        }
        let durations = shared.journal.durations()?;
        let (outcomes, stats) = self.execute(&durations, &done).await?;
        // An aborted stage has left its writes to a thread of their own.
        drop(shared.project.in_flight.write().await);
        self.shared.close(durations, outcomes, &self.graph).await?;
        Ok(self.shared.report(started, &stats).await)
    }

    async fn execute(&self, durations: &Durations, done: &[TaskId]) -> Result<(Vec<Ended>, Stats), Error> {
        let shared = &self.shared;
        let untold = Mutex::new(Vec::new());
        let observe = |progress| {
            if let Progress::Skipped(feature, because) = progress
                && let Err(event) = shared.skipped(feature.index(), because.index())
            {
                untold.lock().push(event);
            }
        };
        let stage = |stage: greenwave_scheduler::Stage| {
            let (shared, feature) = (Arc::clone(shared), stage.task.index());
            async move { shared.stage(feature).await }
        };
        let needs = |task: TaskId| shared.needs(task.index(), Phase::Red);
        let expected = |task: TaskId| durations.estimate(&duration_key(self.graph.id(task)));
        let report = self.executor.run(&self.graph, expected, done, needs, stage, observe).await?;
        for event in untold.into_inner() {
            shared.emit(event).await;
        }
        let ended = report.outcomes.into_iter().map(|outcome| match outcome {
            Outcome::Failed(failure) => Some(failure_of(failure)),
            _ => None,
        });
        Ok((ended.collect(), report.stats))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Figures of the run may be wanted when it has ended, the lock may not be held then. Writes in
        // flight hold it until they have ended.
        if let Ok(mut lock) = self.shared.project.in_flight.try_write() {
            lock.take();
        }
    }
}

/// Why a feature failed, if it did.
type Ended = Option<FeatureError>;

fn failure_of(failure: greenwave_scheduler::Failure<FeatureError>) -> FeatureError {
    use greenwave_scheduler::Failure as F;
    match failure {
        F::Task(failure) => failure,
        F::Panicked(text) => FeatureError::Internal(text),
        F::TimedOut(limit) => FeatureError::TimedOut(limit),
        F::Unschedulable(error) => FeatureError::Run(error.into()),
    }
}

impl Shared {
    pub(crate) async fn emit(&self, event: Event) {
        self.events.publish(event).await;
    }

    pub(crate) fn course(&self, feature: usize) -> FeaturePolicy {
        let feature = &self.plan.features[feature];
        FeaturePolicy { attempts_max: feature.attempts_max, review: feature.review.is_some() }
    }

    /// What a feature holds in a phase.
    pub(crate) fn needs(&self, feature: usize, phase: Phase) -> Needs {
        match phase {
            Phase::Prompting(_) => Needs::nothing().of(AGENTS, 1),
            Phase::Merging(_) => Plan::needs(&self.plan.features[feature]).of(WORKERS, 1).of(MERGE, 1),
            _ => Plan::needs(&self.plan.features[feature]).of(WORKERS, 1),
        }
    }

    fn started(&self) -> Event {
        let mut agent_kinds: Vec<String> =
            self.agents.values().map(|agent| agent.kind().to_owned()).collect();
        agent_kinds.sort_unstable();
        agent_kinds.dedup();
        Event::Started {
            plan: self.plan.name.clone(),
            features: self.plan.features.len(),
            workers: self.settings.parallel.workers,
            agents: self.settings.parallel.agents,
            agent_kinds,
        }
    }

    /// Finds the features that an earlier run made green and that still are: those are done. One whose tests
    /// read something that has changed since is not, but begins with its tests instead of its agent.
    async fn find_kept(&self) -> Result<Vec<TaskId>, Error> {
        let records = self.journal.finished()?;
        let mut done = Vec::new();
        let mut certain = vec![false; self.plan.features.len()];
        let order: Vec<usize> = self.in_order();
        for feature in order {
            let id = &self.plan.features[feature].id;
            let Some(record) = records.get(id).and_then(|bytes| Record::decode(bytes)) else { continue };
            if !self.finish_writing(id, &record).await? {
                self.steps.pass("forget an interrupted merge").await;
                self.journal.forget(id)?;
                continue;
            }
            // The record stays: whoever has changed the tests may take that back.
            if record.spec != self.specs[feature] {
                continue;
            }
            certain[feature] = self.ancestors[feature].iter().all(|&before| certain[before])
                && self.all_known(feature, &record).await?;
            self.features[feature].lock().await.kept = Some(record);
        }
        for (task, _) in (0..).zip(&self.plan.features).filter(|(task, _)| certain[*task]) {
            done.push(self.keep(task).await);
        }
        Ok(done)
    }

    /// Features, each after what it depends on.
    fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.plan.features.len()).collect();
        order.sort_by_key(|&feature| self.ancestors[feature].len());
        order
    }

    /// Finishes a merge that was interrupted; false if that is impossible, and what it had written was
    /// put back.
    ///
    /// A file that somebody has changed since is left as it is. If all others are as they should be, the
    /// merge counts as finished before that change, as if it had been marked: the tests decide.
    async fn finish_writing(&self, id: &str, record: &Record) -> Result<bool, Error> {
        if record.written {
            return Ok(true);
        }
        self.steps.pass("look at an interrupted merge").await;
        let (mut missing, mut changed) = (Vec::new(), None);
        for change in &record.merged {
            let now = workspace::state_of(&self.plan.project, &change.path)?;
            if now == change.before && now != change.after {
                missing.push(change.clone());
            } else if now != change.after {
                changed = Some(change.path.as_str());
            }
        }
        workspace::sweep(&self.plan.project, &record.merged);
        if let Some(path) = changed {
            tracing::warn!(feature = id, path, "changed since an interrupted merge");
            if !missing.is_empty() {
                workspace::undo(&self.project, &record.merged, &self.store).await;
                return Ok(false);
            }
        }
        let done = workspace::perform(&self.project, &missing, &self.store).await;
        self.steps.pass("finish an interrupted merge").await;
        if let Err(error) = done {
            tracing::warn!(
                feature = id,
                error = chain(&error),
                "an interrupted merge cannot be finished; undoing it"
            );
            workspace::undo(&self.project, &record.merged, &self.store).await;
            return Ok(false);
        }
        self.journal.record(id, &Record { written: true, ..record.clone() }.encode())?;
        Ok(true)
    }

    /// Whether the files of a green feature are there, and the results of its tests are known for them.
    async fn all_known(&self, feature: usize, record: &Record) -> Result<bool, Error> {
        for test in &self.plan.features[feature].tests {
            match self.runner.known(&self.plan.project, test).await {
                Ok(Some(outcome)) if outcome.passed() => self.count(feature, test, &outcome).await,
                // Whatever is wrong is told when the test is run.
                _ => return Ok(false),
            }
        }
        let mut state = self.features[feature].lock().await;
        state.report.attempts = record.attempts;
        Ok(true)
    }

    async fn keep(&self, feature: usize) -> TaskId {
        let mut state = self.features[feature].lock().await;
        let attempts = state.kept.as_ref().map_or(0, |record| record.attempts);
        state.phase = Some(Phase::Green(attempts));
        state.report.up_to_date = true;
        drop(state);
        self.green.lock().insert(feature, Vec::new());
        let id = &self.plan.features[feature].id;
        self.emit(Event::UpToDate { feature: id.clone() }).await;
        TaskId::from_index(feature)
    }

    /// Takes the project's files into the store, and makes the folder that merges are tried in.
    async fn prepare(&self) -> Result<(), Error> {
        self.steps.pass("capture the project").await;
        let tree = capture(&self.plan.project, &self.store).await?;
        self.steps.pass("clear the work").await;
        self.start.lock().clone_from(&tree);
        let work = self.work();
        set_aside_stale(&self.state_dir, &work)?;
        let greens = self.green.lock().keys().copied().collect();
        let workspace = Workspace::new(work.join(".merge"), Arc::clone(&self.project.in_flight))?;
        *self.trunk.lock().await = Trunk { tree, greens, workspace: Some(workspace) };
        Ok(())
    }

    /// Where the copies of the project are.
    pub(crate) fn work(&self) -> PathBuf {
        self.state_dir.join("work")
    }

    /// Notes that a feature was skipped, and tells it; the event comes back where a watcher has no room for it now.
    fn skipped(&self, feature: usize, because: usize) -> Result<(), Event> {
        let (id, because) = (&self.plan.features[feature].id, &self.plan.features[because].id);
        // Nobody holds it: it was never begun.
        if let Ok(mut state) = self.features[feature].try_lock() {
            let phase = state.phase.unwrap_or(Phase::Waiting);
            state.phase = Some(phase.after(PhaseEvent::AncestorFailed, self.course(feature)));
            state.report.reason = Some(format!("depends on `{because}`, which failed"));
        }
        let event = Event::Skipped { feature: id.clone(), because: because.clone() };
        self.events.try_publish(event).map_err(|full| full.0)
    }

    /// Notes that a feature failed, and tells it.
    pub(crate) async fn failed(&self, feature: usize, state: &mut FeatureState, failure: &FeatureError) {
        let (id, reason) = (self.plan.features[feature].id.clone(), chain(failure));
        state.phase = Some(Phase::Failed);
        state.report.reason = Some(reason.clone());
        self.emit(Event::Failed { feature: id, reason }).await;
    }

    /// Notes how features ended, and keeps what was learned for later runs.
    async fn close(
        &self,
        mut durations: Durations,
        ended: Vec<Ended>,
        graph: &Graph<usize>,
    ) -> Result<(), Error> {
        for (feature, failure) in (0..).zip(ended) {
            let mut state = self.features[feature].lock().await;
            let id = graph.id(TaskId::from_index(feature));
            if !state.report.up_to_date && state.phase.is_some_and(|phase| matches!(phase, Phase::Green(_))) {
                durations.observe(&duration_key(id), state.report.busy);
            }
            // What failed by itself has been told; what its code did not survive has not.
            if let Some(failure) = failure
                && state.phase != Some(Phase::Failed)
            {
                self.failed(feature, &mut state, &failure).await;
            }
        }
        self.steps.pass("store durations").await;
        self.journal.keep_durations(&durations)?;
        self.trunk.lock().await.workspace.take().map(Workspace::remove).unwrap_or_default();
        self.steps.pass("flush at the end").await;
        self.runner.flush().await;
        self.store.flush().await.map_err(Error::store("flush"))
    }

    async fn report(&self, started: Instant, stats: &Stats) -> Report {
        let mut features = Vec::new();
        for (feature, state) in self.plan.features.iter().zip(&self.features) {
            let mut state = state.lock().await;
            state.report.feature.clone_from(&feature.id);
            state.report.phase = state.phase.unwrap_or(Phase::Waiting).label();
            features.push(state.report.clone());
        }
        let storage = self.store.stats();
        let counted = self.counters.lock().clone();
        let totals = Totals {
            wall: started.elapsed(),
            sequential: stats.busy,
            efficiency: stats.efficiency(WORKERS),
            workers_peak: stats.pool(WORKERS).map_or(0, |pool| pool.peak),
            memory_peak_mb: greenwave_telemetry::resident(false).peak_mb,
            storage_peak_bytes: storage.memory_bytes_peak,
            storage_spilled: storage.spilled_blobs,
            storage_stored_bytes: storage.cold.stored_bytes.unwrap_or(0),
            storage_raw_bytes: storage.cold.raw_bytes.unwrap_or(0),
            storage_codec: storage.cold.codec,
            ..counted
        };
        Report { plan: self.plan.name.clone(), features, totals }
    }
}

/// The files of a project, with their contents in the store.
async fn capture(project: &Path, store: &Store) -> Result<Tree, Error> {
    let manifest = Manifest::of_project(project).map_err(|source| Error::Project { source })?;
    let mut tree = Tree::new();
    for (path, entry) in manifest.files() {
        let Some(name) = path.to_str() else {
            tracing::warn!(path = %path.display(), "left out: its name is not UTF-8");
            continue;
        };
        let content = workspace::read(&project.join(path), entry.kind)
            .map_err(Error::io("read", project.join(path)))?;
        let blob = store.put_blob(content).await.map_err(Error::store("write to"))?;
        tree.insert(name.to_owned(), File { kind: entry.kind, blob });
    }
    Ok(tree)
}

/// What the scheduler learns a feature's duration under.
fn duration_key(feature: &str) -> String {
    format!("feature:{feature}")
}

fn ancestors(graph: &Graph<usize>, id: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut next: Vec<TaskId> =
        graph.find(id).map(|task| graph.dependencies(task).to_vec()).unwrap_or_default();
    while let Some(task) = next.pop() {
        if !found.contains(&task.index()) {
            found.push(task.index());
            next.extend(graph.dependencies(task));
        }
    }
    let order = graph.topological();
    found.sort_by_key(|&feature| order.iter().position(|task| task.index() == feature));
    found
}

fn limits(plan: &Plan, settings: &Settings) -> Limits {
    let own = [(WORKERS, settings.parallel.workers), (AGENTS, settings.parallel.agents), (MERGE, 1)];
    let own = own.into_iter().map(|(name, units)| (name.to_owned(), units));
    let theirs = plan.resources.iter().map(|(name, units)| (name.clone(), *units));
    let tasks_max = settings.parallel.features as usize;
    Limits { resources: Resources::new(theirs.chain(own)), tasks_max, ..Limits::default() }
}

fn lock_state(project: &Path) -> Result<(PathBuf, fs::File), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let state = project.join(STATE_DIRECTORY);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&state).map_err(Error::io("make", &state))?;
    let ignore = state.join(".gitignore");
    fs::write(&ignore, "*\n").map_err(Error::io("write", &ignore))?;
    let path = state.join("lock");
    let lock = fs::File::create(&path).map_err(Error::io("open", &path))?;
    // A run that is killed while it starts a program leaves its lock to that program for the moment until this has begun.
    for _ in 0..LOCK_TRIES_MAX {
        match lock.try_lock() {
            Ok(()) => return Ok((state, lock)),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_TRY_AFTER),
            Err(fs::TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
    }
    Err(Error::Busy { project: project.to_owned() })
}

/// Half a second in all.
const LOCK_TRIES_MAX: u32 = 20;
const LOCK_TRY_AFTER: std::time::Duration = std::time::Duration::from_millis(25);

/// Takes away what an earlier run has left in a folder. What that run had started may still be at work in there
/// if it was killed, so the folder is moved aside first, and removed as far as that is possible.
fn set_aside_stale(state_dir: &Path, folder: &Path) -> Result<(), Error> {
    const ASIDE: &str = "old-";
    let aside = tempfile::Builder::new().prefix(ASIDE).tempdir_in(state_dir);
    let aside = aside.map_err(Error::io("make a folder in", state_dir))?.keep();
    match fs::rename(folder, aside.join("work")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("move", folder)(error));
        }
        _ => {}
    }
    for entry in fs::read_dir(state_dir).map_err(Error::io("look into", state_dir))?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(ASIDE.as_bytes()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn snapshot(stats: &Stats, shared: &Shared) -> Snapshot {
    let cache = shared.runner.stats();
    let workers = stats.pool(WORKERS).map_or(0, |pool| u64::from(pool.used));
    let storage = shared.store.stats();
    let extra = serde_json::json!({
        "run": {
            "plan": shared.plan.name,
            "features": stats.tasks,
            "green": stats.done,
            "failed": stats.failed,
            "skipped": stats.skipped,
            "requests_in_flight": stats.pool(AGENTS).map_or(0, |pool| pool.used),
        },
        "storage": {
            "memory_bytes": storage.memory_bytes_used,
            "memory_bytes_max": storage.memory_bytes_max,
            "hot": storage.hot_blobs,
            "spilled": storage.spilled_blobs,
        },
    });
    Snapshot {
        cache: CacheFigures::of(cache.hits, cache.misses),
        parallel: ParallelFigures::of(workers, stats.ready as u64, stats.efficiency(WORKERS)),
        memory: greenwave_telemetry::resident(storage.spillover_active),
        extra: extra.as_object().cloned().unwrap_or_default(),
    }
}
