//! The harness of commands that write JUnit XML, which decides their results.

mod input;
pub(crate) mod room;
pub(crate) mod xml;

use async_trait::async_trait;

use super::Harness;
use super::discovery::{Discovery, DiscoveryInputs};
use super::project::Project;
use super::summary::Summary;
use crate::{Error, Test};

/// Name of the harness.
const HARNESS: &str = "junit";

/// The harness of tests with [`JunitReports`](crate::JunitReports). A user names it; no command is
/// recognized, and no tests are discovered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JunitHarness;

#[async_trait]
impl Harness for JunitHarness {
    fn name(&self) -> &'static str {
        HARNESS
    }

    fn recognizes(&self, _command: &[String]) -> bool {
        false
    }

    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs::default()
    }

    async fn discover(&self, _project: &Project) -> Result<Discovery, Error> {
        Ok(Discovery::default())
    }

    fn trace_decides(&self, test: &Test) -> bool {
        // A user who names directories declares that their files count.
        test.directories.is_empty()
    }

    fn parse_summary(&self, _test: &Test, _exit_code: Option<i32>, _output: &[u8]) -> Summary {
        // The reports have the numbers.
        Summary::default()
    }
}
