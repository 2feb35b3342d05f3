//! Runs several tests in one process, since starting one can cost more than a test.

use std::ffi::OsString;
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use super::summary::{CaseReport, TestCount};
use crate::{Environment, Error, Status, Test};

/// Runs several tests of a harness in one process.
///
/// Tests that share a process differ in the last word of their commands only. A test that did not
/// clearly pass runs again, alone.
pub trait Batch: Debug + Send + Sync + 'static {
    /// Returns the command that runs all of `tests`.
    ///
    /// May write files to `directory`, which is private to the process.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    fn prepare(
        &self,
        tests: &[&Test],
        directory: &Path,
        environment: &Environment,
    ) -> Result<BatchCommand, Error>;

    /// Returns the command that runs each of `tests` in a separate process, forked from a common
    /// one. Returns `None` if the harness has no such command, as without an implementation.
    ///
    /// Before it starts the process of the test at index `n`, the command queries the missing file
    /// `parts/N` in `directory`, where `N` is `n + 1` in decimal digits.
    /// After all of them it queries the next number. Until [`ran_apart`](Self::ran_apart) has
    /// returned `true`, every test depends on what any of the processes has read.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    fn prepare_apart(
        &self,
        _tests: &[&Test],
        _directory: &Path,
        _environment: &Environment,
    ) -> Result<Option<BatchCommand>, Error> {
        Ok(None)
    }

    /// Returns whether no process of a test outlived the test, and none of them could change what
    /// later ones do except through files.
    fn ran_apart(&self, _directory: &Path) -> bool {
        false
    }

    /// Returns the result of each test that clearly passed or failed, in the order of `tests`.
    fn results(&self, tests: &[&Test], status: Status, directory: &Path) -> Vec<Option<BatchResult>>;
}

/// The arguments and variables of a process that runs several tests.
#[derive(Debug, Clone, Default)]
pub struct BatchCommand {
    /// Arguments of the program that the tests' commands name.
    pub arguments: Vec<OsString>,
    /// Variables, which replace those of the tests.
    pub variables: Vec<(OsString, OsString)>,
}

/// The result of a test in a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchResult {
    /// Whether the test passed.
    pub passed: bool,
    /// Numbers of single tests.
    pub count: TestCount,
    /// Results of single tests.
    pub cases: Vec<CaseReport>,
    /// Output of this test.
    pub output: String,
    /// Duration of this test.
    pub duration: Duration,
}
