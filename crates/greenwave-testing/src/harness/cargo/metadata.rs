//! Runs cargo, and reads the metadata of a workspace.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;

use crate::harness::problem::Problem;
use crate::run::isolation::tool_homes;
use crate::{Environment, Error};

/// Variable that names the target directory.
pub(super) const TARGET_VARIABLE: &str = "CARGO_TARGET_DIR";

/// The part of the output of `cargo metadata` that matters here
/// (<https://doc.rust-lang.org/cargo/commands/cargo-metadata.html>).
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) packages: Vec<Package>,
    pub(super) workspace_members: Vec<String>,
    #[serde(default)]
    pub(super) workspace_default_members: Vec<String>,
    pub(super) workspace_root: PathBuf,
    pub(super) target_directory: PathBuf,
    /// Directory of intermediate files, if it is a separate one (`build.build-dir`, cargo 1.91).
    #[serde(default)]
    pub(super) build_directory: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) manifest_path: PathBuf,
    pub(super) targets: Vec<Target>,
    pub(super) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) kind: Vec<String>,
    #[serde(default)]
    pub(super) test: bool,
    #[serde(default)]
    pub(super) doctest: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) path: Option<PathBuf>,
}

/// Runs `cargo metadata` in a directory.
pub(super) async fn metadata(directory: &Path, environment: &Environment) -> Result<Metadata, Error> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps"];
    let mut command = cargo(directory, environment, arguments);
    if environment.is_inspecting() {
        // In the project's directory, rustup and cargo would run a toolchain and a compiler that
        // the project names.
        command.arg("--manifest-path").arg(directory.join("Cargo.toml")).current_dir("/");
    }
    let failed = |problem: Problem| problem.discovering("cargo", directory);
    let output = environment.output(&mut command).await.map_err(|source| failed(not_started(source)))?;
    if !output.status.success() {
        return Err(failed(refused("cargo metadata", &output.stderr)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|source| failed(Problem::Output { command: "cargo metadata", source }))
}

/// Returns the problem that cargo did not start.
pub(super) fn not_started(source: std::io::Error) -> Problem {
    Problem::Start { program: "cargo".to_owned(), source }
}

/// Returns the problem that a command of cargo failed.
pub(super) fn refused(command: &'static str, stderr: &[u8]) -> Problem {
    Problem::Failed { command, output: String::from_utf8_lossy(stderr).trim().to_owned() }
}

/// Creates a cargo process that sees the variables that tests see, and the user's home.
pub(super) fn cargo<'a>(
    directory: &Path,
    environment: &Environment,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(directory).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command.envs(environment.visible(&[])).envs(tool_homes(environment));
    command.envs(environment.get(TARGET_VARIABLE).map(|target| (TARGET_VARIABLE, target)));
    if let Some(home) = environment.get("HOME") {
        command.env("HOME", home);
    }
    command
}
