//! Go: one test for each package, which depends on the packages that it imports.

mod events;
mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::Harness;
use super::decoder::OutputDecoder;
use super::discovery::{Discovery, DiscoveryInputs, DiscoveryNote};
use super::launch::LaunchSpec;
use super::project::{Project, closure, pattern, within};
use super::summary::{Summary, TestCount};
use crate::run::blocking::blocking;
use crate::run::go_homes::{go_homes, go_settings};
use crate::{Environment, Error, HarnessName, Test};
use events::GoEvents;
use imports::Imports;

const HARNESS: &str = "go";
/// Variables that change what `go` builds and how tests run.
const VARIABLES: [&str; 18] = [
    "GOFLAGS",
    "GOOS",
    "GOARCH",
    "GOAMD64",
    "GOARM*",
    "GO386",
    "GO111MODULE",
    "GODEBUG",
    "GOEXPERIMENT",
    "GOFIPS140",
    "GOPROXY",
    "GORACE",
    "GOTOOLCHAIN",
    "GOTRACEBACK",
    "GOWORK",
    "CGO_*",
    "CC",
    "CXX",
];
/// The command that runs the tests of packages. `-count=1` disables Go's own cache of results.
const COMMAND: [&str; 3] = ["go", "test", "-count=1"];
/// Argument that selects no test, so that packages are only built and examined.
const NO_TEST: &str = "-run=^$";

/// `go test` (<https://pkg.go.dev/cmd/go#hdr-Test_packages>).
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoHarness;

#[async_trait]
impl Harness for GoHarness {
    fn name(&self) -> &'static str {
        HARNESS
    }

    fn recognizes(&self, command: &[String]) -> bool {
        matches!(command, [go, test, ..] if go == "go" && test == "test")
    }

    fn trace_decides(&self, _test: &Test) -> bool {
        true
    }

    fn shared_directories(&self, environment: &Environment) -> Vec<(&'static str, PathBuf)> {
        go_homes(environment)
    }

    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs {
            manifests: &["go.mod", "go.work"],
            programs: &["go"],
            variables: &VARIABLES,
            is_source,
            settings: |environment| go_settings(environment).into_iter().collect(),
            ..DiscoveryInputs::default()
        }
    }

    async fn discover(&self, project: &Project) -> Result<Discovery, Error> {
        let of = project.clone();
        let mut found = blocking(move || find(&of)).await?;
        if !found.tests.is_empty() {
            let imports = Imports::list(project.root(), &found.tests, project.environment()).await;
            imports.narrow(&mut found.tests, project.files());
            imports.select(&mut found.tests);
        }
        Ok(found)
    }

    fn with_arguments(&self, test: &Test, arguments: &[String]) -> Option<Test> {
        // Flags may follow the packages (`go help test`).
        let command = test.command.iter().chain(arguments).cloned().collect();
        Some(Test { command, ..test.clone() })
    }

    fn equip(
        &self,
        test: &Test,
        mut command: LaunchSpec,
        _directory: &Path,
        _environment: &Environment,
    ) -> Result<LaunchSpec, Error> {
        if prints_events(test) {
            command.arguments.insert(1, "-json".into());
        }
        Ok(command)
    }

    fn decoder(&self, test: &Test) -> Option<Box<dyn OutputDecoder>> {
        let is_verbose = flags(test).any(|flag| flag == "v" || flag == "v=true");
        prints_events(test).then(|| Box::new(GoEvents::new(is_verbose)) as Box<dyn OutputDecoder>)
    }

    fn parse_summary(&self, test: &Test, _exit_code: Option<i32>, output: &[u8]) -> Summary {
        let count = TestCount::find(output);
        // `go test ./...` succeeds if a package has no tests. Only a selection must match at least
        // one.
        let runs_all = test.command.iter().map(String::as_str).take(COMMAND.len()).eq(COMMAND);
        if runs_all { Summary { count, ..Summary::default() } } else { Summary::of_count(count) }
    }
}

/// Returns the flags of `go test` in a command, without dashes.
fn flags(test: &Test) -> impl Iterator<Item = &str> {
    let words = test.command.iter().skip(2).map(String::as_str);
    let own = words.take_while(|word| !matches!(*word, "-args" | "--args"));
    own.filter_map(|word| Some(word.strip_prefix('-')?.trim_start_matches('-')))
}

/// Returns whether a command can print its results as events. Its output has another form where it
/// compiles only, runs benchmarks, or prints events already.
fn prints_events(test: &Test) -> bool {
    let is_other = |flag: &str| {
        let name = flag.split('=').next().unwrap_or(flag);
        ["json", "c", "n", "bench", "list", "h"].contains(&name)
    };
    GoHarness.recognizes(&test.command) && !flags(test).any(is_other)
}

/// Returns whether `go list` reads a file: code, checksums, and the list of vendored modules.
fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "go" || it == "sum") || path.ends_with("vendor/modules.txt")
}

