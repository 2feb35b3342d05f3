//! Runs the tests of the segment log and of the stores above it on simulated machines, in a release
//! build, with as many rounds as CI has time for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::{built, cargo, output_of};

/// Variables that set the number of rounds.
const SETTINGS: [(&str, &str); 4] = [
    ("GREENWAVE_SIMULATION_SEEDS", "100000"),
    ("GREENWAVE_SIMULATION_DROPPING_SEEDS", "20000"),
    ("GREENWAVE_SIMULATION_PREEMPTIONS", "2"),
    ("GREENWAVE_SIMULATION_COPIES", "5000"),
];

/// The package of the segment log.
const LOG: &str = "greenwave-segment";

/// Packages above the segment log, with the number of their schedules.
const ABOVE: [(&str, &str); 2] = [("greenwave-storage", "20000"), ("greenwave-cache", "5000")];

/// Runs random schedules of logs, stores and caches, all schedules of logs with few preemptions,
/// and copies.
///
/// # Errors
/// If a test fails; the message includes its seed and the shrunk script.
pub(crate) fn simulation() -> Result<String> {
    let programs = build()?;
    let printed = output_of(Command::new(program_of(&programs, LOG)?).arg("--nocapture").envs(SETTINGS))?;
    let schedules = printed.lines().filter(|line| line.contains(" schedules of seeds ")).count();
    if schedules != 2 {
        return Err(format!("the random schedules did not run:\n{printed}").into());
    }
    for (package, seeds) in ABOVE {
        run_schedules(package, program_of(&programs, package)?, seeds)?;
    }
    let [(_, stores), (_, caches)] = ABOVE;
    let [(_, seeds), (_, dropping), (_, preemptions), (_, copies)] = SETTINGS;
    Ok(format!(
        "{seeds} schedules, {dropping} that drop values, all with {preemptions} preemptions, {copies} copies, \
         {stores} of stores, {caches} of caches: no data lost"
    ))
}

/// Builds the tests of all three packages, and returns their programs by package. In one build, the
/// packages share their dependencies, which three builds would compile with other features each.
fn build() -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo(["test", "--release", "--no-run", "--test=simulation"]);
    command.arg("--package").arg(LOG);
    for (package, _) in ABOVE {
        command.args(["--package", package]);
    }
    let name = |package: PathBuf| Some(package.file_name()?.to_string_lossy().into_owned());
    let programs = built(&mut command, "simulation", "test")?.into_iter();
    Ok(programs.filter_map(|(package, program)| Some((name(package)?, program))).collect())
}

fn program_of<'a>(programs: &'a BTreeMap<String, PathBuf>, package: &str) -> Result<&'a Path> {
    let program = programs.get(package).map(PathBuf::as_path);
    program.ok_or_else(|| format!("`cargo test` built no simulation of {package}").into())
}

/// Runs the random schedules of a package.
fn run_schedules(package: &str, program: &Path, seeds: &str) -> Result<()> {
    let mut command = Command::new(program);
    let printed = output_of(command.arg("--nocapture").env("GREENWAVE_SIMULATION_SEEDS", seeds))?;
    if printed.contains(&format!("{seeds} schedules ")) {
        return Ok(());
    }
    Err(format!("the random schedules of {package} did not run:\n{printed}").into())
}
