//! What can be wrong with a graph or its execution. Knows nothing of what the tasks do.

/// Everything this crate refuses, with what was attempted.
///
/// A *task's* failure is no error of the scheduler: it is an [`TaskOutcome`](crate::TaskOutcome) in the
/// [`RunReport`](crate::RunReport), and the rest of the graph goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two tasks were added under one id.
    #[error("task `{id}` is defined twice")]
    DuplicateTask {
        /// The id in question.
        id: String,
    },
    /// A dependency names a task that is not in the graph.
    #[error("task `{id}` depends on `{dependency}`, which is not in the graph")]
    UnknownDependency {
        /// The task whose dependency it is.
        id: String,
        /// The name that no task has.
        dependency: String,
    },
    /// The dependencies form a circle. The path is the shortest such circle.
    #[error("dependency cycle: {}", display_cycle(path))]
    Cycle {
        /// The ids along the circle, each depending on the next, the last on the first.
        path: Vec<String>,
    },
    /// A task needs more of a resource than exists, so it could never start.
    #[error("task `{id}` needs {wanted} of resource `{resource}`, of which there are {limit}")]
    ResourceTooSmall {
        /// The task that could never start.
        id: String,
        /// The resource's name.
        resource: String,
        /// Units wanted.
        wanted: u32,
        /// Units that exist.
        limit: u32,
    },
    /// A limit has a value that means nothing.
    #[error("invalid value {value} for {option}: expected {expected}")]
    InvalidLimit {
        /// The option's name.
        option: &'static str,
        /// Its value.
        value: u64,
        /// The values that are accepted.
        expected: &'static str,
    },
    /// A task that is not in the graph was given as done already.
    #[error("task number {index} was given as already done, and the graph has {tasks} tasks")]
    UnknownDone {
        /// Its [`TaskId::index`](crate::TaskId::index).
        index: usize,
        /// How many tasks the graph has.
        tasks: usize,
    },
    /// A closure that was asked about a task before the run began has panicked.
    #[error("`{closure}` panicked for task `{id}`: {message}")]
    Panicked {
        /// The closure's name in [`Job`](crate::Job).
        closure: &'static str,
        /// The task that it was asked about.
        id: String,
        /// The panic's message.
        message: String,
    },
    /// A task was added between others that depend on each other the other way round.
    #[error("task `{id}` shall go before a task that it depends on")]
    AddedCycle {
        /// The task that was to be added.
        id: String,
    },
    /// A task was added beside one that the run does not have.
    #[error("task `{id}` names task number {index}, which is not in this run")]
    UnknownTask {
        /// The task that was to be added.
        id: String,
        /// The other's [`TaskId::index`](crate::TaskId::index).
        index: usize,
    },
    /// A task was added before one that does not wait any more.
    #[error("task `{id}` shall go before a task that may have started already")]
    NotWaiting {
        /// The task that was to be added.
        id: String,
    },
    /// A task was added when all others had ended, or the run was stopped.
    #[error("task `{id}` comes too late: the run has ended")]
    Ended {
        /// The task that was to be added.
        id: String,
    },
    /// The journal could not be opened, read or written.
    #[cfg(feature = "journal")]
    #[error("cannot {operation} the journal in {}", dir.display())]
    Journal {
        /// What was attempted.
        operation: &'static str,
        /// The journal's folder.
        dir: std::path::PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn display_cycle(path: &[String]) -> String {
    let first = path.first().map_or("", String::as_str);
    path.iter().map(String::as_str).chain([first]).collect::<Vec<_>>().join(" -> ")
}
