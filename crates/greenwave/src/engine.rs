//! The engine: opens the parts of a run, hands the features to the scheduler, and reports the
//! result.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use greenwave_agents::{AgentPool, Gate, Preflight};
use greenwave_dir::Dir;
use greenwave_scheduler::{
    Durations, Executor, Graph, OnFailure, Progress, ScheduleStats, Stopper, TaskFailure, TaskId, TaskOutcome,
};
use greenwave_storage::Attempts;
use greenwave_streaming::{Budget, Fanout, SubscriberPolicy, Subscription};
use greenwave_telemetry::MetricsSnapshot;
use greenwave_testing::{Environment, Runner, TraceMode, TraceStatus};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, RwLock};
use tokio::time::Instant;

use crate::adapters::{self, Flusher};
use crate::base_build;
use crate::branch::ResultBranch;
use crate::budget::BudgetLedger;
use crate::confinement::RunConfinement;
use crate::context::RunContext;
use crate::continuation;
use crate::copies::{self, Copies, CopyMethod, CopyOptions};
use crate::dependencies::Dependencies;
use crate::disk_full::DiskFull;
use crate::error::{Error, FeatureError, chain};
use crate::event::Event;
use crate::feature_run::FeatureRun;
use crate::file_state;
use crate::fixed_ports::FixedPorts;
use crate::git::UserRepository;
use crate::git_copies::GitBase;
use crate::green_record;
use crate::mask::Mask;
use crate::merge::{MERGE_COPY, MergeQueue};
use crate::metrics;
use crate::plan::{BaseKind, FeatureId, Guards, Plan, ResultKind};
use crate::preflight::{Problem, preflight, preflight_sandboxes};
use crate::project_root::ProjectRoot;
use crate::project_state::{self, ProjectState};
use crate::receipts::Receipts;
use crate::report::{Report, Totals};
use crate::resources::{self, WORKERS};
use crate::resume::{self, Resumed};
use crate::run_journal::RunJournal;
use crate::scope::RunScope;
use crate::settings::Settings;
use crate::setup::Starter;
use crate::state::FeatureState;
use crate::state_dir;
use crate::steps::Steps;
use crate::test_runner::TestRunner;
use crate::tree::{self, Change, Tree};
use crate::workspace::{self, Destination, Workspace};

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
    before: Option<Arc<(ProjectState, Tree)>>,
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
        plan.graph()?;
        let copies = copies::base_directory(&settings, &environment)?;
        let variables = copies::agent_variables(&copies, &ProjectRoot::of(&plan.project)?);
        let confinement = RunConfinement::new(&plan, &settings, &environment, &copies)?;
        let agents = adapters::agents(&plan, &settings, &environment, &variables, &confinement)?;
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
        let mask = Mask::new(environment.texts());
        let problems = preflight(&plan, &environment).into_iter();
        let problems = problems.chain(preflight_sandboxes(&plan, settings.run.confine));
        let notes = problems.filter(|problem| !problem.is_error).collect();
        let (confined, exposure) = (confinement.event(&plan), confinement.exposure(&plan));
        let (steps, supervisor) = (Steps::default(), environment.supervisor().cloned());
        let starter = Starter { supervisor, sandbox };
        let seal = settings.seal_of(&plan.project)?;
        let runner = |settings: &Settings, state_dir: &Dir| -> Result<Arc<dyn TestRunner>, Error> {
            let cache = adapters::cache(settings, state_dir, seal.as_ref())?;
            Ok(Arc::new(Runner::new(environment, cache)))
        };
        let mut engine = Self::assemble(plan, settings, agents, steps, mask, (&copies, starter), runner)?;
        engine.change_context(|ctx| {
            (ctx.notes, ctx.confined, ctx.exposure) = (notes, Some(confined), exposure);
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
        self.executor = Executor::new(limits);
        self.change_context(|ctx| (ctx.scope, ctx.selected) = (scope, selected));
        Ok(self)
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
        let (state_dir, lock) = state_dir::lock(&plan.project)?;
        let seal = settings.seal_of(&plan.project)?;
        let root = ProjectRoot::of(&plan.project)?;
        place_tests(&mut plan, &root);
        let options = CopyOptions {
            mode: settings.run.copies,
            overlays: settings.run.overlays,
            include: plan.include.clone(),
            setup: plan.setup.clone(),
            setup_inputs: plan.setup_inputs.iter().map(|pattern| root.pattern_within(pattern)).collect(),
            teardown: plan.teardown.clone(),
            time_max: settings.agent.time_limit,
            starter,
        };
        let (copies, lock_of_copies) = Copies::new(copies, root, &plan.project, &plan.name, options)?;
        let branch = result_branch(&plan, &copies)?;
        let store = adapters::store(&settings, &state_dir::create(&state_dir, "store")?)?;
        let tests = tests(&settings, &state_dir)?;
        let ctx = RunContext {
            definitions: plan.features.iter().map(green_record::definition).collect(),
            flusher: Flusher::new(store.clone()),
            attempts: Attempts::new(store.clone(), &adapters::attempts_namespace(seal.as_ref())),
            journal: RunJournal::open(state_dir::create(&state_dir, "journal")?, seal)?,
            tests,
            project: Destination {
                dir: open_project(&copies.root.path)?,
                in_flight: Arc::new(RwLock::new(vec![lock, lock_of_copies])),
                steps: steps.clone(),
                is_project: true,
                written: Arc::default(),
            },
            steps,
            gates: agents.keys().map(|name| (name.clone(), Gate::new(settings.pool.size))).collect(),
            receipts: Receipts::new(&settings),
            disk_full: DiskFull::default(),
            budget: Arc::new(BudgetLedger::new(plan.budget)),
            unsaved: Mutex::default(),
            working: AtomicUsize::new(0),
            agents,
            mask,
            scope: RunScope::default(),
            selected: (0..plan.features.len()).map(FeatureId::from_index).collect(),
            notes: Vec::new(),
            confined: None,
            exposure: None,
            left_processes: Mutex::default(),
            ports: FixedPorts::default(),
            answers: Budget::new(ANSWERS_BYTES_MAX),
            events: Fanout::new(),
            totals: Mutex::default(),
            branch,
            copies: Arc::new(copies),
            dependencies: Dependencies::of(&graph),
            store,
            plan,
            settings,
        };
        let executor = Executor::new(resources::limits(&ctx.plan, &ctx.settings));
        Ok(Self { ctx: Arc::new(ctx), graph, executor })
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

    /// Returns the attempt of each feature whose answer is recorded and not merged.
    #[cfg(test)]
    pub(crate) fn recorded_answers(&self) -> BTreeMap<usize, u32> {
        use crate::attempt_record::AttemptRecord;
        let records = self.ctx.journal.finished().unwrap_or_default();
        let record = |id: FeatureId| {
            let key = AttemptRecord::key(&self.ctx.feature(id).id);
            let record = AttemptRecord::decode(records.get(&key)?)?;
            record.answered.then_some((id.index(), record.attempt))
        };
        self.ctx.ids().filter_map(record).collect()
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
    pub async fn run(self) -> Result<Report, Error> {
        let started = Instant::now();
        let ctx = &self.ctx;
        ctx.emit(started_event(ctx)).await;
        if let Some(confined) = ctx.confined.clone() {
            ctx.emit(confined).await;
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
        Ok(report(ctx, &run, started, &stats).await)
    }

    /// Resumes earlier runs, and captures the project unless all features are up to date.
    async fn prepare(&self) -> Result<Run, Error> {
        let ctx = &self.ctx;
        let resumed = resume::resume(ctx).await?;
        let is_up_to_date = |feature: &Resumed| matches!(feature.state, FeatureState::Ended(_));
        let green: BTreeSet<FeatureId> =
            ctx.ids().zip(&resumed).filter(|(_, feature)| is_up_to_date(feature)).map(|(id, _)| id).collect();
        ctx.steps.pass("clear the work").await;
        ctx.copies.clear()?;
        let mut before = None;
        let (tree, workspace) = if green.len() < resumed.len() {
            ctx.steps.pass("capture the project").await;
            let state = self.project_state().await;
            // Features with a record only have their tests checked, if that.
            let is_new = |(id, resumed): &(FeatureId, &Resumed)| {
                ctx.selected.contains(id) && matches!(resumed.state, FeatureState::Waiting { record: None })
            };
            let new = ctx.ids().zip(&resumed).filter(is_new).count();
            let (start, workspace) = self.capture(new).await?;
            before = state.map(|state| Arc::new((state, start.clone())));
            (self.add_results(start, &resumed).await?, workspace)
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
        Ok(Run { queue, features, done, before })
    }

    /// Reads the state of the project, if agents or tests can change it.
    async fn project_state(&self) -> Option<ProjectState> {
        let (exposure, root) = (self.ctx.exposure?, self.ctx.project.dir.clone());
        tokio::task::spawn_blocking(move || ProjectState::read(&root, exposure)).await.ok()
    }

    /// Finds and undoes what agents and tests have changed in the project itself, and reports it.
    async fn undo_slips(&self, run: &Run) -> Result<(), Error> {
        let (ctx, Some(before)) = (&self.ctx, run.before.clone()) else { return Ok(()) };
        let (written, root) = (ctx.project.written.lock().clone(), ctx.project.dir.clone());
        let compared = tokio::task::spawn_blocking(move || {
            let slips = before.0.compare(&root, &written, &before.1);
            (slips, before)
        });
        let (mut slips, before) =
            compared.await.expect("comparing files does not panic and is not cancelled");
        let tree = &before.1;
        for path in std::mem::take(&mut slips.emptied) {
            let (before, after) = (file_state::file_at(&ctx.project.dir, &path)?, tree.get(&path).copied());
            workspace::apply(&ctx.project, &[Change { path: path.clone(), before, after }], &ctx.store)
                .await?;
            slips.metadata.push(format!("`{path}` (emptied)"));
        }
        let notes = [
            ("project-restored", "restored what agents or tests changed in the project", &slips.metadata),
            (
                "project-damaged",
                "cannot restore what agents or tests changed in the project",
                &slips.not_undone,
            ),
            ("project-changed", "files in the project changed, but not by this run", &slips.content),
            ("project-modes", "modes in the project changed, but not by this run", &slips.modes),
        ];
        for (code, what, paths) in notes.into_iter().filter(|(_, _, paths)| !paths.is_empty()) {
            let message = format!("{what}: {}", project_state::list(paths));
            let hint = "see docs/confinement.md for what prevents such changes".to_owned();
            ctx.emit(Event::Note { code, feature: None, message, hint: Some(hint) }).await;
        }
        Ok(())
    }

    /// Captures the project. In a git project, creates the base of the copies' repositories, with a
    /// working copy that merges can use. `new_features` is the number of features without results.
    async fn capture(&self, new_features: usize) -> Result<(Tree, Option<Workspace>), Error> {
        let ctx = &self.ctx;
        let root = &ctx.copies.root;
        let tracked = match &root.repository {
            Some(repository) => {
                let repository = repository.clone();
                ctx.blocking(move || repository.tracked()).await?.files
            }
            None => Vec::new(),
        };
        let (mut tree, originals) = workspace::capture(&root.path, &tracked, &ctx.store).await?;
        ctx.copies.set_originals(originals);
        let is_overlay = matches!(ctx.copies.method(), CopyMethod::Overlay(_));
        let builds = if new_features < 2 { Vec::new() } else { self.builds(&tree).await? };
        let Some(repository) = root.repository.clone() else {
            if let Some(note) = root.note.clone() {
                ctx.emit(Event::Base { commit: None, uncommitted: 0, note: Some(note) }).await;
            }
            if is_overlay || !builds.is_empty() {
                self.share_base(None, &tree, &builds).await?;
            }
            return Ok((tree, None));
        };
        if ctx.plan.base == BaseKind::Head {
            tree = self.head_tree(&repository, &tree).await?;
        }
        let mut workspace = if is_overlay {
            Workspace::base(&ctx.copies, &ctx.project.in_flight)?
        } else {
            Workspace::in_copies(&ctx.copies, MERGE_COPY, &ctx.project.in_flight)?
        };
        let mtime = workspace.write_first(&tree, &ctx.store).await?;
        let (directory, copy, files) = (ctx.copies.shared_dir()?, workspace.dir().clone(), tree.clone());
        let base =
            workspace.blocking(move || GitBase::create(&repository, &directory, &copy, files, mtime)).await?;
        let commit = root.repository.as_ref().and_then(|repository| repository.head.clone());
        ctx.emit(Event::Base { commit, uncommitted: base.uncommitted, note: None }).await;
        ctx.copies.set_git(base);
        if is_overlay {
            self.share_base(Some((workspace, mtime)), &tree, &builds).await?;
            return Ok((tree, None));
        }
        if !builds.is_empty() {
            self.share_base(None, &tree, &builds).await?;
        }
        Ok((tree, Some(workspace)))
    }

    /// Returns the commands that build what all working copies need.
    async fn builds(&self, tree: &Tree) -> Result<Vec<Vec<String>>, Error> {
        let ctx = &self.ctx;
        let Some(lock) = base_build::lock_file(tree, &ctx.copies).and_then(|path| tree.get(path)) else {
            return Ok(Vec::new());
        };
        let lock = tree::content(&ctx.store, &lock.blob).await?;
        let tests = base_build::tests(&ctx.plan, &ctx.selected);
        Ok(base_build::commands(tests, &String::from_utf8_lossy(&lock)))
    }

    /// Builds the project in the directory that all working copies share, which is written first
    /// unless there is one. A build may fail: each copy builds the rest by itself.
    async fn share_base(
        &self,
        written: Option<(Workspace, i64)>,
        tree: &Tree,
        builds: &[Vec<String>],
    ) -> Result<(), Error> {
        let ctx = &self.ctx;
        let (mut base, mtime) = match written {
            Some(written) => written,
            None => {
                let mut base = Workspace::base(&ctx.copies, &ctx.project.in_flight)?;
                let mtime = base.write_first(tree, &ctx.store).await?;
                (base, mtime)
            }
        };
        let (stopper, started) = (self.executor.stopper(), Instant::now());
        for command in builds {
            let built = tokio::select! {
                built = base.build(command) => built,
                () = stopper.stopped() => break,
            };
            let (shown, feature) = (command.join(" "), None);
            let seconds = started.elapsed().as_secs_f64();
            // Tests of features that do not exist yet often do not compile.
            let extent = if built.is_ok() { "" } else { " as far as it compiles" };
            if let Err(error) = built {
                tracing::debug!(error = chain(&error), "a build failed");
            }
            let message = format!("built once for all copies{extent}, in {seconds:.1} s: {shown}");
            let code = "built";
            ctx.emit(Event::Note { code, feature, message, hint: None }).await;
        }
        if !builds.is_empty() {
            // Only build output is new.
            base.reset(tree, &ctx.store).await?;
        }
        base.share(mtime)
    }

    /// Returns the files of the user's `HEAD`, with those of submodules as they are in `tree`.
    async fn head_tree(&self, repository: &UserRepository, tree: &Tree) -> Result<Tree, Error> {
        let ctx = &self.ctx;
        let shared = ctx.copies.shared_dir()?;
        let path = shared.path().join("head");
        let directory = shared.create_subdirectory("head", 0o777).map_err(Error::io("create", &path))?;
        let (git, checkout) = (repository.clone(), path.clone());
        let checked_out = ctx.blocking(move || {
            let (files, converted) =
                (git.check_out_head(&checkout)?, git.converted("HEAD").unwrap_or_default());
            Ok::<_, Error>((files, converted, git.tracked()?.submodules))
        });
        let (files, converted, submodules) = checked_out.await?;
        let mut head = workspace::read_files(&directory, &files, &ctx.store).await?;
        // Files without uncommitted work are taken as filters have converted them.
        for path in converted.iter().filter_map(|path| std::str::from_utf8(path).ok()) {
            if let (Some(file), Some(now)) = (head.get_mut(path), tree.get(path)) {
                *file = *now;
            }
        }
        shared.remove_all("head").map_err(Error::io("remove", &path))?;
        for (submodule, _) in submodules {
            let below = format!("{submodule}/");
            let files = tree.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
            head.extend(files.map(|(path, file)| (path.clone(), *file)));
        }
        Ok(head)
    }

    /// Adds the results on the branch to the files that the run starts from, in the order in which
    /// they were merged: the changes of a result include lines of the results before it.
    async fn add_results(&self, mut tree: Tree, resumed: &[Resumed]) -> Result<Tree, Error> {
        let Some(branch) = &self.ctx.branch else { return Ok(tree) };
        let record_of = |id: FeatureId| match &resumed[id.index()].state {
            FeatureState::Waiting { record } => record.as_ref(),
            _ => None,
        };
        let mut records: Vec<_> =
            self.ctx.dependencies.in_order().iter().filter_map(|&id| record_of(id)).collect();
        let results = branch.clone();
        let commits = self.ctx.blocking(move || results.commits()).await?;
        records
            .sort_by_key(|record| commits.iter().position(|commit| Some(commit) == record.commit.as_ref()));
        for record in records {
            match tree::join(&tree, &record.merged, &self.ctx.store).await? {
                Ok(changes) => tree::apply(&mut tree, &changes),
                // The feature's tests decide.
                Err(conflict) => {
                    tracing::warn!(path = conflict.path, "a result conflicts with later changes");
                }
            }
        }
        Ok(tree)
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
        let observe = |progress| {
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
        let needs = |task: TaskId| FeatureRun::first_needs(ctx, feature_id(task));
        let expected = |task: TaskId| durations.estimate(&duration_key(self.graph.id(task)));
        let report = self.executor.run(&self.graph, expected, &run.done, needs, stage, observe).await?;
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
        self.undo_slips(run).await?;
        ctx.steps.pass("store durations").await;
        // They only improve estimates.
        if let Err(error) = ctx.journal.record_durations(&durations) {
            tracing::warn!(error = chain(&error), "cannot store durations");
        }
        run.queue.close().await;
        ctx.copies.remove();
        continuation::write_unsaved(ctx).await;
        ctx.steps.pass("flush at the end").await;
        ctx.tests.flush().await;
        ctx.store.flush().await.map_err(Error::store("flush"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The context outlives the engine in `metrics`, but the locks must not. Writes in flight
        // hold them until they end.
        if let Ok(mut locks) = self.ctx.project.in_flight.try_write() {
            locks.clear();
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

/// Returns the branch of the results, if the plan asks for one.
fn result_branch(plan: &Plan, copies: &Copies) -> Result<Option<ResultBranch>, Error> {
    let repository = copies.root.repository.clone();
    if plan.base == BaseKind::Head && repository.as_ref().and_then(|it| it.head.as_ref()).is_none() {
        return Err(Error::NoRepository { key: "base", value: "HEAD" });
    }
    if plan.result == ResultKind::Files {
        return Ok(None);
    }
    let repository = repository.ok_or(Error::NoRepository { key: "result", value: "branch" })?;
    ResultBranch::new(repository, &plan.name, copies.handle()).map(Some)
}

fn open_project(path: &Path) -> Result<Dir, Error> {
    Dir::open(path).map_err(Error::io("open", path))
}

fn note_event(problem: &Problem) -> Event {
    Event::Note {
        code: problem.code,
        feature: problem.feature().map(str::to_owned),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    }
}

fn started_event(ctx: &RunContext) -> Event {
    let mut agent_kinds: Vec<String> = ctx.agents.values().map(|agent| agent.kind().to_owned()).collect();
    agent_kinds.sort_unstable();
    agent_kinds.dedup();
    Event::Started {
        plan: ctx.plan.name.clone(),
        features: ctx.selected.len(),
        workers: ctx.settings.parallel.workers,
        agents: ctx.settings.parallel.agents,
        agent_kinds,
    }
}

/// Skips a feature and publishes it. Returns the event if a subscriber's queue is full.
fn skip(ctx: &RunContext, run: &Run, id: FeatureId, because: FeatureId) -> Option<Event> {
    // The lock is free, because the feature was never started.
    if let Ok(mut feature) = run.features[id.index()].try_lock() {
        feature.skip(because);
    }
    let (feature, because) = (ctx.feature(id).id.clone(), ctx.feature(because).id.clone());
    ctx.events.try_publish(Event::Skipped { feature, because }).err().map(|full| full.0)
}

async fn report(ctx: &RunContext, run: &Run, started: Instant, stats: &ScheduleStats) -> Report {
    let mut features = Vec::new();
    for id in &ctx.selected {
        features.push(run.features[id.index()].lock().await.report());
    }
    let storage = ctx.store.stats();
    let counted = ctx.totals.lock().clone();
    let totals = Totals {
        wall: started.elapsed(),
        sequential: stats.busy,
        efficiency: stats.efficiency(WORKERS),
        workers_peak: stats.pool(WORKERS).map_or(0, |pool| pool.peak),
        memory_peak_mb: greenwave_telemetry::memory_usage(false).peak_mb,
        storage_peak_bytes: storage.memory_bytes_peak,
        storage_spilled: storage.spilled_blobs,
        storage_stored_bytes: storage.cold.stored_bytes.unwrap_or(0),
        storage_raw_bytes: storage.cold.raw_bytes.unwrap_or(0),
        storage_codec: storage.cold.codec,
        ..counted
    };
    Report { plan: ctx.plan.name.clone(), features, totals }
}

fn feature_error(failure: TaskFailure<FeatureError>) -> FeatureError {
    match failure {
        TaskFailure::Task(error) => error,
        TaskFailure::Panicked(text) => FeatureError::Internal(text),
        TaskFailure::TimedOut(limit) => FeatureError::TimedOut(limit),
        TaskFailure::Unschedulable(error) => FeatureError::Run(error.into()),
    }
}

/// Returns the feature of a task. Tasks have the order of the plan.
fn feature_id(task: TaskId) -> FeatureId {
    FeatureId::from_index(task.index())
}

/// Returns the key under which the scheduler stores a feature's duration.
fn duration_key(feature: &str) -> String {
    format!("feature:{feature}")
}
