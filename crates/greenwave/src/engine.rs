//! The engine: opens the parts of a run, hands the features to the scheduler, and reports the
//! result.

mod dashboard;
mod project;
mod queue_waits;
mod report;
mod slips;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use greenwave_agents::{AgentPool, Preflight};
use greenwave_dir::Dir;
use greenwave_scheduler::{
    AdmittedUnits, Durations, Executor, Graph, Job, Limits, Needs, OnFailure, Progress, ScheduleStats,
    Stopper, TaskId, TaskOutcome, TaskSender,
};
use greenwave_storage::Attempts;
use greenwave_streaming::{Budget, Fanout, SubscriberPolicy, Subscription};
use greenwave_telemetry::{Dashboard, MetricsSnapshot};
use greenwave_testing::{Environment, Harnesses, Runner, StateSeal, TestSlots, TraceMode, TraceStatus};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, RwLock};
use tokio::time::Instant;

use crate::adapters::{self, Flusher};
use crate::agent_placeholders::Placeholders;
use crate::agent_settings::AgentSettings;
use crate::approval::Approvals;
use crate::boxed::boxed;
use crate::branch::ResultBranch;
use crate::branch_owner;
use crate::budget::BudgetLedger;
use crate::confinement::RunConfinement;
use crate::context::{Exposed, RunContext};
use crate::continuation;
use crate::copies::{self, Copies, CopyOptions};
use crate::dependencies::Dependencies;
use crate::disk_full::DiskFull;
use crate::error::{Error, FeatureError, chain};
use crate::event::Event;
use crate::feature_run::FeatureRun;
use crate::fixed_ports::FixedPorts;
use crate::function_tests::FunctionTests;
use crate::gates;
use crate::green_record;
use crate::mask::{AddedSecrets, Mask};
use crate::merge::MergeQueue;
use crate::metrics;
use crate::notify::Notifier;
use crate::plan::{BaseKind, FeatureId, Guards, Plan, ResultKind};
use crate::preflight::{preflight, preflight_sandboxes};
use crate::project_root::ProjectRoot;
use crate::protection::RunProtection;
use crate::receipts::Receipts;
use crate::report::Report;
use crate::resources::{self, WORKERS};
use crate::resume::{self, Resumed};
use crate::run_control::RunControl;
use crate::run_journal::RunJournal;
use crate::run_metrics::RunMetrics;
use crate::scope::RunScope;
use crate::settings::Settings;
use crate::setup::Starter;
use crate::state::FeatureState;
use crate::state_dir;
use crate::state_home::StateHome;
use crate::steering::Steering;
use crate::steps::Steps;
use crate::test_runner::TestRunner;
use crate::tree::Tree;
use crate::workspace::Destination;

use project::ProjectCapture;
use queue_waits::QueueWaits;
use report::{feature_error, note_event, report, started_event};

/// Minimum `storage.memory_limit`, in bytes, with which more tests are prepared than run.
const AHEAD_MEMORY_MIN: u64 = 200_000_000;
/// Maximum number of events in a subscriber's queue. The run waits while a queue is full.
const EVENTS_QUEUED_MAX: usize = 1024;
/// Maximum size of all answers in memory at once, in bytes.
const ANSWERS_BYTES_MAX: usize = 32 << 20;

/// A plan that is ready to run.
///
/// The engine holds the lock of the project's state until it is dropped.
#[derive(Debug)]
pub struct Engine {
    ctx: Arc<RunContext>,
    graph: Graph<FeatureId>,
    executor: Executor,
}

/// The features of a run and the queue that merges them.
struct Run {
    queue: Arc<MergeQueue>,
    features: Arc<[AsyncMutex<FeatureRun>]>,
    /// Features that are up to date.
    done: Vec<TaskId>,
    /// The project before agents and tests can change it, with the contents of its files.
    before: Option<Arc<slips::Before>>,
    /// Settings of agents before these can change them.
    settings: Arc<AgentSettings>,
    /// Settings of agents that exist during the run only.
    _placeholders: Placeholders,
}

