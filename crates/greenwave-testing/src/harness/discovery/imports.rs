//! Which folders each package of Go is built from, as `go list` says. Knows nothing of how packages are found or run.
//!
//! What the `go` tool or a test reads beyond that is seen while it runs, like everything else that nobody declares.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::go::{VARIABLES, is_seen};
use crate::run::isolation::tool_homes;
use crate::test::Harness;
use crate::{Environment, Test};

/// It reads the head of every file of the module, and of what that depends on.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Files that every package of a module is built with.
const COMMON: [&str; 4] = ["go.mod", "go.sum", "go.work", "go.work.sum"];

/// What packages with tests are built from: folders, relative to the project, by their number.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Imports {
    folders: Vec<PathBuf>,
    /// Those that the tests of the package in one folder are built from, itself included.
    of: BTreeMap<usize, Vec<usize>>,
    /// Files in folders below that are built into a package.
    embedded: BTreeMap<usize, Vec<PathBuf>>,
}

/// What `go list -json` says of a package, as far as it is of use here (<https://pkg.go.dev/cmd/go#hdr-List_packages_or_modules>).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Package {
    dir: PathBuf,
    import_path: String,
    standard: bool,
    incomplete: bool,
    deps: Vec<String>,
    cgo_files: Vec<String>,
    embed_files: Vec<PathBuf>,
    test_embed_files: Vec<PathBuf>,
    x_test_embed_files: Vec<PathBuf>,
}

impl Imports {
    /// Asks for all packages of the modules that these tests are in. Where there is no answer, nothing is known.
    pub(super) async fn list(project: &Path, tests: &[Test], environment: &Environment) -> Self {
        let modules: BTreeSet<&Path> = of_go(tests).map(|test| test.directory.as_path()).collect();
        let mut imports = Self::default();
        for module in modules {
            match ask(&project.join(module), environment).await {
                Ok(packages) => imports.add(project, &packages),
                Err(problem) => {
                    tracing::debug!(module = %module.display(), problem, "go cannot list packages");
                }
            }
        }
        imports
    }

