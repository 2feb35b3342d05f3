//! Builds the test programs of a cargo workspace, and records the sources that each was built from.

mod messages;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;

use super::HARNESS;
use super::doc_commands::{self, DocCommand};
use super::failures::BuildFailures;
use super::known_metadata::KnownMetadata;
use super::metadata::{build_output, metadata, not_started, refused, tool};
use super::products::Products;
use super::run_time::{LIBRARY_PATH, RunTime};
use super::target::{CargoTarget, is_nextest, program_arguments};
use super::variables::{BUILD_VARIABLES, TARGET_DIR};
use crate::harness::build::{BuildOutput, BuildRequest};
use crate::harness::launch::LaunchSpec;
use crate::run::isolation::cargo_home;
use crate::{Environment, Error, Test};
use greenwave_inputs::{AccessKind, now_ns};
use messages::{Message, MessageReader};

/// The output of one build.
#[derive(Debug, Default)]
pub(super) struct Build {
    pub(super) programs: HashMap<CargoTarget, Program>,
    /// Targets that cargo does not build because of the features that they require, with the
    /// explanation.
    pub(super) left_out: HashMap<CargoTarget, String>,
    /// Calls of `rustdoc` by the name of the package.
    docs: HashMap<String, DocCommand>,
    rustdoc: PathBuf,
    /// The command that runs test programs, if cargo's configuration names one.
    runner: Vec<OsString>,
    /// Package ids by name. A name may also be that of a dependency.
    pub(super) ids: HashMap<String, String>,
    /// Sources of each package, without those of registries.
    pub(super) sources: HashMap<String, BTreeSet<PathBuf>>,
    pub(super) depends_on: HashMap<String, Vec<String>>,
    pub(super) variables: HashMap<String, Vec<(OsString, OsString)>>,
    settings: Vec<PathBuf>,
    /// Sources of path dependencies outside the workspace. Cargo does not say which packages use
    /// them, so every package depends on all of them.
    pub(super) outside: BTreeSet<PathBuf>,
    /// The directories that cargo builds into, without symbolic links.
    pub(super) roots: Vec<PathBuf>,
    /// Files that the build produced, by package; those of packages outside the workspace by the
    /// empty name.
    pub(super) artifacts: HashMap<String, Vec<PathBuf>>,
    /// The workspace's directory, relative to the project.
    workspace: PathBuf,
    /// Whether everything was built.
    is_complete: bool,
    /// Variables that only cargo sees.
    cargo_variables: Vec<(OsString, OsString)>,
    /// Start of the build, in nanoseconds since the Unix epoch.
    began: i64,
    /// Ids of packages that cargo considered fresh although their sources changed after their
    /// build.
    pub(super) stale: BTreeSet<String>,
    /// The parts that the compiler has rejected.
    pub(super) failures: BuildFailures,
}

