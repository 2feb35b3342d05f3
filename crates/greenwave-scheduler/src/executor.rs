//! Performs the dispatcher's decisions on tokio. Decides nothing itself, and is unaware of what tasks do.

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

use crate::control::{AddedStage, BoxedStage, Pauser, Request, Stopper, Wish};
use crate::dispatcher::{Action, Addition, DispatchEvent, Dispatcher, Limits, TaskState};
use crate::job::Job;
use crate::priority::Priority;
use crate::retries::Backoffs;
use crate::running::{Ended, Inline, Running, Spawned, guarded, panic_text};
use crate::stats::ScheduleStats;
use crate::workers::{Admission, Workers};
use crate::{Durations, Error, Graph, Needs, TaskId};
#[cfg(feature = "jobserver")]
use greenwave_process::Jobserver;

/// How one stage of a task ended.
#[derive(Debug)]
pub enum Step<R, E> {
    /// The task is done, with its result.
    Done(R),
    /// The task has a further stage with these needs. What this one held is given back, and the task
    /// queues again at its old priority.
    Next(Needs),
    /// The task has failed; what depends on it is skipped.
    Failed(E),
    /// The stage has failed in a way that may pass: it is tried again as [`Executor::retry`] allows, and
    /// the task has failed when that allows no further attempt.
    Retry(E),
}

/// Which stage of which task is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// The task.
    pub task: TaskId,
    /// How many stages of it have ended well: 0 for the first.
    pub number: u32,
    /// How often this stage was tried before: 0 for the first time.
    pub retry: u32,
}

/// How a task ended.
#[derive(Debug)]
pub enum TaskOutcome<R, E> {
    /// Well, with its result.
    Done(R),
    /// It had been finished by an earlier, interrupted run.
    AlreadyDone,
    /// Badly.
    Failed(TaskFailure<E>),
    /// Never begun, because of that failed ancestor.
    Skipped(TaskId),
    /// Not begun, or not finished, when the run was stopped.
    Stopped,
}

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskFailure<E> {
    /// The task said so.
    #[error(transparent)]
    Task(E),
    /// The task's code panicked.
    #[error("panicked: {0}")]
    Panicked(String),
    /// A stage ran longer than allowed and was cancelled.
    #[error("ran longer than {0:?}")]
    TimedOut(Duration),
    /// A further stage could never start.
    #[error(transparent)]
    Unschedulable(Error),
}

/// A change worth telling somebody about, told from the coordinating task as it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A stage starts.
    Started(Stage),
    /// A stage ended well, and another follows.
    Ended(Stage),
    /// A stage failed and is tried again after so long.
    Retrying(Stage, Duration),
    /// A task ended well.
    Done(TaskId),
    /// A task failed.
    Failed(TaskId),
    /// A task is skipped because of that failed ancestor.
    Skipped(TaskId, TaskId),
    /// A task was added.
    Added(TaskId),
}

/// What happened to every task, and the figures of the run.
#[derive(Debug)]
pub struct RunReport<R, E> {
    /// By [`TaskId::index`], added tasks last.
    pub outcomes: Vec<TaskOutcome<R, E>>,
    /// The final figures.
    pub stats: ScheduleStats,
    /// The longest chain of tasks by the time they took, or all their time over the units of the pool `workers`, whichever is longer: no
    /// schedule of these tasks could have been shorter. Added tasks count in the second only.
    pub lower_bound: Duration,
    /// The message of the panic of [`Job::observe`]'s closure, which is not called after that.
    pub observer_panic: Option<String>,
}

/// Runs graphs of asynchronous tasks.
///
/// An executor may run any number of graphs, one after another or at once. Each run has the limits for
/// itself: two runs at once may use twice as much.
///
/// One coordinator holds the dispatcher and no lock. Dropping the future of a run aborts all stages, which drops what they hold, child
/// processes included.
#[derive(Debug, Clone, Default)]
pub struct Executor {
    /// Resources and other limits.
    pub limits: Limits,
    /// Which of several ready tasks goes first.
    pub priority: Priority,
    /// The longest that one stage may run; `None` for as long as it likes. [`Job::time_max`] says it for each task.
    pub stage_time_max: Option<Duration>,
    /// How often and when a stage that says [`Step::Retry`] is tried again. Each stage begins anew, and
    /// the deadline counts from the start of its first attempt.
    pub retry: Retry,
    /// Whether stages that panicked or ran for too long are tried again too; by default only those
    /// that say [`Step::Retry`].
    pub retry_panics: bool,
    /// How many units of the pool `workers` are used: all, or what the machine's load and the jobserver leave.
    pub workers: Workers,
    #[cfg(feature = "jobserver")]
    jobserver: Option<Jobserver>,
    stats: Arc<Mutex<ScheduleStats>>,
    wish: Arc<watch::Sender<Wish>>,
}