impl Engine {
    /// Checks a plan and opens its agents, store, journal and cache. `environment` holds the
    /// variables that tests may read.
    ///
    /// # Errors
    /// Returns [`Error::Plan`] for an invalid plan, [`Error::Agent`] for an agent that cannot be
    /// set up, [`Error::Busy`] if another run uses the project, and otherwise the reason why the
    /// project's state cannot be opened.
    pub fn open(plan: Plan, settings: Settings, environment: Environment) -> Result<Self, Error> {
        Self::open_parts(plan, settings, environment, None)
    }

    /// Like [`open`](Engine::open), with a function in the place of all tests of the features.
    ///
    /// `check` looks at the project in a directory, a working copy for example, and returns why its
    /// files are not accepted: the feedback for the agent. It runs on a thread that may block.
    ///
    /// # Errors
    /// Those of [`open`](Engine::open).
    pub fn open_checking(
        plan: Plan,
        settings: Settings,
        environment: Environment,
        check: impl Fn(&Path) -> Result<(), String> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::open_parts(plan, settings, environment, Some(FunctionTests::new(check)))
    }

    fn open_parts(
        plan: Plan,
        settings: Settings,
        environment: Environment,
        check: Option<FunctionTests>,
    ) -> Result<Self, Error> {
        plan.graph()?;
        let copies = copies::base_directory(&settings, &environment)?;
        let variables = copies::agent_variables(&copies, &ProjectRoot::of(&plan.project)?);
        let confinement = RunConfinement::new(&plan, &settings, &environment, &copies)?;
        let secrets = AddedSecrets::default();
        let agents = adapters::agents(&plan, &settings, &environment, &variables, &confinement, &secrets)?;
        let sandbox = confinement.tests()?;
        let environment = environment.confined_by(sandbox.clone());
        let context = Preflight::new(&plan.project, environment.get("PATH"));
        for (name, agent) in &agents {
            let checked = agent.preflight(&context);
            checked.map_err(|source| Error::Agent { agent: name.clone(), source })?;
        }
        if settings.testing.trace == TraceMode::Required {
            return Err(Error::NotTraced);
        }
        let mask = Mask::new(environment.texts()).with(secrets);
        let problems = preflight(&plan, &environment).into_iter();
        let problems = problems.chain(preflight_sandboxes(&plan, settings.run.confine));
        let notes = problems.filter(|problem| !problem.is_error).collect();
        let confined = [confinement.event(&plan)].into_iter().chain(confinement.notes(&plan)).collect();
        let exposure = confinement.exposure(&plan);
        let directories = if exposure.is_some() { confinement.exposed(&plan) } else { Default::default() };
        let exposed = Exposed {
            directories,
            agent_settings: confinement.agent_settings(&plan),
            absent_settings: confinement.absent_settings(&plan),
        };
        let (steps, supervisor) = (Steps::default(), environment.supervisor().cloned());
        let starter = Starter { supervisor, sandbox, slots: None };
        let seal = settings.seal_of(&plan.project)?;
        let runner = |settings: &Settings, state_dir: &Dir| -> Result<Arc<dyn TestRunner>, Error> {
            if let Some(check) = check {
                return Ok(Arc::new(check));
            }
            let cache = adapters::cache(settings, state_dir, seal.as_ref())?;
            Ok(Arc::new(Runner::new(environment, cache)))
        };
        let mut engine = Self::assemble(plan, settings, agents, steps, mask, (&copies, starter), runner)?;
        engine.change_context(|ctx| {
            (ctx.notes, ctx.confined) = (notes, confined);
            (ctx.exposure, ctx.exposed) = (exposure, exposed);
        });
        Ok(engine)
    }

    /// Restricts the run to a part of the plan. Must be called before any other method.
    ///
    /// # Errors
    /// [`Error::Plan`] if the plan does not have a feature that the scope names.
    pub fn with_scope(mut self, scope: RunScope) -> Result<Self, Error> {
        let selected = scope.select(&self.ctx.plan)?;
        let mut limits = resources::limits(&self.ctx.plan, &self.ctx.settings);
        if scope.fail_fast {
            limits.on_failure = OnFailure::StopAtFirst;
        }
        self.executor = executor(&self.ctx, limits);
        self.change_context(|ctx| (ctx.scope, ctx.selected) = (scope, selected));
        Ok(self)
    }

