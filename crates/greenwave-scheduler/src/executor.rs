//! Performs the decisions of the dispatcher on tokio.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::Either;
use greenwave_retry::Retry;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::control::{AddRequest, AddedStage, BoxedStage, Pauser, RunControl, Stopper};
use crate::dispatcher::{Action, Addition, DispatchEvent, Dispatcher, Limits, TaskState};
use crate::job::Job;
use crate::priority::Priority;
use crate::retries::RetryTracker;
use crate::running::{EndedStage, InlineStages, SpawnedStages, StageSet, panic_text, run_guarded};
use crate::stats::ScheduleStats;
use crate::task::{Progress, Stage, Step, TaskFailure, TaskOutcome};
use crate::workers::{Admission, AdmittedUnits, Workers};
use crate::{Error, Graph, Needs, TaskId};
#[cfg(feature = "jobserver")]
use greenwave_process::Jobserver;

/// The results of all tasks, and statistics.
#[derive(Debug)]
pub struct RunReport<R, E> {
    /// Indexed by [`TaskId::index`], added tasks last.
    pub outcomes: Vec<TaskOutcome<R, E>>,
    /// The final statistics.
    pub stats: ScheduleStats,
    /// A lower bound on the length of every schedule of these tasks: the longest chain of tasks by
    /// running time, or the total running time divided by the units of the pool `workers`,
    /// whichever is longer. Added tasks count in the latter only.
    pub lower_bound: Duration,
    /// Message of a panic in the closure of [`Job::observe`], which is not called after that.
    pub observer_panic: Option<String>,
}

/// Runs graphs of asynchronous tasks.
///
/// An executor may run any number of graphs, one after another or concurrently. Limits apply to
/// each run separately: two concurrent runs may use twice as much.
///
/// One coordinating task owns the dispatcher, without a lock. Dropping the future of a run aborts
/// all stages and drops their contents, including child processes.
#[derive(Debug, Clone, Default)]
pub struct Executor {
    /// Resources and other limits.
    pub limits: Limits,
    /// The order among ready tasks.
    pub priority: Priority,
    /// Time limit of each stage; `None` for no limit. [`Job::time_max`] overrides it for single
    /// tasks.
    pub stage_time_max: Option<Duration>,
    /// Retry policy for stages that return [`Step::Retry`]. Each stage starts with a full number of
    /// attempts, and the deadline counts from the start of its first attempt.
    pub retry: Retry,
    /// Also retries stages that panicked or exceeded their time limit.
    pub retry_panics: bool,
    /// Number of units of the pool `workers` in use: all, or as many as the machine's load and the
    /// jobserver permit.
    pub workers: Workers,
    /// Number of units in use of one other pool. By default, all.
    pub admitted: Option<AdmittedUnits>,
    #[cfg(feature = "jobserver")]
    jobserver: Option<Jobserver>,
    stats: Arc<Mutex<ScheduleStats>>,
    control: Arc<watch::Sender<RunControl>>,
}

impl Executor {
    /// Creates an executor with the given limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes a token of a jobserver for each worker except the first.
    #[cfg(feature = "jobserver")]
    #[must_use]
    pub fn with_jobserver(self, jobserver: Jobserver) -> Self {
        Self { jobserver: Some(jobserver), ..self }
    }

    fn admission(&self) -> Admission {
        let admission = self.workers.admission(&self.limits);
        #[cfg(feature = "jobserver")]
        let admission = admission.with_tokens(self.jobserver.as_ref());
        admission
    }

