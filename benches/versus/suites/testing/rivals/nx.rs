//! nx.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Files, Installed, Rival, commit_all, file, file_of_each};
use crate::process::command;

/// nx, which caches the output of targets, with a daemon.
pub(super) struct Nx;

impl Rival for Nx {
    fn name(&self) -> &'static str {
        "nx"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        installed.anywhere("nx")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["run-many", "-t", "test", "--parallel=2", "--output-style=static"]
    }

    fn files(&self, tests: usize) -> Files {
        let inputs = ["{projectRoot}/f*.txt"];
        let project = |test: usize| {
            let target = json!({"command": format!("cat pkg{test}/f0.txt"), "cache": true, "inputs": inputs});
            json!({"name": format!("pkg{test}"), "targets": {"test": target}})
        };
        let mut files = file_of_each(tests, "project.json", |test| project(test).to_string());
        files.extend(file("package.json", json!({"name": "root"}).to_string()));
        files.extend(file("nx.json", json!({"analytics": false}).to_string()));
        files
    }

    fn prepare(&self, program: &Path, project: &Path) {
        let modules = program.ancestors().nth(2).expect("the program is in node_modules/.bin");
        let link = std::os::unix::fs::symlink(modules, project.join("node_modules"));
        link.expect("a symbolic link can be created");
        commit_all(project);
    }

    fn shut_down(&self, program: &Path, project: &Path) {
        let _ = command(program, project).args(["daemon", "--stop"]).status();
    }
}