/// A test program.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) directory: PathBuf,
    /// Whether it accepts the arguments of the Rust test harness.
    pub(super) has_harness: bool,
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
    /// missing. Takes metadata that discovery has just read from `known`.
    ///
    /// # Errors
    /// [`Error::Discover`] if cargo cannot be run at all.
    pub(super) async fn run(request: &BuildRequest<'_>, known: &KnownMetadata) -> Result<Self, Error> {
        let began = now_ns();
        let BuildRequest { project, directory, environment, tests } = *request;
        let at = project.join(directory);
        let mut command = tool(HARNESS, &at, environment, tests);
        command.args(BUILD).stderr(Stdio::piped());
        let known = known.take(&at, environment);
        let metadata = async {
            match known {
                Some(known) => Ok(known),
                None => metadata(&at, environment).await,
            }
        };
        let (metadata, output, run_time) =
            tokio::join!(metadata, build_output(&mut command, environment), RunTime::of(request));
        let metadata = metadata?;
        let output = output.map_err(|source| not_started(source).discovering(HARNESS, &at))?;
        let build = Self {
            settings: settings(project, cargo_home(environment).as_deref()),
            began,
            workspace: directory.to_owned(),
            is_complete: output.status.success(),
            rustdoc: run_time.rustdoc(request),
            runner: run_time.runner(request),
            cargo_variables: cargo_variables(environment, &metadata.target_directory),
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
        reader.read_stderr(&String::from_utf8_lossy(&output.stderr));
        let mut build = reader.finish(&run_time);
        let has_docs = tests.iter().any(|test| CargoTarget::of(test).is_some_and(|it| it.is_doc()));
        if build.is_complete && has_docs {
            let commands = doc_commands::record(request).await;
            let packages = metadata.packages.iter();
            let of_package =
                packages.filter_map(|it| Some((it.name.clone(), commands.get(it.directory()?)?.clone())));
            build.docs = of_package.collect();
        }
        Ok(build)
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

    /// Returns the compiler's messages, if they are the reason why a test cannot run.
    fn explain_failure(&self, test: &Test, target: &CargoTarget) -> Option<String> {
        if self.is_complete || is_nextest(test) {
            return None;
        }
        self.failures.explain(target, &self.reached(&target.package))
    }

    /// Returns the process that runs a program of cargo's.
    fn launch_program(&self, test: &Test, program: &Program) -> LaunchSpec {
        let mut words = self.runner.iter().cloned().chain([program.path.clone().into()]);
        let first = words.next().unwrap_or_default();
        let color: &[&str] = if program.has_harness { &["--color", "always"] } else { &[] };
        LaunchSpec::new(first, &program.directory)
            .arguments(words)
            .arguments(color.iter().map(OsString::from))
            .arguments(program_arguments(test).iter().map(OsString::from))
    }

    /// Returns the process that runs the documentation tests of a package as cargo does.
    fn launch_doc(&self, test: &Test, doc: &DocCommand) -> LaunchSpec {
        let arguments = program_arguments(test).iter().flat_map(|it| ["--test-args", it.as_str()]);
        LaunchSpec::new(&self.rustdoc, &doc.directory)
            .arguments(doc.arguments.iter().cloned())
            .arguments(arguments.map(OsString::from))
    }

    /// Returns the process that runs a command of cargo. It names packages by their ids.
    fn launch_cargo(&self, command: LaunchSpec) -> LaunchSpec {
        let mut command = command.variables(self.cargo_variables.iter().cloned());
        let flag = command.arguments.iter().position(|word| word == "--package");
        if let Some(name) = flag.and_then(|at| command.arguments.get_mut(at + 1))
            && let Some(id) = name.to_str().and_then(|name| self.ids.get(name))
        {
            *name = id.into();
        }
        command
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
        let mut variables = self.variables.get(package).cloned().unwrap_or_default();
        let is_listing = is_nextest(test);
        // The compiler has rejected an example or a program without tests.
        let is_broken = !self.is_complete && self.failures.fails_package(package);
        let program = self.programs.get(&target).filter(|_| !is_listing && !is_broken);
        let doc = self.docs.get(package).filter(|_| target.is_doc());
        let runs_cargo = program.is_none() && doc.is_none();
        let launch = if let Some(program) = program {
            self.launch_program(test, program).variables(variables)
        } else if let Some(doc) = doc {
            variables.extend(doc.libraries.clone().map(|path| (LIBRARY_PATH.into(), path)));
            self.launch_doc(test, doc).variables(variables)
        } else if let Some(messages) = self.explain_failure(test, &target) {
            command.build_failed(messages, CARGO_FAILURE)
        } else if let Some(reason) = self.left_out.get(&target).filter(|_| self.is_complete && !is_listing) {
            command.left_out(reason.clone())
        } else {
            // Cargo did not get to build it, because another program failed before.
            self.launch_cargo(command)
        };
        LaunchSpec {
            dependencies: self.dependencies(package),
            since: self.began,
            products: Some(self.products(package, runs_cargo)),
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
        let ids = self.stale.iter().flat_map(|id| ["--package", id]);
        let at = request.project.join(request.directory);
        let mut command = tool(HARNESS, &at, request.environment, request.tests);
        command.arg("clean").args(ids).stderr(Stdio::piped());
        match build_output(&mut command, request.environment).await {
            Ok(output) if output.status.success() => Ok(true),
            Ok(output) => Err(refused("cargo clean", &output.stderr).discovering(HARNESS, &at)),
            Err(source) => Err(not_started(source).discovering(HARNESS, &at)),
        }
    }
}

/// Returns the variables that only cargo sees, with an absolute target directory.
fn cargo_variables(environment: &Environment, target: &Path) -> Vec<(OsString, OsString)> {
    let declared = BUILD_VARIABLES.map(str::to_owned);
    let visible = environment.visible(&declared).into_iter();
    let own = visible.filter(|(name, _)| !Environment::BASE.contains(name));
    own.map(|(name, value)| {
        let value = if name == TARGET_DIR { target.as_os_str() } else { value };
        (name.into(), value.to_owned())
    })
    .collect()
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
