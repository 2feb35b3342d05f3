//! Runs the tests of a project, and caches their results by the content of everything they depend
//! on.
//!
//! A [`Test`] is a command with its input files, variables and working directory. A [`Runner`]
//! hashes all of them into a key, and either returns the cached result or runs the command; the
//! [`Outcome`] says which. With tracing, the files that the test reads beside its inputs become
//! part of the key, too. Results are stored in a [`Tiered`](greenwave_cache::Tiered) cache: in
//! memory, on disk, or on a server.
//!
//! A [`Suite`] looks up many tests of one project at once, and runs the others in an order that
//! finds failures early. [`discover`] finds the tests of a project with the [`Harnesses`] of cargo,
//! pytest, Go and npm, or with a [`Harness`] of your own. A [`RunReport`] renders the results for
//! people and machines.
//!
//! ```
//! use std::sync::Arc;
//!
//! use greenwave_cache::{MemoryBackend, Tier, Tiered, TieredOptions};
//! use greenwave_testing::{Environment, Runner, SCHEMA, Test};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let project = tempfile::tempdir()?;
//! std::fs::write(project.path().join("answer.txt"), "42")?;
//! let test = Test::new("answer", ["sh", "-c", "grep -q 42 answer.txt"]);
//!
//! let tier = Tier::new("memory", Arc::new(MemoryBackend::new(1_000, 1 << 20)?));
//! let cache = Tiered::new(vec![tier], TieredOptions::new(SCHEMA));
//! let runner = Runner::new(Environment::new(std::env::vars_os()), Some(cache));
//! assert!(!runner.run(project.path(), &test).await?.is_cached());
//! assert!(runner.run(project.path(), &test).await?.is_cached());
//!
//! std::fs::write(project.path().join("answer.txt"), "41")?;
//! assert!(!runner.run(project.path(), &test).await?.passed());
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `conformance` | no | the test suite that every harness passes, for authors of harnesses | none |
//!
//! # Errors
//!
//! An [`Error`] means that a test could not be run at all. A test that fails, exceeds its time
//! limit or runs no test is an [`Outcome`].
//!
//! # Platforms
//!
//! Unix only. Tracing needs Linux.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod boxed;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod harness;
mod plain_text;
mod report;
mod results;
mod run;
mod test;

pub use greenwave_inputs::{
    EntryKind, InputSpec, Manifest, ManifestEntry, SealedContent, StateSeal, UserKey, check_pattern,
};
pub use greenwave_process::Jobserver;
pub use greenwave_sandbox::{Guard, LazyGuard, Trace, TraceMode, TraceStatus, Tracer};
pub use greenwave_scheduler::{OrderRules, Stopper};

pub use error::Error;
pub use greenwave_process::{Supervisor, supervise};
pub use harness::OverviewLine;
pub use harness::{
    Batch, BatchCommand, BatchResult, BuildOutput, BuildRequest, CaseReport, CaseStatus, CommandHarness,
    Continuation, Crash, Discovery, DiscoveryInputs, DiscoveryNote, FinishedProcess, Harness, Harnesses,
    LaunchSpec, Listing, ListingContext, OutputDecoder, Project, Rerun, Summary, SummaryVerdict, TestCount,
    discover, parse_toml_manifest,
};
pub use report::{
    FailureText, InvalidDay, JsonLine, Quarantine, QuarantineEntry, RunReport, RunStats, TestReport,
    TestResult, Timings, TimingsError, github_annotations, github_summary, junit,
};
pub use results::dependencies::Difference;
pub use results::history::{ProjectHistory, TestHistory};
pub use results::key::SCHEMA;
pub use results::outcome::{CacheDecision, ExitReason, Interference, Outcome, Source, Status};
pub use results::outputs::OutputFile;
pub use results::state::STATE_DIRECTORY;
pub use results::up_to_date::{RecordKey, UpToDateRecord};
pub use run::continuation::Continuations;
pub use run::environment::Environment;
pub use run::environment::TOOL_HOMES_VARIABLE;
pub use run::options::{IncompleteMode, RESULTS_VARIABLE, RunnerOptions, SuiteOptions};
pub use run::output_observer::OutputObserver;
pub use run::runner::Runner;
pub use run::servers::is_server;
pub use run::shard::{InvalidShard, Shard};
pub use run::slots::{TestSlot, TestSlots};
pub use run::suite::report::{Audit, SuiteEvent, SuiteReport};
pub use run::suite::{
    ChangedDependency, DiscoveredTests, Explanation, Inspection, NotStored, Suite, SuiteBuilder,
};
pub use run::test_id::TestId;
pub use test::{HarnessName, JunitReports, Test};
