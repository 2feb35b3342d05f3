//! npm, pnpm, yarn and bun: one test for each package with a test script.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;
use serde_json::Value;

use super::Harness;
use super::batch::Batch;
use super::build::{BuildOutput, BuildRequest};
use super::crash::Crash;
use super::discovery::{Discovery, DiscoveryInputs, DiscoveryNote};
use super::launch::LaunchSpec;
use super::listing::{Listing, ListingContext};
use super::problem::Problem;
use super::project::{Project, closure, pattern, within};
use super::summary::{Summary, TestCount};
use crate::run::blocking::blocking;
use crate::{CaseReport, Error, HarnessName, Test};

const HARNESS: &str = "npm";
/// Text of the script that `npm init` writes for a package without tests.
const PLACEHOLDER: &str = "no test specified";
/// Directories whose packages are data or dependencies.
const EXCLUDED: [&str; 6] = ["node_modules", "fixtures", "__fixtures__", "testdata", "templates", "vendor"];
/// Files that identify a package manager; the nearest one counts.
const MANAGERS: [(&str, &str); 6] = [
    ("pnpm-lock.yaml", "pnpm"),
    ("pnpm-workspace.yaml", "pnpm"),
    ("yarn.lock", "yarn"),
    ("bun.lock", "bun"),
    ("package-lock.json", "npm"),
    ("npm-shrinkwrap.json", "npm"),
];
/// Words of a script that runs the scripts of other packages.
const WORKSPACE_WORDS: [&str; 9] =
    ["--workspaces", "-ws", "-r", "--recursive", "turbo", "lerna", "nx", "workspaces", "rush"];
/// Tools by a word of the script, with the directories that they write in the package.
const WRITERS: [(&str, &[&str]); 2] =
    [("vitest", &["node_modules/.vite", "node_modules/.vitest", "coverage"]), ("jest", &["coverage"])];

/// Files whose content discovery reads.
const MANIFESTS: [&str; 2] = ["package.json", "pnpm-workspace.yaml"];

/// The scripts of npm packages (<https://docs.npmjs.com/cli/commands/npm-test>).
#[derive(Debug, Clone, Copy)]
pub(crate) struct NpmHarness;

/// The part of a `package.json` that matters for tests.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    name: Option<String>,
    #[serde(default)]
    scripts: BTreeMap<String, Value>,
    workspaces: Option<Workspaces>,
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    dev_dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    peer_dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Workspaces {
    List(Vec<String>),
    Table {
        #[serde(default)]
        packages: Vec<String>,
    },
}

/// A directory whose packages form one workspace.
struct Workspace<'a> {
    root: &'a Path,
    globs: Vec<(GlobMatcher, bool)>,
}

#[async_trait]
impl Harness for NpmHarness {
    fn name(&self) -> &'static str {
        HARNESS
    }

    fn recognizes(&self, command: &[String]) -> bool {
        command.first().is_some_and(|program| program == "npm")
    }

    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs { manifests: &MANIFESTS, programs: &["npm"], ..DiscoveryInputs::default() }
    }

    async fn discover(&self, project: &Project) -> Result<Discovery, Error> {
        let project = project.clone();
        blocking(move || find(&project)).await
    }

    fn listing_commands(&self, _test: &Test, _context: &ListingContext<'_>) -> Vec<Test> {
        Vec::new()
    }

    async fn list(&self, tests: &[&Test], _context: &ListingContext<'_>) -> Result<Vec<Listing>, Error> {
        Ok(vec![Listing::Whole; tests.len()])
    }

    fn needs_build(&self, _test: &Test) -> bool {
        false
    }

    async fn build(&self, _request: &BuildRequest<'_>) -> Result<Option<Arc<dyn BuildOutput>>, Error> {
        Ok(None)
    }

    fn launch(&self, _test: &Test, _built: Option<&dyn BuildOutput>, command: LaunchSpec) -> LaunchSpec {
        command
    }

    fn batch(&self, _test: &Test) -> Option<&dyn Batch> {
        None
    }

    fn parse_summary(&self, _test: &Test, _exit_code: Option<i32>, output: &[u8]) -> Summary {
        Summary::of_count(TestCount::find(output))
    }

    fn parse_cases(&self, _output: &str) -> Vec<CaseReport> {
        Vec::new()
    }

    async fn explain_crash(&self, _crash: &Crash<'_>) -> Option<String> {
        None
    }
}

