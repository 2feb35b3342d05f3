//! go-task.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Files, Installed, Rival, file};

/// go-task, which compares checksums of sources.
pub(super) struct GoTask;

impl Rival for GoTask {
    fn name(&self) -> &'static str {
        "go-task"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        // On the `PATH`, `task` may be another program of that name.
        installed.anywhere("go-task").or_else(|| installed.in_node("task"))
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["--silent", "--concurrency", "2", "all"]
    }

    fn files(&self, tests: usize) -> Files {
        let names: Vec<String> = (0..tests).map(|test| format!("t{test}")).collect();
        let mut text = format!("version: '3'\ntasks:\n  all:\n    deps: [{}]\n", names.join(", "));
        for test in 0..tests {
            let _ = writeln!(
                text,
                "  t{test}:\n    cmds: [cat pkg{test}/f0.txt]\n    sources: ['pkg{test}/*.txt']"
            );
        }
        file("Taskfile.yml", text)
    }
}
