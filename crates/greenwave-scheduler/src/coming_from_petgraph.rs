//! The code of `petgraph` with `FuturesUnordered`, of `JoinSet`, `dagrs` and `apalis-workflow`, and
//! its counterpart in this crate.
//!
//! A loop over a graph of `petgraph` counts for each task the dependencies that are not done,
//! pushes those without any into a `FuturesUnordered`, and stores each result in a map, from which
//! the next tasks take it by name and convert it. In a [`Flow`] a task names its dependencies by
//! their handles and receives their results:
//!
//! ```
//! use std::time::Duration;
//!
//! use greenwave_scheduler::{Executor, Flow, Limits, Needs, Resources, TaskOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), greenwave_scheduler::Error> {
//! let mut flow = Flow::<String>::new();
//! let fetch = |name: &'static str| move |()| async move { Ok(name.len()) };
//! let network = TaskOptions::new().needs(Needs::nothing().of("connections", 1)).retries(3);
//! let pages: Vec<_> = ["index", "about"]
//!     .into_iter()
//!     .map(|name| flow.task_with(name, network.clone(), (), fetch(name)))
//!     .collect();
//! let slow = TaskOptions::new().time_max(Duration::from_secs(30)).priority(1);
//! let total = flow.task_with("total", slow, pages, |sizes| async move {
//!     Ok(sizes.iter().map(|size| **size).sum::<usize>())
//! });
//!
//! let resources = Resources::new([("connections", 8)]);
//! let executor = Executor::new(Limits { resources, ..Limits::default() });
//! let report = flow.run(&executor).await?;
//! assert_eq!(report.get(total).as_deref(), Some(&10));
//! # Ok(())
//! # }
//! ```
//!
//! | there | here |
//! | --- | --- |
//! | `petgraph::Graph::add_node`, `add_edge` | [`Flow::task`], whose inputs are the edges; [`GraphBuilder`] where names, such as those in a file, are the edges |
//! | `toposort`, `is_cyclic_directed` | [`GraphBuilder::build`] names a shortest cycle; a flow can have none |
//! | `FuturesUnordered` with a counter for each node | [`Flow::run`], [`Executor::run_job`] |
//! | `JoinSet::spawn`, `join_next` | [`Executor::run_job`] with a [`Job::observe`] |
//! | a `Semaphore` for each kind of resource | [`Resources`] and [`Needs`]: all units of a task at once, so that no two tasks wait for each other |
//! | a map from names to results, `Box<dyn Any>` | [`Handle`], [`FlowReport::get`] |
//! | `AbortHandle::abort` | [`Canceller::cancel`] for a task and its dependants; [`Stopper`] for all |
//! | `tokio::time::timeout` around a task | [`TaskOptions::time_max`] |
//! | `backon` or `tokio-retry` around a task | [`TaskOptions::retries`]; resources are free between attempts |
//! | `dagrs::Dag::start`, `EnvVar`, `Content` | [`Flow::run`], captures of the closure, [`Arc`](std::sync::Arc) of each result |
//! | `apalis-workflow` steps with a storage | [`Executor::run_job`] with `Journal` (feature `journal`): finished tasks survive the process |
//! | tasks that arrive while others run | [`TaskSender`] |
//!
//! Losses: a flow has one error type, its results are in memory until the report is dropped, and
//! the tasks of a flow are all added before it runs. `petgraph` has the algorithms of graphs
//! (shortest paths, components, isomorphism), and this crate none of them.
//!
//! [`Flow`]: crate::Flow
//! [`Flow::run`]: crate::Flow::run
//! [`Flow::task`]: crate::Flow::task
//! [`FlowReport::get`]: crate::FlowReport::get
//! [`GraphBuilder`]: crate::GraphBuilder
//! [`GraphBuilder::build`]: crate::GraphBuilder::build
//! [`Executor::run_job`]: crate::Executor::run_job
//! [`Job::observe`]: crate::Job::observe
//! [`Resources`]: crate::Resources
//! [`Needs`]: crate::Needs
//! [`Handle`]: crate::Handle
//! [`Canceller::cancel`]: crate::Canceller::cancel
//! [`Stopper`]: crate::Stopper
//! [`TaskOptions::time_max`]: crate::TaskOptions::time_max
//! [`TaskOptions::retries`]: crate::TaskOptions::retries
//! [`TaskSender`]: crate::TaskSender
