//! Test harnesses of other tools: how their tests are discovered, listed, built, launched and read.
//!
//! [`Harness`] is an open trait. The six implementations in this module and those of other crates
//! are collected in [`Harnesses`].

pub(crate) mod batch;
pub(crate) mod batch_plan;
pub(crate) mod build;
pub(crate) mod cargo;
mod collect;
mod command;
pub(crate) mod continuation;
pub(crate) mod crash;
pub(crate) mod decoder;
pub(crate) mod discover;
pub(crate) mod discovery;
pub(crate) mod discovery_state;
mod go;
mod guarded;
mod init_file;
pub(crate) mod junit;
pub(crate) mod launch;
mod listing;
mod npm;
mod overview;
mod problem;
pub(crate) mod project;
mod pytest;
pub(crate) mod registry;
mod split;
pub(crate) mod summary;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Environment, Error, Test};

pub(crate) use guarded::guarded;

pub use batch::{Batch, BatchCommand, BatchResult};
pub use build::{BuildOutput, BuildRequest};
pub use command::CommandHarness;
pub use continuation::Continuation;
pub use crash::{Crash, FinishedProcess, Rerun};
pub use decoder::OutputDecoder;
pub use discover::discover;
pub use discovery::{Discovery, DiscoveryInputs, DiscoveryNote};
pub use launch::LaunchSpec;
pub use listing::{Listing, ListingContext};
pub use overview::OverviewLine;
pub use project::{Project, parse_toml_manifest};
pub use registry::Harnesses;
pub use summary::{CaseReport, CaseStatus, Summary, SummaryVerdict, TestCount};

