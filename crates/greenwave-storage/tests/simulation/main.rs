//! Simulation tests: several stores in several processes, interleaved at every file operation, with
//! crashes, full disks and budgets, checked against a model of the possible states of each name.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]
#![expect(clippy::print_stdout, reason = "the long run's figures, and the trace of a failure")]

mod model;
mod run;
mod script;
mod syncs;

use greenwave_testkit::simulation;

use script::Script;

/// Environment variable with the number of seeds to run and, optionally, the first one: `COUNT` or
/// `COUNT@FIRST`.
const SEEDS: &str = "GREENWAVE_SIMULATION_SEEDS";

/// Runs random operations, faults and crashes. A failing script is shrunk and printed.
#[test]
fn stores_in_several_processes_lose_no_data() {
    let seeds = simulation::seeds(SEEDS, 300);
    let outcome = simulation::run_all(&seeds, |seed| run::run(&Script::random(seed)));
    let (seed, why) = match outcome {
        Ok(total) => {
            println!("{} schedules of seeds {seeds:?}: {total:?}", seeds.end - seeds.start);
            return;
        }
        Err(failure) => failure,
    };
    let (shrunk, then) = run::shrink(Script::random(seed), &why);
    run::TRACED.set(true);
    drop(run::run(&shrunk));
    panic!("seed {seed}: {why}\n\nshrunk to: {then}\n{shrunk}\n");
}
