//! The source of test results.

use std::fmt::Debug;
use std::path::Path;

use async_trait::async_trait;
use greenwave_cache::TieredStats;
use greenwave_inputs::{FileStamp, ManifestEntry, SharedHashes};
use greenwave_testing::{CommandHarness, Error, Harness, Harnesses, Outcome, Runner, Test, TestSlots};

/// Runs tests and looks up cached results.
///
/// [`Runner`] implements it; the simulation replaces it by results that it computes.
#[async_trait]
pub(crate) trait TestRunner: Debug + Send + Sync + 'static {
    /// Returns the result of a test in a directory, cached or from running it.
    async fn run(&self, root: &Path, test: &Test) -> Result<Outcome, Error>;

    /// Discovers the tests of the project in a directory.
    async fn discover(&self, root: &Path) -> Result<Vec<Test>, Error>;

    /// Returns the harness of a test.
    fn harness(&self, _test: &Test) -> &dyn Harness {
        &CommandHarness
    }

    /// Replaces the harnesses.
    fn set_harnesses(&mut self, _harnesses: Harnesses) {}

    /// Limits how many tests run at once.
    fn set_slots(&mut self, slots: TestSlots);

    /// Runs a test in a directory even if its result is cached.
    async fn run_again(&self, root: &Path, test: &Test) -> Result<Outcome, Error>;

    /// Returns the cached result of a test in a directory. Never runs the test.
    async fn cached(&self, root: &Path, test: &Test) -> Result<Option<Outcome>, Error>;

    /// Returns the figures of the cache.
    fn stats(&self) -> TieredStats;

    /// Adds hashes of files in directories that tests will run in.
    fn add_hashes(&self, _files: Vec<(FileStamp, ManifestEntry)>) {}

    /// Adds hashes of files that the directory on a device shares with others.
    fn share_hashes(&self, _device: u64, _files: &SharedHashes) {}

    /// Makes stored results durable.
    async fn flush(&self);
}

#[async_trait]
impl TestRunner for Runner {
    async fn run(&self, root: &Path, test: &Test) -> Result<Outcome, Error> {
        Runner::run(self, root, test).await
    }

    async fn discover(&self, root: &Path) -> Result<Vec<Test>, Error> {
        Ok(Runner::discover(self, root).await?.tests)
    }

    fn harness(&self, test: &Test) -> &dyn Harness {
        Runner::harness(self, test)
    }

    fn set_harnesses(&mut self, harnesses: Harnesses) {
        Runner::set_harnesses(self, harnesses);
    }

    fn set_slots(&mut self, slots: TestSlots) {
        Runner::set_slots(self, slots);
    }

    async fn run_again(&self, root: &Path, test: &Test) -> Result<Outcome, Error> {
        Runner::rerun(self, root, test).await
    }

    async fn cached(&self, root: &Path, test: &Test) -> Result<Option<Outcome>, Error> {
        Runner::cached_result(self, root, test).await
    }

    fn stats(&self) -> TieredStats {
        Runner::stats(self)
    }

    fn add_hashes(&self, files: Vec<(FileStamp, ManifestEntry)>) {
        Runner::add_hashes(self, files.into_iter());
    }

    fn share_hashes(&self, device: u64, files: &SharedHashes) {
        Runner::share_hashes(self, device, files);
    }

    async fn flush(&self) {
        Runner::flush(self).await;
    }
}
