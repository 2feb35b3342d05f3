//! Runs a graph of asynchronous tasks without barriers: each task starts when *its* dependencies are
//! done, the one with the longest chain of work behind it first, under named resource limits.
//!
//! A [`GraphBuilder`] collects tasks and dependencies and checks them into a [`Graph`]. An [`Executor`]
//! runs the graph; what starts when is decided by a [`Dispatcher`], a pure state machine that can also
//! be driven in virtual time. A task runs in *stages*: between two of them it gives back what it holds
//! and queues again at its old priority, so that a task that waits for an answer keeps no worker busy.
//!
//! ```
//! use greenwave_scheduler::{Durations, Executor, GraphBuilder, Limits, Needs, TaskOutcome, Resources, Step};
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
//! | feature | adds | cost |
//! |---|---|---|
//! | `journal` | `Journal`: finished tasks and learned durations, durable, so that a killed run continues | greenwave-segment (zstd, xxhash) |
//! | `simulation` | `Journal::open_simulated`, for tests on the simulated machine of greenwave-segment | the crate `corosensei` |
//! | `jobserver` | `Executor::with_jobserver`: workers take tokens that `make` and `cargo` share | greenwave-process, and a thread while a run waits for tokens |
//!
//! # More than that
//!
//! A [`Job`] says what else a run should know: who observes, time limits, an order for tests ([`OrderRules`]), an [`TaskSender`] for tasks that come up
//! meanwhile. [`Executor::run_job`] gives each stage a task of the runtime; call it from one, by `tokio::spawn`, if stages are short: from `block_on` on a
//! thread outside the runtime every end of a stage has to wake that thread. [`Executor::run_inline`] runs all stages in the task that calls.
//! [`Workers`] follow the machine's load; [`Retry`], [`Pauser`] and [`Stopper`] do what they say; a [`ChromeTrace`] shows it all in Perfetto.
//!
//! Errors are mistakes in the graph or its needs, found before anything starts. A failing task is no
//! error: the [`RunReport`] says what became of every task.

mod control;
mod dispatcher;
mod error;
mod executor;
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
mod trace;
mod workers;

pub use control::{NewTask, Pauser, ProgressStream, Stopper, TaskReceiver, TaskSender, progress};
pub use dispatcher::{Action, Addition, DispatchEvent, Dispatcher, Limits, OnFailure, TaskState};
pub use error::Error;
pub use executor::{Executor, Progress, RunReport, Stage, Step, TaskFailure, TaskOutcome};
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
pub use trace::ChromeTrace;
pub use workers::Workers;
