//! moon.

use std::path::{Path, PathBuf};

use super::{Files, Installed, Rival, TESTS_OF_SLOW_TOOLS, commit_all, file, file_of_each};

/// moon, which caches the output of tasks.
pub(super) struct Moon;

impl Rival for Moon {
    fn name(&self) -> &'static str {
        "moon"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        installed.anywhere("moon")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["run", ":test", "--concurrency", "2"]
    }

    fn files(&self, tests: usize) -> Files {
        let task = "tasks:\n  test:\n    command: cat f0.txt\n    inputs: ['f*.txt']\n";
        let mut files = file_of_each(tests, "moon.yml", |_| task.to_owned());
        files.extend(file(".moon/workspace.yml", "projects: ['pkg*']\ntelemetry: false\n".to_owned()));
        files
    }

    fn tests(&self) -> usize {
        TESTS_OF_SLOW_TOOLS
    }

    fn prepare(&self, _: &Path, project: &Path) {
        commit_all(project);
    }
}
