//! The supervisor of child processes: this program, started with a hidden argument.

use std::ffi::OsStr;
use std::process::Command;

use greenwave::{Environment, Supervisor};

use crate::key_error::SIGNING;
use crate::secrets::is_secret_setting;
use crate::server_login::TOKEN;

/// The first argument of a supervisor. It shows in lists of processes.
const ARGUMENT: &str = "supervise-children";

/// Serves as a supervisor if the first argument demands it, and returns the exit code.
///
/// Must be called before any thread is started.
pub(crate) fn serve_if_asked() -> Option<i32> {
    let is_asked = std::env::args_os().nth(1).as_deref() == Some(OsStr::new(ARGUMENT));
    is_asked.then(|| i32::from(greenwave::supervise().is_err()))
}

/// Returns the environment of tests and agents, whose processes a supervisor starts.
pub(crate) fn environment() -> Environment {
    // A path that works even if the program was replaced or removed since it was started.
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).env_clear();
    // Agents inherit the environment, and need no password of the server of test results.
    let inherited = std::env::vars_os().filter(|(name, value)| !is_secret_setting(name, value));
    let supervisor = Supervisor::new(command).inheriting(inherited);
    // A project can have its tests ask for any variable.
    let visible = std::env::vars_os().filter(|(name, _)| name != TOKEN && name != SIGNING);
    Environment::new(visible).supervised_by(supervisor)
}
