//! The state that all calls of one client share.

use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use super::arguments::Arguments;
use crate::cli::test::call::TestCall;
use crate::dirs::project_dir;
use crate::error::CliError;

/// The state of a server, which has one client.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The project that the command line names.
    project: Option<PathBuf>,
    /// Held by a call that runs tests: the next one waits, since both would use all CPUs.
    pub(super) running: Mutex<()>,
}

impl Session {
    pub(super) fn new(project: Option<PathBuf>) -> Self {
        Self { project, ..Self::default() }
    }

    /// Reads the arguments that select a project and its tests.
    pub(super) fn call(&self, arguments: &mut Arguments) -> Result<TestCall, String> {
        let named = arguments.text("project")?;
        let project = self.project(named.as_deref().map(Path::new)).map_err(|error| error.to_string())?;
        if !project.is_dir() {
            return Err(format!("invalid value `{}` for `project`: expected a directory", project.display()));
        }
        Ok(TestCall { project, ..TestCall::default() })
    }

    fn project(&self, named: Option<&Path>) -> Result<PathBuf, CliError> {
        let project = match (&self.project, named) {
            (Some(project), Some(named)) => project.join(named),
            (None, Some(named)) => named.to_owned(),
            (project, None) => project_dir(project.as_deref())?,
        };
        let io = |source| CliError::Io { operation: "find", path: project.clone(), source };
        std::path::absolute(&project).map_err(io)
    }
}
