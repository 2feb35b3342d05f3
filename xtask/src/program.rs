//! Runs other programs, cargo above all, and reads what they print. Knows nothing of what they are run for.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::Result;

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package stands in the workspace's folder")
}

/// A command of the cargo that runs us, in the workspace's folder.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    // Under a tool chain manager the variable leads past it, to the very program that runs us.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root()).stdin(Stdio::null());
    command
}

/// What a command prints to its standard output.
///
/// # Errors
/// If it does not start, or ends otherwise than with success; with everything it printed.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("cannot start {}: {error}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{} ended with {}\n{}", shown(command), output.status, printed(&output)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command that shows its work to whoever watches.
///
/// # Errors
/// If it does not start, or ends otherwise than with success.
pub(crate) fn watch(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("cannot start {}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command)).into()) }
}

/// A command as it would be typed.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    [text(&output.stdout), text(&output.stderr)].join("\n").trim().to_owned()
}
