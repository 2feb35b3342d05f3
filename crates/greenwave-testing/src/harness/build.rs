//! Builds the programs of tests before they are launched.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::launch::LaunchSpec;
use crate::{Environment, Error, Test};

/// A directory whose tests are about to be launched.
#[derive(Debug, Clone, Copy)]
pub struct BuildRequest<'a> {
    /// Absolute path of the project.
    pub project: &'a Path,
    /// Directory of the tests, relative to the project.
    pub directory: &'a Path,
    /// Variables of the run.
    pub environment: &'a Environment,
    /// Tests in the directory. They all declare the same variables, which the build sees as well.
    pub tests: &'a [&'a Test],
}

/// The programs that a [`Harness`](super::Harness) has built in a directory.
#[async_trait]
pub trait BuildOutput: Debug + Send + Sync + 'static {
    /// Returns the process to start for a test, given the process that its command describes.
    fn launch(&self, test: &Test, command: LaunchSpec) -> LaunchSpec;

    /// Returns whether everything in the directory was built without errors.
    ///
    /// Cached results that depend on an incomplete build are not reused.
    fn is_complete(&self) -> bool;

    /// Returns the directories that the build tool writes to, as absolute paths without symbolic
    /// links.
    fn output_directories(&self) -> &[PathBuf];

    /// Discards programs that the build tool reused although their sources may have changed.
    ///
    /// Returns whether anything was discarded; the caller then builds again, up to three times.
    ///
    /// # Errors
    /// If the build tool cannot be run.
    async fn discard_stale(&self, request: &BuildRequest<'_>) -> Result<bool, Error>;
}