impl Executor {
    /// An executor under limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes a token of a jobserver for every worker but the first.
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

    /// Figures of the run under way, up to its last events; of the last run if none is.
    pub fn stats(&self) -> ScheduleStats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A handle to read the figures with while the executor is borrowed elsewhere.
    pub fn stats_reader(&self) -> impl Fn() -> ScheduleStats + Send + Sync + use<> {
        let stats = Arc::clone(&self.stats);
        move || stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A handle that stops runs from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.wish))
    }

    /// A handle that pauses runs from elsewhere.
    pub fn pauser(&self) -> Pauser {
        Pauser(Arc::clone(&self.wish))
    }

    /// Runs every task of the graph that is not `already_done`. The same as [`run_job`](Self::run_job), for what is needed most.
    ///
    /// `needs` says what a task's first stage holds, `expected` what a task will probably take
    /// ([`Durations`](crate::Durations) knows, or `|_| Durations::DEFAULT`), `stage` makes the future of one stage, and `observe` is told what happens.
    ///
    /// # Errors
    /// Before anything starts: [`Error::ResourceTooSmall`] if some task could never start;
    /// [`Error::InvalidLimit`]; [`Error::UnknownDone`]; [`Error::Panicked`] if `expected` or `needs` does.
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

    /// Runs every task of a graph, each stage as a task of the runtime, so that they use all its threads.
    /// A panic in a stage, in the closure that makes its future or in [`Job::time_max`] is a failure of
    /// its task.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
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
        self.coordinate(graph, job, stage, Spawned::new()).await
    }

    /// Like [`run_job`](Self::run_job), with all stages within the task that calls: they may borrow, need not be [`Send`], and cost a third as
    /// much; but whatever computes for long keeps all others waiting. For stages that wait: for the network, for child processes.
    ///
    /// # Errors
    /// As for [`run_job`](Self::run_job).
    pub async fn run_inline<T, R, E, F>(
        &self,
        graph: &Graph<T>,
        job: Job<'_, R, E>,
        stage: impl Fn(Stage) -> F,
    ) -> Result<RunReport<R, E>, Error>
    where
        F: Future<Output = Step<R, E>>,
    {
        self.coordinate(graph, job, stage, Inline::new(guarded)).await
    }

    async fn coordinate<T, R, E, F>(
        &self,
        graph: &Graph<T>,
        mut job: Job<'_, R, E>,
        stage: impl Fn(Stage) -> F,
        running: impl Running<Either<F, BoxedStage<R, E>>, R, E>,
    ) -> Result<RunReport<R, E>, Error>
    where
        F: Future<Output = Step<R, E>>,
    {
        let dispatcher = self.dispatcher(graph, &mut job)?;
        let mut run = Run::new(self, dispatcher, job, running, graph);
        run.go(self, stage).await;
        self.publish(&run.dispatcher);
        Ok(run.report())
    }

    /// The dispatcher of a run that is about to begin.
    fn dispatcher<T, R, E>(&self, graph: &Graph<T>, job: &mut Job<'_, R, E>) -> Result<Dispatcher, Error> {
        let unknown = job.already_done.iter().find(|task| task.index() >= graph.len());
        if let Some(unknown) = unknown {
            return Err(Error::UnknownDone { index: unknown.index(), tasks: graph.len() });
        }
        let panicked = RefCell::new(None);
        let note = |closure, task, payload: Box<dyn std::any::Any + Send>| {
            let (id, message) = (graph.id(task).to_owned(), panic_text(&*payload));
            panicked.borrow_mut().get_or_insert(Error::Panicked { closure, id, message });
        };
        let expected = |task| {
            let expected = catch_unwind(AssertUnwindSafe(|| (job.expected)(task)));
            expected.unwrap_or_else(|payload| {
                note("expected", task, payload);
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
                note("needs", task, payload);
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

/// As many ends of stages are taken together: figures are published, and the clock is read, once for all.
const BATCH_MAX: usize = 64;

/// What has happened while the coordinator waited.
enum Wake<R, E> {
    /// Stages ended: those in the batch.
    Ended,
    Wish(Wish),
    Tick,
    Admit,
    Add(Request<R, E>),
}

/// What the shell keeps of a run under way.
struct Run<'a, T, R, E, S> {
    graph: &'a Graph<T>,
    started: Instant,
    dispatcher: Dispatcher,
    job: Job<'a, R, E>,
    stage_time_max: Option<Duration>,
    running: S,
    /// Which stage of each task comes next.
    stages: Vec<(u32, u32)>,
    added: HashMap<TaskId, AddedStage<R, E>>,
    /// The names of added tasks.
    added_ids: HashMap<String, TaskId>,
    outcomes: Vec<TaskOutcome<R, E>>,
    backoffs: Backoffs,
    actions: Vec<Action>,
    batch: Vec<Ended<R, E>>,
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
            backoffs: Backoffs::new(executor.retry.clone(), executor.retry_panics),
            actions: Vec::new(),
            batch: Vec::with_capacity(BATCH_MAX),
            observer_panic: None,
        }
    }

    /// From the first event to the last.
    async fn go<F>(&mut self, executor: &Executor, stage: impl Fn(Stage) -> F)
    where
        S: Running<Either<F, BoxedStage<R, E>>, R, E>,
        F: Future<Output = Step<R, E>>,
    {
        let mut wish = executor.wish.subscribe();
        let mut admission = executor.admission();
        let wished = *wish.borrow_and_update();
        self.heed(wished);
        let mut admitted = admission.admitted();
        self.note_event(DispatchEvent::Admit("workers", admitted));
        self.note_event(DispatchEvent::Begin);
        while !wish.borrow().stopped {
            executor.publish(&self.dispatcher);
            self.perform(&stage);
            if self.dispatcher.is_finished() {
                return;
            }
            admission.look(self.dispatcher.stats());
            // Tokens that were just given back must not be counted on.
            if admission.admitted() != admitted {
                admitted = admission.admitted();
                self.note_event(DispatchEvent::Admit("workers", admitted));
                continue;
            }
            match self.next(&mut wish, &mut admission).await {
                Wake::Ended => self.note_batch(),
                Wake::Wish(wish) => self.heed(wish),
                Wake::Tick => self.note_event(DispatchEvent::Tick),
                // Told above.
                Wake::Admit => {}
                Wake::Add(request) => self.add(request),
            }
            // A long row of stages that end at once must not keep the runtime's other tasks waiting.
            tokio::task::coop::consume_budget().await;
        }
        self.running.abort();
        // What they hold, child processes say, is gone only when they are.
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

    async fn next<F>(&mut self, wish: &mut watch::Receiver<Wish>, admission: &mut Admission) -> Wake<R, E>
    where
        S: Running<Either<F, BoxedStage<R, E>>, R, E>,
    {
        let Self { running, batch, job, dispatcher, started, .. } = self;
        // A time that no clock reaches never comes.
        let wakes_at = dispatcher.wakes_at().and_then(|at| started.checked_add(at));
        let others = async {
            tokio::select! {
                // The sender is the executor's, which outlives the run.
                _ = wish.changed() => Wake::Wish(*wish.borrow_and_update()),
                () = until(wakes_at) => Wake::Tick,
                () = admission.changed() => Wake::Admit,
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
            if batch.is_empty() { others.as_mut().poll(context) } else { Poll::Ready(Wake::Ended) }
        })
        .await
    }

    fn heed(&mut self, wish: Wish) {
        self.note_event(if wish.paused { DispatchEvent::Pause } else { DispatchEvent::Resume });
    }

    fn note_event(&mut self, event: DispatchEvent<'_>) {
        let now = self.started.elapsed();
        self.dispatcher.handle(now, event, &mut self.actions).expect("only next stages are refused");
    }

    fn note_batch(&mut self) {
        let now = self.started.elapsed();
        let mut batch = std::mem::take(&mut self.batch);
        for (task, step) in batch.drain(..) {
            self.note(now, task, step);
        }
        self.batch = batch;
    }

    fn note(&mut self, now: Duration, task: TaskId, step: Result<Step<R, E>, TaskFailure<E>>) {
        let failure = match step {
            Ok(Step::Done(result)) => {
                self.tell(now, DispatchEvent::Done(task));
                return self.settle(task, TaskOutcome::Done(result));
            }
            Ok(Step::Next(needs)) => return self.go_on(now, task, &needs),
            Ok(Step::Failed(error)) => TaskFailure::Task(error),
            Ok(Step::Retry(error)) => match self.delay(now, task, false) {
                Some(delay) => return self.try_again(now, task, delay),
                None => TaskFailure::Task(error),
            },
            Err(failure) => match self.delay(now, task, true) {
                Some(delay) => return self.try_again(now, task, delay),
                None => failure,
            },
        };
        self.tell(now, DispatchEvent::Failed(task));
        self.settle(task, TaskOutcome::Failed(failure));
    }

    fn tell(&mut self, now: Duration, event: DispatchEvent<'_>) {
        self.dispatcher.handle(now, event, &mut self.actions).expect("only next stages are refused");
    }

    fn go_on(&mut self, now: Duration, task: TaskId, needs: &Needs) {
        let ended = self.stage(task);
        self.stages[task.index()] = (ended.number + 1, 0);
        self.backoffs.forget(task);
        match self.dispatcher.handle(now, DispatchEvent::Next(task, needs), &mut self.actions) {
            Ok(()) => self.observe(Progress::Ended(ended)),
            Err(error) => {
                let error = self.named(task, error);
                self.settle(task, TaskOutcome::Failed(TaskFailure::Unschedulable(error)));
            }
        }
    }

    /// When to try the stage again that has just failed.
    fn delay(&mut self, now: Duration, task: TaskId, panicked: bool) -> Option<Duration> {
        let TaskState::Running(since) = self.dispatcher.state(task) else { return None };
        self.backoffs.next(task, panicked, since, now)
    }

    fn try_again(&mut self, now: Duration, task: TaskId, delay: Duration) {
        let failed = self.stage(task);
        self.observe(Progress::Retrying(failed, delay));
        self.stages[task.index()].1 += 1;
        self.tell(now, DispatchEvent::Retry(task, delay));
    }

    fn settle(&mut self, task: TaskId, outcome: TaskOutcome<R, E>) {
        let done = matches!(outcome, TaskOutcome::Done(_));
        self.observe(if done { Progress::Done(task) } else { Progress::Failed(task) });
        self.outcomes[task.index()] = outcome;
    }

    fn stage(&self, task: TaskId) -> Stage {
        let (number, retry) = self.stages[task.index()];
        Stage { task, number, retry }
    }

    fn add(&mut self, request: Request<R, E>) {
        let Request { task, stage, answer } = request;
        let addition = Addition {
            id: &task.id,
            rank: task.rank,
            needs: &task.needs,
            after: &task.after,
            before: &task.before,
        };
        let is_taken = self.graph.find(&task.id).is_some() || self.added_ids.contains_key(&task.id);
        let added = match is_taken {
            true => Err(Error::DuplicateTask { id: task.id.clone() }),
            false => self.dispatcher.add(self.started.elapsed(), addition, &mut self.actions),
        };
        if let Ok(number) = added {
            self.added_ids.insert(task.id, number);
            let task = number;
            self.stages.push((0, 0));
            self.outcomes.push(TaskOutcome::Stopped);
            self.added.insert(task, stage);
            self.observe(Progress::Added(task));
        }
        // Whoever asked may have gone.
        let _ = answer.send(added);
    }

    fn perform<F>(&mut self, stage: &impl Fn(Stage) -> F)
    where
        S: Running<Either<F, BoxedStage<R, E>>, R, E>,
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
                        // It has ended at once, and is taken note of with the others.
                        Err(panic) => {
                            self.batch.push((task, Err(TaskFailure::Panicked(panic_text(&*panic)))))
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

    /// Tells the observer, who is told nothing more once it has panicked.
    fn observe(&mut self, progress: Progress) {
        if self.observer_panic.is_none() {
            let observe = &mut self.job.observe;
            let told = catch_unwind(AssertUnwindSafe(|| observe(progress)));
            self.observer_panic = told.err().map(|panic| panic_text(&*panic));
        }
    }

    /// An error of the dispatcher, which has no names, with the task's name.
    fn named(&self, task: TaskId, error: Error) -> Error {
        let Error::ResourceTooSmall { resource, wanted, limit, .. } = error else { return error };
        let added = || self.added_ids.iter().find(|(_, added)| **added == task);
        let id = match task.index() < self.graph.len() {
            true => self.graph.id(task).to_owned(),
            false => added().map(|(id, _)| id.clone()).unwrap_or_default(),
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

/// At a time, if there is one. Without one the runtime need not have a timer.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The next task to be added. Never, if none can be.
async fn next_request<R, E>(job: &mut Job<'_, R, E>) -> Request<R, E> {
    let Some(added) = &mut job.added else { return std::future::pending().await };
    std::future::poll_fn(|context| added.requests.poll_next(context)).await
}

/// What is expected of tasks of which nothing is known.
pub(crate) fn unknown(_: TaskId) -> Duration {
    Durations::DEFAULT
}
