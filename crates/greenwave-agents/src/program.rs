//! Finds programs and prepares their environment.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::process::Command;

use crate::Preflight;

/// Variables that keep a program from waiting for a person, and from decorating its output.
///
/// `CI` is not among them, because it changes what tools do: pnpm refuses to update its lock file,
/// and test runners write other reports.
const UNATTENDED: [(&str, &str); 8] = [
    ("TERM", "dumb"),
    ("NO_COLOR", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_EDITOR", "true"),
    ("EDITOR", "true"),
    ("VISUAL", "true"),
    ("SSH_ASKPASS_REQUIRE", "never"),
    ("DEBIAN_FRONTEND", "noninteractive"),
];

/// Variables that request colors even without a terminal.
const REMOVED: [&str; 2] = ["FORCE_COLOR", "CLICOLOR_FORCE"];

/// Sets the environment variables of a program that nobody watches.
pub(crate) fn set_unattended(command: &mut Command) {
    command.envs(UNATTENDED);
    for name in REMOVED {
        command.env_remove(name);
    }
}

/// Returns whether a program exists and can be executed, searched as `execvp` does.
pub(crate) fn exists(program: &str, context: &Preflight<'_>) -> bool {
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return is_program(&context.directory.join(program));
    }
    // Without `PATH`, the search uses a default that depends on the system.
    let Some(search_path) = context.search_path else { return true };
    std::env::split_paths(search_path)
        .any(|directory| is_program(&context.directory.join(directory).join(program)))
}
