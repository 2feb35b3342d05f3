//! Performs the dispatcher's decisions on tokio. Decides nothing itself, and is unaware of what tasks do.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::dispatcher::{Action, Dispatcher, Event, Limits};
use crate::priority::Priority;
use crate::stats::Stats;
use crate::{Error, Graph, Needs, TaskId};

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
}

/// Which stage of which task is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// The task.
    pub task: TaskId,
    /// How many stages of it have ended: 0 for the first.
    pub number: u32,
}

/// How a task ended.
#[derive(Debug)]
pub enum Outcome<R, E> {
    /// Well, with its result.
    Done(R),
    /// It had been finished by an earlier, interrupted run.
    AlreadyDone,
    /// Badly.
    Failed(Failure<E>),
    /// Never begun, because of that failed ancestor.
    Skipped(TaskId),
    /// Not begun, or not finished, when the run was stopped.
    Stopped,
}

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure<E> {
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
pub enum Progress {
    /// A stage starts.
    Started(Stage),
    /// A task ended well.
    Done(TaskId),
    /// A task failed.
    Failed(TaskId),
    /// A task is skipped because of that failed ancestor.
    Skipped(TaskId, TaskId),
}

/// What happened to every task, and the figures of the run.
#[derive(Debug)]
pub struct Report<R, E> {
    /// By [`TaskId::index`].
    pub outcomes: Vec<Outcome<R, E>>,
    /// The final figures.
    pub stats: Stats,
}

/// Runs graphs of asynchronous tasks.
///
/// One coordinator holds the dispatcher and no lock; each stage is a tokio task of its own. Dropping the
/// future of [`run`](Executor::run) aborts all stages, which drops what they hold, child processes included.
#[derive(Debug, Clone, Default)]
pub struct Executor {
    /// Resources and other limits.
    pub limits: Limits,
    /// Which of several ready tasks goes first.
    pub priority: Priority,
    /// The longest that one stage may run; `None` for as long as it likes.
    pub stage_time_max: Option<Duration>,
    stats: Arc<Mutex<Stats>>,
    stop: Arc<watch::Sender<bool>>,
}

/// Stops the runs of an executor, those to come included. Clones stop the same.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<watch::Sender<bool>>);

impl Stopper {
    /// Aborts all stages, and has [`Executor::run`] return when they are gone. May be called at any time and again.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Executor {
    /// An executor under limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Figures of the run under way, up to its last event; of the last run if none is.
    pub fn stats(&self) -> Stats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A handle to read the figures with while the executor is borrowed elsewhere.
    pub fn stats_reader(&self) -> impl Fn() -> Stats + Send + Sync + use<> {
        let stats = Arc::clone(&self.stats);
        move || stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A handle that stops runs from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Runs every task of the graph that is not `already_done`.
    ///
    /// `needs` says what a task's first stage holds, `expected` what a task will probably take
    /// ([`Durations`](crate::Durations) knows, or `|_| Durations::DEFAULT`), `stage` makes the future of one stage, and `observe` is told what happens.
    /// A panic in a stage is a failure of its task.
    ///
    /// # Errors
    /// [`Error::ResourceTooSmall`] before anything starts, if some task could never start.
    pub async fn run<T, R, E, F>(
        &self,
        graph: &Graph<T>,
        expected: impl Fn(TaskId) -> Duration,
        already_done: &[TaskId],
        needs: impl FnMut(TaskId) -> Needs,
        stage: impl Fn(Stage) -> F,
        mut observe: impl FnMut(Progress),
    ) -> Result<Report<R, E>, Error>
    where
        R: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Step<R, E>> + Send + 'static,
    {
        let ranks = self.priority.ranks(graph, expected);
        let mut dispatcher = Dispatcher::new(graph, self.limits.clone(), &ranks, needs)?;
        already_done.iter().for_each(|&task| dispatcher.already_done(task));
        let mut run = Run::new(self, graph.len());
        already_done.iter().for_each(|task| run.outcomes[task.index()] = Outcome::AlreadyDone);

        let mut stop = self.stop.subscribe();
        let mut actions = Vec::new();
        dispatcher.handle(Duration::ZERO, Event::Begin, &mut actions)?;
        loop {
            self.publish(&dispatcher);
            run.perform(&mut actions, &stage, &mut observe);
            let ended = tokio::select! {
                biased;
                // The sender is ours, so this ends only by being stopped.
                () = stopped(&mut stop) => {
                    run.futures.shutdown().await;
                    break;
                }
                ended = run.next_ended() => ended,
            };
            let Some((task, step)) = ended else { break };
            let now = run.started.elapsed();
            let event = match &step {
                Ok(Step::Next(needs)) => Event::Next(task, needs),
                Ok(Step::Done(_)) => Event::Done(task),
                Ok(Step::Failed(_)) | Err(_) => Event::Failed(task),
            };
            let refused = dispatcher.handle(now, event, &mut actions).err();
            run.note(task, step, refused, &mut observe);
        }
        self.publish(&dispatcher);
        Ok(Report { outcomes: run.outcomes, stats: dispatcher.stats().clone() })
    }

    fn publish(&self, dispatcher: &Dispatcher) {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone_from(dispatcher.stats());
    }
}

/// Waits until the run shall stop. The guard that the channel gives must not be held while others are waited for.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// What the shell keeps of a run under way.
struct Run<R, E> {
    started: Instant,
    stage_time_max: Option<Duration>,
    futures: JoinSet<Result<Step<R, E>, Failure<E>>>,
    running: HashMap<Id, TaskId>,
    stages: Vec<u32>,
    outcomes: Vec<Outcome<R, E>>,
}

impl<R: Send + 'static, E: Send + 'static> Run<R, E> {
    fn new(executor: &Executor, tasks: usize) -> Self {
        Self {
            started: Instant::now(),
            stage_time_max: executor.stage_time_max,
            futures: JoinSet::new(),
            running: HashMap::new(),
            stages: vec![0; tasks],
            outcomes: (0..tasks).map(|_| Outcome::Stopped).collect(),
        }
    }

    fn perform<F>(
        &mut self,
        actions: &mut Vec<Action>,
        stage: &impl Fn(Stage) -> F,
        observe: &mut impl FnMut(Progress),
    ) where
        F: Future<Output = Step<R, E>> + Send + 'static,
    {
        for action in actions.drain(..) {
            match action {
                Action::Start(task) => {
                    let number = self.stages[task.index()];
                    self.stages[task.index()] += 1;
                    observe(Progress::Started(Stage { task, number }));
                    let future = limited(stage(Stage { task, number }), self.stage_time_max);
                    self.running.insert(self.futures.spawn(future).id(), task);
                }
                Action::Skip(task, because) => {
                    self.outcomes[task.index()] = Outcome::Skipped(because);
                    observe(Progress::Skipped(task, because));
                }
            }
        }
    }

    /// The next stage that ended; `None` when none runs.
    async fn next_ended(&mut self) -> Option<(TaskId, Result<Step<R, E>, Failure<E>>)> {
        let (id, step) = match self.futures.join_next_with_id().await? {
            Ok((id, step)) => (id, step),
            Err(error) => (error.id(), Err(Failure::Panicked(panic_text(error)))),
        };
        let task = self.running.remove(&id).expect("every spawned future was entered");
        Some((task, step))
    }

    fn note(
        &mut self,
        task: TaskId,
        step: Result<Step<R, E>, Failure<E>>,
        refused: Option<Error>,
        observe: &mut impl FnMut(Progress),
    ) {
        let outcome = match (step, refused) {
            (_, Some(error)) => Outcome::Failed(Failure::Unschedulable(error)),
            (Ok(Step::Next(_)), None) => return,
            (Ok(Step::Done(result)), None) => Outcome::Done(result),
            (Ok(Step::Failed(error)), None) => Outcome::Failed(Failure::Task(error)),
            (Err(failure), None) => Outcome::Failed(failure),
        };
        let done = matches!(outcome, Outcome::Done(_));
        observe(if done { Progress::Done(task) } else { Progress::Failed(task) });
        self.outcomes[task.index()] = outcome;
    }
}

async fn limited<R, E>(
    stage: impl Future<Output = Step<R, E>>,
    time_max: Option<Duration>,
) -> Result<Step<R, E>, Failure<E>> {
    match time_max {
        None => Ok(stage.await),
        Some(limit) => tokio::time::timeout(limit, stage).await.map_err(|_| Failure::TimedOut(limit)),
    }
}

fn panic_text(error: JoinError) -> String {
    let payload = match error.try_into_panic() {
        Ok(payload) => payload,
        Err(error) => return error.to_string(),
    };
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
