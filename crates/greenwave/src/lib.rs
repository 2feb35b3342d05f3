//! Runs plans of features through coding agents: red, yellow, green, many features at once.
//!
//! For each feature, the engine checks that the feature's tests fail (red), has an agent write the
//! code (yellow), and merges it into the project once the tests pass (green). Independent features
//! run in parallel. A later run continues where an interrupted one stopped, and finished work is
//! never repeated.
//!
//! A [`Plan`] names a project, agents and [`Feature`]s. [`Engine::open`] checks the plan and opens
//! its parts under [`Settings`]. [`Engine::run`] publishes [`Event`]s while it works, and returns a
//! [`Report`].
//!
//! ```
//! use greenwave::{
//!     AgentSpec, CommandSpec, Engine, Environment, Feature, Plan, Settings, Test,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let project = tempfile::tempdir()?;
//! std::fs::write(project.path().join("README"), "A project.")?;
//! let agent = AgentSpec::Command(CommandSpec {
//!     command: ["printf", "```text greeting.txt\nhello\n```\n"].map(str::to_owned).to_vec(),
//!     ..CommandSpec::default()
//! });
//! let plan = Plan {
//!     name: "greeting".into(),
//!     project: project.path().into(),
//!     agents: [("coder".to_owned(), agent)].into(),
//!     features: vec![Feature {
//!         id: "greet".into(),
//!         title: "A greeting".into(),
//!         prompt: "Write a greeting.".into(),
//!         agent: "coder".into(),
//!         tests: vec![Test::new("greet", ["grep", "hello", "greeting.txt"])],
//!         ..Feature::default()
//!     }],
//!     ..Plan::default()
//! };
//! let environment = Environment::new(std::env::vars_os());
//! let engine = Engine::open(plan, Settings::default(), environment)?;
//! let report = engine.run().await?;
//! assert!(report.all_green());
//! assert_eq!(std::fs::read_to_string(project.path().join("greeting.txt"))?, "hello\n");
//! # Ok(())
//! # }
//! ```
//!
//! The work is done by the crates below this one, each useful alone: `greenwave-scheduler` decides
//! what runs when, `greenwave-testing` runs tests and caches their results, `greenwave-storage`
//! stores files and attempts, `greenwave-streaming` splits answers into files, and
//! `greenwave-pooling` lends agent sessions.
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `remote` | no | test results on a Redis server, also over TLS, or memcached; without it, such a server is [`ResultStoreError::NoRemote`] | redis, rustls with ring (C) |
//! | `remote-reapi` | no | `remote`, and test results on a server of the Remote Execution API | tonic, prost |
//! | `http-agents` | no | [`AgentSpec::Http`]: agents that are model servers; without it, such an agent is [`Error::NoHttp`] | reqwest, rustls with ring (C and assembly) |
//! | `conformance` | no | the module `conformance`, which fuzz targets use | none |
//!
//! # Errors
//!
//! An [`Error`] keeps the whole run from starting or continuing. A [`FeatureError`] ends one
//! feature; the features that depend on it are skipped.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod adapters;
mod agent_placeholders;
mod agent_settings;
mod answer;
mod approval;
mod attempt_details;
mod attempt_log;
mod attempt_record;
mod base_build;
mod boxed;
mod branch;
mod branch_owner;
mod budget;
mod candidate_record;
mod cases;
mod clean;
mod confine;
mod confinement;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
mod continuation;
mod copies;
mod dependencies;
mod disk_full;
mod engine;
mod env_file;
mod error;
mod event;
mod excerpt;
mod feature_run;
mod feedback;
mod file_state;
mod fixed_ports;
mod forget;
mod function_tests;
mod gates;
mod git;
mod git_copies;
mod git_filters;
mod green_record;
mod guarded_write;
mod guards;
mod http_agent;
mod included;
mod large_files;
mod live_feed;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod mapped_write;
mod mask;
mod merge;
mod metrics;
mod new_candidate;
mod notify;
mod phase;
mod plan;
mod preflight;
mod project_root;
mod project_state;
mod prompt;
mod protection;
mod receipts;
mod recording;
mod recovering_tier;
mod red;
mod remove;
mod report;
mod repository_marker;
mod resources;
mod result_keys;
mod result_store;
mod resume;
mod run_comparison;
mod run_control;
mod run_journal;
mod run_metrics;
mod run_record;
mod scope;
mod settings;
mod setup;
mod setup_store;
mod spending;
mod stage;
mod state;
mod state_dir;
mod state_home;
mod steering;
mod steps;
mod submodules;
mod surroundings;
mod test_files;
mod test_results;
mod test_runner;
#[cfg(test)]
mod tests;
mod transcript;
mod tree;
mod trusted_owner;
mod trusted_path;
mod unfinished;
mod user_edits;
mod workspace;
mod written_tests;

pub use approval::{Decision, decide, held_features};
pub use attempt_log::{AttemptFiles, AttemptLog, StoredAttempt, StoredFile};
pub use clean::{CleanOptions, Cleaned, CleanedKind, clean};
pub use confine::{PathError, PathProblem};
pub use confinement::{ConfineMode, ConfineOptions};
pub use copies::{CopyMode, Overlays, copy_method};
pub use engine::Engine;
pub use error::{Error, FeatureError, chain};
pub use event::{AttemptDetails, Event, FileChange};
pub use forget::{Forgotten, forget};
pub use git::{isolate_git, restrict_git};
pub use git_filters::filters_off;
pub use greenwave_agents::{
    ApiKeySource, CodingProgram, Error as AgentError, HttpApi, HttpMode, HttpOptions, ProgramOptions, WaitOn,
};
pub use greenwave_cache::PublicKey;
pub use greenwave_sandbox::{Network, landlock_version};
pub use greenwave_scheduler::{Graph, Stopper};
pub use greenwave_telemetry::{
    Dashboard, Error as TelemetryError, MetricsEndpoint, MetricsServer, MetricsSnapshot, MetricsSource,
};
pub use greenwave_testing::{
    Environment, Error as TestError, STATE_DIRECTORY, Supervisor, Test, UserKey, check_pattern, supervise,
};
pub use phase::{FeaturePolicy, Phase, PhaseEvent};
pub use plan::{
    AgentProtocol, AgentSpec, BaseKind, Candidates, CommandSpec, Edits, Exchanges, Feature, FeatureId,
    Guards, HttpSpec, Plan, PlanError, PlanLocation, ResultKind, TestAgent, check_expression, nearest,
};
pub use preflight::{Problem, preflight, preflight_sandboxes};
pub use protection::{INSTRUCTION_FILES, PROTECTED_FILES};
pub use report::{BranchReport, FeatureReport, Report, Totals, Usage};
pub use result_keys::{
    KeySource, LoginToken, ObjectStoreSettings, RemoteKey, ResultKeys, ServerLogin, SigningSeed,
};
pub use result_store::{ResultStore, ResultStoreError, ResultStoreStats};
pub use run_control::RunControl;
pub use run_record::{RecordedRun, RunRecords};
pub use scope::RunScope;
pub use settings::{
    AgentSettings, CacheSettings, Compression, MemorySettings, MetricsSettings, ParallelSettings,
    PoolSettings, RemoteScope, RunSettings, Settings, StorageSettings, TestingSettings,
};
pub use spending::{BudgetExceeded, BudgetLimits, Prices, format_dollars};
pub use test_files::is_test_file;
pub use trusted_owner::TrustedOwners;
pub use trusted_path::trusted_path;
