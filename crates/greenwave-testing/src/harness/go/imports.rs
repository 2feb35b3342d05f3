//! Reads from `go list` which directories each Go package is built from.
//!
//! Tracing discovers the other files that the `go` tool or a test reads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use super::super::problem::Problem;
use super::{COMMAND, HARNESS, NO_TEST, VARIABLES, is_searched};
use crate::run::go_homes::go_homes;
use crate::run::isolation::tool_homes;
use crate::run::toolchain::resolve;
use crate::{Environment, Test};

/// The command that lists packages, as messages name it.
const LIST: &str = "go list";
/// Time limit of `go list`, which reads the head of every file of the module and of its
/// dependencies.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Formats of the list, in the order in which they are tried. Without names of fields, `go list`
/// also computes which packages are stale, which takes longer than the rest. Versions before 1.19
/// know no names of fields.
const FORMATS: [&str; 2] = [
    "-json=Dir,ImportPath,Standard,Incomplete,Deps,ForTest,DepOnly,TestGoFiles,XTestGoFiles,CgoFiles,\
     EmbedFiles,TestEmbedFiles,XTestEmbedFiles",
    "-json",
];

/// Files that every package of a module is built with.
const COMMON: [&str; 4] = ["go.mod", "go.sum", "go.work", "go.work.sum"];

/// The directories that packages with tests are built from, relative to the project.
#[derive(Debug, Default)]
pub(super) struct Imports {
    directories: Vec<PathBuf>,
    /// For each package, the indices of the directories that its tests are built from, including
    /// its own.
    of: BTreeMap<usize, Vec<usize>>,
    /// Files in subdirectories that are embedded into a package.
    embedded: BTreeMap<usize, Vec<PathBuf>>,
    /// The packages of each module that is listed, relative to the project, and whether they have
    /// tests under the current build tags.
    packages: BTreeMap<PathBuf, BTreeMap<PathBuf, bool>>,
    /// The directories that each module is built from; none if that is the whole project.
    modules: BTreeMap<PathBuf, Vec<PathBuf>>,
}

/// The part of a package that `go list -json` prints and that matters here
/// (<https://pkg.go.dev/cmd/go#hdr-List_packages_or_modules>).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Package {
    dir: PathBuf,
    import_path: String,
    standard: bool,
    incomplete: bool,
    deps: Vec<String>,
    for_test: String,
    dep_only: bool,
    test_go_files: Vec<PathBuf>,
    #[serde(rename = "XTestGoFiles")]
    x_test_go_files: Vec<PathBuf>,
    cgo_files: Vec<String>,
    embed_files: Vec<PathBuf>,
    test_embed_files: Vec<PathBuf>,
    x_test_embed_files: Vec<PathBuf>,
}

impl Imports {
    /// Lists the packages of all modules that these tests belong to. A module that cannot be listed
    /// is skipped.
    pub(super) async fn list(project: &Path, tests: &[Test], environment: &Environment) -> Self {
        let modules: BTreeSet<&Path> = tests.iter().map(|test| test.directory.as_path()).collect();
        let of_module = |test: &Test| (test.directory.clone(), test.directories.clone());
        let mut imports = Self { modules: tests.iter().map(of_module).collect(), ..Self::default() };
        for module in modules {
            match ask(&project.join(module), environment).await {
                Ok(packages) => {
                    imports.add(project, &packages);
                    imports.add_module(project, module, &packages);
                }
                Err(error) => {
                    tracing::debug!(module = %module.display(), ?error, "cannot list Go packages");
                }
            }
        }
        imports
    }

    /// Records which packages a module has, and which of them have tests.
    fn add_module(&mut self, project: &Path, module: &Path, packages: &[Package]) {
        let is_own = |package: &&Package| {
            let is_variant = !package.for_test.is_empty() || package.import_path.ends_with(".test");
            !is_variant && !package.dep_only && !package.standard
        };
        let mut found = BTreeMap::new();
        for package in packages.iter().filter(is_own) {
            let Ok(directory) = package.dir.strip_prefix(project) else { continue };
            let has_tests = !package.test_go_files.is_empty() || !package.x_test_go_files.is_empty();
            found.insert(directory.to_owned(), has_tests);
        }
        // `go list` may find no package without saying why. Then `go test` says it.
        if !found.is_empty() {
            self.packages.insert(module.to_owned(), found);
        }
    }

