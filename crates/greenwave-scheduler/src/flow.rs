//! Tasks that receive the results of the tasks which they depend on.

mod inputs;
mod options;
mod report;

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;

pub use self::inputs::Inputs;
pub use self::options::TaskOptions;
pub use self::report::{FlowFailure, FlowReport};
use crate::{Durations, Error, Executor, Graph, GraphBuilder, Job, Stage, Step, TaskId};

/// The result of a task.
type Value = Arc<dyn Any + Send + Sync>;
type Start<E> = dyn Fn(&Results) -> Work<E> + Send + Sync;
type Work<E> = Pin<Box<dyn Future<Output = Result<Value, E>> + Send>>;

/// Numbers of flows, which distinguish their handles.
static FLOWS: AtomicU64 = AtomicU64::new(0);

/// A task of a [`Flow`] whose result is a `T`. Other tasks depend on the result by the handle, and
/// [`FlowReport::get`] returns it.
pub struct Handle<T> {
    flow: u64,
    task: TaskId,
    result: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    /// Returns the id of the task, which is its position in [`FlowReport::outcomes`].
    pub fn task(&self) -> TaskId {
        self.task
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.task.index()).finish()
    }
}

/// A graph of tasks that hand their results to the tasks which depend on them.
///
/// A task names its dependencies by their [`Handle`]s and receives an [`Arc`] of each result, so
/// that the types of results and parameters are checked when the program is compiled, and a cycle
/// cannot be written. All tasks have errors of one type `E`. If a task fails, its dependants are
/// skipped, and all others run.
///
/// ```
/// use greenwave_scheduler::{Executor, Flow};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), greenwave_scheduler::Error> {
/// let mut flow = Flow::<std::io::Error>::new();
/// let text = flow.task("read", (), |()| async { Ok("red green green".to_owned()) });
/// let all = flow.task("words", text, |text| async move { Ok(text.split(' ').count()) });
/// let green = flow.task("green", text, |text| async move { Ok(text.matches("green").count()) });
/// let share = flow.task("share", (green, all), |(green, all)| async move {
///     Ok(*green as f64 / *all as f64)
/// });
///
/// let report = flow.run(&Executor::default()).await?;
/// assert_eq!(report.get(share).as_deref(), Some(&(2.0 / 3.0)));
/// # Ok(())
/// # }
/// ```
///
/// Results live until the report is dropped.
pub struct Flow<E> {
    number: u64,
    tasks: Vec<Planned<E>>,
    /// Name of the first task that depends on a task of another flow.
    foreign: Option<String>,
    cancelled: Arc<CancelledTasks>,
}

struct Planned<E> {
    name: String,
    after: Vec<TaskId>,
    code: Arc<TaskCode<E>>,
}

/// The code of a task, and its options.
struct TaskCode<E> {
    start: Box<Start<E>>,
    options: TaskOptions,
}

/// The results of the tasks that have succeeded.
#[derive(Debug)]
pub struct Results(Vec<OnceLock<Value>>);

impl Results {
    pub(crate) fn get<T: Send + Sync + 'static>(&self, task: TaskId) -> Option<Arc<T>> {
        Arc::clone(self.0.get(task.index())?.get()?).downcast().ok()
    }
}

impl<E: Send + 'static> Default for Flow<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Send + 'static> Flow<E> {
    /// Creates a flow without tasks.
    #[must_use]
    pub fn new() -> Self {
        let number = FLOWS.fetch_add(1, Ordering::Relaxed);
        Self { number, tasks: Vec::new(), foreign: None, cancelled: Arc::default() }
    }

    /// Adds a task that begins when its `inputs` are done: `()`, a [`Handle`], a tuple or a `Vec`
    /// of handles. `code` receives their results and is called once, or again for each retry.
    ///
    /// Names must differ, which [`run`](Self::run) checks.
    pub fn task<I, T, F>(
        &mut self,
        name: impl Into<String>,
        inputs: I,
        code: impl Fn(I::Values) -> F + Send + Sync + 'static,
    ) -> Handle<T>
    where
        I: Inputs,
        T: Send + Sync + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.task_with(name, TaskOptions::default(), inputs, code)
    }

    /// Adds a task with options: its needs, retries, time limit and priority.
    pub fn task_with<I, T, F>(
        &mut self,
        name: impl Into<String>,
        options: TaskOptions,
        inputs: I,
        code: impl Fn(I::Values) -> F + Send + Sync + 'static,
    ) -> Handle<T>
    where
        I: Inputs,
        T: Send + Sync + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let name = name.into();
        let mut after = Vec::new();
        inputs.visit(&mut |flow, task| {
            if flow != self.number {
                self.foreign.get_or_insert_with(|| name.clone());
            }
            after.push(task);
        });
        let start = move |results: &Results| -> Work<E> {
            let values = inputs.values(results).expect("a task begins when its inputs are done");
            let work = code(values);
            Box::pin(async move { work.await.map(|value| Arc::new(value) as Value) })
        };
        let task = TaskId::from_index(self.tasks.len());
        self.tasks.push(Planned {
            name,
            after,
            code: Arc::new(TaskCode { start: Box::new(start), options }),
        });
        Handle { flow: self.number, task, result: PhantomData }
    }

    /// Returns a handle that cancels single tasks, also while the flow runs.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller { flow: self.number, cancelled: Arc::clone(&self.cancelled) }
    }

    /// Runs all tasks under the limits of an executor, with each task in a tokio task.
    ///
    /// # Errors
    /// Before any task begins: [`Error::DuplicateTask`], [`Error::ForeignTask`],
    /// [`Error::ResourceTooSmall`], [`Error::InvalidLimit`].
    pub async fn run(self, executor: &Executor) -> Result<FlowReport<E>, Error> {
        let Self { number, tasks, foreign, cancelled } = self;
        if let Some(id) = foreign {
            return Err(Error::ForeignTask { id });
        }
        let results = Arc::new(Results(tasks.iter().map(|_| OnceLock::new()).collect()));
        let graph = graph(tasks)?;
        let retries = graph.tasks().map(|task| graph.payload(task).options.retries).max().unwrap_or(0);
        let attempts_max = executor.retry.attempts_max.max(retries as usize + 1);
        let mut executor = executor.clone();
        executor.retry.attempts_max = attempts_max;
        let job = job(&graph, &executor);
        let stage = |stage: Stage| {
            let code = Arc::clone(graph.payload(stage.task));
            let (results, cancelled) = (Arc::clone(&results), Arc::clone(&cancelled));
            async move { step(stage, &code, &results, &cancelled).await }
        };
        let report = executor.run_job(&graph, job, stage).await?;
        Ok(FlowReport::new(number, report, results))
    }
}

