//! Packages of npm, pnpm and yarn that have a test script. Knows nothing of running it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;
use serde_json::Value;

use super::found::{Discovery, DiscoveryNote, Files, closure, pattern, within, wrong};
use crate::harness::problem::Problem;
use crate::test::Harness;
use crate::{Error, Test};

const RUNNER: &str = "npm";
/// What `npm init` writes where there are no tests yet.
const PLACEHOLDER: &str = "no test specified";
/// Folders whose packages are somebody's data.
const NOT_OURS: [&str; 6] = ["node_modules", "fixtures", "__fixtures__", "testdata", "templates", "vendor"];
/// Files by which a package manager is told: the nearest counts.
const MANAGERS: [(&str, &str); 6] = [
    ("pnpm-lock.yaml", "pnpm"),
    ("pnpm-workspace.yaml", "pnpm"),
    ("yarn.lock", "yarn"),
    ("bun.lock", "bun"),
    ("package-lock.json", "npm"),
    ("npm-shrinkwrap.json", "npm"),
];
/// Words in a script that run other packages' scripts.
const UMBRELLAS: [&str; 9] =
    ["--workspaces", "-ws", "-r", "--recursive", "turbo", "lerna", "nx", "workspaces", "rush"];
/// Tools by a word in the script, with what they write in the package.
const WRITERS: [(&str, &[&str]); 2] =
    [("vitest", &["node_modules/.vite", "node_modules/.vitest", "coverage"]), ("jest", &["coverage"])];

/// What matters of a `package.json`.
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

/// A folder whose members are one workspace, each a package.
struct Workspace<'a> {
    root: &'a Path,
    globs: Vec<(GlobMatcher, bool)>,
}

/// One test for each package with a test script.
pub(super) fn discover(files: &Files<'_>) -> Result<Discovery, Error> {
    let mut packages: BTreeMap<&Path, Package> = BTreeMap::new();
    for folder in files.folders_with("package.json") {
        if !folder.iter().any(|name| NOT_OURS.iter().any(|it| name == *it)) {
            packages.insert(folder, read(files, folder)?);
        }
    }
    let mut found = Discovery::default();
    let workspaces = workspaces(files, &packages)?;
    let dependencies = dependencies(&packages, &mut found.notes);
    for (folder, package) in &packages {
        let Some(script) = script(package) else { continue };
        let is_root = workspaces.iter().any(|it| it.root == *folder);
        if is_root && is_umbrella(script) && has_members(&packages, &workspaces, folder) {
            found.notes.push(DiscoveryNote::WorkspaceScript {
                directory: (*folder).to_owned(),
                script: script.to_owned(),
            });
            continue;
        }
        found.tests.push(test(files, folder, package, script, &workspaces, &dependencies));
    }
    let mut needed: BTreeMap<&str, usize> = BTreeMap::new();
    for test in &found.tests {
        *needed.entry(test.command[0].as_str()).or_default() += 1;
    }
    let missing: Vec<DiscoveryNote> =
        needed.iter().filter_map(|(program, count)| files.missing(program, *count)).collect();
    found.notes.extend(missing);
    Ok(found)
}

fn read(files: &Files<'_>, folder: &Path) -> Result<Package, Error> {
    let manifest = folder.join("package.json");
    let text = files.text(RUNNER, &manifest)?;
    // npm passes over a mark of byte order, too.
    serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        let (file, line, column) = (Problem::file(&manifest), error.line(), error.column());
        let problem = Problem::Syntax { file, line, column, message };
        wrong(RUNNER, files, &manifest, problem)
    })
}

fn script(package: &Package) -> Option<&str> {
    package
        .scripts
        .get("test")?
        .as_str()
        .filter(|script| !script.contains(PLACEHOLDER) && !script.trim().is_empty())
}

fn is_umbrella(script: &str) -> bool {
    script.split_whitespace().any(|word| UMBRELLAS.contains(&word))
}

