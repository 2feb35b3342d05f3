//! A view of a project's files, and the parsing of manifests that harnesses share.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use greenwave_dir::read_regular;

use super::discovery::DiscoveryNote;
use super::problem::Problem;
use crate::run::toolchain::resolve;
use crate::{Environment, Error};

/// Maximum size of a manifest or settings file, in bytes.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// A project in which tests are discovered. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Project {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    files: Vec<PathBuf>,
    names: HashSet<PathBuf>,
    environment: Environment,
}

impl Project {
    /// Creates a view of the project at `root`, an absolute path.
    ///
    /// `files` are the paths of the project's files that it does not ignore, relative to `root`.
    /// Tests are discovered in their order.
    pub fn new(root: &Path, files: Vec<PathBuf>, environment: &Environment) -> Self {
        let names = files.iter().cloned().collect();
        Self {
            inner: Arc::new(Inner { root: root.to_owned(), files, names, environment: environment.clone() }),
        }
    }

    /// Returns the absolute path of the project.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Returns the project's files, relative to its root.
    pub fn files(&self) -> &[PathBuf] {
        &self.inner.files
    }

    /// Returns the variables of the run.
    pub fn environment(&self) -> &Environment {
        &self.inner.environment
    }

    /// Returns whether a path is one of the project's files.
    pub fn has(&self, path: &Path) -> bool {
        self.inner.names.contains(path)
    }

    /// Returns the directories that contain a file of this name.
    pub fn directories_with<'p>(&'p self, name: &'static str) -> impl Iterator<Item = &'p Path> + use<'p> {
        let named = self.files().iter().filter(move |file| file.file_name().is_some_and(|it| it == name));
        named.filter_map(|file| file.parent())
    }

    /// Returns whether a program is on the PATH.
    pub fn has_program(&self, program: &str) -> bool {
        resolve(program, self.root(), self.environment().get("PATH")).is_some()
    }

    /// Returns a note if there are tests but no program to run them.
    pub fn missing_program(&self, program: &str, tests: usize) -> Option<DiscoveryNote> {
        let is_missing = tests > 0 && !self.has_program(program);
        is_missing.then(|| DiscoveryNote::MissingProgram { program: program.to_owned(), tests })
    }

    /// Reads a manifest.
    pub(crate) fn text(&self, harness: &'static str, manifest: &Path) -> Result<String, Error> {
        let path = self.root().join(manifest);
        let bytes = read_regular(&path, MANIFEST_BYTES_MAX).map_err(Error::io("read", &path))?;
        let not_text =
            |_| self.invalid(harness, manifest, Problem::NotText { file: Problem::file(manifest) });
        String::from_utf8(bytes).map_err(not_text)
    }

    /// Reads and parses a manifest in TOML.
    pub(crate) fn toml(&self, harness: &'static str, manifest: &Path) -> Result<toml::Table, Error> {
        let text = self.text(harness, manifest)?;
        text.parse().map_err(|error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = &text.as_bytes()[..start];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
            let (file, message) = (Problem::file(manifest), error.message().to_owned());
            self.invalid(harness, manifest, Problem::Syntax { file, line, column, message })
        })
    }

    /// Returns the error that a manifest is invalid.
    pub(crate) fn invalid(&self, harness: &'static str, manifest: &Path, problem: Problem) -> Error {
        let inside = manifest.parent().filter(|directory| !directory.as_os_str().is_empty());
        let directory = inside.map_or(self.root().to_owned(), |directory| self.root().join(directory));
        problem.discovering(harness, &directory)
    }
}

/// Parses a manifest in TOML into the data model of JSON; `None` if it is invalid.
///
/// Dates and times become strings or tables.
pub fn parse_toml_manifest(text: &str) -> Option<serde_json::Value> {
    serde_json::to_value(text.parse::<toml::Table>().ok()?).ok()
}

/// Resolves a relative path against a directory of the project; `None` if it leaves the project.
pub(crate) fn within(directory: &Path, path: &str) -> Option<PathBuf> {
    let mut reached = PathBuf::new();
    for part in directory.join(path).components() {
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

/// Returns `start` and all directories that it depends on; empty if one of them is the whole
/// project.
pub(crate) fn closure(start: &Path, dependencies: &BTreeMap<PathBuf, Vec<PathBuf>>) -> Vec<PathBuf> {
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
    if reached.iter().any(|directory| directory.as_os_str().is_empty()) { Vec::new() } else { reached }
}

/// Returns a `.gitignore` pattern that matches exactly this path.
pub(crate) fn pattern(path: &Path) -> String {
    let mut pattern = String::from("/");
    for character in path.to_string_lossy().chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '!' | '#' | ' ' | '{' | '}') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
