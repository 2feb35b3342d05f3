//! A tool under measurement: its project, its commands, and the times that they took.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{command, temporary_directory, write};
use crate::rivals::{self, FILES, Installed, Rival};

/// A tool with a project and its measurements.
pub(crate) struct Tool {
    pub(crate) rival: Box<dyn Rival>,
    directory: tempfile::TempDir,
    program: PathBuf,
    pub(crate) first: Vec<f64>,
    pub(crate) up_to_date: Vec<f64>,
    pub(crate) changed: Vec<f64>,
}

impl Tool {
    fn new(rival: Box<dyn Rival>, program: PathBuf) -> Self {
        let (first, up_to_date, changed) = (Vec::new(), Vec::new(), Vec::new());
        Self { rival, directory: temporary_directory(), program, first, up_to_date, changed }
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    /// Returns the command that runs all tests.
    pub(crate) fn command(&self) -> Command {
        let mut command = command(&self.program, &self.project());
        command.args(self.rival.arguments()).env("XDG_CACHE_HOME", self.directory.path().join("cache"));
        command.env("TURBO_TELEMETRY_DISABLED", "1").env("MOON_TELEMETRY", "false");
        command.env("NX_TUI", "false").env("NX_DAEMON", "true");
        command
    }

    /// Writes the project.
    pub(crate) fn prepare(&self) {
        let (project, tests) = (self.project(), self.rival.tests());
        for test in 0..tests {
            for file in 0..FILES {
                let content = format!("content {test} {file}\n").repeat(20);
                write(&project.join(format!("pkg{test}/f{file}.txt")), &content);
            }
        }
        for (name, text) in self.rival.files(tests) {
            write(&project.join(name), &text);
        }
        self.rival.prepare(&self.program, &project);
    }

    /// Removes everything that earlier runs have stored.
    pub(crate) fn remove_results(&self) {
        let _ = fs::remove_dir_all(self.directory.path().join("cache"));
        self.rival.remove_results(&self.project());
    }

    pub(crate) fn shut_down(&self) {
        self.rival.shut_down(&self.program, &self.project());
    }
}

/// Returns the installed tools, Greenwave first, and the names of the others.
pub(crate) fn tools(greenwave: &Path) -> (Vec<Tool>, Vec<&'static str>) {
    let installed = Installed::new();
    let (mut tools, mut absent) = (Vec::new(), Vec::new());
    for rival in rivals::all(greenwave) {
        match rival.find(&installed) {
            Some(program) => tools.push(Tool::new(rival, program)),
            None => absent.push(rival.name()),
        }
    }
    (tools, absent)
}