    /// Replaces the built-in harnesses, which discover the tests that guard the project, run tests
    /// and read their output. Must be called before any other method.
    #[must_use]
    pub fn with_harnesses(mut self, harnesses: Harnesses) -> Self {
        self.change_context(|ctx| {
            if let Some(tests) = Arc::get_mut(&mut ctx.tests) {
                tests.set_harnesses(harnesses);
            }
        });
        self
    }

    /// Changes the context, unless a caller already shares it.
    fn change_context(&mut self, change: impl FnOnce(&mut RunContext)) {
        if let Some(ctx) = Arc::get_mut(&mut self.ctx) {
            change(ctx);
        }
    }

    /// Assembles an engine from its parts. `copies` is the directory of all working copies, with
    /// what starts the commands that set them up. `tests` makes the test runner, given the
    /// settings and the state directory of the project.
    pub(crate) fn assemble(
        mut plan: Plan,
        settings: Settings,
        agents: BTreeMap<String, AgentPool>,
        steps: Steps,
        mask: Mask,
        (copies, starter): (&Path, Starter),
        tests: impl FnOnce(&Settings, &Dir) -> Result<Arc<dyn TestRunner>, Error>,
    ) -> Result<Self, Error> {
        let graph = plan.graph()?;
        if plan.notify.is_empty() {
            plan.notify.clone_from(&settings.run.notify);
        }
        let (state_dir, lock) = state_dir::lock(&plan.project)?;
        let (seal, root) = (settings.seal_of(&plan.project)?, ProjectRoot::of(&plan.project)?);
        place_tests(&mut plan, &root);
        let (events, slots) = (Fanout::new(), test_slots(&settings));
        let notifier = Notifier::new(&plan, starter.supervisor.clone(), events.clone());
        let options =
            copy_options(&plan, &settings, &root, Starter { slots: Some(slots.clone()), ..starter });
        let (copies, lock_of_copies) = Copies::new(copies, root, &plan.project, &plan.name, options)?;
        let branch = result_branch(&plan, &copies)?;
        let tests = limited(tests(&settings, &state_dir)?, &slots);
        let state_home = Arc::new(StateHome::new(&plan.project, state_dir, adapters::caches(&settings)));
        let store = adapters::store_of_run(&settings, &state_home)?;
        let ctx = RunContext {
            definitions: plan.features.iter().map(green_record::definition).collect(),
            written: plan.features.iter().map(|_| OnceLock::new()).collect(),
            flusher: Flusher::new(store.clone()),
            attempts: Attempts::new(store.clone(), &adapters::attempts_namespace(seal.as_ref())),
            approvals: Approvals::new(Arc::clone(&state_home), seal),
            journal: open_journal(&state_home, seal, branch.as_ref(), &plan)?,
            state_home,
            tests,
            slots,
            project: destination(&copies.root, vec![lock, lock_of_copies], &steps)?,
            steps,
            steering: Steering::default(),
            gates: gates::gates(&plan, agents.keys(), settings.pool.size),
            receipts: Receipts::new(&settings),
            disk_full: DiskFull::default(),
            budget: Arc::new(BudgetLedger::new(plan.budget)),
            unsaved: Mutex::default(),
            working: AtomicUsize::new(0),
            agents,
            protection: RunProtection::new(&plan, &copies.root),
            mask,
            scope: RunScope::default(),
            selected: (0..plan.features.len()).map(FeatureId::from_index).collect(),
            notes: Vec::new(),
            confined: Vec::new(),
            exposure: None,
            exposed: Exposed::default(),
            left_processes: Mutex::default(),
            ports: FixedPorts::default(),
            answers: Budget::new(ANSWERS_BYTES_MAX),
            events,
            metrics: RunMetrics::default(),
            notifier,
            live: OnceLock::new(),
            totals: Mutex::default(),
            branch,
            copies: Arc::new(copies),
            dependencies: Dependencies::of(&graph),
            store,
            plan,
            settings,
        };
        Ok(Self::of(ctx, graph))
    }

