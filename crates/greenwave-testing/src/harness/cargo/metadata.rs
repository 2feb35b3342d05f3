//! Runs cargo, and reads the metadata of a workspace.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use greenwave_dir::read_regular;
use serde::Deserialize;
use tokio::process::Command;

use crate::harness::problem::Problem;
use crate::harness::project::MANIFEST_BYTES_MAX;
use crate::run::isolation::{cargo_home, tool_homes};
use crate::{Environment, Error, Test};

use super::variables::{BUILD_VARIABLES, VARIABLES};

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
    #[serde(default)]
    pub(super) features: HashMap<String, Vec<String>>,
    #[serde(default)]
    pub(super) authors: Vec<String>,
    pub(super) description: Option<String>,
    pub(super) homepage: Option<String>,
    pub(super) repository: Option<String>,
    pub(super) license: Option<String>,
    pub(super) license_file: Option<String>,
    pub(super) rust_version: Option<String>,
    pub(super) readme: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) kind: Vec<String>,
    #[serde(default)]
    pub(super) test: bool,
    #[serde(default)]
    pub(super) doctest: bool,
    #[serde(default, rename = "required-features")]
    pub(super) required_features: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) rename: Option<String>,
    #[serde(default)]
    pub(super) features: Vec<String>,
    pub(super) path: Option<PathBuf>,
}

impl Metadata {
    /// Returns the packages that cargo selects by default.
    pub(super) fn default_members(&self) -> impl Iterator<Item = &Package> {
        let all = self.workspace_default_members.is_empty();
        let members = if all { &self.workspace_members } else { &self.workspace_default_members };
        self.packages.iter().filter(|package| members.contains(&package.id))
    }
}

impl Package {
    /// Returns the directory of the package.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.manifest_path.parent()
    }
}

/// Runs `cargo metadata` in a directory.
pub(super) async fn metadata(directory: &Path, environment: &Environment) -> Result<Metadata, Error> {
    let mut command = tool("cargo", directory, environment, &[]);
    command.args(["metadata", "--format-version", "1", "--no-deps"]);
    if environment.is_inspecting() {
        // In the project's directory, rustup and cargo would run a toolchain and a compiler that
        // the project names.
        command.arg("--manifest-path").arg(directory.join("Cargo.toml")).current_dir("/");
    }
    let failed = |problem: Problem| problem.discovering("cargo", directory);
    let manifest = directory.join("Cargo.toml");
    match read_regular(&manifest, MANIFEST_BYTES_MAX) {
        // cargo would read a device without end.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("read", &manifest)(error));
        }
        _ => {}
    }
    let output = environment.output(&mut command).await.map_err(|source| failed(not_started(source)))?;
    if !output.status.success() {
        return Err(failed(refused("cargo metadata", &output.stderr)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|source| failed(Problem::Output { command: "cargo metadata", source }))
}

/// Returns the problem that cargo did not start.
pub(super) fn not_started(source: io::Error) -> Problem {
    Problem::Start { program: "cargo".to_owned(), source }
}

/// Returns the problem that a command of cargo failed.
pub(super) fn refused(command: &'static str, stderr: &[u8]) -> Problem {
    Problem::Failed { command, output: String::from_utf8_lossy(stderr).trim().to_owned() }
}

/// Creates a process of cargo or the compiler. It sees the variables that these tests declare,
/// variables that only cargo needs, and the user's home.
pub(super) fn tool(program: &str, directory: &Path, environment: &Environment, tests: &[&Test]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let own = VARIABLES.iter().chain(&BUILD_VARIABLES).map(|name| (*name).to_owned());
    let declared: Vec<String> = own.chain(tests.iter().flat_map(|test| test.env.iter().cloned())).collect();
    command.envs(environment.visible(&declared)).envs(tool_homes(environment));
    if let Some(home) = environment.get("HOME") {
        command.env("HOME", home);
    }
    command
}

/// Runs a command of cargo that may run for long, and kills everything that it started if the
/// future is dropped.
pub(super) async fn build_output(command: &mut Command, environment: &Environment) -> io::Result<Output> {
    if let (Some(_), Some(home)) = (environment.guard(), cargo_home(environment)) {
        // Under a guard, cargo could not create it.
        let _ = fs::create_dir_all(home);
    }
    environment.guarded_output(command).await
}