fn has_members(packages: &BTreeMap<&Path, Package>, workspaces: &[Workspace<'_>], root: &Path) -> bool {
    let members =
        packages.iter().filter(|(folder, _)| **folder != root && root_of(workspaces, folder) == Some(root));
    members.into_iter().any(|(_, package)| script(package).is_some())
}

fn test(
    files: &Files<'_>,
    folder: &Path,
    package: &Package,
    script: &str,
    workspaces: &[Workspace<'_>],
    dependencies: &BTreeMap<PathBuf, Vec<PathBuf>>,
) -> Test {
    let root = root_of(workspaces, folder);
    let place = if folder.as_os_str().is_empty() { ".".into() } else { folder.to_string_lossy() };
    let name = package.name.as_deref().unwrap_or(&place);
    let folders = closure(folder, dependencies);
    // What stands beside the workspace's manifest configures all of it: lock files, compilers, test runners.
    let shared = root.filter(|_| !folders.is_empty()).into_iter().flat_map(|root| {
        files.files.iter().filter(move |file| file.parent() == Some(root)).map(|file| pattern(file))
    });
    let word = |tool: &str| script.split_whitespace().any(|it| it.rsplit('/').next() == Some(tool));
    let written = WRITERS.iter().filter(|(tool, _)| word(tool)).flat_map(|(_, written)| written.iter());
    let outputs = written.map(|path| format!("{}/", pattern(&folder.join(path)))).collect();
    // A package manager's script, so that its programs are on the path, and what should run before it runs.
    let command = match manager(files, folder) {
        "bun" => vec!["bun", "run", "test"],
        other => vec![other, "test"],
    };
    Test {
        directory: folder.to_owned(),
        inputs: shared.collect(),
        directories: folders,
        outputs,
        env: vec!["NODE_OPTIONS".to_owned(), "NODE_ENV".to_owned()],
        set: BTreeMap::from([("CI".to_owned(), "true".to_owned())]),
        harness: Harness::Npm,
        ..Test::new(format!("npm:{name} test"), command)
    }
}

fn manager(files: &Files<'_>, folder: &Path) -> &'static str {
    let in_folder = |folder: &Path| MANAGERS.iter().find(|(file, _)| files.has(&folder.join(file)));
    folder.ancestors().find_map(in_folder).map_or("npm", |(_, manager)| manager)
}

fn workspaces<'a>(
    files: &Files<'_>,
    packages: &BTreeMap<&'a Path, Package>,
) -> Result<Vec<Workspace<'a>>, Error> {
    let mut found = Vec::new();
    for (folder, package) in packages {
        let manifest = folder.join("pnpm-workspace.yaml");
        let patterns = match &package.workspaces {
            _ if files.has(&manifest) => pnpm_packages(&files.text(RUNNER, &manifest)?),
            Some(Workspaces::List(patterns) | Workspaces::Table { packages: patterns }) => patterns.clone(),
            None => continue,
        };
        let mut globs = Vec::new();
        for text in patterns {
            let is_out = text.starts_with('!');
            let plain = text.trim_start_matches('!').trim_start_matches("./").trim_end_matches('/');
            let glob = GlobBuilder::new(plain).literal_separator(true).build();
            let manifest = folder.join("package.json");
            let invalid = |source| Problem::Pattern { file: Problem::file(&manifest), source };
            let glob = glob.map_err(|error| wrong(RUNNER, files, &manifest, invalid(error)))?;
            globs.push((glob.compile_matcher(), is_out));
        }
        found.push(Workspace { root: folder, globs });
    }
    Ok(found)
}

/// The root of the workspace that a package is in; a root is in its own.
fn root_of<'a>(workspaces: &[Workspace<'a>], folder: &Path) -> Option<&'a Path> {
    let has = |workspace: &&Workspace<'_>| {
        let Ok(inside) = folder.strip_prefix(workspace.root) else { return false };
        let is_matched =
            |is_out| workspace.globs.iter().any(|(glob, out)| *out == is_out && glob.is_match(inside));
        inside.as_os_str().is_empty() || (is_matched(false) && !is_matched(true))
    };
    workspaces.iter().find(has).map(|workspace| workspace.root)
}

/// The list `packages` of a `pnpm-workspace.yaml`: a block of `- "glob"` lines, or a list in brackets. All else in that file is none of ours.
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

/// Which packages' folders each package may be built from, beside its own.
fn dependencies(
    packages: &BTreeMap<&Path, Package>,
    notes: &mut Vec<DiscoveryNote>,
) -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let mut names: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for (folder, package) in packages {
        names.entry(package.name.as_deref().unwrap_or_default()).or_default().push(folder);
    }
    let mut found: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for (folder, package) in packages {
        let reached = found.entry((*folder).to_owned()).or_default();
        let lists = [
            &package.dependencies,
            &package.dev_dependencies,
            &package.peer_dependencies,
            &package.optional_dependencies,
        ];
        for (name, version) in lists.into_iter().flatten() {
            // A package of that name here is what is meant, or at least is the safe guess.
            reached.extend(names.get(name.as_str()).into_iter().flatten().map(|it| (*it).to_owned()));
            let version = version.as_str().unwrap_or_default();
            let path = ["file:", "link:", "portal:", "workspace:"]
                .iter()
                .find_map(|kind| version.strip_prefix(kind));
            let path = path.filter(|path| path.starts_with(['.', '/']) && !path.ends_with(".tgz"));
            match path.map(|path| (path, within(folder, path))) {
                None => {}
                Some((_, Some(target))) => reached.push(target),
                Some((path, None)) => notes.push(DiscoveryNote::OutsideDependency {
                    manifest: folder.join("package.json"),
                    directory: path.to_owned(),
                }),
            }
        }
    }
    found
}