    /// Returns the statistics of the current run, or of the last one.
    pub fn stats(&self) -> ScheduleStats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a closure that reads the statistics while the executor is borrowed.
    pub fn stats_reader(&self) -> impl Fn() -> ScheduleStats + Send + Sync + use<> {
        let stats = Arc::clone(&self.stats);
        move || stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a handle that stops runs.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.control))
    }

    /// Returns a handle that pauses runs.
    pub fn pauser(&self) -> Pauser {
        Pauser(Arc::clone(&self.control))
    }

    /// Runs all tasks of the graph that are not `already_done`. A shorthand for
    /// [`run_job`](Self::run_job) with the most common inputs.
    ///
    /// `needs` returns the needs of a task's first stage, `expected` its expected duration
    /// ([`Durations`](crate::Durations) learns these; otherwise use `|_| Durations::DEFAULT`).
    /// `stage` creates the future of one stage, and `observe` receives progress events.
    ///
    /// # Errors
    /// Before any task starts: [`Error::ResourceTooSmall`] if a task could never start;
    /// [`Error::InvalidLimit`]; [`Error::UnknownDone`]; [`Error::Panicked`] if `expected` or
    /// `needs` panics.
    pub async fn run<T, R, E, F>(
        &self,
        graph: &Graph<T>,
        expected: impl Fn(TaskId) -> Duration + Send,
        already_done: &[TaskId],
        needs: impl FnMut(TaskId) -> Needs + Send,
        stage: impl Fn(Stage) -> F,
        observe: impl FnMut(Progress) + Send,
    ) -> Result<RunReport<R, E>, Error>
    where
        R: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Step<R, E>> + Send + 'static,
    {
        let job = Job::new().expected(expected).already_done(already_done).needs(needs).observe(observe);
        self.run_job(graph, job, stage).await
    }

    /// Runs all tasks of a graph, with each stage in a separate tokio task, so that stages use all
    /// threads of the runtime. A panic in a stage, in the closure that creates its future, or in
    /// [`Job::time_max`] fails the task.
    ///
    /// # Errors
    /// The errors of [`run`](Self::run).
    pub async fn run_job<T, R, E, F>(
        &self,
        graph: &Graph<T>,
        job: Job<'_, R, E>,
        stage: impl Fn(Stage) -> F,
    ) -> Result<RunReport<R, E>, Error>
    where
        R: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Step<R, E>> + Send + 'static,
    {
        self.coordinate(graph, job, stage, SpawnedStages::new()).await
    }

    /// Runs all tasks of a graph like [`run_job`](Self::run_job), with all stages in the calling
    /// task. Stages may borrow, need not be [`Send`], and cost a third as much. A stage that
    /// computes for long delays all others, so use this for stages that wait for the network or
    /// child processes.
    ///
    /// # Errors
    /// The errors of [`run_job`](Self::run_job).
    pub async fn run_inline<T, R, E, F>(
        &self,
        graph: &Graph<T>,
        job: Job<'_, R, E>,
        stage: impl Fn(Stage) -> F,
    ) -> Result<RunReport<R, E>, Error>
    where
        F: Future<Output = Step<R, E>>,
    {
        self.coordinate(graph, job, stage, InlineStages::new(run_guarded)).await
    }

    async fn coordinate<T, R, E, F>(
        &self,
        graph: &Graph<T>,
        mut job: Job<'_, R, E>,
        stage: impl Fn(Stage) -> F,
        running: impl StageSet<Either<F, BoxedStage<R, E>>, R, E>,
    ) -> Result<RunReport<R, E>, Error>
    where
        F: Future<Output = Step<R, E>>,
    {
        let dispatcher = self.dispatcher(graph, &mut job)?;
        let mut run = Run::new(self, dispatcher, job, running, graph);
        run.drive(self, stage).await;
        self.publish(&run.dispatcher);
        Ok(run.report())
    }

    /// Creates the dispatcher of a run.
    fn dispatcher<T, R, E>(&self, graph: &Graph<T>, job: &mut Job<'_, R, E>) -> Result<Dispatcher, Error> {
        let unknown = job.already_done.iter().find(|task| task.index() >= graph.len());
        if let Some(unknown) = unknown {
            return Err(Error::UnknownDone { index: unknown.index(), tasks: graph.len() });
        }
        let panicked = RefCell::new(None);
        let record = |closure, task, payload: Box<dyn std::any::Any + Send>| {
            let (id, message) = (graph.id(task).to_owned(), panic_text(&*payload));
            panicked.borrow_mut().get_or_insert(Error::Panicked { closure, id, message });
        };
        let expected = |task| {
            let expected = catch_unwind(AssertUnwindSafe(|| (job.expected)(task)));
            expected.unwrap_or_else(|payload| {
                record("expected", task, payload);
                Duration::ZERO
            })
        };
        let (ranks, order) = match job.order.take() {
            Some(order) => order,
            None => (self.priority.ranks(graph, expected), Default::default()),
        };
        let needs = |task| {
            let needs = catch_unwind(AssertUnwindSafe(|| (job.needs)(task)));
            needs.unwrap_or_else(|payload| {
                record("needs", task, payload);
                Needs::nothing()
            })
        };
        let dispatcher = Dispatcher::new(graph, self.limits.clone(), &ranks, needs);
        if let Some(panicked) = panicked.take() {
            return Err(panicked);
        }
        let mut dispatcher = dispatcher?.with_order(order);
        job.already_done.iter().for_each(|&task| dispatcher.already_done(task));
        Ok(dispatcher)
    }

    fn publish(&self, dispatcher: &Dispatcher) {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone_from(dispatcher.stats());
    }
}