    /// Removes packages without tests under the current build tags. `go test ./...` also builds the
    /// packages without tests, so one test for each module does that.
    pub(super) fn select(&self, tests: &mut Vec<Test>) {
        tests.retain(|test| {
            let packages = self.packages.get(&test.directory);
            packages.is_none_or(|packages| packages.get(&directory_of(test)).copied().unwrap_or(false))
        });
        for (module, packages) in &self.packages {
            let Some(first) = tests.iter().find(|test| test.directory == *module).cloned() else { continue };
            let untested = packages.iter().filter(|(_, has_tests)| !**has_tests);
            let name = |directory: &Path| match directory.strip_prefix(module).unwrap_or(directory) {
                inside if inside.as_os_str().is_empty() => ".".to_owned(),
                inside => format!("./{}", inside.display()),
            };
            let names: Vec<String> = untested.map(|(directory, _)| name(directory)).collect();
            if !names.is_empty() {
                let command = COMMAND.iter().chain([&NO_TEST]).map(|word| (*word).to_owned()).chain(names);
                let place = if module.as_os_str().is_empty() {
                    ".".to_owned()
                } else {
                    format!("./{}", module.display())
                };
                let directories = self.modules.get(module).cloned().unwrap_or_default();
                let name = format!("go:{place} (packages without tests)");
                tests.push(Test { name, command: command.collect(), directories, ..first });
            }
        }
    }

    fn add(&mut self, project: &Path, packages: &[Package]) {
        let by_path: HashMap<&str, &Package> =
            packages.iter().map(|package| (package.import_path.as_str(), package)).collect();
        let mut numbers: HashMap<PathBuf, usize> =
            self.directories.iter().enumerate().map(|(at, directory)| (directory.clone(), at)).collect();
        for tests in packages {
            let Some(name) = tests.import_path.strip_suffix(".test") else { continue };
            let names = tests.deps.iter().map(String::as_str).chain([name]);
            let needed: Option<Vec<&Package>> = names.map(|name| by_path.get(name).copied()).collect();
            let Some(needed) = needed else { continue };
            // C sources can be anywhere, and are not read again while Go's build cache has the
            // result.
            if tests.incomplete
                || needed.iter().any(|it| !it.standard && (it.incomplete || !it.cgo_files.is_empty()))
            {
                continue;
            }
            let inside = |package: &&Package| package.dir.strip_prefix(project).ok().map(Path::to_owned);
            let Some(own) = by_path.get(name).and_then(inside) else { continue };
            let mut number = |directory: PathBuf| {
                *numbers.entry(directory).or_insert_with_key(|directory| {
                    self.directories.push(directory.clone());
                    self.directories.len() - 1
                })
            };
            let mut all: Vec<usize> = Vec::new();
            for package in needed.iter().filter(|it| !it.standard) {
                let Some(directory) = inside(package) else { continue };
                let at = number(directory);
                all.push(at);
                let files = [&package.embed_files, &package.test_embed_files, &package.x_test_embed_files];
                let files: Vec<PathBuf> = files.into_iter().flatten().cloned().collect();
                if !files.is_empty() {
                    self.embedded.insert(at, files);
                }
            }
            all.sort_unstable();
            all.dedup();
            self.of.insert(number(own), all);
        }
    }

    /// Replaces the module that a test depends on by the packages that it is built from, if they
    /// are listed.
    pub(super) fn narrow(&self, tests: &mut [Test], files: &[PathBuf]) {
        if self.of.is_empty() {
            return;
        }
        let numbers: HashMap<&Path, usize> =
            self.directories.iter().enumerate().map(|(at, directory)| (directory.as_path(), at)).collect();
        let sources = Sources::of(files);
        let own: Vec<Vec<PathBuf>> = self
            .directories
            .iter()
            .enumerate()
            .map(|(at, directory)| sources.own(directory, self.embedded.get(&at)))
            .collect();
        for test in tests.iter_mut() {
            let package = directory_of(test);
            let Some(needed) = numbers.get(package.as_path()).and_then(|at| self.of.get(at)) else {
                continue;
            };
            let mut directories: Vec<PathBuf> =
                needed.iter().flat_map(|at| own[*at].iter().cloned()).collect();
            directories.extend(sources.common.iter().map(|file| (*file).to_owned()));
            directories.sort_unstable();
            directories.dedup();
            if directories.iter().all(|directory| !directory.as_os_str().is_empty()) {
                test.directories = directories;
            }
        }
    }
}

