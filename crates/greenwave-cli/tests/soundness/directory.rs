//! The temporary directory of a probe.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use greenwave_testkit::clock::Clock;

use crate::Result;
use crate::probe::Probe;
use crate::steps::{BEGUN, GO, perform};
use crate::tools::Tool;

/// A directory with the subdirectories `project`, `outside` and `cache`.
#[derive(Debug)]
pub(crate) struct ProbeDirectory {
    root: tempfile::TempDir,
    /// The clock of the tool's processes, if the probe sets it.
    pub(crate) clock: Option<Clock>,
}

/// Offset of a correct clock in seconds.
const CORRECT_CLOCK: &str = "+0";

/// A file system in memory that every Linux has.
const IN_MEMORY: &str = "/dev/shm";

/// Several ticks of the kernel's clock, by which a new file is distinguished from an older one.
const PIPES_SETTLE: Duration = Duration::from_millis(200);

impl ProbeDirectory {
    /// Creates a directory that is ready for the first run of a probe.
    ///
    /// # Errors
    /// If a step in `before` fails.
    pub(crate) fn new(tool: &Tool, probe: &Probe) -> Result<Self> {
        let root = if probe.in_memory { tempfile::tempdir_in(IN_MEMORY)? } else { tempfile::tempdir()? };
        let mut directory = Self { root, clock: None };
        for name in ["project/in", "outside/bin", "cache"] {
            fs::create_dir_all(directory.path(name))?;
        }
        if probe.cargo_test.is_none() {
            directory.write("project/test.sh", &probe.script)?;
        }
        if probe.clock {
            directory.write("outside/clock", CORRECT_CLOCK)?;
            directory.clock = Clock::new(&directory.path("outside"), directory.path("outside/clock"));
        }
        perform(&probe.before, &directory)?;
        tool.prepare(&directory, probe)?;
        Ok(directory)
    }

    /// Returns the absolute path of an entry.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file and creates its directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
    }

    /// Creates the pipes by which a test announces that it waits and is allowed to continue.
    pub(crate) fn create_pipes(&self) -> Result<()> {
        for name in [BEGUN, GO] {
            if !Command::new("mkfifo").arg(self.path(name)).status()?.success() {
                return Err("mkfifo failed".into());
            }
        }
        // A result that depends on files as young as the run is not stored, and that is not what
        // the probe is about.
        std::thread::sleep(PIPES_SETTLE);
        Ok(())
    }

    /// Replaces the pipes by files, so that later runs do not wait.
    pub(crate) fn remove_pipes(&self) -> Result<()> {
        for name in [BEGUN, GO] {
            fs::remove_file(self.path(name))?;
            self.write(name, "go\n")?;
        }
        Ok(())
    }
}
