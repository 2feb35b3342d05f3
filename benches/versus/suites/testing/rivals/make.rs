//! GNU make.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::{FILES, Files, Installed, ROUNDS, Rival};
use crate::process::write;

/// GNU make, which compares modification times.
pub(super) struct Make;

/// A file that makes the output directory exist, since make does not create it.
const OUTPUT_DIRECTORY: &str = "out/.keep";

impl Rival for Make {
    fn name(&self) -> &'static str {
        "make"
    }

    fn find(&self, installed: &Installed) -> Option<PathBuf> {
        installed.on_path("make")
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["-j2", "-s", "all"]
    }

    fn files(&self, tests: usize) -> Files {
        let outputs: String = (0..tests).map(|test| format!(" out/{test}")).collect();
        let mut text = format!("all:{outputs}\n");
        for test in 0..tests {
            let inputs: String = (0..FILES).map(|number| format!(" pkg{test}/f{number}.txt")).collect();
            let _ = writeln!(text, "out/{test}:{inputs}\n\t@cat pkg{test}/f0.txt > out/{test}");
        }
        vec![("Makefile".to_owned(), text), (OUTPUT_DIRECTORY.to_owned(), String::new())]
    }

    fn rounds(&self) -> usize {
        ROUNDS
    }

    fn up_to_date_percent_max(&self) -> Option<f64> {
        None
    }

    fn remove_results(&self, project: &Path) {
        let _ = fs::remove_dir_all(project.join("out"));
        write(&project.join(OUTPUT_DIRECTORY), "");
    }
}
