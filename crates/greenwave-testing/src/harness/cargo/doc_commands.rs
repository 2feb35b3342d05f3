//! The commands with which cargo runs documentation tests.
//!
//! `cargo test --package NAME --doc` selects the features of one package and would compile its
//! dependencies once more. Hence cargo runs the documentation tests of all packages at once, with a
//! program in place of `rustdoc` that prints how it was called.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use greenwave_dir::Dir;

use super::metadata::{build_output, tool};
use super::run_time::LIBRARY_PATH;
use crate::harness::build::BuildRequest;
use crate::run::private_dir::PrivateDir;

/// Prints the working directory, the number of arguments, the arguments and the variables, each
/// followed by a NUL, and a further NUL at the end.
const RECORDER: &str = "#!/bin/sh\nprintf '%s\\0' \"$PWD\" \"$#\" \"$@\"\nenv -0\nprintf '\\0'\n";

/// The call of `rustdoc` for the documentation tests of a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DocCommand {
    pub(super) directory: PathBuf,
    pub(super) arguments: Vec<OsString>,
    /// Search path of dynamic libraries, which includes those of the compiler.
    pub(super) libraries: Option<OsString>,
}

/// Returns the calls of `rustdoc` by the directory of the package. Empty if cargo fails.
pub(super) async fn record(request: &BuildRequest<'_>) -> HashMap<PathBuf, DocCommand> {
    let at = request.project.join(request.directory);
    let Ok(directory) = PrivateDir::new() else { return HashMap::new() };
    let recorder = directory.path().join("rustdoc");
    let written =
        Dir::open(directory.path()).and_then(|dir| dir.replace_file("rustdoc", RECORDER.as_bytes(), 0o700));
    if written.is_err() {
        return HashMap::new();
    }
    let mut command = tool("cargo", &at, request.environment, request.tests);
    command.args(["test", "--doc", "--no-fail-fast", "--color", "always"]);
    command.env("RUSTDOC", &recorder).stderr(Stdio::piped());
    match build_output(&mut command, request.environment).await {
        Ok(output) if output.status.success() => parse(&output.stdout),
        _ => HashMap::new(),
    }
}

fn parse(output: &[u8]) -> HashMap<PathBuf, DocCommand> {
    let mut commands = HashMap::new();
    let mut fields = output.split(|byte| *byte == 0);
    while let (Some(directory), Some(count)) = (fields.next(), fields.next()) {
        let count = std::str::from_utf8(count).ok().and_then(|count| count.parse().ok());
        let Some(count) = count else { break };
        let arguments = fields.by_ref().take(count).map(|it| OsStr::from_bytes(it).to_owned()).collect();
        let variables: Vec<&[u8]> = fields.by_ref().take_while(|field| !field.is_empty()).collect();
        let variable = |name: &str| {
            let value = variables.iter().find_map(|it| it.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
            value.map(OsStr::from_bytes)
        };
        let Some(package) = variable("CARGO_MANIFEST_DIR") else { continue };
        let libraries = variable(LIBRARY_PATH).map(OsStr::to_owned);
        let directory = Path::new(OsStr::from_bytes(directory)).to_owned();
        commands.insert(PathBuf::from(package), DocCommand { directory, arguments, libraries });
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_recorded_by_package() {
        let output = b"/w\x002\0--test\0a\nb\0LD_LIBRARY_PATH=/l\0DYLD_FALLBACK_LIBRARY_PATH=/l\0\
            CARGO_MANIFEST_DIR=/w/p\0\0/w\x000\0CARGO_MANIFEST_DIR=/w/q\0\0";
        let commands = parse(output);
        let command = |arguments: &[&str], libraries: Option<&str>| DocCommand {
            directory: "/w".into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            libraries: libraries.map(OsString::from),
        };
        assert_eq!(commands[Path::new("/w/p")], command(&["--test", "a\nb"], Some("/l")));
        assert_eq!(commands[Path::new("/w/q")], command(&[], None));
        assert!(parse(b"").is_empty());
        assert!(parse(b"text\nof cargo\0x\0").is_empty());
    }
}
