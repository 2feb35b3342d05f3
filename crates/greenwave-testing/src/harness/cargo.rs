//! The tests of cargo packages: which there are, how their programs are built, and what the build looked at. Knows nothing of keys or results.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use greenwave_process::Child;
use serde::Deserialize;
use tokio::process::Command;

use crate::harness::problem::Problem;
use crate::run::isolation::{cargo_home, tool_homes};
use crate::run::workspace::LaunchSpec;
use crate::test::Harness;
use crate::{Environment, Error, Test, harness::products::Products};
use greenwave_inputs::AccessKind;
use greenwave_inputs::{Stamp, now};

/// What `cargo metadata` says, as far as it is of use here
/// (<https://doc.rust-lang.org/cargo/commands/cargo-metadata.html>).
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    #[serde(default)]
    workspace_default_members: Vec<String>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
    /// Where intermediate files go, if that is another place (`build.build-dir`, cargo 1.91).
    #[serde(default)]
    build_directory: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    #[serde(default)]
    test: bool,
    #[serde(default)]
    doctest: bool,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    path: Option<PathBuf>,
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

/// The tests of the cargo workspace in a folder of a project: a unit for each program of tests, and one for each library's documentation.
///
/// # Errors
/// [`Error::Discover`] with what cargo says.
pub(crate) async fn discover(
    project: &Path,
    folder: &Path,
    environment: &Environment,
) -> Result<Vec<Test>, Error> {
    let metadata = metadata(&project.join(folder), environment).await?;
    let members = match metadata.workspace_default_members.is_empty() {
        true => &metadata.workspace_members,
        false => &metadata.workspace_default_members,
    };
    let by_folder: HashMap<&Path, &Package> = metadata
        .packages
        .iter()
        .filter_map(|package| Some((package.manifest_path.parent()?, package)))
        .collect();
    let mut tests = Vec::new();
    for package in metadata.packages.iter().filter(|package| members.contains(&package.id)) {
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        for reached in closure(package, &by_folder) {
            folders.extend(relative(project, reached));
        }
        let root = relative(project, &metadata.workspace_root).unwrap_or_default();
        folders.extend(COMMON.iter().map(|name| root.join(name)));
        let folders: Vec<PathBuf> = folders.into_iter().collect();
        tests.extend(units(package).map(|(name, kind, target, words)| Test {
            directory: folder.to_owned(),
            directories: folders.clone(),
            harness: Harness::Cargo { package: package.name.clone(), kind, target },
            ..Test::new(
                name,
                ["cargo", "test", "--package", &package.name].into_iter().map(str::to_owned).chain(words),
            )
        }));
    }
    Ok(tests)
}

/// Name, kind, target, and what cargo is told, of each unit of a package.
fn units(package: &Package) -> impl Iterator<Item = (String, String, String, Vec<String>)> + '_ {
    let of_target = |target: &Target| {
        let kind = target.kind.first().map_or("lib", String::as_str);
        let is_library = !matches!(kind, "bin" | "test" | "example" | "bench" | "custom-build");
        let (name, flag) = match kind {
            "test" => {
                (format!("{}::{}", package.name, target.name), vec!["--test".to_owned(), target.name.clone()])
            }
            "bin" | "example" | "bench" => (
                format!("{}::{kind}/{}", package.name, target.name),
                vec![format!("--{kind}"), target.name.clone()],
            ),
            _ => (package.name.clone(), vec!["--lib".to_owned()]),
        };
        let kind = if is_library { "lib" } else { kind };
        let unit = (target.test && kind != "custom-build").then(|| {
            (name, kind.to_owned(), if kind == "lib" { String::new() } else { target.name.clone() }, flag)
        });
        let doc = (is_library && target.doctest).then(|| {
            let name = format!("{} (doc)", package.name);
            (name, "doc".to_owned(), String::new(), vec!["--doc".to_owned()])
        });
        unit.into_iter().chain(doc)
    };
    package.targets.iter().flat_map(of_target)
}

/// The folders of a package and of everything in the workspace that it depends on.
fn closure<'m>(package: &'m Package, by_folder: &HashMap<&Path, &'m Package>) -> Vec<&'m Path> {
    let mut reached: Vec<&Path> = Vec::new();
    let mut waiting: Vec<&Path> = package.manifest_path.parent().into_iter().collect();
    while let Some(folder) = waiting.pop() {
        if !reached.contains(&folder) {
            reached.push(folder);
            let dependencies = by_folder.get(folder).map(|package| package.dependencies.iter());
            waiting.extend(dependencies.into_iter().flatten().filter_map(|it| it.path.as_deref()));
        }
    }
    reached
}