fn graph<E>(tasks: Vec<Planned<E>>) -> Result<Graph<Arc<TaskCode<E>>>, Error> {
    let mut graph = GraphBuilder::new();
    for Planned { name, after, .. } in &tasks {
        for dependency in after {
            graph.depends_on(name.clone(), tasks[dependency.index()].name.clone());
        }
    }
    for Planned { name, code, .. } in tasks {
        graph.task(name, code);
    }
    graph.build()
}

/// Returns the options of the tasks as those of a run.
fn job<'a, E>(graph: &'a Graph<Arc<TaskCode<E>>>, executor: &Executor) -> Job<'a, (), FlowFailure<E>> {
    let options = |task| &graph.payload(task).options;
    let stage_time_max = executor.stage_time_max;
    let expected = move |task| options(task).expected.unwrap_or(Durations::DEFAULT);
    let mut ranked: Vec<_> =
        executor.priority.ranks(graph, expected).into_iter().zip(graph.tasks()).collect();
    let job = Job::new()
        .expected(expected)
        .needs(move |task| options(task).needs.clone())
        .time_max(move |task| options(task).time_max.or(stage_time_max));
    if graph.tasks().all(|task| options(task).priority == 0) {
        return job;
    }
    ranked.sort_by_key(|(rank, task)| (options(*task).priority, *rank));
    let mut ranks = vec![0; ranked.len()];
    for (at, (_, task)) in (0..).zip(ranked) {
        ranks[task.index()] = at;
    }
    job.order(ranks, crate::Order::default())
}

async fn step<E>(
    stage: Stage,
    code: &TaskCode<E>,
    results: &Results,
    cancelled: &CancelledTasks,
) -> Step<(), FlowFailure<E>> {
    let work = async { (code.start)(results).await };
    let done = tokio::select! {
        // A cancelled task that has not begun does not begin.
        biased;
        () = cancelled.wait(stage.task) => return Step::Failed(FlowFailure::Cancelled),
        done = work => done,
    };
    match done {
        Ok(value) => {
            let _ = results.0[stage.task.index()].set(value);
            Step::Done(())
        }
        Err(error) if stage.retry < code.options.retries => Step::Retry(FlowFailure::Task(error)),
        Err(error) => Step::Failed(FlowFailure::Task(error)),
    }
}

/// Cancels single tasks of a [`Flow`], before or while it runs. Clones cancel tasks of the same
/// flow.
#[derive(Debug, Clone)]
pub struct Canceller {
    flow: u64,
    cancelled: Arc<CancelledTasks>,
}

impl Canceller {
    /// Cancels a task, and skips its dependants. A task that runs is dropped, with its
    /// child processes for example. One that waits does not begin when its turn comes. One that has
    /// ended keeps its outcome. Returns `false` if the task belongs to another flow.
    pub fn cancel<T>(&self, task: Handle<T>) -> bool {
        let is_own = task.flow == self.flow;
        if is_own {
            self.cancelled.tasks().insert(task.task);
            self.cancelled.changed.notify_waiters();
        }
        is_own
    }
}

/// The tasks that were cancelled.
#[derive(Debug, Default)]
struct CancelledTasks {
    tasks: Mutex<HashSet<TaskId>>,
    changed: Notify,
}

impl CancelledTasks {
    fn tasks(&self) -> std::sync::MutexGuard<'_, HashSet<TaskId>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a task is cancelled.
    async fn wait(&self, task: TaskId) {
        loop {
            let changed = self.changed.notified();
            if self.tasks().contains(&task) {
                return;
            }
            changed.await;
        }
    }
}

impl<E> fmt::Debug for Flow<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
        f.debug_struct("Flow").field("tasks", &names).finish_non_exhaustive()
    }
}