/// Returns one test for each package with a `_test.go` file.
fn find(project: &Project) -> Result<Discovery, Error> {
    let modules: BTreeSet<&Path> =
        project.directories_with("go.mod").filter(|directory| is_searched(directory)).collect();
    let mut found = Discovery::default();
    let dependencies = dependencies(project, &modules, &mut found.notes);
    for package in packages(project) {
        let Some(module) = package.ancestors().find(|directory| modules.contains(directory)) else {
            continue;
        };
        found.tests.push(test(project, module, package, &dependencies));
    }
    found.notes.extend(project.missing_program("go", found.tests.len()));
    Ok(found)
}

/// Returns whether `go` searches a directory for packages (`go help packages`).
fn is_searched(directory: &Path) -> bool {
    directory.iter().all(|name| {
        let name = name.to_string_lossy();
        !name.starts_with(['.', '_']) && name != "testdata" && name != "vendor"
    })
}

fn packages(project: &Project) -> BTreeSet<&Path> {
    let is_test = |file: &&PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with("_test.go") && !name.starts_with(['.', '_'])
    };
    let directories = project.files().iter().filter(is_test).filter_map(|file| file.parent());
    directories.filter(|directory| is_searched(directory)).collect()
}

fn test(
    project: &Project,
    module: &Path,
    package: &Path,
    dependencies: &BTreeMap<PathBuf, Vec<PathBuf>>,
) -> Test {
    let name = |path: &Path| match path.to_string_lossy() {
        path if path.is_empty() => ".".to_owned(),
        path => format!("./{path}"),
    };
    let inside = package.strip_prefix(module).unwrap_or(package);
    let package_name = name(inside);
    let command = COMMAND.into_iter().chain([package_name.as_str()]);
    let directories = closure(module, dependencies);
    let inputs = if directories.is_empty() { Vec::new() } else { workspace_files(project, module) };
    Test {
        directory: module.to_owned(),
        directories,
        inputs,
        harness: HarnessName::new(HARNESS),
        ..Test::new(format!("go:{}", name(package)), command)
    }
}

/// Returns patterns of the files of the workspace that a module belongs to.
fn workspace_files(project: &Project, module: &Path) -> Vec<String> {
    let workspace = module.ancestors().find(|directory| project.has(&directory.join("go.work")));
    let names = ["go.work", "go.work.sum"].iter();
    let found =
        workspace.into_iter().flat_map(|directory| names.clone().map(move |name| directory.join(name)));
    found.filter(|file| project.has(file)).map(|file| pattern(&file)).collect()
}

/// Returns the directories of the modules that each module may be built from, beside its own.
fn dependencies(
    project: &Project,
    modules: &BTreeSet<&Path>,
    notes: &mut Vec<DiscoveryNote>,
) -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let mut dependencies: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for module in modules {
        let manifest = module.join("go.mod");
        let replaced = local(project, &manifest, module, notes);
        dependencies.entry((*module).to_owned()).or_default().extend(replaced);
    }
    for directory in project.directories_with("go.work").filter(|directory| is_searched(directory)) {
        // All modules of a workspace can import each other.
        let used = local(project, &directory.join("go.work"), directory, notes);
        for module in &used {
            dependencies.entry(module.clone()).or_default().extend(used.iter().cloned());
        }
    }
    dependencies
}

/// Returns the directories that a manifest names, and adds a note for each one outside the project.
fn local(
    project: &Project,
    manifest: &Path,
    directory: &Path,
    notes: &mut Vec<DiscoveryNote>,
) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let text = match project.text("go", manifest) {
        Ok(text) => text,
        Err(error) => {
            notes.push(DiscoveryNote::unreadable(manifest, &error));
            return found;
        }
    };
    for path in local_directories(&text) {
        match within(directory, &path) {
            Some(directory) => found.push(directory),
            None => notes
                .push(DiscoveryNote::OutsideDependency { manifest: manifest.to_owned(), directory: path }),
        }
    }
    found
}

/// Returns the directories in `use` and `replace` directives, single or in blocks
/// (<https://go.dev/ref/mod#go-mod-file>).
fn local_directories(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let (directive, rest) = match &block {
            _ if line == ")" => {
                block = None;
                continue;
            }
            Some(directive) => (directive.as_str(), line),
            None => line.split_once(char::is_whitespace).unwrap_or((line, "")),
        };
        if block.is_none() && rest.trim() == "(" {
            block = Some(directive.to_owned());
            continue;
        }
        let target = match directive {
            "use" => Some(rest.trim()),
            // A module's path never begins with a dot, so a target that does is a directory.
            "replace" => rest.split_once("=>").map(|(_, target)| target.trim()),
            _ => None,
        };
        let target = target.unwrap_or_default().trim_matches(['"', '`']);
        let is_directory = directive == "use" || target.starts_with(['.', '/']);
        if is_directory && !target.is_empty() {
            found.push(target.to_owned());
        }
    }
    found
}
