//! Runs the tests on simulated machines as often as CI has time for, in a release build.

use crate::Result;
use crate::program::{cargo, output_of};

/// What the tests take from the environment, and how much of it.
const SETTINGS: [(&str, &str); 3] = [
    ("GREENWAVE_SIMULATION_SEEDS", "100000"),
    ("GREENWAVE_SIMULATION_PREEMPTIONS", "2"),
    ("GREENWAVE_SIMULATION_COPIES", "5000"),
];

/// Random schedules, all schedules with few preemptions, and copies, of the segment log.
///
/// # Errors
/// What the failing test said: a seed, and the script that it was shrunk to.
pub(crate) fn simulation() -> Result<String> {
    let mut command =
        cargo(["test", "--release", "--package=greenwave-segment", "--test=simulation", "--", "--nocapture"]);
    command.envs(SETTINGS);
    let printed = output_of(&mut command)?;
    let schedules = printed.lines().filter(|line| line.contains(" schedules of seeds ")).count();
    if schedules != 1 {
        return Err(format!("the random schedules did not run:\n{printed}").into());
    }
    let [(_, seeds), (_, preemptions), (_, copies)] = SETTINGS;
    Ok(format!("{seeds} schedules, all with {preemptions} preemptions, {copies} copies: nothing lost"))
}