/// A folder as seen from the project; `None` if it lies outside.
fn relative(project: &Path, folder: &Path) -> Option<PathBuf> {
    folder.strip_prefix(project).ok().map(Path::to_owned)
}

async fn metadata(folder: &Path, environment: &Environment) -> Result<Metadata, Error> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps"];
    let mut command = cargo(folder, environment, arguments);
    let failed = |problem: Problem| problem.discovering("cargo", folder);
    let output = command.output().await.map_err(|source| failed(not_started(source)))?;
    if !output.status.success() {
        return Err(failed(refused("cargo metadata", &output.stderr)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|source| failed(Problem::Output { command: "cargo metadata", source }))
}

fn not_started(source: std::io::Error) -> Problem {
    Problem::Start { program: "cargo".to_owned(), source }
}

fn refused(command: &'static str, stderr: &[u8]) -> Problem {
    Problem::Failed { command, output: String::from_utf8_lossy(stderr).trim().to_owned() }
}

fn cargo<'a>(
    folder: &Path,
    environment: &Environment,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(folder).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command.envs(environment.visible(&[])).envs(tool_homes(environment));
    command.envs(environment.get(TARGET_VARIABLE).map(|target| (TARGET_VARIABLE, target)));
    if let Some(home) = environment.get("HOME") {
        command.env("HOME", home);
    }
    command
}

/// What a build has made.
#[derive(Debug, Default)]
pub(crate) struct Build {
    programs: HashMap<(String, String, String), Built>,
    /// What each package's code was read from, beside what came from registries.
    sources: HashMap<String, BTreeSet<PathBuf>>,
    depends_on: HashMap<String, Vec<String>>,
    variables: HashMap<String, Vec<(OsString, OsString)>>,
    settings: Vec<PathBuf>,
    /// Sources of path dependencies outside the workspace: cargo does not say which packages use them, so that all do.
    outside: BTreeSet<PathBuf>,
    /// The directories that cargo builds into.
    roots: Vec<PathBuf>,
    /// Files that the build consists of, by package; those of packages outside the workspace by the empty name.
    artifacts: HashMap<String, Vec<PathBuf>>,
    /// The workspace's directory, relative to the project.
    workspace: PathBuf,
    /// Whether everything could be built.
    pub(crate) is_complete: bool,
    /// The target directory that was asked for by a variable.
    target_variable: Option<(OsString, OsString)>,
    /// When it began, in nanoseconds since the Unix epoch.
    pub(crate) began: i64,
    /// Packages that cargo took for fresh by their files' times, although these were changed since they were built.
    doubtful: BTreeSet<String>,
}

#[derive(Debug)]
struct Built {
    program: PathBuf,
    directory: PathBuf,
}

