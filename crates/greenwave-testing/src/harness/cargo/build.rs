//! Builds the test programs of a cargo workspace, and records the sources that each was built from.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::process::Command;

use super::HARNESS;
use super::dep_info::{dep_info, script_reads};
use super::failures::BuildFailures;
use super::metadata::{Metadata, Package, TARGET_VARIABLE, Target, cargo, metadata, not_started, refused};
use super::products::Products;
use super::target::{CargoTarget, is_nextest, program_arguments};
use crate::harness::build::{BuildOutput, BuildRequest};
use crate::harness::launch::LaunchSpec;
use crate::run::isolation::{cargo_home, tool_homes};
use crate::{Environment, Error, Test};
use greenwave_inputs::{AccessKind, FileStamp, now_ns};

/// The output of one build.
#[derive(Debug, Default)]
pub(super) struct Build {
    programs: HashMap<CargoTarget, Program>,
    /// Sources of each package, without those of registries.
    sources: HashMap<String, BTreeSet<PathBuf>>,
    depends_on: HashMap<String, Vec<String>>,
    variables: HashMap<String, Vec<(OsString, OsString)>>,
    settings: Vec<PathBuf>,
    /// Sources of path dependencies outside the workspace. Cargo does not say which packages use
    /// them, so every package depends on all of them.
    outside: BTreeSet<PathBuf>,
    /// The directories that cargo builds into, without symbolic links.
    roots: Vec<PathBuf>,
    /// Files that the build produced, by package; those of packages outside the workspace by the
    /// empty name.
    artifacts: HashMap<String, Vec<PathBuf>>,
    /// The workspace's directory, relative to the project.
    workspace: PathBuf,
    /// Whether everything was built.
    is_complete: bool,
    /// The target directory, if a variable names it.
    target_variable: Option<(OsString, OsString)>,
    /// Start of the build, in nanoseconds since the Unix epoch.
    began: i64,
    /// Packages that cargo considered fresh although their sources changed since they were built.
    stale: BTreeSet<String>,
    /// The parts that the compiler has rejected.
    failures: BuildFailures,
}

#[derive(Debug)]
struct Program {
    path: PathBuf,
    directory: PathBuf,
}

/// One line of cargo's output
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>).
#[derive(Debug, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact(Artifact),
    CompilerMessage(CompilerMessage),
    BuildScriptExecuted(Script),
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Artifact {
    package_id: String,
    target: Target,
    profile: Profile,
    filenames: Vec<PathBuf>,
    fresh: bool,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct CompilerMessage {
    package_id: String,
    target: Target,
    message: Diagnostic,
}

#[derive(Debug, Deserialize)]
struct Diagnostic {
    /// Text for people.
    #[serde(default)]
    rendered: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Script {
    package_id: String,
    env: Vec<(String, String)>,
    out_dir: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// Arguments that build all test programs and report them as JSON.
const BUILD: [&str; 7] = [
    "test",
    "--no-run",
    "--no-fail-fast",
    "--message-format",
    "json-diagnostic-rendered-ansi",
    "--color",
    "always",
];

/// Exit code of cargo when the compiler has rejected a program.
const CARGO_FAILURE: i32 = 101;

impl Build {
    /// Builds the programs of all tests of the workspace in a directory. What cannot be built is
    /// missing.
    ///
    /// # Errors
    /// [`Error::Discover`] if cargo cannot be run at all.
    pub(super) async fn run(request: &BuildRequest<'_>) -> Result<Self, Error> {
        let began = now_ns();
        let BuildRequest { project, directory, environment } = *request;
        let at = project.join(directory);
        let mut command = cargo(&at, environment, BUILD);
        command.stderr(Stdio::piped());
        let (metadata, output, library) = tokio::join!(
            metadata(&at, environment),
            build_output(&mut command, environment),
            library(environment)
        );
        let metadata = metadata?;
        let output = output.map_err(|source| not_started(source).discovering(HARNESS, &at))?;
        let target = environment.get(TARGET_VARIABLE).map(|_| &metadata.target_directory);
        let build = Self {
            settings: settings(project, cargo_home(environment).as_deref()),
            began,
            workspace: directory.to_owned(),
            is_complete: output.status.success(),
            target_variable: target.map(|target| (TARGET_VARIABLE.into(), target.into())),
            ..Self::default()
        };
        let mut reader = MessageReader::new(build, &metadata, &at, cargo_home(environment));
        for line in output.stdout.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Message::CompilerArtifact(artifact)) => reader.artifact(artifact),
                Ok(Message::CompilerMessage(message)) => reader.message(message),
                Ok(Message::BuildScriptExecuted(script)) => reader.script(script),
                Ok(Message::Other) | Err(_) => {}
            }
        }
        reader.build.failures.read_stderr(&String::from_utf8_lossy(&output.stderr));
        let libraries = library.and_then(|library| libraries(&metadata.target_directory, library));
        Ok(reader.finish(libraries.as_deref()))
    }

    /// Returns the sources of a package and of all packages that it depends on.
    fn dependencies(&self, package: &str) -> Vec<(PathBuf, AccessKind)> {
        let reached = self.reached(package);
        let sources = reached.iter().filter_map(|name| self.sources.get(*name)).flatten();
        sources
            .chain(&self.outside)
            .chain(&self.settings)
            .map(|path| (path.clone(), AccessKind::Content))
            .collect()
    }

    /// Returns a package and the packages of the workspace that it depends on.
    fn reached<'b>(&'b self, package: &'b str) -> Vec<&'b str> {
        let mut reached: Vec<&str> = Vec::new();
        let mut waiting = vec![package];
        while let Some(name) = waiting.pop() {
            if !reached.contains(&name) {
                reached.push(name);
                waiting.extend(self.depends_on.get(name).into_iter().flatten().map(String::as_str));
            }
        }
        reached
    }

    /// Returns the compiler's messages, if they are the reason why a test has no program.
    fn explain_failure(&self, test: &Test, target: &CargoTarget) -> Option<String> {
        let runs_program = target.kind != "doc" && !is_nextest(test) && !self.is_complete;
        let reached = self.reached(&target.package);
        self.failures.explain(target, &reached).filter(|_| runs_program)
    }

    /// Returns how a test of this package sees cargo's directories. `runs_cargo` says that the
    /// test's command is cargo itself.
    fn products(&self, package: &str, runs_cargo: bool) -> Products {
        let owners = self.reached(package).into_iter().chain([""]);
        let own = owners.filter_map(|name| self.artifacts.get(name)).flatten();
        Products {
            roots: self.roots.clone(),
            own: Arc::new(own.cloned().collect()),
            workspace: Some(self.workspace.clone()),
            is_complete: self.is_complete,
            runs_cargo,
        }
    }
}