    fn of(ctx: RunContext, graph: Graph<FeatureId>) -> Self {
        let executor = executor(&ctx, resources::limits(&ctx.plan, &ctx.settings));
        Self { ctx: Arc::new(ctx), graph, executor }
    }

    /// Subscribes to the events of the run.
    ///
    /// No event is lost: a subscriber that does not read its events delays the run.
    pub fn events(&self) -> Subscription<Event> {
        self.ctx.events.subscribe(SubscriberPolicy::Wait { queue_max: EVENTS_QUEUED_MAX })
    }

    /// Returns a function that takes snapshots of the run's live figures, for a metrics endpoint.
    pub fn metrics(&self) -> impl Fn() -> MetricsSnapshot + Send + Sync + use<> {
        let (stats, ctx) = (self.executor.stats_reader(), Arc::clone(&self.ctx));
        move || metrics::snapshot(&stats(), &ctx)
    }

    /// Returns a dashboard that shows the run: its events, the newest lines of its agents, and its
    /// attempts.
    pub fn dashboard(&self) -> Dashboard {
        dashboard::dashboard(&self.ctx)
    }

    /// Returns a handle that shows the work of the run's agents and takes decisions of the user.
    pub fn control(&self) -> RunControl {
        dashboard::watch(&self.ctx);
        RunControl::new(Arc::clone(&self.ctx))
    }

    /// Records the events of the run in the state of the project, so that
    /// [`RunRecords`](crate::RunRecords) can show it again.
    pub fn record(&self) {
        dashboard::record(&self.ctx);
    }

    /// Returns the attempt of each feature whose answer is recorded and not merged. The answers of
    /// candidates are those of [`recorded_candidates`](Self::recorded_candidates): an agent that
    /// could not work has none, and is asked again.
    #[cfg(test)]
    pub(crate) fn recorded_answers(&self) -> BTreeMap<usize, u32> {
        use crate::attempt_record::AttemptRecord;
        let records = self.ctx.journal.finished().unwrap_or_default();
        let record = |id: FeatureId| {
            let record = AttemptRecord::decode(records.get(&self.ctx.attempt_key(id))?)?;
            (record.answered && record.candidates.is_empty()).then_some((id.index(), record.attempt))
        };
        self.ctx.ids().filter_map(record).collect()
    }

    /// Returns the feature, the attempt and the number of each candidate that is recorded.
    #[cfg(test)]
    pub(crate) fn recorded_candidates(&self) -> BTreeSet<(usize, u32, u32)> {
        use crate::attempt_record::AttemptRecord;
        let records = self.ctx.journal.finished().unwrap_or_default();
        let record = |id: FeatureId| {
            let record = records.get(&self.ctx.attempt_key(id))?;
            Some((id.index(), AttemptRecord::decode(record)?))
        };
        let records = self.ctx.ids().filter_map(record);
        let candidates = records.flat_map(|(id, record)| {
            let attempt = record.attempt;
            record.candidates.into_iter().map(move |candidate| (id, attempt, candidate.number))
        });
        candidates.collect()
    }

    /// Returns a handle that stops the run.
    ///
    /// A stopped run kills its programs and waits for them. [`run`](Engine::run) then returns with
    /// the features that are green by then.
    pub fn stopper(&self) -> Stopper {
        self.executor.stopper()
    }

    /// Runs the plan until every feature is green, failed or skipped, or until the run is
    /// [stopped](Engine::stopper). A later run continues from there.
    ///
    /// Dropping the future stops the run as well, without waiting: its programs are killed soon
    /// after.
    ///
    /// # Errors
    /// Fails only if the run as a whole cannot continue. Failed features are in the report.
    pub fn run(self) -> impl Future<Output = Result<Report, Error>> + Send {
        boxed(self.run_plan())
    }