/// One line of what cargo prints for programs
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>).
#[derive(Debug, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        package_id: String,
        target: Target,
        profile: Profile,
        filenames: Vec<PathBuf>,
        fresh: bool,
        executable: Option<PathBuf>,
    },
    BuildScriptExecuted {
        package_id: String,
        env: Vec<(String, String)>,
        out_dir: PathBuf,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

impl Build {
    /// Builds the programs of all tests of the workspace in a folder. What cannot be built is missing in it.
    ///
    /// # Errors
    /// [`Error::Discover`] if cargo cannot be run at all.
    pub(crate) async fn run(project: &Path, folder: &Path, environment: &Environment) -> Result<Self, Error> {
        let began = now();
        let at = project.join(folder);
        let arguments = [
            "test",
            "--no-run",
            "--no-fail-fast",
            "--message-format",
            "json-render-diagnostics",
            "--color",
            "always",
        ];
        let mut command = cargo(&at, environment, arguments);
        let failed = |source: std::io::Error| not_started(source).discovering("cargo", &at);
        // What it says of mistakes is said again by the tests that these keep from being built.
        command.stderr(Stdio::null());
        let (metadata, output, library) =
            tokio::join!(metadata(&at, environment), Child::output(&mut command), library(environment));
        let (metadata, output) = (metadata?, output.map_err(failed)?);
        let home = cargo_home(environment);
        let is_source = |path: &Path| {
            !path.starts_with(&metadata.target_directory)
                && !home.as_ref().is_some_and(|home| path.starts_with(home))
        };
        let packages: HashMap<&str, &Package> =
            metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
        let mut build = Self {
            settings: settings(project, home.as_deref()),
            began,
            roots: [Some(&metadata.target_directory), metadata.build_directory.as_ref()]
                .into_iter()
                .flatten()
                .map(|root| root.canonicalize().unwrap_or_else(|_| root.clone()))
                .collect(),
            workspace: folder.to_owned(),
            is_complete: output.status.success(),
            target_variable: environment
                .get(TARGET_VARIABLE)
                .map(|_| (TARGET_VARIABLE.into(), metadata.target_directory.clone().into())),
            ..Self::default()
        };
        build.roots.dedup();
        // As the kernel tells what a test reads: without links.
        let roots = [&metadata.target_directory].into_iter().chain(&metadata.build_directory);
        let roots: Vec<(PathBuf, PathBuf)> =
            roots.map(|root| (root.clone(), root.canonicalize().unwrap_or_else(|_| root.clone()))).collect();
        let true_name = |path: &PathBuf| {
            let found = roots.iter().find_map(|(root, name)| Some(name.join(path.strip_prefix(root).ok()?)));
            found.unwrap_or_else(|| path.clone())
        };
        let libraries = library.and_then(|library| libraries(&metadata.target_directory, library));
        let mut script_variables: HashMap<String, Vec<(OsString, OsString)>> = HashMap::new();
        let mut programs: HashMap<String, Vec<(OsString, OsString)>> = HashMap::new();
        for line in output.stdout.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Message::CompilerArtifact {
                    package_id,
                    target,
                    profile,
                    filenames,
                    fresh,
                    executable,
                }) => {
                    let package = packages.get(package_id.as_str());
                    let files = executable.iter().chain(&filenames);
                    let owner = package.map(|package| package.name.clone()).unwrap_or_default();
                    build.artifacts.entry(owner).or_default().extend(files.clone().map(true_name));
                    let Some(package) = package else {
                        if let Some(folder) = folder_of(&package_id) {
                            build.outside.insert(folder.join("Cargo.toml"));
                            let read = files.flat_map(|file| dep_info(file, &metadata.workspace_root));
                            build.outside.extend(read.filter(|path| is_source(path)));
                        }
                        continue;
                    };
                    let sources = build.sources.entry(package.name.clone()).or_default();
                    for file in files {
                        let read = dep_info(file, &metadata.workspace_root);
                        if fresh && read.iter().any(|source| is_younger(source, file)) {
                            build.doubtful.insert(package.name.clone());
                        }
                        sources.extend(read.into_iter().filter(|path| is_source(path)));
                    }
                    let Some(program) = executable else { continue };
                    let kind = target.kind.first().map_or("lib", String::as_str);
                    let kind =
                        if matches!(kind, "bin" | "test" | "example" | "bench") { kind } else { "lib" };
                    if profile.test {
                        let directory = package.manifest_path.parent().unwrap_or(&at).to_owned();
                        // A package has one library.
                        let target = if kind == "lib" { String::new() } else { target.name };
                        let key = (package.name.clone(), kind.to_owned(), target);
                        build.programs.insert(key, Built { program, directory });
                    } else if kind == "bin" {
                        let name = format!("CARGO_BIN_EXE_{}", target.name);
                        programs.entry(package.name.clone()).or_default().push((name.into(), program.into()));
                    }
                }
                Ok(Message::BuildScriptExecuted { package_id, env, out_dir }) => {
                    let Some(package) = packages.get(package_id.as_str()) else {
                        let folder = folder_of(&package_id);
                        let read = folder.iter().flat_map(|folder| script_reads(&out_dir, folder));
                        build.outside.extend(read.filter(|path| is_source(path)));
                        continue;
                    };
                    let variables = script_variables.entry(package.name.clone()).or_default();
                    variables.extend(env.into_iter().map(|(name, value)| (name.into(), value.into())));
                    variables.push(("OUT_DIR".into(), out_dir.clone().into()));
                    let folder = package.manifest_path.parent().unwrap_or(&at);
                    let sources = build.sources.entry(package.name.clone()).or_default();
                    sources.extend(script_reads(&out_dir, folder).into_iter().filter(|path| is_source(path)));
                }
                Ok(Message::Other) | Err(_) => {}
            }
        }
        for package in metadata.packages.iter() {
            let by_folder: HashMap<&Path, &str> = metadata
                .packages
                .iter()
                .filter_map(|package| Some((package.manifest_path.parent()?, package.name.as_str())))
                .collect();
            let names = package.dependencies.iter().filter_map(|it| by_folder.get(it.path.as_deref()?));
            build.depends_on.insert(package.name.clone(), names.map(|name| (*name).to_owned()).collect());
            let mut variables = package_variables(package);
            variables.extend(libraries.clone().map(|path| ("LD_LIBRARY_PATH".into(), path)));
            variables.extend(script_variables.remove(&package.name).unwrap_or_default());
            variables.extend(programs.remove(&package.name).unwrap_or_default());
            build.variables.insert(package.name.clone(), variables);
        }
        Ok(build)
    }

    /// Packages that may not be what their files say.
    pub(crate) fn doubtful(&self) -> Option<&BTreeSet<String>> {
        (!self.doubtful.is_empty()).then_some(&self.doubtful)
    }

    /// Has cargo forget what it has built of these packages.
    ///
    /// # Errors
    /// [`Error::Discover`] if cargo cannot be run.
    pub(crate) async fn forget(
        &self,
        project: &Path,
        folder: &Path,
        environment: &Environment,
        packages: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let names = packages.iter().flat_map(|name| ["--package", name]);
        let at = project.join(folder);
        let mut command = cargo(&at, environment, ["clean"].into_iter().chain(names));
        command.stderr(Stdio::piped());
        let output = Child::output(&mut command).await;
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(refused("cargo clean", &output.stderr).discovering("cargo", &at)),
            Err(source) => Err(not_started(source).discovering("cargo", &at)),
        }
    }

    /// How to start a unit's program, if it was built.
    pub(crate) fn launch(&self, package: &str, kind: &str, target: &str) -> Option<LaunchSpec> {
        let built = self.programs.get(&(package.to_owned(), kind.to_owned(), target.to_owned()))?;
        Some(LaunchSpec {
            program: built.program.clone(),
            arguments: vec!["--color".into(), "always".into()],
            directory: built.directory.clone(),
            variables: self.variables.get(package).cloned().unwrap_or_default(),
            looks: self.looks(package),
            since: self.began,
            products: Some(self.products(package, false)),
            changing: None,
        })
    }

    /// What the package's code, and that of all it depends on, was made from.
    pub(crate) fn looks(&self, package: &str) -> Vec<(PathBuf, AccessKind)> {
        let reached = self.reached(package);
        let sources = reached.iter().filter_map(|name| self.sources.get(*name)).flatten();
        sources
            .chain(&self.outside)
            .chain(&self.settings)
            .map(|path| (path.clone(), AccessKind::Content))
            .collect()
    }

    /// A package, and the packages of the workspace that it depends on.
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

    /// What is in cargo's directories, as a test of this package sees it. `runs_cargo`: the test's command is cargo itself.
    pub(crate) fn products(&self, package: &str, runs_cargo: bool) -> Products {
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

    /// The directories that cargo builds into.
    pub(crate) fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// Variables for a command that is cargo itself.
    pub(crate) fn variables_for_cargo(&self) -> Vec<(OsString, OsString)> {
        self.target_variable.iter().cloned().collect()
    }
}