#[async_trait]
impl BuildOutput for Build {
    fn launch(&self, test: &Test, command: LaunchSpec) -> LaunchSpec {
        let Some(target) = CargoTarget::of(test) else { return command };
        let package = target.package.as_str();
        let program = self.programs.get(&target).filter(|_| !is_nextest(test));
        let is_built = program.is_some();
        let launch = match program {
            Some(program) => LaunchSpec::new(&program.path, &program.directory)
                .arguments(["--color".into(), "always".into()])
                .arguments(program_arguments(test).iter().map(OsString::from))
                .variables(self.variables.get(package).cloned().unwrap_or_default()),
            None => match self.explain_failure(test, &target) {
                Some(messages) => command.build_failed(messages, CARGO_FAILURE),
                // Documentation is run by cargo. So are programs that cargo did not get to build,
                // because another one failed before.
                None => command.variables(self.target_variable.clone()),
            },
        };
        LaunchSpec {
            dependencies: self.dependencies(package),
            since: self.began,
            products: Some(self.products(package, !is_built)),
            ..launch
        }
    }

    fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn output_directories(&self) -> &[PathBuf] {
        &self.roots
    }

    async fn discard_stale(&self, request: &BuildRequest<'_>) -> Result<bool, Error> {
        if self.stale.is_empty() {
            return Ok(false);
        }
        let names = self.stale.iter().flat_map(|name| ["--package", name]);
        let at = request.project.join(request.directory);
        let mut command = cargo(&at, request.environment, ["clean"].into_iter().chain(names));
        command.stderr(Stdio::piped());
        match build_output(&mut command, request.environment).await {
            Ok(output) if output.status.success() => Ok(true),
            Ok(output) => Err(refused("cargo clean", &output.stderr).discovering(HARNESS, &at)),
            Err(source) => Err(not_started(source).discovering(HARNESS, &at)),
        }
    }
}

/// Collects what cargo prints during a build.
struct MessageReader<'m> {
    build: Build,
    metadata: &'m Metadata,
    packages: HashMap<&'m str, &'m Package>,
    /// The directory that cargo ran in.
    at: &'m Path,
    cargo_home: Option<PathBuf>,
    /// The directories that cargo builds into, each with its name without symbolic links.
    roots: Vec<(PathBuf, PathBuf)>,
    script_variables: HashMap<String, Vec<(OsString, OsString)>>,
    program_variables: HashMap<String, Vec<(OsString, OsString)>>,
}

