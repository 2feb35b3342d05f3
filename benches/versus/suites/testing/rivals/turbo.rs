//! turbo.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Files, Installed, Rival, TESTS_OF_SLOW_TOOLS, commit_all, file, file_of_each};

/// turbo, which caches the output of packages' scripts.
pub(super) struct Turbo;

impl Rival for Turbo {
    fn name(&self) -> &'static str {
        "turbo"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        installed.anywhere("turbo")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["run", "test", "--concurrency=2", "--output-logs=errors-only"]
    }

    fn files(&self, tests: usize) -> Files {
        let root = json!({"name": "root", "packageManager": "npm@10.0.0", "workspaces": ["pkg*"]});
        let tasks = json!({"tasks": {"test": {"inputs": ["f*.txt"], "outputs": []}}});
        let lock = json!({"lockfileVersion": 3, "packages": {}});
        let scripts = json!({"test": "cat f0.txt"});
        let package = |test| json!({"name": format!("pkg{test}"), "version": "1.0.0", "scripts": scripts});
        let mut files = file_of_each(tests, "package.json", |test| package(test).to_string());
        files.extend(file("package.json", root.to_string()));
        files.extend(file("turbo.json", tasks.to_string()));
        files.extend(file("package-lock.json", lock.to_string()));
        files
    }

    fn tests(&self) -> usize {
        TESTS_OF_SLOW_TOOLS
    }

    fn prepare(&self, _: &Path, project: &Path) {
        commit_all(project);
    }
}
