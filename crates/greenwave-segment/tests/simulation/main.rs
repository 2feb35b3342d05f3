//! Runs logs on a simulated machine, with processes interleaved at every file operation, crashes
//! and full disks, and compares them with a model of acknowledged and flushed changes.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

mod copies;
mod explore;
mod model;
mod processes;
mod regressions;
mod run;
mod script;

use greenwave_testkit::simulation;

use script::Script;

/// A third of a simulation's time would be spent in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Environment variable with the number of seeds, and optionally the first one: `COUNT` or
/// `COUNT@FIRST`.
const SEEDS: &str = "GREENWAVE_SIMULATION_SEEDS";

/// Like `SEEDS`, for scripts that always drop values.
const DROPPING_SEEDS: &str = "GREENWAVE_SIMULATION_DROPPING_SEEDS";

/// Runs random processes with faults and crashes. Shrinks and prints the script of a failure.
#[test]
fn random_schedules_lose_nothing() {
    run_seeds(&simulation::seeds(SEEDS, 800), Script::random);
}

/// Runs random processes with small budgets, which drop values. No older value may show instead.
#[test]
fn random_schedules_that_drop_values_show_no_older_ones() {
    run_seeds(&simulation::seeds(DROPPING_SEEDS, 300), Script::random_dropping);
}

fn run_seeds(seeds: &std::ops::Range<u64>, script: fn(u64) -> Script) {
    let outcome = simulation::run_all(seeds, |seed| run::run(&script(seed)));
    let (seed, violation) = match outcome {
        Ok(total) => {
            print_line(&format!("{} schedules of seeds {seeds:?}: {total:?}", seeds.end - seeds.start));
            return;
        }
        Err(failure) => failure,
    };
    let (shrunk, then) = run::shrink(script(seed), &violation);
    run::TRACED.set(true);
    drop(run::run(&shrunk));
    panic!("seed {seed}: {violation}\n\nshrunk to: {then}\n{shrunk}\n");
}

/// Prints a line for the record of long runs and for debugging.
#[expect(clippy::print_stdout, reason = "captured unless a test fails or --nocapture is given")]
fn print_line(what: &str) {
    println!("{what}");
}