impl<'m> MessageReader<'m> {
    fn new(mut build: Build, metadata: &'m Metadata, at: &'m Path, cargo_home: Option<PathBuf>) -> Self {
        let roots = [&metadata.target_directory].into_iter().chain(&metadata.build_directory);
        let resolve = |root: &PathBuf| root.canonicalize().unwrap_or_else(|_| root.clone());
        let roots: Vec<(PathBuf, PathBuf)> = roots.map(|root| (root.clone(), resolve(root))).collect();
        build.roots = roots.iter().map(|(_, resolved)| resolved.clone()).collect();
        build.roots.dedup();
        Self {
            build,
            metadata,
            packages: metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect(),
            at,
            cargo_home,
            roots,
            script_variables: HashMap::new(),
            program_variables: HashMap::new(),
        }
    }

    fn message(&mut self, message: CompilerMessage) {
        let CompilerMessage { package_id, target, message: Diagnostic { rendered } } = message;
        let package = self.packages.get(package_id.as_str());
        if let (Some(package), Some(text)) = (package, rendered) {
            self.build.failures.add_message(&package.name, &target, text);
        }
    }

    fn artifact(&mut self, artifact: Artifact) {
        let Artifact { package_id, target, profile, filenames, fresh, executable } = artifact;
        let package = self.packages.get(package_id.as_str()).copied();
        let files: Vec<&PathBuf> = executable.iter().chain(&filenames).collect();
        let owner = package.map(|package| package.name.clone()).unwrap_or_default();
        let resolved: Vec<PathBuf> = files.iter().map(|file| self.resolved(file)).collect();
        self.build.artifacts.entry(owner).or_default().extend(resolved);
        let Some(package) = package else {
            if let Some(directory) = directory_of(&package_id) {
                self.build.outside.insert(directory.join("Cargo.toml"));
                let read = files.into_iter().flat_map(|file| dep_info(file, &self.metadata.workspace_root));
                let read: Vec<PathBuf> = read.filter(|path| self.is_source(path)).collect();
                self.build.outside.extend(read);
            }
            return;
        };
        for file in files {
            let read = dep_info(file, &self.metadata.workspace_root);
            if fresh && read.iter().any(|source| is_younger(source, file)) {
                self.build.stale.insert(package.name.clone());
            }
            self.add_sources(package, read);
        }
        if let Some(program) = executable {
            self.program(package, target, profile.test, program);
        }
    }

    fn program(&mut self, package: &Package, target: Target, is_test: bool, path: PathBuf) {
        let kind = target.kind.first().map_or("lib", String::as_str);
        let kind = if matches!(kind, "bin" | "test" | "example" | "bench") { kind } else { "lib" };
        let owner = package.name.clone();
        if is_test {
            let directory = package.manifest_path.parent().unwrap_or(self.at).to_owned();
            // A package has one library.
            let name = if kind == "lib" { String::new() } else { target.name };
            let key = CargoTarget { package: owner, kind: kind.to_owned(), name };
            self.build.programs.insert(key, Program { path, directory });
        } else if kind == "bin" {
            let name = format!("CARGO_BIN_EXE_{}", target.name);
            self.program_variables.entry(owner).or_default().push((name.into(), path.into()));
        }
    }

    fn script(&mut self, script: Script) {
        let Script { package_id, env, out_dir } = script;
        let Some(package) = self.packages.get(package_id.as_str()).copied() else {
            let directory = directory_of(&package_id);
            let read = directory.iter().flat_map(|directory| script_reads(&out_dir, directory));
            let read: Vec<PathBuf> = read.filter(|path| self.is_source(path)).collect();
            self.build.outside.extend(read);
            return;
        };
        let variables = self.script_variables.entry(package.name.clone()).or_default();
        variables.extend(env.into_iter().map(|(name, value)| (name.into(), value.into())));
        variables.push(("OUT_DIR".into(), out_dir.clone().into()));
        let directory = package.manifest_path.parent().unwrap_or(self.at);
        self.add_sources(package, script_reads(&out_dir, directory));
    }

    fn add_sources(&mut self, package: &Package, read: Vec<PathBuf>) {
        let sources: Vec<PathBuf> = read.into_iter().filter(|path| self.is_source(path)).collect();
        self.build.sources.entry(package.name.clone()).or_default().extend(sources);
    }

    /// Adds dependencies and variables of each package of the workspace.
    fn finish(mut self, libraries: Option<&OsStr>) -> Build {
        let packages = &self.metadata.packages;
        let by_directory: HashMap<&Path, &str> = packages
            .iter()
            .filter_map(|package| Some((package.manifest_path.parent()?, package.name.as_str())))
            .collect();
        for package in packages {
            let names = package.dependencies.iter().filter_map(|it| by_directory.get(it.path.as_deref()?));
            let names = names.map(|name| (*name).to_owned()).collect();
            self.build.depends_on.insert(package.name.clone(), names);
            let mut variables = package_variables(package);
            variables.extend(libraries.map(|path| ("LD_LIBRARY_PATH".into(), path.to_owned())));
            variables.extend(self.script_variables.remove(&package.name).unwrap_or_default());
            variables.extend(self.program_variables.remove(&package.name).unwrap_or_default());
            self.build.variables.insert(package.name.clone(), variables);
        }
        self.build
    }