    async fn run_plan(self) -> Result<Report, Error> {
        let started = Instant::now();
        let ctx = &self.ctx;
        ctx.emit(started_event(ctx)).await;
        for event in &ctx.confined {
            ctx.emit(event.clone()).await;
        }
        ctx.emit(Event::Copies { method: ctx.copies.method().as_str() }).await;
        ctx.emit(Event::Tracing { status: TraceStatus::Off.as_str() }).await;
        for note in &ctx.notes {
            ctx.emit(note_event(note)).await;
        }
        let run = self.prepare().await?;
        let durations = ctx.journal.durations()?;
        let (errors, stats) = self.execute(&durations, &run).await?;
        // Aborted stages leave their writes to other threads. This waits for them.
        drop(ctx.project.in_flight.write().await);
        if let Err(error) = self.close(durations, &errors, &run).await {
            // The features that need the space have failed, which the report shows.
            if !ctx.disk_full.observe(&error, ctx.project.dir.path()) {
                return Err(error);
            }
            tracing::warn!(error = chain(&error), "cannot store the state of the run");
        }
        if let Some(live) = ctx.live.get() {
            live.finish(&metrics::snapshot(&stats, ctx), self.executor.stopper().is_stopped());
        }
        Ok(report(ctx, &run.features, started, &stats).await)
    }

    /// Resumes earlier runs, and captures the project unless all features are up to date.
    async fn prepare(&self) -> Result<Run, Error> {
        let ctx = &self.ctx;
        let wanted = ctx.approvals.wanted(&ctx.plan.project);
        let name = |id: FeatureId| green_record::name(&ctx.feature(id).id, ctx.definition(id));
        for id in ctx.ids().filter(|id| wanted.contains(&name(*id))) {
            ctx.steering.set_held(id, true);
        }
        let resumed = resume::resume(ctx).await?;
        let is_up_to_date = |feature: &Resumed| matches!(feature.state, FeatureState::Ended(_));
        let green: BTreeSet<FeatureId> =
            ctx.ids().zip(&resumed).filter(|(_, feature)| is_up_to_date(feature)).map(|(id, _)| id).collect();
        ctx.steps.pass("clear the work").await;
        ctx.copies.clear()?;
        let mut before = None;
        let (placeholders, settings) = slips::settings(ctx, green.len() < resumed.len()).await;
        let (tree, workspace) = if green.len() < resumed.len() {
            ctx.steps.pass("capture the project").await;
            let project = ProjectCapture { ctx, stopper: self.executor.stopper() };
            let states = slips::states(ctx).await;
            // Features with a record only have their tests checked, if that.
            let is_new = |(id, resumed): &(FeatureId, &Resumed)| {
                ctx.selected.contains(id) && matches!(resumed.state, FeatureState::Waiting { record: None })
            };
            let new = ctx.ids().zip(&resumed).filter(is_new).count();
            let (start, workspace) = project.capture(new).await?;
            before = states.map(|states| Arc::new(slips::Before { states, tree: start.clone() }));
            (project.add_results(start, &resumed).await?, workspace)
        } else {
            (Tree::new(), None)
        };
        // Features that are not selected count as done, so that nothing waits for them.
        let unselected = ctx.ids().filter(|id| !ctx.selected.contains(id) && !green.contains(id));
        let done = green.iter().copied().chain(unselected);
        let done = done.map(|id| TaskId::from_index(id.index())).collect();
        let queue = Arc::new(MergeQueue::new(Arc::clone(ctx), tree, green, workspace));
        let features = ctx.ids().zip(resumed).map(|(id, resumed)| {
            AsyncMutex::new(FeatureRun::new(Arc::clone(ctx), Arc::clone(&queue), id, resumed))
        });
        let features = features.collect();
        Ok(Run { queue, features, done, before, settings, _placeholders: placeholders })
    }

