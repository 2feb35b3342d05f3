//! Reads the messages that cargo prints during a build.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use greenwave_dir::read_regular_text;
use serde::Deserialize;
use toml::{Table, Value};

use super::super::dep_info::{dep_info, script_reads};
use super::super::features::Features;
use super::super::metadata::{Metadata, Package, Target};
use super::super::run_time::{LIBRARY_PATH, RunTime};
use super::super::target::CargoTarget;
use super::{Build, Program};
use crate::harness::project::MANIFEST_BYTES_MAX;
use greenwave_inputs::FileStamp;

/// One line of cargo's output
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>).
#[derive(Debug, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub(super) enum Message {
    CompilerArtifact(Artifact),
    CompilerMessage(CompilerMessage),
    BuildScriptExecuted(Script),
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
pub(super) struct Artifact {
    package_id: String,
    target: Target,
    profile: Profile,
    filenames: Vec<PathBuf>,
    fresh: bool,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CompilerMessage {
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
pub(super) struct Script {
    package_id: String,
    env: Vec<(String, String)>,
    out_dir: PathBuf,
    /// Paths that the build script adds for the linker, some with their kind: `native=PATH`.
    #[serde(default)]
    linked_paths: BTreeSet<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// Collects what cargo prints during a build.
pub(super) struct MessageReader<'m> {
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
    linked_paths: BTreeSet<PathBuf>,
    /// Targets whose programs do not accept the arguments of the Rust test harness.
    unharnessed: HashSet<CargoTarget>,
}

impl<'m> MessageReader<'m> {
    pub(super) fn new(
        mut build: Build,
        metadata: &'m Metadata,
        at: &'m Path,
        cargo_home: Option<PathBuf>,
    ) -> Self {
        let roots = [&metadata.target_directory].into_iter().chain(&metadata.build_directory);
        let resolve = |root: &PathBuf| root.canonicalize().unwrap_or_else(|_| root.clone());
        let roots: Vec<(PathBuf, PathBuf)> = roots.map(|root| (root.clone(), resolve(root))).collect();
        build.roots = roots.iter().map(|(_, resolved)| resolved.clone()).collect();
        build.roots.dedup();
        build.left_out = left_out(metadata);
        build.ids = metadata.packages.iter().map(|it| (it.name.clone(), it.id.clone())).collect();
        for (package, target) in
            metadata.packages.iter().flat_map(|it| it.targets.iter().map(move |t| (it, t)))
        {
            if !target.test {
                build.failures.add_untested(&package.name, target);
            }
        }
        Self {
            build,
            metadata,
            packages: metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect(),
            at,
            cargo_home,
            roots,
            script_variables: HashMap::new(),
            program_variables: HashMap::new(),
            linked_paths: BTreeSet::new(),
            unharnessed: metadata.packages.iter().flat_map(unharnessed).collect(),
        }
    }

    pub(super) fn message(&mut self, message: CompilerMessage) {
        let CompilerMessage { package_id, target, message: Diagnostic { rendered } } = message;
        let package = self.packages.get(package_id.as_str());
        if let (Some(package), Some(text)) = (package, rendered) {
            self.build.failures.add_message(&package.name, &target, text);
        }
    }

    /// Reads what cargo printed beside the messages.
    pub(super) fn read_stderr(&mut self, stderr: &str) {
        self.build.failures.read_stderr(stderr);
    }

    pub(super) fn artifact(&mut self, artifact: Artifact) {
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
                self.build.stale.insert(package.id.clone());
            }
            self.add_sources(package, read);
        }
        if let Some(program) = executable {
            self.program(package, &target, profile.test, program);
        }
    }

    fn program(&mut self, package: &Package, target: &Target, is_test: bool, path: PathBuf) {
        let owner = package.name.clone();
        if is_test {
            let directory = package.directory().unwrap_or(self.at).to_owned();
            let key = CargoTarget::new(&owner, target);
            let has_harness = !self.unharnessed.contains(&key);
            self.build.programs.insert(key, Program { path, directory, has_harness });
        } else if target.kind.iter().any(|kind| kind == "bin") {
            let name = format!("CARGO_BIN_EXE_{}", target.name);
            self.program_variables.entry(owner).or_default().push((name.into(), path.into()));
        }
    }

    pub(super) fn script(&mut self, script: Script) {
        let Script { package_id, env, out_dir, linked_paths } = script;
        self.linked_paths.extend(linked_paths);
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
    pub(super) fn finish(mut self, run_time: &RunTime) -> Build {
        let linked: Vec<PathBuf> = std::mem::take(&mut self.linked_paths).into_iter().collect();
        let libraries = run_time.library_path(self.metadata, &linked);
        let packages = &self.metadata.packages;
        let by_directory: HashMap<&Path, &str> = packages
            .iter()
            .filter_map(|package| Some((package.manifest_path.parent()?, package.name.as_str())))
            .collect();
        for package in packages {
            let names = package.dependencies.iter().filter_map(|it| by_directory.get(it.path.as_deref()?));
            let names = names.map(|name| (*name).to_owned()).collect();
            self.build.depends_on.insert(package.name.clone(), names);
            let mut variables = run_time.variables(package);
            variables.extend(libraries.clone().map(|path| (LIBRARY_PATH.into(), path)));
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

/// Returns the targets of the selected packages that require features which may be on. If cargo
/// does not build them, the features are off.
fn left_out(metadata: &Metadata) -> HashMap<CargoTarget, String> {
    let features = Features::of(metadata);
    let targets = metadata.default_members().flat_map(|it| it.targets.iter().map(move |t| (it, t)));
    let may_be_left_out = targets.filter(|(package, target)| {
        !target.required_features.is_empty() && features.may_build(package, target)
    });
    let reason = |target: &Target| {
        let list = target.required_features.join("`, `");
        format!("cargo does not build `{}`, which requires the features `{list}`\n", target.name)
    };
    may_be_left_out
        .map(|(package, target)| (CargoTarget::new(&package.name, target), reason(target)))
        .collect()
}

/// Returns the targets of a package with `harness = false`
/// (<https://doc.rust-lang.org/cargo/reference/cargo-targets.html#the-harness-field>).
fn unharnessed(package: &Package) -> Vec<CargoTarget> {
    let manifest = read_regular_text(&package.manifest_path, MANIFEST_BYTES_MAX).unwrap_or_default();
    let Ok(manifest) = manifest.parse::<Table>() else { return Vec::new() };
    let has_none = |target: &Value| target.get("harness").and_then(Value::as_bool) == Some(false);
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for kind in ["bin", "test", "example", "bench"] {
        let targets = manifest.get(kind).and_then(Value::as_array).into_iter().flatten();
        let named = targets.filter(|it| has_none(it)).filter_map(|it| it.get("name")?.as_str());
        names.entry(kind).or_default().extend(named);
    }
    names.entry("lib").or_default().extend(manifest.get("lib").filter(|it| has_none(it)).map(|_| ""));
    let target = |kind: &str, name: &str| CargoTarget {
        package: package.name.clone(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    names.iter().flat_map(|(kind, names)| names.iter().map(|name| target(kind, name))).collect()
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
