//! The error type of this crate.

/// An error in a graph, in the options of a run, or in its journal.
///
/// The failure of a task is not an
/// error of the scheduler. It is a [`TaskOutcome`](crate::TaskOutcome) in the
/// [`RunReport`](crate::RunReport), and unrelated tasks continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two tasks have the same id.
    #[error("duplicate task `{id}`")]
    DuplicateTask {
        /// The id.
        id: String,
    },
    /// A dependency names an unknown task.
    #[error("unknown dependency `{dependency}` of task `{id}`")]
    UnknownDependency {
        /// The dependent task.
        id: String,
        /// The unknown name.
        dependency: String,
    },
    /// The dependencies form a cycle. `path` is a shortest one.
    #[error("cyclic dependency of tasks: {}", display_cycle(path))]
    Cycle {
        /// The ids along the cycle, each depending on the next, and the last on the first.
        path: Vec<String>,
    },
    /// A task needs more of a resource than exists, so it could never start.
    #[error("invalid number {wanted} of resource `{resource}` for task `{id}`: expected at most {limit}")]
    ResourceTooSmall {
        /// The task.
        id: String,
        /// Name of the resource.
        resource: String,
        /// Units needed.
        wanted: u32,
        /// Units that exist.
        limit: u32,
    },
    /// A limit is out of range.
    #[error("invalid value {value} for {option}: expected {expected}")]
    InvalidLimit {
        /// Name of the option.
        option: &'static str,
        /// The value.
        value: u64,
        /// The accepted values.
        expected: &'static str,
    },
    /// A task given as already done is not in the graph.
    #[error("invalid number {index} of a finished task: expected less than {tasks}")]
    UnknownDone {
        /// The [`TaskId::index`](crate::TaskId::index) of the task.
        index: usize,
        /// Number of tasks in the graph.
        tasks: usize,
    },
    /// A closure panicked when it was called for a task before the run began.
    #[error("`{closure}` panicked for task `{id}`: {message}")]
    Panicked {
        /// Name of the closure in [`Job`](crate::Job).
        closure: &'static str,
        /// The task.
        id: String,
        /// Message of the panic.
        message: String,
    },
    /// A task of a flow depends on a task of another flow.
    #[error("task `{id}` depends on a task of another flow")]
    ForeignTask {
        /// The dependent task.
        id: String,
    },
    /// An added task would close a cycle.
    #[error("cannot add task `{id}` as a dependency of a task that it depends on")]
    AddedCycle {
        /// The added task.
        id: String,
    },
    /// An added task refers to an unknown task.
    #[error("unknown task number {index} in task `{id}`")]
    UnknownTask {
        /// The added task.
        id: String,
        /// The [`TaskId::index`](crate::TaskId::index) of the unknown task.
        index: usize,
    },
    /// An added task would be a dependency of a task that no longer waits.
    #[error("cannot add task `{id}` as a dependency of a task that may have started")]
    NotWaiting {
        /// The added task.
        id: String,
    },
    /// A task was added after all others had ended or the run was stopped.
    #[error("cannot add task `{id}`: the run has ended")]
    Ended {
        /// The added task.
        id: String,
    },
    /// The journal could not be opened, read or written.
    #[cfg(feature = "journal")]
    #[error("cannot {operation} the journal in {}", dir.display())]
    Journal {
        /// The attempted operation.
        operation: &'static str,
        /// Directory of the journal.
        dir: std::path::PathBuf,
        /// The error of the log.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn display_cycle(path: &[String]) -> String {
    let first = path.first().map_or("", String::as_str);
    path.iter().map(String::as_str).chain([first]).collect::<Vec<_>>().join(" -> ")
}