    /// Runs the stages of all features, and returns the error of each that failed.
    async fn execute(
        &self,
        durations: &Durations,
        run: &Run,
    ) -> Result<(Vec<Option<FeatureError>>, ScheduleStats), Error> {
        let ctx = &self.ctx;
        // Events for which a subscriber has no room at the moment.
        let delayed = Mutex::new(Vec::new());
        let mut waits = QueueWaits::new(&self.graph, &run.done, Instant::now());
        let observe = |progress| {
            if let Some(wait) = waits.observe(&progress, Instant::now()) {
                ctx.metrics.queue_wait.observe(wait);
            }
            if let Progress::Skipped(task, because) = progress
                && let Some(event) = skip(ctx, run, feature_id(task), feature_id(because))
            {
                delayed.lock().push(event);
            }
        };
        let stage = |stage: greenwave_scheduler::Stage| {
            let (features, index) = (Arc::clone(&run.features), stage.task.index());
            async move { features[index].lock().await.run_stage().await }
        };
        let needs = |task: TaskId| {
            // The locks are free, because no feature has started.
            let feature = run.features[task.index()].try_lock();
            feature.map_or_else(|_| Needs::nothing(), |feature| feature.first_needs())
        };
        let expected = |task: TaskId| durations.estimate(&duration_key(self.graph.id(task)));
        let (tasks, added) = TaskSender::channel();
        run.queue.add_tasks_to(tasks);
        let job = Job::new().expected(expected).already_done(&run.done).needs(needs).observe(observe);
        let report = self.executor.run_job(&self.graph, job.new_tasks(added), stage).await?;
        for event in delayed.into_inner() {
            ctx.emit(event).await;
        }
        let errors = report.outcomes.into_iter().map(|outcome| match outcome {
            TaskOutcome::Failed(failure) => Some(feature_error(failure)),
            _ => None,
        });
        Ok((errors.collect(), report.stats))
    }

    /// Reports failures that features could not report themselves, and stores data for later runs.
    async fn close(
        &self,
        mut durations: Durations,
        errors: &[Option<FeatureError>],
        run: &Run,
    ) -> Result<(), Error> {
        let ctx = &self.ctx;
        for ((id, feature), error) in ctx.ids().zip(&*run.features).zip(errors) {
            let mut feature = feature.lock().await;
            feature.settle().await;
            if feature.became_green() {
                durations.observe(&duration_key(&ctx.feature(id).id), feature.report().busy);
            }
            if let Some(error) = error {
                feature.fail_if_running(error).await;
            }
        }
        if let Some(before) = &run.before {
            slips::undo_slips(ctx, before).await?;
        }
        slips::report_settings(ctx, &run.settings).await;
        ctx.steps.pass("store durations").await;
        // They only improve estimates.
        if let Err(error) = ctx.journal.record_durations(&durations) {
            tracing::warn!(error = chain(&error), "cannot store durations");
        }
        ctx.journal.complete()?;
        run.queue.close().await;
        ctx.copies.remove();
        continuation::write_unsaved(ctx).await;
        ctx.notifier.finish().await;
        ctx.steps.pass("flush at the end").await;
        ctx.tests.flush().await;
        ctx.store.flush().await.map_err(Error::store("flush"))?;
        ctx.note_restored_state().await;
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The context outlives the engine in `metrics`, but the locks must not. Writes in flight
        // hold them until they end.
        if let Ok(mut locks) = self.ctx.project.in_flight.try_write() {
            locks.clear();
            self.ctx.state_home.unlock();
        }
    }
}

/// Moves the tests of a plan from the project to the directory that copies are made of, so that
/// their keys cover all files that they can read.
fn place_tests(plan: &mut Plan, root: &ProjectRoot) {
    if root.project.is_empty() {
        return;
    }
    let may_edit = plan.features.iter_mut().flat_map(|feature| &mut feature.may_edit);
    for pattern in plan.protect.iter_mut().chain(may_edit) {
        *pattern = root.pattern_within(pattern);
    }
    let guards = match &mut plan.guards {
        Guards::Tests(tests) => &mut tests[..],
        Guards::Auto | Guards::Off => &mut plan.declared[..],
    };
    let of_features = plan.features.iter_mut().flat_map(|it| it.tests.iter_mut().chain(&mut it.review));
    of_features.chain(guards).for_each(|test| root.place(test));
}

/// Returns the slots for processes of tests. With little memory, no more tests are prepared than
/// run.
fn test_slots(settings: &Settings) -> TestSlots {
    let workers = settings.parallel.workers;
    if settings.storage.memory_limit < AHEAD_MEMORY_MIN {
        TestSlots::exact(workers)
    } else {
        TestSlots::new(workers)
    }
}