/// What package ids of path dependencies begin with (<https://doc.rust-lang.org/cargo/reference/pkgid-spec.html>).
const PATH_SCHEME: &str = "path+file:";
/// The directory of a package that is a path dependency; `None` for others, which lock files name by their hashes.
fn folder_of(package_id: &str) -> Option<PathBuf> {
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

/// Where cargo builds, if the project's settings name no other place.
const TARGET_VARIABLE: &str = "CARGO_TARGET_DIR";

/// Whether a source was changed after a file was made of it, while the time of its content says otherwise: cargo goes by the latter alone
/// (<https://doc.rust-lang.org/nightly/nightly-rustc/cargo/core/compiler/fingerprint/>).
fn is_younger(source: &Path, made: &Path) -> bool {
    let stamp = |path: &Path| fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
    let (Some(source), Some(made)) = (stamp(source), stamp(made)) else { return false };
    source.changed > made.modified && source.modified <= made.modified
}

/// The variables that cargo sets for tests and that tests use at run time
/// (<https://doc.rust-lang.org/cargo/reference/environment-variables.html>).
fn package_variables(package: &Package) -> Vec<(OsString, OsString)> {
    let folder = package.manifest_path.parent().unwrap_or(Path::new(""));
    vec![
        ("CARGO_MANIFEST_DIR".into(), folder.into()),
        ("CARGO_MANIFEST_PATH".into(), package.manifest_path.clone().into()),
        ("CARGO_PKG_NAME".into(), package.name.clone().into()),
        ("CARGO_PKG_VERSION".into(), package.version.clone().into()),
    ]
}

/// Where the tool chain's dynamic libraries are.
async fn library(environment: &Environment) -> Option<PathBuf> {
    let mut command = Command::new("rustc");
    command.args(["--print", "target-libdir"]).env_clear();
    command.envs(environment.visible(&[])).envs(tool_homes(environment));
    let output = command.output().await.ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// Where the dynamic libraries are that a test's program may be linked with.
fn libraries(target: &Path, library: PathBuf) -> Option<OsString> {
    std::env::join_paths([target.join("debug/deps"), target.join("debug"), library]).ok()
}

/// Settings of cargo and choices of a tool chain outside the project that count inside it.
fn settings(project: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let above = project.ancestors().skip(1);
    let names = [".cargo/config.toml", ".cargo/config", "rust-toolchain.toml", "rust-toolchain"];
    let mut settings: Vec<PathBuf> = above.flat_map(|folder| names.map(|name| folder.join(name))).collect();
    settings.extend(home.into_iter().flat_map(|home| ["config.toml", "config"].map(|name| home.join(name))));
    settings
}

/// The files that a compiled file was made from, as rustc noted them in a makefile beside it.
pub(crate) fn dep_info(file: &Path, workspace: &Path) -> Vec<PathBuf> {
    let Some(stem) = file.file_stem().and_then(OsStr::to_str) else { return Vec::new() };
    let is_library = file.extension().is_some();
    let stem = if is_library { stem.strip_prefix("lib").unwrap_or(stem) } else { stem };
    let Ok(text) = fs::read_to_string(file.with_file_name(format!("{stem}.d"))) else { return Vec::new() };
    let mut files = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, sources)) = line.split_once(": ") else { continue };
        files.extend(split_escaped(sources).map(|source| clean(&workspace.join(source))));
    }
    files.into_iter().collect()
}