/// Maximum number of ended stages handled together. Statistics are published and the clock is read
/// once per batch.
const BATCH_MAX: usize = 64;

/// The reason why the coordinator woke up.
enum Wake<R, E> {
    /// The stages in the batch have ended.
    StagesEnded,
    Control(RunControl),
    Tick,
    Admit,
    AdmitUnits,
    Add(AddRequest<R, E>),
}

/// The state of a run in progress.
struct Run<'a, T, R, E, S> {
    graph: &'a Graph<T>,
    started: Instant,
    dispatcher: Dispatcher,
    job: Job<'a, R, E>,
    stage_time_max: Option<Duration>,
    running: S,
    /// Number and retry count of the next stage of each task.
    stages: Vec<(u32, u32)>,
    added: HashMap<TaskId, AddedStage<R, E>>,
    /// Names of added tasks.
    added_ids: HashMap<String, TaskId>,
    outcomes: Vec<TaskOutcome<R, E>>,
    retries: RetryTracker,
    actions: Vec<Action>,
    batch: Vec<EndedStage<R, E>>,
    observer_panic: Option<String>,
}

impl<'a, T, R, E, S> Run<'a, T, R, E, S> {
    fn new(
        executor: &Executor,
        dispatcher: Dispatcher,
        job: Job<'a, R, E>,
        running: S,
        graph: &'a Graph<T>,
    ) -> Self {
        let tasks = graph.len();
        let mut outcomes: Vec<_> = (0..tasks).map(|_| TaskOutcome::Stopped).collect();
        job.already_done.iter().for_each(|task| outcomes[task.index()] = TaskOutcome::AlreadyDone);
        Self {
            graph,
            started: Instant::now(),
            dispatcher,
            job,
            stage_time_max: executor.stage_time_max,
            running,
            stages: vec![(0, 0); tasks],
            added: HashMap::new(),
            added_ids: HashMap::new(),
            outcomes,
            retries: RetryTracker::new(executor.retry.clone(), executor.retry_panics),
            actions: Vec::new(),
            batch: Vec::with_capacity(BATCH_MAX),
            observer_panic: None,
        }
    }

