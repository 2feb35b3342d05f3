//! The harness of plain commands, whose exit code is the only result.

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
use super::summary::{Summary, TestCount};
use crate::{CaseReport, Error, HarnessName, Test};

/// The harness of every command that no other harness recognizes: one command, one result.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommandHarness;

#[async_trait]
impl Harness for CommandHarness {
    fn name(&self) -> &'static str {
        HarnessName::COMMAND
    }

    fn recognizes(&self, _command: &[String]) -> bool {
        true
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

    fn parse_summary(&self, _test: &Test, _exit_code: Option<i32>, output: &[u8]) -> Summary {
        // The command may run any harness, so every recognized summary counts.
        Summary::of_count(TestCount::find(output))
    }

    fn parse_cases(&self, _output: &str) -> Vec<CaseReport> {
        Vec::new()
    }

    async fn explain_crash(&self, _crash: &Crash<'_>) -> Option<String> {
        None
    }
}
