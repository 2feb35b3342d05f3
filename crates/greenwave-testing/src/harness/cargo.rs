//! cargo: one test for each test program and for the documentation of each library.

mod build;
mod config;
mod crash_bisect;
mod dep_info;
mod doc_commands;
mod failures;
mod features;
mod functions;
mod known_metadata;
mod lock_file;
mod metadata;
pub(crate) mod products;
mod run_time;
mod sources;
mod target;
mod toolchain;
mod variables;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::Harness;
use super::build::{BuildOutput, BuildRequest};
use super::crash::Crash;
use super::discovery::{Discovery, DiscoveryInputs, DiscoveryNote};
use super::launch::LaunchSpec;
use super::listing::{Listing, ListingContext};
use super::project::Project;
use super::summary::{Summary, TestCount, is_summarized};
use crate::{CaseReport, CaseStatus, Error, HarnessName, Test};
use build::Build;
use features::Features;
use greenwave_inputs::now_ns;
use known_metadata::KnownMetadata;
use metadata::{Metadata, Package, Target, metadata};
use target::CargoTarget;
use variables::VARIABLES;

const HARNESS: &str = "cargo";
/// Files whose content discovery reads.
const MANIFESTS: [&str; 5] = ["Cargo.toml", "config", "config.toml", "rust-toolchain", "rust-toolchain.toml"];

/// cargo and the Rust test harness (<https://doc.rust-lang.org/cargo/commands/cargo-test.html>).
#[derive(Debug, Default)]
pub(crate) struct CargoHarness {
    known: KnownMetadata,
}

#[async_trait]
impl Harness for CargoHarness {
    fn name(&self) -> &'static str {
        HARNESS
    }

    fn recognizes(&self, command: &[String]) -> bool {
        let test = Test::new("", command.iter().cloned());
        let runs_all = !command.iter().any(|word| word == "--");
        let is_cargo_test = CargoTarget::of(&test).is_some() && !target::is_nextest(&test);
        is_cargo_test && (runs_all || target::function(&test).is_some())
    }

    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs {
            manifests: &MANIFESTS,
            programs: &[HARNESS],
            variables: &VARIABLES,
            ..DiscoveryInputs::default()
        }
    }

    async fn discover(&self, project: &Project) -> Result<Discovery, Error> {
        let mut found = Discovery::default();
        for directory in outermost(project.files(), "Cargo.toml") {
            if !project.has_program(HARNESS) {
                found.notes.push(DiscoveryNote::MissingProgram { program: HARNESS.to_owned(), tests: 1 });
                break;
            }
            let (at, environment) = (project.root().join(directory), project.environment());
            let began = now_ns();
            match metadata(&at, environment).await {
                Ok(metadata) => {
                    found.tests.extend(tests_of(project.root(), directory, &metadata));
                    if !environment.is_inspecting() {
                        self.known.put(at, began, metadata);
                    }
                }
                Err(error) => {
                    found.notes.push(DiscoveryNote::unreadable(&directory.join("Cargo.toml"), &error));
                    found.tests.push(whole_workspace(directory));
                }
            }
        }
        Ok(found)
    }

    fn with_arguments(&self, test: &Test, arguments: &[String]) -> Option<Test> {
        Some(target::with_arguments(test, arguments.iter().map(String::as_str)))
    }

    fn listing_commands(&self, test: &Test, context: &ListingContext<'_>) -> Vec<Test> {
        functions::listing_commands(test, context.environment)
    }

    async fn list(&self, tests: &[&Test], context: &ListingContext<'_>) -> Result<Vec<Listing>, Error> {
        Ok(tests.iter().map(|test| functions::list(test, context)).collect())
    }

    fn needs_build(&self, _test: &Test) -> bool {
        true
    }

    async fn prepare_build(&self, request: &BuildRequest<'_>) {
        lock_file::create_missing(request, &self.known).await;
    }

    async fn build(&self, request: &BuildRequest<'_>) -> Result<Option<Arc<dyn BuildOutput>>, Error> {
        Ok(Some(Arc::new(Build::run(request, &self.known).await?)))
    }

    fn may_have_tests(&self, test: &Test, project: &Path) -> bool {
        sources::may_have_tests(test, project)
    }

    fn launch(&self, test: &Test, built: Option<&dyn BuildOutput>, command: LaunchSpec) -> LaunchSpec {
        match built {
            Some(built) => built.launch(test, command),
            None => command,
        }
    }

    fn parse_summary(&self, test: &Test, _exit_code: Option<i32>, output: &[u8]) -> Summary {
        let count = TestCount::find(output);
        // A test program may have no test at all. Only a filter must match at least one.
        if target::function(test).is_some() {
            return Summary::of_count(count);
        }
        Summary { count, ..Summary::default() }
    }

    fn is_complete(&self, _test: &Test, output: &[u8], _directory: &Path) -> bool {
        is_summarized(output)
    }

    fn parse_cases(&self, output: &str) -> Vec<CaseReport> {
        let case = |(name, status)| CaseReport { name, status, duration: None, output: None };
        cases(output).into_iter().map(case).collect()
    }

    async fn explain_crash(&self, crash: &Crash<'_>) -> Option<String> {
        crash_bisect::explain(crash).await
    }
}

