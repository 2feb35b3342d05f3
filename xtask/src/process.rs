//! Runs other programs, cargo above all, and captures their output.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::Result;

/// Returns the workspace's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a subdirectory of the workspace")
}

/// Returns a cargo command that runs in the workspace's directory.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    // Under rustup, `CARGO` names the toolchain's own binary, so that nested calls skip the proxy.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root()).stdin(Stdio::null());
    command
}

/// Returns the target of this system's compiler.
///
/// # Errors
/// If rustc cannot be run.
pub(crate) fn host() -> Result<String> {
    let version = output_of(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("`rustc -vV` does not name a host")?.to_owned())
}

/// Runs a command of cargo that builds, and returns the programs of the target with this name and
/// kind, each with the directory of its package.
///
/// # Errors
/// If the build fails.
pub(crate) fn built(command: &mut Command, name: &str, kind: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let messages = output_of(command.arg("--message-format=json-render-diagnostics"))?;
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let package = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
        let is_wanted = message["target"]["name"] == name && message["target"]["kind"][0] == kind;
        message["executable"].as_str().filter(|_| is_wanted).map(|program| (package, program.into()))
    };
    Ok(messages.lines().filter_map(program).collect())
}

/// Runs a command and returns its standard output.
///
/// # Errors
/// If the command cannot be started or exits with a failure; the message includes all output.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("cannot start {}: {error}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{}: {}\n{}", shown(command), output.status, text_of(&output)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command whose output goes straight to the terminal.
///
/// # Errors
/// If the command cannot be started or exits with a failure.
pub(crate) fn run_visibly(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("cannot start {}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command)).into()) }
}

/// Formats a command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn text_of(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    [text(&output.stdout), text(&output.stderr)].join("\n").trim().to_owned()
}