/// Words of a makefile, in which a space is written with a backslash before it.
fn split_escaped(text: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        match (character, words.last_mut()) {
            (' ', _) if !escaped => words.push(String::new()),
            ('\\', _) if !escaped => {
                escaped = true;
                continue;
            }
            (character, Some(word)) => word.push(character),
            _ => {}
        }
        escaped = false;
    }
    words.into_iter().filter(|word| !word.is_empty())
}

/// A path without `.` and `..`, as far as that can be told without looking.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(cleaned.pop()),
            part => cleaned.push(part),
        }
    }
    cleaned
}

/// Most files of a folder that a build script says it reads.
const SCRIPT_FILES_MAX: usize = 10_000;

/// What a build script said it reads (<https://doc.rust-lang.org/cargo/reference/build-scripts.html#rerun-if-changed>).
fn script_reads(out_dir: &Path, package: &Path) -> Vec<PathBuf> {
    let Some(output) = out_dir.parent().map(|folder| folder.join("output")) else { return Vec::new() };
    let Ok(text) = fs::read_to_string(output) else { return Vec::new() };
    let mut reads = Vec::new();
    for line in text.lines() {
        let named = line
            .strip_prefix("cargo:rerun-if-changed=")
            .or_else(|| line.strip_prefix("cargo::rerun-if-changed="));
        let Some(named) = named else { continue };
        let mut waiting = vec![clean(&package.join(named.trim()))];
        while let Some(path) = waiting.pop() {
            let inside = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            waiting.extend(inside.take(SCRIPT_FILES_MAX.saturating_sub(reads.len())));
            reads.push(path);
        }
    }
    reads
}

/// Cases and verdicts in what the Rust test harness prints.
pub(crate) fn cases(output: &str) -> BTreeMap<String, bool> {
    let mut cases = BTreeMap::new();
    for line in output.lines() {
        let Some(rest) = line.strip_prefix("test ") else { continue };
        let Some((name, verdict)) = rest.rsplit_once(" ... ") else { continue };
        let name = name.trim_end_matches(" - should panic").to_owned();
        match verdict.split_whitespace().next() {
            Some("ok") => drop(cases.insert(name, true)),
            Some("FAILED") => drop(cases.insert(name, false)),
            _ => {}
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::folder_of;

    #[test]
    fn directories_of_path_dependencies_are_found_in_their_ids() {
        let check =
            |id: &str, expected: Option<&str>| assert_eq!(folder_of(id), expected.map(PathBuf::from), "{id}");
        check("path+file:///a/b#0.1.0", Some("/a/b"));
        check("path+file:///a/b%20c#name@0.1.0", Some("/a/b c"));
        check("path+file:///a/100%#0.1.0", Some("/a/100%"));
        check("name 0.1.0 (path+file:///a/b)", Some("/a/b"));
        check("registry+https://github.com/rust-lang/crates.io-index#x@1.0.0", None);
    }
}
