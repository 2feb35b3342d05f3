//! The harness of plain commands, whose exit code is the only result.

use std::path::Path;

use async_trait::async_trait;

use super::Harness;
use super::discovery::{Discovery, DiscoveryInputs};
use super::launch::LaunchSpec;
use super::project::Project;
use super::pytest;
use super::summary::{Summary, TestCount, is_summarized};
use crate::{Environment, Error, HarnessName, Test};

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

    fn trace_decides(&self, test: &Test) -> bool {
        // A user who names directories declares that their files count.
        test.directories.is_empty()
    }

    fn parse_summary(&self, _test: &Test, _exit_code: Option<i32>, output: &[u8]) -> Summary {
        // The command may run any harness, so every recognized summary counts.
        Summary::of_count(TestCount::find(output))
    }

    fn equip(
        &self,
        test: &Test,
        command: LaunchSpec,
        directory: &Path,
        environment: &Environment,
    ) -> Result<LaunchSpec, Error> {
        pytest::equip_by_variables(test, command, directory, environment)
    }

    fn is_complete(&self, _test: &Test, output: &[u8], directory: &Path) -> bool {
        is_summarized(output) && pytest::has_ended(directory)
    }
}