/// Returns the directories that contain a file of this name, without those below another one.
fn outermost<'f>(files: &'f [PathBuf], name: &str) -> Vec<&'f Path> {
    let mut directories: Vec<&Path> = files
        .iter()
        .filter(|file| file.file_name().is_some_and(|it| it == name))
        .filter_map(|it| it.parent())
        .collect();
    directories.sort_unstable_by_key(|directory| directory.components().count());
    let mut outermost: Vec<&Path> = Vec::new();
    for directory in directories {
        if !outermost.iter().any(|above| directory.starts_with(above)) {
            outermost.push(directory);
        }
    }
    outermost
}

/// Returns the test that runs `cargo test` in a workspace that cargo cannot read, and fails as it
/// does.
fn whole_workspace(directory: &Path) -> Test {
    let at = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    Test {
        directory: directory.to_owned(),
        directories: vec![directory.to_owned()],
        ..Test::new(format!("cargo:{}", at.display()), ["cargo", "test"])
    }
}

/// Files outside packages that every package of a workspace is built with.
const COMMON: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain",
    "rust-toolchain.toml",
    ".cargo",
    ".config/nextest.toml",
    "clippy.toml",
];

/// Returns the tests of the cargo workspace in a directory: one for each test program, and one for
/// the documentation of each library.
fn tests_of(project: &Path, directory: &Path, metadata: &Metadata) -> Vec<Test> {
    let features = Features::of(metadata);
    let by_directory: HashMap<&Path, &Package> = metadata
        .packages
        .iter()
        .filter_map(|package| Some((package.manifest_path.parent()?, package)))
        .collect();
    let mut tests = Vec::new();
    for package in metadata.default_members() {
        let mut directories: BTreeSet<PathBuf> = BTreeSet::new();
        for reached in closure(package, &by_directory) {
            directories.extend(relative(project, reached));
        }
        let root = relative(project, &metadata.workspace_root).unwrap_or_default();
        directories.extend(COMMON.iter().map(|name| root.join(name)));
        let directories: Vec<PathBuf> = directories.into_iter().collect();
        tests.extend(units(package, &features).map(|(name, words)| Test {
            directory: directory.to_owned(),
            directories: directories.clone(),
            harness: HarnessName::new(HARNESS),
            ..Test::new(
                name,
                ["cargo", "test", "--package", &package.name].into_iter().map(str::to_owned).chain(words),
            )
        }));
    }
    tests
}

/// Returns the name of each test of a package, and the arguments of cargo that select it.
fn units<'m>(
    package: &'m Package,
    features: &Features<'_>,
) -> impl Iterator<Item = (String, Vec<String>)> + 'm {
    let of_target = |target: &'m Target| {
        let kind = target.kind.first().map_or("lib", String::as_str);
        let is_library = !matches!(kind, "bin" | "test" | "example" | "bench" | "custom-build");
        let (name, words) = match kind {
            "test" => {
                (format!("{}::{}", package.name, target.name), vec!["--test".to_owned(), target.name.clone()])
            }
            "bin" | "example" | "bench" => (
                format!("{}::{kind}/{}", package.name, target.name),
                vec![format!("--{kind}"), target.name.clone()],
            ),
            _ => (package.name.clone(), vec!["--lib".to_owned()]),
        };
        let unit = (target.test && kind != "custom-build").then_some((name, words));
        let doc = (is_library && target.doctest)
            .then(|| (format!("{} (doc)", package.name), vec!["--doc".to_owned()]));
        unit.into_iter().chain(doc)
    };
    let targets: Vec<&Target> =
        package.targets.iter().filter(|target| features.may_build(package, target)).collect();
    targets.into_iter().flat_map(of_target)
}

/// Returns the directories of a package and of all packages of the workspace that it depends on.
fn closure<'m>(package: &'m Package, by_directory: &HashMap<&Path, &'m Package>) -> Vec<&'m Path> {
    let mut reached: Vec<&Path> = Vec::new();
    let mut waiting: Vec<&Path> = package.manifest_path.parent().into_iter().collect();
    while let Some(directory) = waiting.pop() {
        if !reached.contains(&directory) {
            reached.push(directory);
            let dependencies = by_directory.get(directory).map(|package| package.dependencies.iter());
            waiting.extend(dependencies.into_iter().flatten().filter_map(|it| it.path.as_deref()));
        }
    }
    reached
}

/// Returns a directory relative to the project; `None` if it lies outside.
fn relative(project: &Path, directory: &Path) -> Option<PathBuf> {
    directory.strip_prefix(project).ok().map(Path::to_owned)
}

/// Returns the names that the Rust test harness prints, and the result of each test.
fn cases(output: &str) -> BTreeMap<String, CaseStatus> {
    let mut cases = BTreeMap::new();
    for line in output.lines() {
        let Some(rest) = line.strip_prefix("test ") else { continue };
        let Some((name, verdict)) = rest.rsplit_once(" ... ") else { continue };
        let name = name.trim_end_matches(" - should panic").to_owned();
        let verdict = verdict.split([' ', ',']).next();
        let status = match verdict {
            Some("ok") => CaseStatus::Passed,
            Some("FAILED") => CaseStatus::Failed,
            Some("ignored") => CaseStatus::Skipped,
            _ => continue,
        };
        cases.insert(name, status);
    }
    cases
}
