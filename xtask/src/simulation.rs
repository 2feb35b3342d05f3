//! Runs the tests of the segment log and of the stores above it on simulated machines, in a release
//! build, with as many rounds as CI has time for.

use crate::Result;
use crate::process::{cargo, output_of};

/// Variables that set the number of rounds.
const SETTINGS: [(&str, &str); 4] = [
    ("GREENWAVE_SIMULATION_SEEDS", "100000"),
    ("GREENWAVE_SIMULATION_DROPPING_SEEDS", "20000"),
    ("GREENWAVE_SIMULATION_PREEMPTIONS", "2"),
    ("GREENWAVE_SIMULATION_COPIES", "5000"),
];

/// Packages above the segment log, with the number of their schedules.
const ABOVE: [(&str, &str); 2] = [("greenwave-storage", "20000"), ("greenwave-cache", "5000")];

/// Runs random schedules of logs, stores and caches, all schedules of logs with few preemptions,
/// and copies.
///
/// # Errors
/// If a test fails; the message includes its seed and the shrunk script.
pub(crate) fn simulation() -> Result<String> {
    let mut command =
        cargo(["test", "--release", "--package=greenwave-segment", "--test=simulation", "--", "--nocapture"]);
    command.envs(SETTINGS);
    let printed = output_of(&mut command)?;
    let schedules = printed.lines().filter(|line| line.contains(" schedules of seeds ")).count();
    if schedules != 2 {
        return Err(format!("the random schedules did not run:\n{printed}").into());
    }
    ABOVE.iter().try_for_each(|(package, seeds)| run_schedules(package, seeds))?;
    let [(_, stores), (_, caches)] = ABOVE;
    let [(_, seeds), (_, dropping), (_, preemptions), (_, copies)] = SETTINGS;
    Ok(format!(
        "{seeds} schedules, {dropping} that drop values, all with {preemptions} preemptions, {copies} copies, \
         {stores} of stores, {caches} of caches: no data lost"
    ))
}

/// Runs the random schedules of a package.
fn run_schedules(package: &str, seeds: &str) -> Result<()> {
    let mut command =
        cargo(["test", "--release", "--package", package, "--test=simulation", "--", "--nocapture"]);
    let printed = output_of(command.env("GREENWAVE_SIMULATION_SEEDS", seeds))?;
    if printed.contains(&format!("{seeds} schedules ")) {
        return Ok(());
    }
    Err(format!("the random schedules of {package} did not run:\n{printed}").into())
}
