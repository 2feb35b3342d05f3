//! Runs graphs of asynchronous tasks without barriers. Each task starts when its own dependencies
//! are done, the task with the longest chain of work after it first, under named resource limits.
//!
//! A [`GraphBuilder`] collects tasks and dependencies and checks them into a [`Graph`]. An
//! [`Executor`] runs the graph on tokio. A [`Dispatcher`] decides which tasks start when; it is a
//! pure state machine that can also run in virtual time. A task consists of *stages*: between two
//! stages it releases its resources and is queued again with its old rank, so that a task that
//! waits for something external occupies no worker.
//!
//! ```
//! use greenwave_scheduler::{
//!     Durations, Executor, GraphBuilder, Limits, Needs, Resources, Step, TaskOutcome,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), greenwave_scheduler::Error> {
//! let mut graph = GraphBuilder::new();
//! graph.task("lexer", 1).task("parser", 2).depends_on("parser", "lexer");
//! let graph = graph.build()?;
//!
//! let resources = Resources::new([("workers", 2)]);
//! let executor = Executor::new(Limits { resources, ..Limits::default() });
//! let report = executor
//!     .run(
//!         &graph,
//!         |_task| Durations::DEFAULT,
//!         &[],
//!         |_task| Needs::nothing().of("workers", 1),
//!         |stage| {
//!             let answer = graph.payload(stage.task) * 10;
//!             async move { Step::<i32, String>::Done(answer) }
//!         },
//!         |_progress| {},
//!     )
//!     .await?;
//! assert!(matches!(report.outcomes[1], TaskOutcome::Done(20)));
//! # Ok(())
//! # }
//! ```
//!
//! # Further parts
//!
//! - A [`Flow`] is a graph whose tasks receive the results of their dependencies, with types that
//!   the compiler checks. Coming from `petgraph` and `FuturesUnordered`, or from `JoinSet`:
//!   [`coming_from_petgraph`].
//! - A [`Job`] holds the optional inputs of a run: an observer, time limits, an order for tests
//!   ([`OrderRules`]), and a [`TaskReceiver`] for tasks added by a [`TaskSender`] during the run.
//! - [`Executor::run_job`] runs each stage in a separate tokio task. If stages are short, call it
//!   from within a tokio task: from `block_on` on a thread outside the runtime, the end of each
//!   stage would have to wake that thread. [`Executor::run_inline`] runs all stages in the calling
//!   task.
//! - [`Workers`] adapts the number of workers to the machine's load. [`Retry`] retries failed
//!   stages. A [`Pauser`] and a [`Stopper`] pause and stop runs. A [`ChromeTrace`] displays a run
//!   in Perfetto.
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `journal` | no | `Journal`: durable record of finished tasks and learned durations, so that a killed run continues | greenwave-segment (zstd, xxhash) |
//! | `simulation` | no | `Journal::open_simulated`, for tests on the simulated machine of greenwave-segment | corosensei |
//! | `jobserver` | no | `Executor::with_jobserver`: tokens shared with `make` and `cargo` in tasks | greenwave-process, and a thread while a run waits for tokens |
//!
//! # Errors
//!
//! An [`Error`] is a mistake in the graph or its needs and is reported before any task starts. The
//! failure of a task is not an error: the [`RunReport`] holds the outcome of every task.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(doc)]
pub mod coming_from_petgraph;
mod control;
mod dispatcher;
mod error;
mod executor;
mod flow;
mod graph;
mod inbox;
mod job;
#[cfg(feature = "journal")]
mod journal;
mod load;
mod order;
mod priority;
mod resource;
mod retries;
mod running;
mod stats;
mod task;
mod trace;
mod workers;

pub use control::{NewTask, Pauser, ProgressStream, Stopper, TaskReceiver, TaskSender, progress};
pub use dispatcher::{Action, Addition, DispatchEvent, Dispatcher, Limits, OnFailure, TaskState};
pub use error::Error;
pub use executor::{Executor, RunReport};
pub use flow::{Canceller, Flow, FlowFailure, FlowReport, Handle, Inputs, TaskOptions};
pub use graph::{Graph, GraphBuilder, TaskId};
pub use greenwave_retry::{Retry, RetryBudget};
pub use job::Job;
#[cfg(feature = "journal")]
pub use journal::Journal;
pub use load::{LoadOptions, LoadSample};
pub use order::{Order, OrderRules, TaskHistory};
pub use priority::{Durations, Priority};
pub use resource::{Needs, Resources};
pub use stats::{LostTime, ResourceStats, ScheduleStats};
pub use task::{Progress, Stage, Step, TaskFailure, TaskOutcome};
pub use trace::ChromeTrace;
pub use workers::{AdmittedUnits, Workers};
