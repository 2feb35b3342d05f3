//! The state that the calls of clients share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_testing::RunReport;
use parking_lot::Mutex;
use serde_json::Value;

use super::arguments::Arguments;
use super::plan_runs::PlanRun;
use crate::cli::test::call::TestCall;
use crate::dirs::project_dir;
use crate::error::CliError;

/// The state of a client's calls.
#[derive(Debug, Default)]
pub(in crate::cli::mcp) struct Session {
    /// The project that the command line names.
    project: Option<PathBuf>,
    /// Held by a call that runs tests: the next one waits, since both would use all CPUs.
    pub(super) running: Arc<tokio::sync::Mutex<()>>,
    /// The last run of tests.
    pub(super) last: Mutex<Option<LastRun>>,
    /// The newest run of each plan that this server has started.
    plans: Arc<tokio::sync::Mutex<HashMap<PathBuf, Arc<PlanRun>>>>,
}

/// A run of tests that has ended.
#[derive(Debug)]
pub(super) struct LastRun {
    /// The answer to the call.
    pub(super) answer: Value,
    /// The result of each test; `None` if an up-to-date record says that all are cached.
    pub(super) report: Option<RunReport>,
}

impl Session {
    pub(in crate::cli::mcp) fn new(project: Option<PathBuf>) -> Self {
        Self { project, ..Self::default() }
    }

    /// Returns the state of another client, which has run nothing, on the same server.
    pub(super) fn of_another_client(&self) -> Self {
        let (running, plans) = (Arc::clone(&self.running), Arc::clone(&self.plans));
        Self { project: self.project.clone(), running, last: Mutex::default(), plans }
    }

    /// Reads the arguments that select a project and its tests.
    pub(super) fn call(&self, arguments: &mut Arguments) -> Result<TestCall, String> {
        let named = arguments.text("project")?;
        let project = self.project(named.as_deref()).map_err(|error| error.to_string())?;
        if !project.is_dir() {
            return Err(format!("invalid value `{}` for `project`: expected a directory", project.display()));
        }
        Ok(TestCall { project, ..TestCall::default() })
    }

    /// Returns the absolute path of a project, or of the server's own.
    pub(super) fn project(&self, named: Option<&str>) -> Result<PathBuf, CliError> {
        let project = match (&self.project, named) {
            (Some(project), Some(named)) => project.join(named),
            (None, Some(named)) => PathBuf::from(named),
            (project, None) => project_dir(project.as_deref())?,
        };
        let io = |source| CliError::Io { operation: "find", path: project.clone(), source };
        std::path::absolute(&project).map_err(io)
    }

    /// Returns the path of a plan, which is relative to the project.
    pub(super) fn plan(&self, named: &str) -> Result<PathBuf, CliError> {
        Ok(self.project(None)?.join(named))
    }

    /// Returns the run of a plan that is active, or starts one.
    pub(super) async fn run_of(&self, plan: &Path, budget: Option<f64>) -> Result<Arc<PlanRun>, CliError> {
        let mut plans = self.plans.lock().await;
        if let Some(run) = plans.get(plan) {
            if run.is_stopping() {
                run.ended().await;
            }
            if run.is_running() {
                return Ok(Arc::clone(run));
            }
        }
        let run = PlanRun::start(plan, budget).await?;
        plans.insert(plan.to_owned(), Arc::clone(&run));
        Ok(run)
    }

    /// Returns the newest run of a plan that this server has started.
    pub(super) async fn started_run(&self, plan: &Path) -> Option<Arc<PlanRun>> {
        self.plans.lock().await.get(plan).cloned()
    }

    /// Stops all runs of plans, and waits for their end.
    pub(in crate::cli::mcp) async fn stop_plans(&self) {
        let plans = self.plans.lock().await;
        plans.values().for_each(|run| run.stop());
        for run in plans.values() {
            run.ended().await;
        }
    }
}
