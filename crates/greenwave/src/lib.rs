//! Plans of features through coding agents: red (the tests fail), yellow (an agent writes), green (the tests
//! pass and the files are in the project), many at once.
//!
//! A [`Plan`] names a project, agents and [`Feature`]s. An [`Engine`] opens what the plan needs under
//! [`Settings`] and runs it; while it runs it tells [`Event`]s and live figures, and in the end a [`Report`].
//! The work itself is done by the crates below: the scheduler decides what runs when, the cache holds test
//! results, the store holds files and attempts, the streaming toolkit cuts answers into files, and the pools
//! lend sessions with agents. This crate only joins them.
//!
//! ```
//! use greenwave::{AgentSpec, Engine, Environment, Feature, Plan, Settings, Test};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let project = tempfile::tempdir()?;
//! std::fs::write(project.path().join("README"), "A project.")?;
//! let agent = AgentSpec::Command {
//!     command: ["printf", "```text greeting.txt\nhello\n```\n"].map(str::to_owned).to_vec(),
//!     time_max: None,
//! };
//! let plan = Plan {
//!     name: "greeting".into(),
//!     project: project.path().into(),
//!     agents: [("coder".to_owned(), agent)].into(),
//!     resources: Default::default(),
//!     features: vec![Feature {
//!         id: "greet".into(),
//!         title: "A greeting".into(),
//!         depends_on: vec![],
//!         prompt: "Write a greeting.".into(),
//!         agent: "coder".into(),
//!         tests: vec![Test::new("greet", ["grep", "hello", "greeting.txt"])],
//!         attempts_max: 1,
//!         resources: Default::default(),
//!         review: None,
//!     }],
//! };
//! let engine = Engine::open(plan, Settings::default(), Environment::new(std::env::vars_os()))?;
//! let report = engine.run().await?;
//! assert!(report.all_green());
//! assert_eq!(std::fs::read_to_string(project.path().join("greeting.txt"))?, "hello\n");
//! # Ok(())
//! # }
//! ```
//!
//! There are no features (of the crate). An [`Error`] keeps a run as a whole from being begun or carried on; a
//! [`FeatureError`] is why one feature failed, and leaves those that do not depend on it alone.

mod adapters;
mod confine;
mod engine;
mod error;
mod event;
mod feature;
mod merge;
mod parts;
mod plan;
mod profile;
mod prompt;
mod record;
mod report;
mod results;
mod stage;
#[cfg(test)]
mod tests;
mod tree;
mod workspace;

pub use confine::{PathError, PathProblem};
pub use engine::Engine;
pub use error::{Error, FeatureError, chain};
pub use event::Event;
pub use feature::{FeaturePolicy, Phase, PhaseEvent};
pub use greenwave_agents::Error as AgentError;
pub use greenwave_scheduler::{Graph, Stopper};
pub use greenwave_telemetry::{Endpoint, Error as TelemetryError, Serving};
pub use greenwave_testing::{Environment, Error as TestError, STATE_DIRECTORY, Test, check_pattern};
pub use plan::{AgentSpec, Feature, Plan, PlanError, PlanLocation, nearest};
pub use profile::{
    AgentSettings, CacheSettings, Compression, MemorySettings, MetricsSettings, ParallelSettings,
    PoolSettings, Settings, StorageSettings, TestingSettings,
};
pub use report::{FeatureReport, Report, Totals};
pub use results::{ResultStore, ResultStoreError, ResultStoreStats};
