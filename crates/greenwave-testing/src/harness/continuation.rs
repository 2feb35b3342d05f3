//! Continues the process of a collection with the tests that it has found.

use std::fmt::Debug;
use std::path::Path;

use super::launch::LaunchSpec;
use crate::{Environment, Error, Test};

/// Runs tests in the process that has collected them, since starting another one can cost more than
/// the tests.
pub trait Continuation: Debug + Send + Sync + 'static {
    /// Changes the process of a collection so that it can continue. `directory` is private to the
    /// process, and files may be written to it.
    ///
    /// When the process has written the [result file](super::Harness::result_file), it queries the
    /// missing file `collected` in `directory`, and reads its standard input to the end. It runs
    /// the tests of the [order](Self::order) that it reads there, or none if the order is empty,
    /// and exits. A process that does not continue exits without the query.
    ///
    /// If another process that it has started collects for it, and has ended before the tests
    /// begin, the query of the missing file `parts/1` begins the collection, and that of `parts/0`
    /// ends it. The tests then do not depend on what only the other process has observed.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    fn prepare(
        &self,
        collection: &Test,
        command: LaunchSpec,
        directory: &Path,
        environment: &Environment,
    ) -> Result<LaunchSpec, Error>;

    /// Returns the order to run these tests, whose results the harness's
    /// [`Batch`](super::Batch) then reads from the private directory; `None` if the process of the
    /// collection cannot run all of them.
    fn order(&self, collection: &Test, tests: &[&Test]) -> Option<Vec<u8>>;
}