/// Returns a test runner that nobody shares yet, with a limit for the tests that run at once.
fn limited(mut tests: Arc<dyn TestRunner>, slots: &TestSlots) -> Arc<dyn TestRunner> {
    if let Some(tests) = Arc::get_mut(&mut tests) {
        tests.set_slots(slots.clone());
    }
    tests
}

/// Returns an executor that gives out as many workers as there are places for tests.
fn executor(ctx: &RunContext, limits: Limits) -> Executor {
    let mut executor = Executor::new(limits);
    executor.admitted = Some(AdmittedUnits { pool: WORKERS.to_owned(), units: ctx.slots.places() });
    executor
}

fn copy_options(plan: &Plan, settings: &Settings, root: &ProjectRoot, starter: Starter) -> CopyOptions {
    CopyOptions {
        mode: settings.run.copies,
        overlays: settings.run.overlays,
        include: plan.include.clone(),
        setup: plan.setup.clone(),
        setup_inputs: plan.setup_inputs.iter().map(|pattern| root.pattern_within(pattern)).collect(),
        teardown: plan.teardown.clone(),
        time_max: settings.agent.time_limit,
        starter,
    }
}

/// Opens the journal, in which the plan is the owner of its branch.
fn open_journal(
    state_home: &Arc<StateHome>,
    seal: Option<StateSeal>,
    branch: Option<&ResultBranch>,
    plan: &Plan,
) -> Result<RunJournal, Error> {
    let journal = RunJournal::open_guarded(Arc::clone(state_home), seal)?;
    if let Some(branch) = branch {
        branch_owner::claim(branch, plan, &journal)?;
    }
    Ok(journal)
}

/// Returns the branch of the results, if the plan asks for one.
fn result_branch(plan: &Plan, copies: &Copies) -> Result<Option<ResultBranch>, Error> {
    let repository = copies.root.repository.clone();
    if plan.base == BaseKind::Head && repository.as_ref().and_then(|it| it.head.as_ref()).is_none() {
        return Err(Error::NoRepository { key: "base", value: "HEAD" });
    }
    if plan.result == ResultKind::Files {
        return Ok(None);
    }
    let value = if plan.result == ResultKind::PullRequest { "pr" } else { "branch" };
    let repository = repository.ok_or(Error::NoRepository { key: "result", value })?;
    ResultBranch::new(repository, &plan.name, copies.handle()).map(Some)
}

/// Returns the project as the destination of merges. The locks are released when no write is in
/// flight.
fn destination(root: &ProjectRoot, locks: Vec<File>, steps: &Steps) -> Result<Destination, Error> {
    Ok(Destination {
        dir: Dir::open(&root.path).map_err(Error::io("open", &root.path))?,
        in_flight: Arc::new(RwLock::new(locks)),
        steps: steps.clone(),
        is_project: true,
        written: Arc::default(),
    })
}

/// Skips a feature and publishes it. Returns the event if a subscriber's queue is full.
fn skip(ctx: &RunContext, run: &Run, id: FeatureId, because: FeatureId) -> Option<Event> {
    // The locks are free, because one feature was never started and the other has ended.
    let is_held = run.features[because.index()].try_lock().is_ok_and(|feature| feature.is_held());
    if let Ok(mut feature) = run.features[id.index()].try_lock() {
        if is_held {
            feature.wait_for_held(because);
            return None;
        }
        feature.skip(because);
    }
    let (feature, because) = (ctx.feature(id).id.clone(), ctx.feature(because).id.clone());
    let event = Event::Skipped { feature, because };
    ctx.observe(&event);
    ctx.events.try_publish(event).err().map(|full| full.0)
}

/// Returns the feature of a task. Tasks have the order of the plan.
fn feature_id(task: TaskId) -> FeatureId {
    FeatureId::from_index(task.index())
}

/// Returns the key under which the scheduler stores a feature's duration.
fn duration_key(feature: &str) -> String {
    format!("feature:{feature}")
}
