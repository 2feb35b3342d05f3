//! ninja.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::{FILES, Files, Installed, ROUNDS, Rival, file};

/// Expected percentage of the time of ninja, if everything is up to date.
const UP_TO_DATE_PERCENT: f64 = 150.0;

/// ninja, which runs commands through `sh` and compares modification times.
pub(super) struct Ninja;

impl Rival for Ninja {
    fn name(&self) -> &'static str {
        "ninja"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        installed.on_path("ninja")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["-j2", "--quiet"]
    }

    fn files(&self, tests: usize) -> Files {
        let mut text = String::from("rule t\n  command = cat $in > $out\n");
        for test in 0..tests {
            let inputs: String = (1..FILES).map(|number| format!(" pkg{test}/f{number}.txt")).collect();
            let _ = writeln!(text, "build out/{test}: t pkg{test}/f0.txt |{inputs}");
        }
        file("build.ninja", text)
    }

    fn rounds(&self) -> usize {
        ROUNDS
    }

    fn up_to_date_percent_max(&self) -> Option<f64> {
        Some(UP_TO_DATE_PERCENT)
    }

    fn remove_results(&self, project: &Path) {
        for log in [".ninja_log", ".ninja_deps"] {
            let _ = fs::remove_file(project.join(log));
        }
        let _ = fs::remove_dir_all(project.join("out"));
    }
}
