//! What looking for tests gives: tests, and what a person should know of those that there are not. Knows nothing of single tools.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Value;

use super::{go, npm, pytest};
use crate::harness::problem::Problem;
use crate::{Environment, Error, Test};

/// The tests that were found in a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// In the order of tools and paths. No two have the same name.
    pub tests: Vec<Test>,
    /// What a person should be told.
    pub notes: Vec<DiscoveryNote>,
}

/// Something that a person should be told of what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DiscoveryNote {
    /// The program that these tests need is not there. They are in the list, and will not run.
    MissingProgram {
        /// The program.
        program: String,
        /// Tests that need it.
        tests: usize,
    },
    /// A script was left out, since all it does is to run those of other packages, which are in the list.
    WorkspaceScript {
        /// The package, relative to the project.
        directory: PathBuf,
        /// Its script.
        script: String,
    },
    /// What single tests are in this one could not be found out, so that it stays one.
    ListingFailed {
        /// Its name.
        test: String,
        /// Why.
        problem: String,
    },
    /// A package depends on a folder outside the project, whose files cannot be among its inputs.
    OutsideDependency {
        /// The manifest that says so, relative to the project.
        manifest: PathBuf,
        /// The folder, as it is written there.
        directory: String,
    },
}

impl fmt::Display for DiscoveryNote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiscoveryNote::MissingProgram { program, tests: 1 } => {
                write!(formatter, "`{program}` is not installed, and a test needs it")
            }
            DiscoveryNote::MissingProgram { program, tests } => {
                write!(formatter, "`{program}` is not installed, and {tests} tests need it")
            }
            DiscoveryNote::WorkspaceScript { directory, script } => write!(
                formatter,
                "{} is left out: `{script}` runs the tests of other packages, which are here by themselves",
                directory.join("package.json").display()
            ),
            DiscoveryNote::ListingFailed { test, problem } => {
                write!(
                    formatter,
                    "the single tests of {test} cannot be listed, so that it runs as one: {problem}"
                )
            }
            DiscoveryNote::OutsideDependency { manifest, directory } => write!(
                formatter,
                "{} depends on {directory}, which is outside the project: changes there are not seen without tracing",
                manifest.display()
            ),
        }
    }
}

impl Discovery {
    /// Files whose content says which tests of pytest, Go and npm there are. Of all others it matters only whether they are there.
    pub const MANIFESTS: [&str; 12] = [
        "pyproject.toml",
        "pytest.toml",
        ".pytest.toml",
        "pytest.ini",
        ".pytest.ini",
        "setup.cfg",
        "tox.ini",
        "requirements.txt",
        "package.json",
        "pnpm-workspace.yaml",
        "go.mod",
        "go.work",
    ];

    /// Finds the tests of pytest, Go and npm. Runs nothing.
    ///
    /// `files` are the project's files that are not ignored, as relative paths in the order in which tests shall be found. Besides [`MANIFESTS`](Self::MANIFESTS) it looks for
    /// virtual environments (`.venv`, `venv`) and for programs on the `PATH`.
    ///
    /// # Errors
    /// [`Error::Discover`] with the file and what is wrong in it.
    pub fn find(project: &Path, files: &[PathBuf], environment: &Environment) -> Result<Self, Error> {
        let known = files.iter().map(PathBuf::as_path).collect();
        let project = Files { project, files, known, environment };
        let mut all = Self::default();
        for found in [pytest::discover(&project)?, go::discover(&project)?, npm::discover(&project)?] {
            all.tests.extend(found.tests);
            all.notes.extend(found.notes);
        }
        all.give_names();
        Ok(all)
    }

    /// Tells apart tests that would have the same name.
    fn give_names(&mut self) {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for test in &mut self.tests {
            let count = seen.entry(test.name.clone()).or_default();
            *count += 1;
            if *count > 1 {
                test.name = format!("{} ({})", test.name, test.directory.display());
            }
        }
    }

    /// The text of a `greenwave.toml` with these tests, and what each key means.
    pub fn init_text(&self) -> String {
        let mut text = String::from(HEAD);
        for note in &self.notes {
            // A name can have any character, and a comment ends with its line.
            let note: String =
                note.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text.push_str(&format!("# Note: {note}.\n"));
        }
        for test in &self.tests {
            text.push('\n');
            text.push_str(&table(test));
        }
        text
    }
}

const HEAD: &str = "\
# The tests of this project. Without this file they are found anew each time; with it, these and no others are run.
#
# Each [[test]] can have:
#   name           what it is called in output
#   command        the program and its arguments, run without a shell
#   directory      where it runs, relative to this file; this file's folder if not given
#   inputs         patterns of the files it reads, in the syntax of .gitignore: [\"src/**\", \"!src/generated.rs\"]
#   folders        folders of which it may read every file that is not ignored; without inputs and folders, all files count
#   outputs        patterns of the files it writes in the project: never inputs
#   env            variables that it may see beside PATH and the like; all others are withheld
#   set            variables with the values that it sees in any case: { TZ = \"UTC\" }
#   needs          resources that it holds while it runs: { database = 1 }
#   parallel_safe  false if nothing may run beside it; true if not given
#   timeout        how long it may run before it is killed: \"10m\" if not given
#   retries        how often it is tried again after a failure; what passes only then is flaky and not kept
";

