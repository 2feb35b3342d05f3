//! The harness of commands that write JUnit XML, which decides their results.

pub(crate) mod xml;

use std::sync::Arc;

use async_trait::async_trait;

use super::Harness;
use super::batch::Batch;
use super::build::{BuildOutput, BuildRequest};
use super::crash::Crash;
use super::discovery::{Discovery, DiscoveryInputs};
use super::launch::LaunchSpec;
use super::listing::{Listing, ListingContext};
use super::project::Project;
use super::summary::Summary;
use crate::{CaseReport, Error, Test};

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

    fn listing_commands(&self, _test: &Test, _context: &ListingContext<'_>) -> Vec<Test> {
        Vec::new()
    }

    async fn list(&self, tests: &[&Test], _context: &ListingContext<'_>) -> Result<Vec<Listing>, Error> {
        Ok(vec![Listing::Whole; tests.len()])
    }

    fn needs_build(&self, _test: &Test) -> bool {
        false
    }

    async fn build(&self, _request: &BuildRequest<'_>) -> Result<Option<Arc<dyn BuildOutput>>, Error> {
        Ok(None)
    }

    fn launch(&self, _test: &Test, _built: Option<&dyn BuildOutput>, command: LaunchSpec) -> LaunchSpec {
        command
    }

    fn batch(&self, _test: &Test) -> Option<&dyn Batch> {
        None
    }

    fn parse_summary(&self, _test: &Test, _exit_code: Option<i32>, _output: &[u8]) -> Summary {
        // The reports have the numbers.
        Summary::default()
    }

    fn parse_cases(&self, _output: &str) -> Vec<CaseReport> {
        Vec::new()
    }

    async fn explain_crash(&self, _crash: &Crash<'_>) -> Option<String> {
        None
    }
}
