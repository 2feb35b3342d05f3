//! Runs tests whose results are kept by content: a result that is known is not computed again, and one that
//! might be stale is never taken for known.
//!
//! A [`Test`] is a command with everything its result may depend on: input files, variables, folder. A
//! [`Runner`] takes the [`Manifest`] of its inputs, hashes all of it into a key, and either finds the result
//! under it or runs the command; the [`Outcome`] says which. Results are kept in a
//! [`Tiered`](greenwave_cache::Tiered) cache: in memory, on disk, or wherever its backends keep them.
//!
//! A [`Suite`] runs many tests of one project: what is known answers at once, the rest runs in a good order. [`discover`] finds them, a
//! [`Tracer`] sees what they read, and a [`RunReport`] tells what came of them.
//!
//! ```
//! use greenwave_testing::{Environment, Runner, Test};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let project = tempfile::tempdir()?;
//! std::fs::write(project.path().join("answer.txt"), "42")?;
//! let test = Test::new("answer", ["sh", "-c", "grep -q 42 answer.txt"]);
//!
//! let runner = Runner::new(Environment::new(std::env::vars_os()), None);
//! let outcome = runner.run(project.path(), &test).await?;
//! assert!(outcome.passed() && !outcome.is_cached());
//! # Ok(())
//! # }
//! ```
//!
//! There are no features. An [`Error`] means that a test could not be run at all; a test that fails, hangs or
//! runs nothing is an [`Outcome`]. Unix only, for now.

mod error;
mod harness;
mod plain_text;
mod report;
mod results;
mod run;
mod test;

pub use greenwave_inputs::{Entry, EntryKind, InputSpec, Manifest, check_pattern};
pub use greenwave_process::Jobserver;
pub use greenwave_sandbox::{Trace, TraceMode, TraceStatus, Tracer};
pub use greenwave_scheduler::{OrderRules, Stopper};

pub use error::Error;
pub use harness::discovery::{Discovery, DiscoveryNote, discover};
pub use harness::test_count::TestCount;
pub use report::{
    CaseReport, CaseStatus, JsonLine, RunReport, RunStats, TestReport, TestResult, github_summary, junit,
};
pub use results::dependencies::Difference;
pub use results::history::{Statistics, TestStatistics};
pub use results::key::SCHEMA;
pub use results::outcome::{CacheDecision, ExitReason, Outcome, Source, Status};
pub use results::state::STATE_DIRECTORY;
pub use results::up_to_date::{RecordKey, UpToDateRecord};
pub use run::environment::Environment;
pub use run::runner::{RESULTS_VARIABLE, Runner, RunnerOptions};
pub use run::suite::{Audit, Explanation, Suite, SuiteEvent, SuiteOptions, SuiteReport};
pub use run::test_id::TestId;
pub use test::{Harness, Test};