/// Returns one test for each package with a test script.
fn find(project: &Project) -> Result<Discovery, Error> {
    let mut packages: BTreeMap<&Path, Package> = BTreeMap::new();
    for directory in project.directories_with("package.json") {
        if !directory.iter().any(|name| EXCLUDED.iter().any(|it| name == *it)) {
            packages.insert(directory, read(project, directory)?);
        }
    }
    let mut found = Discovery::default();
    let workspaces = workspaces(project, &packages)?;
    let dependencies = dependencies(&packages, &mut found.notes);
    for (directory, package) in &packages {
        let Some(script) = script(package) else { continue };
        let is_root = workspaces.iter().any(|it| it.root == *directory);
        if is_root && runs_workspace(script) && has_members(&packages, &workspaces, directory) {
            found.notes.push(DiscoveryNote::WorkspaceScript {
                directory: (*directory).to_owned(),
                script: script.to_owned(),
            });
            continue;
        }
        found.tests.push(test(project, directory, package, script, &workspaces, &dependencies));
    }
    let mut needed: BTreeMap<&str, usize> = BTreeMap::new();
    for test in &found.tests {
        *needed.entry(test.command[0].as_str()).or_default() += 1;
    }
    let missing: Vec<DiscoveryNote> =
        needed.iter().filter_map(|(program, count)| project.missing_program(program, *count)).collect();
    found.notes.extend(missing);
    Ok(found)
}

fn read(project: &Project, directory: &Path) -> Result<Package, Error> {
    let manifest = directory.join("package.json");
    let text = project.text(HARNESS, &manifest)?;
    // Like npm, ignores a byte order mark.
    serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        let (file, line, column) = (Problem::file(&manifest), error.line(), error.column());
        let problem = Problem::Syntax { file, line, column, message };
        project.invalid(HARNESS, &manifest, problem)
    })
}

fn script(package: &Package) -> Option<&str> {
    package
        .scripts
        .get("test")?
        .as_str()
        .filter(|script| !script.contains(PLACEHOLDER) && !script.trim().is_empty())
}

fn runs_workspace(script: &str) -> bool {
    script.split_whitespace().any(|word| WORKSPACE_WORDS.contains(&word))
}

fn has_members(packages: &BTreeMap<&Path, Package>, workspaces: &[Workspace<'_>], root: &Path) -> bool {
    let members = packages
        .iter()
        .filter(|(directory, _)| **directory != root && root_of(workspaces, directory) == Some(root));
    members.into_iter().any(|(_, package)| script(package).is_some())
}

fn test(
    project: &Project,
    directory: &Path,
    package: &Package,
    script: &str,
    workspaces: &[Workspace<'_>],
    dependencies: &BTreeMap<PathBuf, Vec<PathBuf>>,
) -> Test {
    let root = root_of(workspaces, directory);
    let path = if directory.as_os_str().is_empty() { ".".into() } else { directory.to_string_lossy() };
    let name = package.name.as_deref().unwrap_or(&path);
    let directories = closure(directory, dependencies);
    // Files beside the workspace's manifest configure all packages: lock files, compilers, test
    // runners.
    let shared = root.filter(|_| !directories.is_empty()).into_iter().flat_map(|root| {
        project.files().iter().filter(move |file| file.parent() == Some(root)).map(|file| pattern(file))
    });
    let word = |tool: &str| script.split_whitespace().any(|it| it.rsplit('/').next() == Some(tool));
    let written = WRITERS.iter().filter(|(tool, _)| word(tool)).flat_map(|(_, written)| written.iter());
    let outputs = written.map(|path| format!("{}/", pattern(&directory.join(path)))).collect();
    // The package manager puts the package's programs on the PATH and runs `pretest`.
    let command = match manager(project, directory) {
        "bun" => vec!["bun", "run", "test"],
        other => vec![other, "test"],
    };
    Test {
        directory: directory.to_owned(),
        inputs: shared.collect(),
        directories,
        outputs,
        env: vec!["NODE_OPTIONS".to_owned(), "NODE_ENV".to_owned()],
        set: BTreeMap::from([("CI".to_owned(), "true".to_owned())]),
        harness: HarnessName::new(HARNESS),
        ..Test::new(format!("npm:{name} test"), command)
    }
}

fn manager(project: &Project, directory: &Path) -> &'static str {
    let in_directory =
        |directory: &Path| MANAGERS.iter().find(|(file, _)| project.has(&directory.join(file)));
    directory.ancestors().find_map(in_directory).map_or("npm", |(_, manager)| manager)
}

fn workspaces<'a>(
    project: &Project,
    packages: &BTreeMap<&'a Path, Package>,
) -> Result<Vec<Workspace<'a>>, Error> {
    let mut found = Vec::new();
    for (directory, package) in packages {
        let manifest = directory.join("pnpm-workspace.yaml");
        let patterns = match &package.workspaces {
            _ if project.has(&manifest) => pnpm_packages(&project.text(HARNESS, &manifest)?),
            Some(Workspaces::List(patterns) | Workspaces::Table { packages: patterns }) => patterns.clone(),
            None => continue,
        };
        let mut globs = Vec::new();
        for text in patterns {
            let is_out = text.starts_with('!');
            let plain = text.trim_start_matches('!').trim_start_matches("./").trim_end_matches('/');
            let glob = GlobBuilder::new(plain).literal_separator(true).build();
            let manifest = directory.join("package.json");
            let invalid = |source| Problem::Pattern { file: Problem::file(&manifest), source };
            let glob = glob.map_err(|error| project.invalid(HARNESS, &manifest, invalid(error)))?;
            globs.push((glob.compile_matcher(), is_out));
        }
        found.push(Workspace { root: directory, globs });
    }
    Ok(found)
}