/// A tool that runs tests: it finds them in a project, and reads their output.
///
/// A harness never decides whether a result is cached. It says which commands there are and how to
/// read them; keys, tracing and verdicts are the same for all harnesses.
///
/// # Contract
///
/// - **Names.** [`name`](Self::name) is unique, never changes, and is the `harness` of every test
///   that [`discover`](Self::discover) and [`list`](Self::list) return. No two tests that one call
///   returns have the same name.
/// - **Determinism.** [`discover`](Self::discover) depends on nothing but the names of the
///   project's files and what [`discovery_inputs`](Self::discovery_inputs) declares, since its
///   result is stored and reused for as long as these are unchanged. All other methods depend on
///   their arguments only.
/// - **Concurrency.** Every method may be called from several threads at the same time.
/// - **Cancellation.** Dropping a future ends what it started, including child processes.
/// - **Blocking.** Async methods do not block the thread for longer than it takes to read a few
///   manifests.
/// - **Errors.** `Ok` means that the answer is complete. An `Err` of `discover` or `list` ends the
///   run; an `Err` of [`build`](Self::build) fails the tests of that directory. All calls may be
///   repeated.
/// - **Input.** No method panics, for any content of commands, manifests and outputs. A panic fails
///   the call or test during which it occurs.
///
/// The macro `harness_conformance!` (feature `conformance`) tests what can be tested from outside.
#[async_trait]
pub trait Harness: Debug + Send + Sync + 'static {
    /// Returns the name that tests refer to the harness by, in lower case.
    fn name(&self) -> &'static str;

    /// Returns whether a command that a user has configured runs tests of this harness.
    ///
    /// Must not match a command that the other methods do not understand.
    fn recognizes(&self, command: &[String]) -> bool;

    /// Returns what [`discover`](Self::discover) depends on beside the names of the project's
    /// files.
    fn discovery_inputs(&self) -> DiscoveryInputs;

    /// Finds the tests of a project, ordered by path.
    ///
    /// # Errors
    /// [`Error::Discover`] if a manifest is invalid, or a command that lists tests fails.
    async fn discover(&self, project: &Project) -> Result<Discovery, Error>;

    /// Returns what each of the harness's [collections](Discovery::collections) has found, in
    /// their order; `None` for a collection that did not run.
    ///
    /// The context has the outcomes of the collections. The tests found replace the discovered
    /// ones that run in the collection's directory or below it, except below the directory of
    /// another collection. A harness without collections needs no implementation.
    fn collected(&self, collections: &[&Test], context: &ListingContext<'_>) -> Vec<Option<Discovery>> {
        let _ = context;
        vec![None; collections.len()]
    }

    /// Returns `test` with arguments of the user for the harness's own runner, as in `cargo test --
    /// ARGUMENTS`; `None` if its command takes none.
    ///
    /// Tests that [collections](Discovery::collections) find have the arguments of the collection.
    /// A harness without an implementation refuses arguments.
    fn with_arguments(&self, test: &Test, arguments: &[String]) -> Option<Test> {
        let _ = (test, arguments);
        None
    }

    /// Returns commands whose output lists the single tests in `test`; none if `list` needs no
    /// output.
    ///
    /// They run like tests, so their output is cached. Their names must differ from those of all
    /// tests. A harness whose [`list`](Self::list) needs no output needs no implementation.
    fn listing_commands(&self, _test: &Test, _context: &ListingContext<'_>) -> Vec<Test> {
        Vec::new()
    }

    /// Returns, for each of the tests, the single tests in it.
    ///
    /// The context has the outcomes of [`listing_commands`](Self::listing_commands). Without an
    /// implementation, every test runs and is cached as a whole.
    ///
    /// # Errors
    /// [`Error::Discover`] if no test can be listed. A test that cannot be listed on its own is a
    /// [`Listing::Failed`].
    async fn list(&self, tests: &[&Test], _context: &ListingContext<'_>) -> Result<Vec<Listing>, Error> {
        Ok(vec![Listing::Whole; tests.len()])
    }

    /// Returns whether the programs in a test's directory must be built before it is launched.
    ///
    /// All tests in one directory that need a build must have the same harness. A harness that
    /// builds nothing needs no implementation of this method and of [`build`](Self::build).
    fn needs_build(&self, _test: &Test) -> bool {
        false
    }

    /// Creates the files that the build tool would create in the project while it builds, such as a
    /// lock file. A build repeats if an input of its tests changes meanwhile.
    ///
    /// Only called before [`build`](Self::build). A failure is left to the build to report. A
    /// harness whose tool creates no inputs needs no implementation.
    async fn prepare_build(&self, _request: &BuildRequest<'_>) {}

    /// Builds the programs of all tests in a directory; `None` if the harness builds nothing.
    ///
    /// Only called for directories of tests that [need a build](Self::needs_build). Programs that
    /// cannot be built are missing from the output. [`launch`](Self::launch) then returns the
    /// command unchanged, so that the tool itself reports the reason, or passes the messages of the
    /// build to [`LaunchSpec::build_failed`].
    ///
    /// # Errors
    /// If the build tool cannot be run at all.
    async fn build(&self, _request: &BuildRequest<'_>) -> Result<Option<Arc<dyn BuildOutput>>, Error> {
        Ok(None)
    }

    /// Returns whether the trace of a test's process can hold every dependency of its result.
    ///
    /// Must not be `true` if anything is read on the test's behalf before the process starts, as
    /// the compiler reads the sources of a program: the trace of the program does not have them.
    /// Without an implementation, a result also depends on all files of the test's package.
    fn trace_decides(&self, _test: &Test) -> bool {
        false
    }

    /// Returns directories that the harness's tool shares between all its runs, such as a build
    /// cache, with the variables that point to them. Tests with an empty home get these variables,
    /// and the tool creates missing directories.
    ///
    /// A harness whose tool shares nothing needs no implementation.
    fn shared_directories(&self, _environment: &Environment) -> Vec<(&'static str, PathBuf)> {
        Vec::new()
    }

    /// Returns whether the sources of a test, in the directory `project`, may contain anything to
    /// run.
    ///
    /// A run of a plan builds no guard that can run nothing. A harness that starts tests without a
    /// build needs no implementation.
    fn may_have_tests(&self, _test: &Test, _project: &Path) -> bool {
        true
    }

    /// Returns a test that runs the file of `test` as a program, if the file checks something and
    /// contains no test that the harness would find. The test keeps its name and directory.
    ///
    /// A run of a plan uses it as a guard if `test` fails. A harness whose files are not programs
    /// needs no implementation.
    fn as_program(&self, _test: &Test, _project: &Path) -> Option<Test> {
        None
    }

    /// Returns the process to start for a test, given the process that its command describes.
    ///
    /// A harness whose commands run as they are needs no implementation.
    fn launch(&self, _test: &Test, _built: Option<&dyn BuildOutput>, command: LaunchSpec) -> LaunchSpec {
        command
    }

    /// Returns whether the harness's own runner runs such tests one after another, in the order of
    /// [`discover`](Self::discover).
    ///
    /// Such a test runs again without company if it fails while others run.
    fn is_serial(&self, _test: &Test) -> bool {
        false
    }

    /// Changes the process of a test that runs alone. `directory` is private to the process, and
    /// files may be written to it.
    ///
    /// A harness that runs commands as they are needs no implementation.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    fn equip(
        &self,
        _test: &Test,
        command: LaunchSpec,
        _directory: &Path,
        _environment: &Environment,
    ) -> Result<LaunchSpec, Error> {
        Ok(command)
    }

    /// Returns the name of a file in the temporary directory of a test (`TMPDIR`) whose content
    /// follows the captured output, without its limit of length.
    ///
    /// A harness whose tests print everything needs no implementation.
    fn result_file(&self, _test: &Test) -> Option<&'static str> {
        None
    }

    /// Returns a decoder of the output of the process that [`equip`](Self::equip) returns; `None`
    /// if its output is text for people.
    ///
    /// A harness that runs commands as they are needs no implementation.
    fn decoder(&self, _test: &Test) -> Option<Box<dyn OutputDecoder>> {
        None
    }

    /// Reads the results of single tests from files that a process which [`equip`](Self::equip)
    /// has changed wrote to its private directory. They take the place of
    /// [`parse_cases`](Self::parse_cases). Returns no cases without such a file.
    ///
    /// A harness whose tool writes no such file needs no implementation.
    fn read_cases(&self, _test: &Test, _directory: &Path) -> Vec<CaseReport> {
        Vec::new()
    }

    /// Returns whether a process that exited with 0 has reported the end of its tests. If not, the
    /// test fails: code under test that calls `exit(0)` would otherwise let every test pass.
    ///
    /// `directory` is the private directory of the process. A harness whose tool notices this
    /// itself, or prints nothing by which to tell, needs no implementation.
    fn is_complete(&self, _test: &Test, _output: &[u8], _directory: &Path) -> bool {
        true
    }

    /// Returns how to run a test in one process with others; `None` if it runs alone, as all tests
    /// of a harness without an implementation do.
    fn batch(&self, _test: &Test) -> Option<&dyn Batch> {
        None
    }

    /// Returns how the process of a collection continues with the tests that it has found; `None`
    /// if it ends, as do all collections of a harness without an implementation.
    fn continuation(&self, _collection: &Test) -> Option<&dyn Continuation> {
        None
    }

    /// Reads the summary that a finished process printed. `exit_code` is `None` if a signal ended
    /// it.
    fn parse_summary(&self, test: &Test, exit_code: Option<i32>, output: &[u8]) -> Summary;

    /// Reads the results of single tests from an output without escape sequences; empty if it has
    /// none.
    ///
    /// Without an implementation, reports have one case for each test.
    fn parse_cases(&self, _output: &str) -> Vec<CaseReport> {
        Vec::new()
    }

    /// Returns text to append to the output of a test that failed; `None` if there is nothing to
    /// add.
    ///
    /// Called after the last failed attempt and after a pass. May run parts of the test again,
    /// within the test's time limit. A harness that adds nothing needs no implementation.
    async fn explain_crash(&self, _crash: &Crash<'_>) -> Option<String> {
        None
    }
}
