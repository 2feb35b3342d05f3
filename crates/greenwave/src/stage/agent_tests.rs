//! Runs a feature's tests for an agent that works on it.

use greenwave_agents::{HttpMode, TestCalls, Tester};
use greenwave_testing::Status;

use super::Stage;
use crate::error::FeatureError;
use crate::plan::AgentSpec;
use crate::test_results::try_test;

impl Stage<'_> {
    /// Returns a tester for a model that works with tools, and the receiver of its calls. Tests
    /// that hold resources run only when it is the feature's turn to hold them.
    pub(super) fn tester(&self) -> (Option<Tester>, TestCalls) {
        let (tester, calls) = Tester::new();
        let is_used = match self.agent_spec() {
            Some(AgentSpec::Http(spec)) => spec.options.mode == HttpMode::Tools,
            _ => false,
        };
        let can_run = self.feature().resources.is_empty() && !self.ctx.tests_of(self.id).is_empty();
        (Some(tester).filter(|_| is_used && can_run), calls)
    }

    /// Runs the tests in the workspace as it is. Returns the first failure as text for the agent.
    pub(super) async fn test_for_agent(&self) -> Result<String, FeatureError> {
        let root = self.active.workspace.root();
        for test in self.ctx.tests_of(self.id) {
            let outcome = try_test(self.ctx, self.id, test, root).await?;
            if outcome.status != Status::Passed {
                let output = self.feedback(&outcome.output).text;
                return Ok(format!("test `{}` {}\n\n{output}", test.name, outcome.status));
            }
        }
        Ok("All tests of the feature pass.".to_owned())
    }
}