/// Returns the directory of the package that a test runs, which its command names as `.` or `./a`.
fn directory_of(test: &Test) -> PathBuf {
    let package = test.command.last().map(|name| test.directory.join(name)).unwrap_or_default();
    package.components().filter(|part| *part != Component::CurDir).collect()
}

/// Runs `go list` in a module.
async fn ask(module: &Path, environment: &Environment) -> Result<Vec<Package>, Problem> {
    let [fields, all] = FORMATS;
    match ask_for(fields, module, environment).await {
        Err(Problem::Failed { .. }) => ask_for(all, module, environment).await,
        result => result,
    }
}

async fn ask_for(format: &str, module: &Path, environment: &Environment) -> Result<Vec<Package>, Problem> {
    let missing = || Problem::NoSuchProgram { program: HARNESS.to_owned() };
    let program = resolve(HARNESS, module, environment.search_path()).ok_or_else(missing)?;
    let declared = VARIABLES.map(str::to_owned);
    let mut command = Command::new(program);
    command.args(["list", "-e", "-deps", "-test", format, "./..."]).current_dir(module).env_clear();
    command.envs(environment.visible(&declared)).envs(tool_homes(environment)).envs(go_homes(environment));
    command.envs(environment.get("HOME").map(|home| ("HOME", home)));
    if environment.is_inspecting() {
        // Neither another toolchain nor version control.
        command.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-buildvcs=false");
    }
    // Stays in this process group, so that Ctrl-C ends it: no signal handler is installed yet.
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(TIME_MAX, environment.output(&mut command)).await;
    let output = output.map_err(|_| Problem::TimedOut { command: LIST, seconds: TIME_MAX.as_secs() })?;
    let output = output.map_err(|source| Problem::Start { program: HARNESS.to_owned(), source })?;
    if !output.status.success() {
        return Err(Problem::Failed { command: LIST, output: output.status.to_string() });
    }
    let packages = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    packages.collect::<Result<_, _>>().map_err(|source| Problem::Output { command: LIST, source })
}

/// The Go code of a project, by directory.
struct Sources<'f> {
    by_directory: HashMap<&'f Path, Vec<&'f Path>>,
    /// Directories with code that `go` searches, and their parents.
    above: BTreeSet<&'f Path>,
    common: Vec<&'f Path>,
}

impl<'f> Sources<'f> {
    fn of(files: &'f [PathBuf]) -> Self {
        let is_code = |file: &&PathBuf| file.extension().is_some_and(|it| it == "go");
        let directories = files.iter().filter(is_code).filter_map(|file| file.parent());
        let mut above = BTreeSet::new();
        for directory in directories.filter(|directory| is_searched(directory)) {
            // The parents of a directory in the set are in the set as well.
            directory.ancestors().take_while(|it| above.insert(*it)).for_each(drop);
        }
        let is_common = |file: &&PathBuf| {
            let name = file.file_name().unwrap_or_default();
            COMMON.iter().any(|common| name == *common) || file.ends_with("vendor/modules.txt")
        };
        let common = files.iter().filter(is_common).map(PathBuf::as_path).collect();
        let mut by_directory: HashMap<&Path, Vec<&Path>> = HashMap::new();
        for file in files {
            by_directory.entry(file.parent().unwrap_or(file)).or_default().push(file);
        }
        Self { by_directory, above, common }
    }

