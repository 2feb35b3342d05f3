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
//! assert!(outcome.passed() && !outcome.was_known());
//! # Ok(())
//! # }
//! ```
//!
//! There are no features. An [`Error`] means that a test could not be run at all; a test that fails, hangs or
//! runs nothing is an [`Outcome`]. Unix only, for now.

mod answer;
mod batch;
mod cargo;
mod count;
mod discovery;
mod environment;
mod error;
mod examination;
mod facts;
mod fingerprint;
mod functions;
mod group;
mod history;
mod index;
mod isolation;
mod key;
mod listing;
mod node;
mod outcome;
mod products;
mod project;
mod reads;
mod report;
mod run;
mod runner;
mod select;
mod stamp;
mod state;
mod strict;
mod suite;
mod test;
mod tool;
mod trace;
mod tree;
mod world;

pub use greenwave_scheduler::{Jobserver, OrderRules, Stopper};

pub use answer::{Answer, Terms};
pub use count::Count;
pub use discovery::{Discovery, Note, discover};
pub use environment::Environment;
pub use error::Error;
pub use facts::Difference;
pub use fingerprint::{Entry, EntryKind, Manifest};
pub use history::{Statistics, TestStatistics};
pub use key::SCHEMA;
pub use outcome::{Ending, Outcome, Source, Status, Stored};
pub use report::{
    CaseReport, CaseStatus, Line, RunReport, Tally, TestReport, Verdict, github_summary, junit,
};
pub use runner::{Options, RESULTS_VARIABLE, Runner};
pub use select::check_pattern;
pub use state::STATE_DIRECTORY;
pub use strict::{Allowed, Strict};
pub use suite::{Audit, Event, Explanation, Suite, SuiteOptions, SuiteReport};
pub use test::{Harness, Test};
pub use trace::{Access, Objects, PATHS_MAX, Reads, TraceMode, TraceStatus, Tracer, Tracing};
