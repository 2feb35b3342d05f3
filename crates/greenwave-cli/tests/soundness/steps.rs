//! The steps of a probe: changes to files, and programs that make them.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::Result;
use crate::directory::ProbeDirectory;
use crate::probe::data;

/// One step. Paths are relative to the probe's directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Step {
    /// Writes a file and creates its directory.
    Write {
        write: String,
        text: String,
        mode: Option<u32>,
    },
    /// Writes other text of the same length and restores the modification time.
    Disguise {
        disguise: String,
        text: String,
    },
    /// Creates a symbolic link, or replaces one.
    Link {
        link: String,
        target: String,
    },
    HardLink {
        hard_link: String,
        target: String,
    },
    Rename {
        rename: String,
        to: String,
    },
    /// Exchanges two directories.
    Swap {
        swap: [String; 2],
    },
    Remove {
        remove: String,
    },
    RemoveAll {
        remove_all: String,
    },
    CreateDir {
        create_dir: String,
    },
    Chmod {
        chmod: String,
        mode: u32,
    },
    /// Sets the modification time to a number of seconds from now.
    SetMtime {
        set_mtime: String,
        offset_s: i64,
    },
    CopyMtime {
        copy_mtime: String,
        to: String,
    },
    /// Compiles a program of `programs` to `project/in`.
    Compile {
        compile: String,
        #[serde(default)]
        flags: Vec<String>,
    },
    /// Runs a program. `{dir}` in an argument is the probe's directory.
    Run {
        run: Vec<String>,
        #[serde(default)]
        directory: String,
        #[serde(default)]
        may_fail: bool,
    },
    /// Lets the test continue until it waits again.
    Resume {
        resume: bool,
    },
}

/// Performs steps in their order.
///
/// # Errors
/// At the first step that fails.
pub(crate) fn perform(steps: &[Step], directory: &ProbeDirectory) -> Result<()> {
    steps.iter().try_for_each(|step| {
        step.perform(directory).map_err(|error| format!("cannot perform {step:?}: {error}").into())
    })
}

impl Step {
    /// Returns the step with `{test}` in a file's text replaced.
    pub(crate) fn with_test(&self, test: &str) -> Self {
        let mut step = self.clone();
        if let Step::Write { text, .. } = &mut step {
            *text = text.replace("{test}", test);
        }
        step
    }

    fn perform(&self, dir: &ProbeDirectory) -> Result<()> {
        match self {
            Step::Write { write, text, mode } => {
                dir.write(write, text)?;
                mode.map_or(Ok(()), |mode| set_mode(&dir.path(write), mode))?;
            }
            Step::Disguise { disguise, text } => {
                let path = dir.path(disguise);
                let modified = fs::metadata(&path)?.modified()?;
                fs::write(&path, text)?;
                set_modified(&path, modified)?;
            }
            Step::Link { link, target } => {
                let path = dir.path(link);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                    _ => symlink(target, path)?,
                }
            }
            Step::HardLink { hard_link, target } => fs::hard_link(dir.path(target), dir.path(hard_link))?,
            Step::Rename { rename, to } => fs::rename(dir.path(rename), dir.path(to))?,
            Step::Swap { swap: [one, two] } => {
                fs::rename(dir.path(one), dir.path(SWAPPED))?;
                fs::rename(dir.path(two), dir.path(one))?;
                fs::rename(dir.path(SWAPPED), dir.path(two))?;
            }
            Step::Remove { remove } => fs::remove_file(dir.path(remove))?,
            Step::RemoveAll { remove_all } => fs::remove_dir_all(dir.path(remove_all))?,
            Step::CreateDir { create_dir } => fs::create_dir_all(dir.path(create_dir))?,
            Step::Chmod { chmod, mode } => set_mode(&dir.path(chmod), *mode)?,
            Step::SetMtime { set_mtime, offset_s } => {
                let offset = Duration::from_secs(offset_s.unsigned_abs());
                let now = SystemTime::now();
                let time = if *offset_s < 0 { now - offset } else { now + offset };
                set_modified(&dir.path(set_mtime), time)?;
            }
            Step::CopyMtime { copy_mtime, to } => {
                set_modified(&dir.path(to), fs::metadata(dir.path(copy_mtime))?.modified()?)?;
            }
            Step::Compile { compile, flags } => compile_program(dir, compile, flags)?,
            Step::Run { run, directory, may_fail } => run_program(dir, run, directory, *may_fail)?,
            Step::Resume { resume: false } => {}
            Step::Resume { resume: true } => {
                fs::write(dir.path(GO), "")?;
                fs::read(dir.path(BEGUN))?;
            }
        }
        Ok(())
    }
}

/// The pipe into which a test writes when it waits.
pub(crate) const BEGUN: &str = "outside/begun";
/// The pipe from which a test reads that it may continue.
pub(crate) const GO: &str = "outside/go";
const SWAPPED: &str = "outside/swapped";

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn set_modified(path: &Path, time: SystemTime) -> io::Result<()> {
    fs::File::options().write(true).open(path)?.set_modified(time)
}

fn compile_program(dir: &ProbeDirectory, source: &str, flags: &[String]) -> Result<()> {
    let file = data().join("programs").join(source);
    let program = dir.path("project/in").join(source).with_extension("");
    let output = Command::new("cc").arg("-o").arg(program).arg(file).args(flags).output();
    let output = output.map_err(|error| format!("cannot start a C compiler: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

fn run_program(dir: &ProbeDirectory, words: &[String], directory: &str, may_fail: bool) -> Result<()> {
    let root = dir.path("").display().to_string();
    let words: Vec<_> = words.iter().map(|word| word.replace("{dir}", root.trim_end_matches('/'))).collect();
    let (program, args) = words.split_first().ok_or("`run` names no program")?;
    let mut command = Command::new(program);
    command.args(args).current_dir(dir.path(directory)).env_remove("CARGO_TARGET_DIR");
    let output = command.output()?;
    if output.status.success() || may_fail {
        return Ok(());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}