fn table(test: &Test) -> String {
    let texts = |texts: &[String]| Value::from(texts.to_vec());
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let folders: Vec<String> = test.directories.iter().map(|folder| path(folder)).collect();
    let mut keys = vec![("name", Value::from(test.name.as_str())), ("command", texts(&test.command))];
    if !test.directory.as_os_str().is_empty() {
        keys.push(("directory", Value::from(path(&test.directory))));
    }
    for (key, list) in
        [("inputs", &test.inputs), ("folders", &folders), ("outputs", &test.outputs), ("env", &test.env)]
    {
        if !list.is_empty() {
            keys.push((key, texts(list)));
        }
    }
    let set: toml::Table =
        test.set.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    if !set.is_empty() {
        keys.push(("set", Value::Table(set)));
    }
    let needs: toml::Table =
        test.needs.iter().map(|(name, amount)| (name.clone(), Value::from(i64::from(*amount)))).collect();
    if !needs.is_empty() {
        keys.push(("needs", Value::Table(needs)));
    }
    if !test.parallel_safe {
        keys.push(("parallel_safe", Value::from(false)));
    }
    if test.time_max != Test::TIME_MAX {
        keys.push(("timeout", Value::from(format!("{}ms", test.time_max.as_millis()))));
    }
    if test.retries > 0 {
        keys.push(("retries", Value::from(i64::from(test.retries))));
    }
    let lines = keys.into_iter().map(|(key, value)| format!("{key} = {value}\n"));
    std::iter::once("[[test]]\n".to_owned()).chain(lines).collect()
}

/// A project's files, and what can be known of where it stands.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub(super) project: &'a Path,
    /// Relative.
    pub(super) files: &'a [PathBuf],
    known: HashSet<&'a Path>,
    pub(super) environment: &'a Environment,
}

impl<'a> Files<'a> {
    /// Whether this file is one of the project's.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.known.contains(path)
    }

    /// The folders with a file of this name.
    pub(super) fn folders_with(&self, name: &'static str) -> impl Iterator<Item = &'a Path> + use<'a> {
        let named = self.files.iter().filter(move |file| file.file_name().is_some_and(|it| it == name));
        named.filter_map(|file| file.parent())
    }

    /// The text of a manifest.
    pub(super) fn text(&self, runner: &'static str, path: &Path) -> Result<String, Error> {
        let bytes =
            std::fs::read(self.project.join(path)).map_err(Error::io("read", self.project.join(path)))?;
        String::from_utf8(bytes)
            .map_err(|_| wrong(runner, self, path, Problem::NotText { file: Problem::file(path) }))
    }

    /// Whether a program is on the path.
    pub(super) fn has_program(&self, program: &str) -> bool {
        crate::run::toolchain::resolve(program, self.project, self.environment.get("PATH")).is_some()
    }

    /// A note if there are tests and no program for them.
    pub(super) fn missing(&self, program: &str, tests: usize) -> Option<DiscoveryNote> {
        let is_missing = tests > 0 && !self.has_program(program);
        is_missing.then(|| DiscoveryNote::MissingProgram { program: program.to_owned(), tests })
    }
}

/// What is wrong in a manifest.
pub(super) fn wrong(runner: &'static str, files: &Files<'_>, manifest: &Path, problem: Problem) -> Error {
    let inside = manifest.parent().filter(|folder| !folder.as_os_str().is_empty());
    let directory = inside.map_or(files.project.to_owned(), |folder| files.project.join(folder));
    problem.discovering(runner, &directory)
}

/// Trace a manifest in TOML.
pub(super) fn parse_toml(
    runner: &'static str,
    files: &Files<'_>,
    manifest: &Path,
) -> Result<toml::Table, Error> {
    let text = files.text(runner, manifest)?;
    text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = &text.as_bytes()[..start];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        let (file, message) = (Problem::file(manifest), error.message().to_owned());
        wrong(runner, files, manifest, Problem::Syntax { file, line, column, message })
    })
}

/// Where a relative path leads, seen from a folder of the project; `None` if out of the project.
pub(super) fn within(folder: &Path, path: &str) -> Option<PathBuf> {
    let mut reached = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::Normal(name) => reached.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !reached.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(reached)
}

/// Everything that can be reached from one folder over dependencies, itself first. Empty if that is the whole project.
pub(super) fn closure(start: &Path, dependencies: &BTreeMap<PathBuf, Vec<PathBuf>>) -> Vec<PathBuf> {
    let mut reached = vec![start.to_owned()];
    let mut at = 0;
    while at < reached.len() {
        for next in dependencies.get(&reached[at]).into_iter().flatten() {
            if !reached.contains(next) {
                reached.push(next.clone());
            }
        }
        at += 1;
    }
    if reached.iter().any(|folder| folder.as_os_str().is_empty()) { Vec::new() } else { reached }
}

/// A pattern that means exactly this file.
pub(super) fn pattern(path: &Path) -> String {
    let mut pattern = String::from("/");
    for character in path.to_string_lossy().chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '!' | '#' | ' ' | '{' | '}') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
