//! A test whose process has ended, and the means to run parts of it again.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::summary::TestCount;
use crate::{Error, Status, Test};

/// A test that has ended, for [`Harness::explain_crash`](super::Harness::explain_crash).
#[derive(Clone, Copy)]
pub struct Crash<'a> {
    /// The test.
    pub test: &'a Test,
    /// Its last attempt.
    pub process: &'a FinishedProcess,
    /// Runs single tests of it.
    pub rerun: &'a dyn Rerun,
}

impl fmt::Debug for Crash<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Crash");
        debug.field("test", self.test).field("process", self.process).finish_non_exhaustive()
    }
}

/// A process that has ended.
#[derive(Debug, Clone)]
pub struct FinishedProcess {
    /// Verdict of the process.
    pub status: Status,
    /// Number of tests, by the harness's own count.
    pub count: Option<TestCount>,
    /// Captured standard output and error.
    pub output: Bytes,
}

/// Runs a variation of a test in the same project and environment, without caching its result.
#[async_trait]
pub trait Rerun: Send + Sync {
    /// Runs a test once.
    ///
    /// # Errors
    /// If the test cannot be run.
    async fn rerun(&self, test: &Test) -> Result<FinishedProcess, Error>;
}