    /// Returns the paths that belong to a package: its directory, if it contains no other package;
    /// otherwise the files in its directory, the files embedded into it, and `testdata`.
    fn own(&self, directory: &Path, embedded: Option<&Vec<PathBuf>>) -> Vec<PathBuf> {
        let next = self.above.range::<Path, _>((Bound::Excluded(directory), Bound::Unbounded)).next();
        let has_packages = next.is_some_and(|next| next.starts_with(directory));
        let has_vendored = self.common.iter().any(|file| **file == directory.join("vendor/modules.txt"));
        if !has_packages && !has_vendored && !directory.as_os_str().is_empty() {
            return vec![directory.to_owned()];
        }
        let files = self.by_directory.get(directory).into_iter().flatten();
        let mut own: Vec<PathBuf> = files.map(|file| (*file).to_owned()).collect();
        own.push(directory.join("testdata"));
        for file in embedded.into_iter().flatten() {
            let inside = file.iter().next().map(|top| directory.join(top)).unwrap_or_default();
            own.push(if self.above.contains(inside.as_path()) { directory.join(file) } else { inside });
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HarnessName;

    fn package(path: &str, deps: &[&str]) -> Package {
        let directory = path.split([' ', '.']).next().unwrap_or_default();
        Package {
            dir: Path::new("/p").join(directory.strip_suffix("_test").unwrap_or(directory)),
            import_path: path.to_owned(),
            deps: deps.iter().map(|name| (*name).to_owned()).collect(),
            ..Package::default()
        }
    }

    /// Returns the directories of each package's tests, after `change` was applied to all packages.
    fn narrowed(change: impl Fn(&mut Package)) -> BTreeMap<String, Vec<PathBuf>> {
        let mut packages = [
            package("a", &[]),
            package("a.test", &["a [a.test]"]),
            package("a [a.test]", &[]),
            package("b", &["a"]),
            package("b.test", &["a", "b", "b_test [b.test]", "fmt"]),
            package("b_test [b.test]", &["a", "b", "fmt"]),
            Package { dir: "/go/fmt".into(), standard: true, ..package("fmt", &[]) },
        ];
        packages.iter_mut().for_each(change);
        let mut imports = Imports::default();
        imports.add(Path::new("/p"), &packages);
        let test = |name: &str| Test {
            directories: vec!["module".into()],
            harness: HarnessName::new(HARNESS),
            ..Test::new(name, ["go", "test", name])
        };
        let mut tests = [test("./a"), test("./b")];
        let files = ["go.mod", "a/a.go", "a/deep/x.go", "b/b.go"].map(PathBuf::from);
        imports.narrow(&mut tests, &files);
        tests.into_iter().map(|test| (test.name, test.directories)).collect()
    }

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_test_depends_on_the_packages_it_is_built_from() {
        let found = narrowed(|_| {});
        // `a` contains another package, whose files do not belong to it.
        assert_eq!(found["./a"], paths(&["a/a.go", "a/testdata", "go.mod"]));
        assert_eq!(found["./b"], paths(&["a/a.go", "a/testdata", "b", "go.mod"]));
        let embeds = |package: &mut Package| {
            if package.import_path == "a" {
                package.embed_files = paths(&["static/x.txt", "deep/y.txt"]);
            }
        };
        let found = narrowed(embeds);
        assert_eq!(found["./b"], paths(&["a/a.go", "a/deep/y.txt", "a/static", "a/testdata", "b", "go.mod"]));
    }

    #[test]
    fn a_package_that_cannot_be_resolved_depends_on_the_whole_module() {
        let whole = paths(&["module"]);
        let c = narrowed(|package| {
            if package.import_path == "b" {
                package.cgo_files = vec!["c.go".to_owned()];
            }
        });
        assert_eq!((c["./a"] != whole, &c["./b"]), (true, &whole));
        let incomplete = narrowed(|package| package.incomplete = package.import_path == "a");
        assert_eq!(
            incomplete,
            [("./a", &whole), ("./b", &whole)].map(|(name, it)| (name.to_owned(), it.clone())).into()
        );
        let unknown = narrowed(|package| {
            if package.import_path == "b.test" {
                package.deps.push("c".to_owned());
            }
        });
        assert_eq!((unknown["./a"] != whole, &unknown["./b"]), (true, &whole));
    }
}