    /// Returns whether a file is neither built by cargo nor fetched by it.
    fn is_source(&self, path: &Path) -> bool {
        !path.starts_with(&self.metadata.target_directory)
            && !self.cargo_home.as_ref().is_some_and(|home| path.starts_with(home))
    }

    /// Returns a path of cargo's directories without symbolic links, as tracing reports it.
    fn resolved(&self, path: &Path) -> PathBuf {
        let inside = |(root, name): &(PathBuf, PathBuf)| Some(name.join(path.strip_prefix(root).ok()?));
        self.roots.iter().find_map(inside).unwrap_or_else(|| path.to_owned())
    }
}

/// Prefix of the package ids of path dependencies
/// (<https://doc.rust-lang.org/cargo/reference/pkgid-spec.html>).
const PATH_SCHEME: &str = "path+file:";
/// Returns the directory of a path dependency; `None` for other packages, which lock files identify
/// by hash.
fn directory_of(package_id: &str) -> Option<PathBuf> {
    let (_, path) = package_id.split_once(PATH_SCHEME)?;
    let path = path.split(['#', ')', '?']).next()?.trim_start_matches("//");
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *byte == b'%').and_then(|code| std::str::from_utf8(code).ok());
        let decoded = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(decoded.unwrap_or(*byte));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

/// Returns whether a source changed after a file was built from it although its modification time
/// is older. Cargo compares modification times only
/// (<https://doc.rust-lang.org/nightly/nightly-rustc/cargo/core/compiler/fingerprint/>).
fn is_younger(source: &Path, made: &Path) -> bool {
    let stamp = |path: &Path| fs::metadata(path).ok().map(|metadata| FileStamp::from_metadata(&metadata));
    let (Some(source), Some(made)) = (stamp(source), stamp(made)) else { return false };
    source.changed > made.modified && source.modified <= made.modified
}

/// Returns the variables that cargo sets for tests and that tests use at run time
/// (<https://doc.rust-lang.org/cargo/reference/environment-variables.html>).
fn package_variables(package: &Package) -> Vec<(OsString, OsString)> {
    let directory = package.manifest_path.parent().unwrap_or(Path::new(""));
    vec![
        ("CARGO_MANIFEST_DIR".into(), directory.into()),
        ("CARGO_MANIFEST_PATH".into(), package.manifest_path.clone().into()),
        ("CARGO_PKG_NAME".into(), package.name.clone().into()),
        ("CARGO_PKG_VERSION".into(), package.version.clone().into()),
    ]
}

/// Runs a command of cargo that may run for long, and kills everything that it started if the
/// future is dropped.
async fn build_output(command: &mut Command, environment: &Environment) -> io::Result<Output> {
    if let (Some(_), Some(home)) = (environment.guard(), cargo_home(environment)) {
        // Under a guard, cargo could not create it.
        let _ = fs::create_dir_all(home);
    }
    environment.guarded_output(command).await
}

/// Returns the directory of the toolchain's dynamic libraries.
async fn library(environment: &Environment) -> Option<PathBuf> {
    let mut command = Command::new("rustc");
    command.args(["--print", "target-libdir"]).env_clear();
    command.envs(environment.visible(&[])).envs(tool_homes(environment));
    let output = environment.output(&mut command).await.ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// Returns the search path of the dynamic libraries that a test program may be linked with.
fn libraries(target: &Path, library: PathBuf) -> Option<OsString> {
    std::env::join_paths([target.join("debug/deps"), target.join("debug"), library]).ok()
}

/// Returns the files outside the project that configure cargo and the toolchain inside it.
fn settings(project: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let above = project.ancestors().skip(1);
    let names = [".cargo/config.toml", ".cargo/config", "rust-toolchain.toml", "rust-toolchain"];
    let mut settings: Vec<PathBuf> =
        above.flat_map(|directory| names.map(|name| directory.join(name))).collect();
    settings.extend(home.into_iter().flat_map(|home| ["config.toml", "config"].map(|name| home.join(name))));
    settings
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::directory_of;

    #[test]
    fn directories_of_path_dependencies_are_found_in_their_ids() {
        let check = |id: &str, expected: Option<&str>| {
            assert_eq!(directory_of(id), expected.map(PathBuf::from), "{id}");
        };
        check("path+file:///a/b#0.1.0", Some("/a/b"));
        check("path+file:///a/b%20c#name@0.1.0", Some("/a/b c"));
        check("path+file:///a/100%#0.1.0", Some("/a/100%"));
        check("name 0.1.0 (path+file:///a/b)", Some("/a/b"));
        check("registry+https://github.com/rust-lang/crates.io-index#x@1.0.0", None);
    }
}
