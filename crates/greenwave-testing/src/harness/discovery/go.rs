//! Packages of Go that have tests. Knows nothing of running them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::found::{Discovery, DiscoveryNote, Files, closure, pattern, within};
use crate::test::Harness;
use crate::{Error, Test};

/// Variables that change what `go` builds.
pub(super) const VARIABLES: [&str; 8] =
    ["GOFLAGS", "GOOS", "GOARCH", "GOEXPERIMENT", "GOTOOLCHAIN", "GOPROXY", "CGO_ENABLED", "CC"];

/// One test for each package with a `_test.go` file in it.
pub(super) fn discover(files: &Files<'_>) -> Result<Discovery, Error> {
    let modules: BTreeSet<&Path> = files.folders_with("go.mod").filter(|folder| is_seen(folder)).collect();
    let mut found = Discovery::default();
    let dependencies = dependencies(files, &modules, &mut found.notes)?;
    for package in packages(files) {
        let Some(module) = package.ancestors().find(|folder| modules.contains(folder)) else { continue };
        found.tests.push(test(files, module, package, &dependencies));
    }
    found.notes.extend(files.missing("go", found.tests.len()));
    Ok(found)
}

/// Whether `go` looks into the folder (`go help packages`).
pub(super) fn is_seen(folder: &Path) -> bool {
    folder.iter().all(|name| {
        let name = name.to_string_lossy();
        !name.starts_with(['.', '_']) && name != "testdata" && name != "vendor"
    })
}

fn packages<'a>(files: &Files<'a>) -> BTreeSet<&'a Path> {
    let is_test = |file: &&PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with("_test.go") && !name.starts_with(['.', '_'])
    };
    let folders = files.files.iter().filter(is_test).filter_map(|file| file.parent());
    folders.filter(|folder| is_seen(folder)).collect()
}

fn test(
    files: &Files<'_>,
    module: &Path,
    package: &Path,
    dependencies: &BTreeMap<PathBuf, Vec<PathBuf>>,
) -> Test {
    let name = |path: &Path| match path.to_string_lossy() {
        path if path.is_empty() => ".".to_owned(),
        path => format!("./{path}"),
    };
    let inside = package.strip_prefix(module).unwrap_or(package);
    // `-count=1`: the verdict is to be made now, and not to be one that `go` remembers.
    let command = ["go", "test", "-count=1", &name(inside)];
    let folders = closure(module, dependencies);
    let inputs = if folders.is_empty() { Vec::new() } else { workspace_files(files, module) };
    Test {
        directory: module.to_owned(),
        directories: folders,
        inputs,
        env: VARIABLES.map(str::to_owned).to_vec(),
        harness: Harness::Go,
        ..Test::new(format!("go:{}", name(package)), command)
    }
}

/// The files of the workspace that a module is in.
fn workspace_files(files: &Files<'_>, module: &Path) -> Vec<String> {
    let workspace = module.ancestors().find(|folder| files.has(&folder.join("go.work")));
    let names = ["go.work", "go.work.sum"].iter();
    let found = workspace.into_iter().flat_map(|folder| names.clone().map(move |name| folder.join(name)));
    found.filter(|file| files.has(file)).map(|file| pattern(&file)).collect()
}

/// Which modules' folders each module may be built from, beside its own.
fn dependencies(
    files: &Files<'_>,
    modules: &BTreeSet<&Path>,
    notes: &mut Vec<DiscoveryNote>,
) -> Result<BTreeMap<PathBuf, Vec<PathBuf>>, Error> {
    let mut dependencies: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for module in modules {
        let manifest = module.join("go.mod");
        let replaced = local(files, &manifest, module, notes)?;
        dependencies.entry((*module).to_owned()).or_default().extend(replaced);
    }
    for folder in files.folders_with("go.work").filter(|folder| is_seen(folder)) {
        // All of a workspace's modules see each other.
        let used = local(files, &folder.join("go.work"), folder, notes)?;
        for module in &used {
            dependencies.entry(module.clone()).or_default().extend(used.iter().cloned());
        }
    }
    Ok(dependencies)
}

/// The folders that a manifest names, of those in the project.
fn local(
    files: &Files<'_>,
    manifest: &Path,
    folder: &Path,
    notes: &mut Vec<DiscoveryNote>,
) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for path in folders(&files.text("go", manifest)?) {
        match within(folder, &path) {
            Some(folder) => found.push(folder),
            None => notes
                .push(DiscoveryNote::OutsideDependency { manifest: manifest.to_owned(), directory: path }),
        }
    }
    Ok(found)
}

/// The folders in `use` and `replace` directives, alone or in blocks (<https://go.dev/ref/mod#go-mod-file>).
fn folders(text: &str) -> Vec<String> {
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
            // Without a version behind it, it is a folder; a module's path never begins with a dot.
            "replace" => rest.split_once("=>").map(|(_, target)| target.trim()),
            _ => None,
        };
        let target = target.unwrap_or_default().trim_matches(['"', '`']);
        let is_folder = directive == "use" || target.starts_with(['.', '/']);
        if is_folder && !target.is_empty() {
            found.push(target.to_owned());
        }
    }
    found
}