    fn add(&mut self, project: &Path, packages: &[Package]) {
        let by_path: HashMap<&str, &Package> =
            packages.iter().map(|package| (package.import_path.as_str(), package)).collect();
        let mut numbers: HashMap<PathBuf, usize> =
            self.folders.iter().enumerate().map(|(at, folder)| (folder.clone(), at)).collect();
        for tests in packages {
            let Some(name) = tests.import_path.strip_suffix(".test") else { continue };
            let names = tests.deps.iter().map(String::as_str).chain([name]);
            let needed: Option<Vec<&Package>> = names.map(|name| by_path.get(name).copied()).collect();
            let Some(needed) = needed else { continue };
            // What C is compiled from can be anywhere, and is not read again when Go's cache has the result.
            if tests.incomplete
                || needed.iter().any(|it| !it.standard && (it.incomplete || !it.cgo_files.is_empty()))
            {
                continue;
            }
            let inside = |package: &&Package| package.dir.strip_prefix(project).ok().map(Path::to_owned);
            let Some(own) = by_path.get(name).and_then(inside) else { continue };
            let mut number = |folder: PathBuf| {
                *numbers.entry(folder).or_insert_with_key(|folder| {
                    self.folders.push(folder.clone());
                    self.folders.len() - 1
                })
            };
            let mut all: Vec<usize> = Vec::new();
            for package in needed.iter().filter(|it| !it.standard) {
                let Some(folder) = inside(package) else { continue };
                let at = number(folder);
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

    /// Has each test depend on the packages that it is built from, in place of whole modules, as far as they are known.
    pub(super) fn narrow(&self, tests: &mut [Test], files: &[PathBuf]) {
        if self.of.is_empty() {
            return;
        }
        let numbers: HashMap<&Path, usize> =
            self.folders.iter().enumerate().map(|(at, folder)| (folder.as_path(), at)).collect();
        let sources = Sources::of(files);
        let own: Vec<Vec<PathBuf>> = self
            .folders
            .iter()
            .enumerate()
            .map(|(at, folder)| sources.own(folder, self.embedded.get(&at)))
            .collect();
        for test in tests.iter_mut().filter(|test| test.harness == Harness::Go) {
            let package = test.command.last().map(|name| test.directory.join(name)).unwrap_or_default();
            // A joined `.` or `./a` is the folder itself.
            let package: PathBuf = package.components().filter(|part| *part != Component::CurDir).collect();
            let Some(needed) = numbers.get(package.as_path()).and_then(|at| self.of.get(at)) else {
                continue;
            };
            let mut folders: Vec<PathBuf> = needed.iter().flat_map(|at| own[*at].iter().cloned()).collect();
            folders.extend(sources.common.iter().map(|file| (*file).to_owned()));
            folders.sort_unstable();
            folders.dedup();
            if folders.iter().all(|folder| !folder.as_os_str().is_empty()) {
                test.directories = folders;
            }
        }
    }
}

fn of_go(tests: &[Test]) -> impl Iterator<Item = &Test> {
    tests.iter().filter(|test| test.harness == Harness::Go)
}

async fn ask(module: &Path, environment: &Environment) -> Result<Vec<Package>, String> {
    let program =
        crate::run::toolchain::resolve("go", module, environment.get("PATH")).ok_or("there is no `go`")?;
    let declared = VARIABLES.map(str::to_owned);
    let mut command = Command::new(program);
    command.args(["list", "-e", "-deps", "-test", "-json", "./..."]).current_dir(module).env_clear();
    command.envs(environment.visible(&declared)).envs(tool_homes(environment));
    // The settings in the user's home are none of the tests', which have a home of their own.
    command.envs(environment.get("HOME").map(|home| ("HOME", home))).env("GOENV", "off");
    // In our own process group, so that Ctrl-C ends it as well: nobody listens to signals yet.
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(TIME_MAX, command.output()).await;
    let output = output.map_err(|_| "it did not end")?.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(output.status.to_string());
    }
    let packages = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    packages.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// Where a project's Go code is.
struct Sources<'f> {
    by_folder: HashMap<&'f Path, Vec<&'f Path>>,
    /// Folders with code in them that `go` looks into, and those above them.
    above: BTreeSet<&'f Path>,
    common: Vec<&'f Path>,
}

impl<'f> Sources<'f> {
    fn of(files: &'f [PathBuf]) -> Self {
        let is_code = |file: &&PathBuf| file.extension().is_some_and(|it| it == "go");
        let folders = files.iter().filter(is_code).filter_map(|file| file.parent());
        let mut above = BTreeSet::new();
        for folder in folders.filter(|folder| is_seen(folder)) {
            // All above one that is in there are in there as well.
            folder.ancestors().take_while(|it| above.insert(*it)).for_each(drop);
        }
        let is_common = |file: &&PathBuf| {
            let name = file.file_name().unwrap_or_default();
            COMMON.iter().any(|common| name == *common) || file.ends_with("vendor/modules.txt")
        };
        let common = files.iter().filter(is_common).map(PathBuf::as_path).collect();
        let mut by_folder: HashMap<&Path, Vec<&Path>> = HashMap::new();
        for file in files {
            by_folder.entry(file.parent().unwrap_or(file)).or_default().push(file);
        }
        Self { by_folder, above, common }
    }

    /// What is a package's own: its folder, where no other package is below; otherwise the files in its folder, what is built into it, and what
    /// its tests read by custom.
    fn own(&self, folder: &Path, embedded: Option<&Vec<PathBuf>>) -> Vec<PathBuf> {
        let next = self.above.range::<Path, _>((Bound::Excluded(folder), Bound::Unbounded)).next();
        let has_packages = next.is_some_and(|next| next.starts_with(folder));
        let has_vendored = self.common.iter().any(|file| **file == folder.join("vendor/modules.txt"));
        if !has_packages && !has_vendored && !folder.as_os_str().is_empty() {
            return vec![folder.to_owned()];
        }
        let files = self.by_folder.get(folder).into_iter().flatten();
        let mut own: Vec<PathBuf> = files.map(|file| (*file).to_owned()).collect();
        own.push(folder.join("testdata"));
        for file in embedded.into_iter().flatten() {
            let inside = file.iter().next().map(|top| folder.join(top)).unwrap_or_default();
            own.push(if self.above.contains(inside.as_path()) { folder.join(file) } else { inside });
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(path: &str, deps: &[&str]) -> Package {
        let folder = path.split([' ', '.']).next().unwrap_or_default();
        Package {
            dir: Path::new("/p").join(folder.strip_suffix("_test").unwrap_or(folder)),
            import_path: path.to_owned(),
            deps: deps.iter().map(|name| (*name).to_owned()).collect(),
            ..Package::default()
        }
    }

    /// The folders of the tests of each package, after a change of one of the packages.
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
            harness: Harness::Go,
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
    fn a_package_has_the_files_of_those_that_it_is_built_from() {
        let found = narrowed(|_| {});
        // Another package is below, which is none of its own.
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
    fn what_is_not_known_for_sure_has_the_whole_module() {
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
