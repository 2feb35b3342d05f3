//! Runs logs on a simulated machine, with processes interleaved at every file operation, crashes
//! and full disks, and compares them with a model of acknowledged and flushed changes.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

mod copies;
mod explore;
mod model;
mod processes;
mod run;
mod script;

use script::Script;

/// Environment variable with the number of seeds, and optionally the first one: `COUNT` or
/// `COUNT@FIRST`.
const SEEDS: &str = "GREENWAVE_SIMULATION_SEEDS";

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var(SEEDS) else { return 0..600 };
    let (count, first) = text.split_once('@').unwrap_or((&text, "0"));
    let (count, first): (u64, u64) = (count.parse().unwrap(), first.parse().unwrap());
    first..first + count
}

/// Runs random processes with faults and crashes. Shrinks and prints the script of a failure.
#[test]
fn random_schedules_lose_nothing() {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let failed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let seeds = seeds.clone();
                scope.spawn(move || {
                    let mut total = run::Totals::default();
                    for seed in seeds.skip(worker as usize).step_by(threads as usize) {
                        let script = Script::random(seed);
                        match run::run(&script) {
                            Ok(done) => total.add(&done),
                            Err(violation) => return Err((seed, violation)),
                        }
                    }
                    Ok(total)
                })
            })
            .collect();
        let mut total = run::Totals::default();
        let mut failed: Vec<(u64, String)> = Vec::new();
        for worker in workers {
            match worker.join().unwrap() {
                Ok(done) => total.add(&done),
                Err(found) => failed.push(found),
            }
        }
        print_line(&format!("{} schedules of seeds {seeds:?}: {total:?}", seeds.end - seeds.start));
        failed
    });
    if let Some((seed, violation)) = failed.into_iter().min() {
        let (shrunk, then) = run::shrink(Script::random(seed), &violation);
        run::TRACED.set(true);
        drop(run::run(&shrunk));
        panic!("seed {seed}: {violation}\n\nshrunk to: {then}\n{shrunk}\n");
    }
}

/// Prints a line for the record of long runs and for debugging.
#[expect(clippy::print_stdout, reason = "captured unless a test fails or --nocapture is given")]
fn print_line(what: &str) {
    println!("{what}");
}