    /// Runs from the first event to the last.
    async fn drive<F>(&mut self, executor: &Executor, stage: impl Fn(Stage) -> F)
    where
        S: StageSet<Either<F, BoxedStage<R, E>>, R, E>,
        F: Future<Output = Step<R, E>>,
    {
        let mut control = executor.control.subscribe();
        let mut admission = executor.admission();
        let requested = *control.borrow_and_update();
        self.apply_control(requested);
        let mut admitted = admission.admitted();
        self.handle_event(DispatchEvent::Admit("workers", admitted));
        let mut others = executor.admitted.clone();
        self.admit_units(&mut others);
        self.handle_event(DispatchEvent::Begin);
        while !control.borrow().stopped {
            executor.publish(&self.dispatcher);
            self.perform(&stage);
            if self.dispatcher.is_finished() {
                return;
            }
            admission.update(self.dispatcher.stats());
            // Tokens that were just returned must not be counted as available.
            if admission.admitted() != admitted {
                admitted = admission.admitted();
                self.handle_event(DispatchEvent::Admit("workers", admitted));
                continue;
            }
            match self.next(&mut control, &mut admission, &mut others).await {
                Wake::StagesEnded => self.handle_batch(),
                Wake::Control(control) => self.apply_control(control),
                Wake::Tick => self.handle_event(DispatchEvent::Tick),
                // Handled above.
                Wake::Admit => {}
                Wake::AdmitUnits => self.admit_units(&mut others),
                Wake::Add(request) => self.add(request),
            }
            // A long sequence of stages that end immediately must not starve other tasks of the
            // runtime.
            tokio::task::coop::consume_budget().await;
        }
        self.running.abort();
        // Aborted stages release their resources, such as child processes, only when they are
        // dropped.
        let running = &mut self.running;
        std::future::poll_fn(|context| {
            loop {
                match running.poll_ended(context) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    async fn next<F>(
        &mut self,
        control: &mut watch::Receiver<RunControl>,
        admission: &mut Admission,
        admitted: &mut Option<AdmittedUnits>,
    ) -> Wake<R, E>
    where
        S: StageSet<Either<F, BoxedStage<R, E>>, R, E>,
    {
        let Self { running, batch, job, dispatcher, started, .. } = self;
        // A time beyond the range of the clock never comes.
        let wakes_at = dispatcher.wakes_at().and_then(|at| started.checked_add(at));
        let others = async {
            tokio::select! {
                // The executor holds a sender and outlives the run.
                _ = control.changed() => Wake::Control(*control.borrow_and_update()),
                () = until(wakes_at) => Wake::Tick,
                () = admission.changed() => Wake::Admit,
                () = AdmittedUnits::changed(admitted) => Wake::AdmitUnits,
                request = next_request(job) => Wake::Add(request),
            }
        };
        let mut others = pin!(others);
        std::future::poll_fn(|context| {
            while batch.len() < BATCH_MAX {
                match running.poll_ended(context) {
                    Poll::Ready(Some(ended)) => batch.push(ended),
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            if batch.is_empty() { others.as_mut().poll(context) } else { Poll::Ready(Wake::StagesEnded) }
        })
        .await
    }

    fn admit_units(&mut self, admitted: &mut Option<AdmittedUnits>) {
        if let Some(admitted) = admitted {
            let units = admitted.now();
            self.handle_event(DispatchEvent::Admit(&admitted.pool, units));
        }
    }

    fn apply_control(&mut self, control: RunControl) {
        self.handle_event(if control.paused { DispatchEvent::Pause } else { DispatchEvent::Resume });
    }

    fn handle_event(&mut self, event: DispatchEvent<'_>) {
        let now = self.started.elapsed();
        self.dispatcher
            .handle(now, event, &mut self.actions)
            .expect("only the needs of next stages can be refused");
    }

    fn handle_batch(&mut self) {
        let now = self.started.elapsed();
        let mut batch = std::mem::take(&mut self.batch);
        for (task, step) in batch.drain(..) {
            self.handle_ended(now, task, step);
        }
        self.batch = batch;
    }

    fn handle_ended(&mut self, now: Duration, task: TaskId, step: Result<Step<R, E>, TaskFailure<E>>) {
        let failure = match step {
            Ok(Step::Done(result)) => {
                self.dispatch(now, DispatchEvent::Done(task));
                return self.record_outcome(task, TaskOutcome::Done(result));
            }
            Ok(Step::Next(needs)) => return self.continue_task(now, task, &needs),
            Ok(Step::Failed(error)) => TaskFailure::Task(error),
            Ok(Step::Retry(error)) => match self.retry_delay(now, task, false) {
                Some(delay) => return self.retry_stage(now, task, delay),
                None => TaskFailure::Task(error),
            },
            Err(failure) => match self.retry_delay(now, task, true) {
                Some(delay) => return self.retry_stage(now, task, delay),
                None => failure,
            },
        };
        self.dispatch(now, DispatchEvent::Failed(task));
        self.record_outcome(task, TaskOutcome::Failed(failure));
    }

    fn dispatch(&mut self, now: Duration, event: DispatchEvent<'_>) {
        self.dispatcher
            .handle(now, event, &mut self.actions)
            .expect("only the needs of next stages can be refused");
    }

    fn continue_task(&mut self, now: Duration, task: TaskId, needs: &Needs) {
        let ended = self.stage(task);
        self.stages[task.index()] = (ended.number + 1, 0);
        self.retries.reset(task);
        match self.dispatcher.handle(now, DispatchEvent::Next(task, needs), &mut self.actions) {
            Ok(()) => self.observe(Progress::Ended(ended)),
            Err(error) => {
                let error = self.with_name(task, error);
                self.record_outcome(task, TaskOutcome::Failed(TaskFailure::Unschedulable(error)));
            }
        }
    }

    /// Returns the delay before the failed stage is retried.
    fn retry_delay(&mut self, now: Duration, task: TaskId, panicked: bool) -> Option<Duration> {
        let TaskState::Running(since) = self.dispatcher.state(task) else { return None };
        self.retries.next(task, panicked, since, now)
    }

    fn retry_stage(&mut self, now: Duration, task: TaskId, delay: Duration) {
        let failed = self.stage(task);
        self.observe(Progress::Retrying(failed, delay));
        self.stages[task.index()].1 += 1;
        self.dispatch(now, DispatchEvent::Retry(task, delay));
    }

    fn record_outcome(&mut self, task: TaskId, outcome: TaskOutcome<R, E>) {
        let done = matches!(outcome, TaskOutcome::Done(_));
        self.observe(if done { Progress::Done(task) } else { Progress::Failed(task) });
        self.outcomes[task.index()] = outcome;
    }

    fn stage(&self, task: TaskId) -> Stage {
        let (number, retry) = self.stages[task.index()];
        Stage { task, number, retry }
    }

    fn add(&mut self, request: AddRequest<R, E>) {
        let AddRequest { task, stage, answer } = request;
        let addition = Addition {
            id: &task.id,
            rank: task.rank,
            needs: &task.needs,
            after: &task.after,
            before: &task.before,
        };
        let is_taken = self.graph.find(&task.id).is_some() || self.added_ids.contains_key(&task.id);
        let added = if is_taken {
            Err(Error::DuplicateTask { id: task.id.clone() })
        } else {
            self.dispatcher.add(self.started.elapsed(), addition, &mut self.actions)
        };
        if let Ok(number) = added {
            self.added_ids.insert(task.id, number);
            let task = number;
            self.stages.push((0, 0));
            self.outcomes.push(TaskOutcome::Stopped);
            self.added.insert(task, stage);
            self.observe(Progress::Added(task));
        }
        // The requester may be gone.
        let _ = answer.send(added);
    }

    fn perform<F>(&mut self, stage: &impl Fn(Stage) -> F)
    where
        S: StageSet<Either<F, BoxedStage<R, E>>, R, E>,
        F: Future<Output = Step<R, E>>,
    {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Start(task) => {
                    let next = self.stage(task);
                    self.observe(Progress::Started(next));
                    let made = catch_unwind(AssertUnwindSafe(|| {
                        let future = match self.added.get(&task).filter(|_| !self.added.is_empty()) {
                            Some(stage) => Either::Right(stage(next)),
                            None => Either::Left(stage(next)),
                        };
                        (future, (self.job.time_max)(task).or(self.stage_time_max))
                    }));
                    match made {
                        Ok((future, time_max)) => self.running.start(task, future, time_max),
                        // The stage has ended immediately, and is handled with the other ended
                        // stages.
                        Err(panic) => {
                            self.batch.push((task, Err(TaskFailure::Panicked(panic_text(&*panic)))));
                        }
                    }
                }
                Action::Skip(task, because) => {
                    self.outcomes[task.index()] = TaskOutcome::Skipped(because);
                    self.observe(Progress::Skipped(task, because));
                }
            }
        }
        self.actions = actions;
    }

    /// Calls the observer, unless it has panicked before.
    fn observe(&mut self, progress: Progress) {
        if self.observer_panic.is_none() {
            let observe = &mut self.job.observe;
            let result = catch_unwind(AssertUnwindSafe(|| observe(progress)));
            self.observer_panic = result.err().map(|panic| panic_text(&*panic));
        }
    }

    /// Adds the task's name to an error of the dispatcher, which stores no names.
    fn with_name(&self, task: TaskId, error: Error) -> Error {
        let Error::ResourceTooSmall { resource, wanted, limit, .. } = error else { return error };
        let added = || self.added_ids.iter().find(|(_, added)| **added == task);
        let id = if task.index() < self.graph.len() {
            self.graph.id(task).to_owned()
        } else {
            added().map(|(id, _)| id.clone()).unwrap_or_default()
        };
        Error::ResourceTooSmall { id, resource, wanted, limit }
    }

    fn report(self) -> RunReport<R, E> {
        let graph = self.graph;
        let stats = self.dispatcher.stats().clone();
        let (_, longest) = graph.critical_path(|task| self.dispatcher.running_time(task));
        let workers = stats.pool("workers");
        let each = workers.map_or(Duration::ZERO, |pool| pool.busy / pool.limit.max(1));
        let (outcomes, observer_panic) = (self.outcomes, self.observer_panic);
        RunReport { outcomes, lower_bound: longest.max(each), stats, observer_panic }
    }
}

/// Waits until a time, if there is one. Without one, the runtime needs no timer.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Receives the next task to add. Waits without end if the run accepts none.
async fn next_request<R, E>(job: &mut Job<'_, R, E>) -> AddRequest<R, E> {
    let Some(added) = &mut job.added else { return std::future::pending().await };
    std::future::poll_fn(|context| added.requests.poll_next(context)).await
}