/// Returns the root of the workspace that a package belongs to. A root belongs to its own
/// workspace.
fn root_of<'a>(workspaces: &[Workspace<'a>], directory: &Path) -> Option<&'a Path> {
    let has = |workspace: &&Workspace<'_>| {
        let Ok(inside) = directory.strip_prefix(workspace.root) else { return false };
        let is_matched =
            |is_out| workspace.globs.iter().any(|(glob, out)| *out == is_out && glob.is_match(inside));
        inside.as_os_str().is_empty() || (is_matched(false) && !is_matched(true))
    };
    workspaces.iter().find(has).map(|workspace| workspace.root)
}

/// Returns the list `packages` of a `pnpm-workspace.yaml`: a block of `- "glob"` lines, or a list
/// in brackets. Other keys of the file are ignored.
fn pnpm_packages(text: &str) -> Vec<String> {
    let plain = |item: &str| {
        let item = item.trim();
        let quoted = |quote: char| item.strip_prefix(quote).and_then(|rest| rest.split(quote).next());
        let bare = || item.split(" #").next().unwrap_or_default().trim();
        quoted('"').or_else(|| quoted('\'')).unwrap_or_else(bare).to_owned()
    };
    let mut lines = text.lines();
    let Some(rest) = lines.find_map(|line| line.strip_prefix("packages:")) else { return Vec::new() };
    if let Some(list) = rest.trim().strip_prefix('[') {
        let list = list.split(']').next().unwrap_or_default();
        return list.split(',').map(plain).filter(|item| !item.is_empty()).collect();
    }
    let block = lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    block.map_while(|line| line.strip_prefix('-')).map(plain).collect()
}

/// Returns the directories of the packages that each package may be built from, beside its own.
fn dependencies(
    packages: &BTreeMap<&Path, Package>,
    notes: &mut Vec<DiscoveryNote>,
) -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let mut names: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for (directory, package) in packages {
        names.entry(package.name.as_deref().unwrap_or_default()).or_default().push(directory);
    }
    let mut found: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for (directory, package) in packages {
        let reached = found.entry((*directory).to_owned()).or_default();
        let lists = [
            &package.dependencies,
            &package.dev_dependencies,
            &package.peer_dependencies,
            &package.optional_dependencies,
        ];
        for (name, version) in lists.into_iter().flatten() {
            // A package of that name in this project is what npm links, or at least a safe guess.
            reached.extend(names.get(name.as_str()).into_iter().flatten().map(|it| (*it).to_owned()));
            let version = version.as_str().unwrap_or_default();
            let path = ["file:", "link:", "portal:", "workspace:"]
                .iter()
                .find_map(|kind| version.strip_prefix(kind));
            let path = path.filter(|path| path.starts_with(['.', '/']) && !path.ends_with(".tgz"));
            match path.map(|path| (path, within(directory, path))) {
                None => {}
                Some((_, Some(target))) => reached.push(target),
                Some((path, None)) => notes.push(DiscoveryNote::OutsideDependency {
                    manifest: directory.join("package.json"),
                    directory: path.to_owned(),
                }),
            }
        }
    }
    found
}
