//! Runs and times processes in temporary projects.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Time after which timestamps are no longer racy, on any file system.
const RACY_WINDOW: Duration = Duration::from_millis(2_300);

/// Builds the program as it is distributed, and returns its path.
pub(crate) fn build_greenwave() -> PathBuf {
    let args =
        ["build", "--profile=dist", "--package=greenwave-cli", "--message-format=json-render-diagnostics"];
    let built = Command::new(env!("CARGO")).args(args).stderr(Stdio::inherit()).output();
    let built = built.expect("cargo can be started");
    assert!(built.status.success(), "cannot build the program");
    let messages = String::from_utf8(built.stdout).expect("the messages are UTF-8");
    let mut messages = messages.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages.find_map(|message| Some(message["executable"].as_str()?.into()));
    program.expect("the package has a program")
}

pub(crate) fn temporary_directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("greenwave-bench-").tempdir();
    directory.expect("a temporary directory can be created")
}

/// Writes a file, and creates its directory.
pub(crate) fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("the path has a parent")).expect("a directory can be created");
    fs::write(path, text).expect("a file can be written");
}

/// Waits until the timestamps of all files that were written before are no longer racy.
pub(crate) fn wait_for_timestamps() {
    std::thread::sleep(RACY_WINDOW);
}

/// Returns a command in a directory, without variables of the caller that change what tools do.
pub(crate) fn command(program: impl AsRef<OsStr>, directory: &Path) -> Command {
    const PREFIXES: [&str; 3] = ["GREENWAVE_", "CARGO", "RUSTUP_TOOLCHAIN"];
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text != "CARGO_HOME" && PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command.env_remove("GITHUB_STEP_SUMMARY").env_remove("MAKEFLAGS").env_remove("RUSTFLAGS");
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Returns `greenwave test` in a project, with results in `cache`.
pub(crate) fn greenwave(program: &Path, project: &Path, cache: &Path) -> Command {
    let mut command = command(program, project);
    command.args(["test", "--jobs", "2"]).env("XDG_CACHE_HOME", cache);
    command
}

/// Runs a command and returns its wall time in milliseconds, or `None` if it failed.
pub(crate) fn timed(command: &mut Command) -> Option<f64> {
    let begun = Instant::now();
    let status = command.status().ok()?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    status.success().then_some(took)
}

/// Runs `greenwave test` and asserts that either all tests or none have a cached result.
pub(crate) fn assert_cached(command: &mut Command, is_cached: bool) {
    let output =
        command.args(["--format", "json"]).stdout(Stdio::piped()).output().expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tests: Vec<Value> = lines.filter(|line| line["event"] == "test").collect();
    assert!(!tests.is_empty() && tests.iter().all(|test| (test["cached"] == true) == is_cached), "{text}");
}
