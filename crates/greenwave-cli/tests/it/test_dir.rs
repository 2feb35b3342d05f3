//! A temporary directory with files for one test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::program::{Finished, Program};

/// Name of the user's state directory, which each test has for itself.
pub(crate) const STATE: &str = ".state";

/// A temporary directory, removed when it is dropped.
pub(crate) struct TestDir(TempDir);

/// Files by relative path with their content. The content of a link is `-> ` and its target.
pub(crate) type Files = BTreeMap<String, String>;

impl TestDir {
    /// Creates an empty directory.
    pub(crate) fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Creates a directory with a project that has one file, `keep.txt`.
    pub(crate) fn with_project() -> Self {
        Self::empty().with("project/keep.txt", "keep\n")
    }

    pub(crate) fn with(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(path, content);
        self
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Calls the program in this directory.
    pub(crate) fn greenwave<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Program {
        Program::new(args).within(self.0.path()).variable("XDG_STATE_HOME", self.path(STATE))
    }

    /// Runs the plan `plan.toml` with JSON output.
    pub(crate) fn run_plan(&self) -> Finished {
        self.plan().run()
    }

    pub(crate) fn plan(&self) -> Program {
        self.greenwave(["run", "plan.toml", "--no-metrics", "--format", "json"])
    }

    /// Returns the files about approvals of a feature with this ending.
    pub(crate) fn approvals(&self, feature: &str, ending: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("project/.greenwave/approvals")) else { return Vec::new() };
        let is_found = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(&format!("{feature}.")) && name.ends_with(&format!(".{ending}"))
        };
        entries.map(|entry| entry.unwrap().path()).filter(is_found).collect()
    }

    /// Returns the files below a path, without the state of greenwave and the build output of
    /// cargo.
    pub(crate) fn files(&self, path: &str) -> Files {
        let mut files = Files::new();
        collect(&self.path(path), "", &mut files);
        files
    }
}

fn collect(dir: &Path, prefix: &str, files: &mut Files) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if [".greenwave", "target", STATE].contains(&name.as_str()) {
            continue;
        }
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files);
        } else if kind.is_symlink() {
            files
                .insert(format!("{prefix}{name}"), format!("-> {}", fs::read_link(&path).unwrap().display()));
        } else {
            let content = fs::read(&path).unwrap();
            files.insert(format!("{prefix}{name}"), String::from_utf8_lossy(&content).into_owned());
        }
    }
}
