//! Simulation tests: several stores in several processes, interleaved at every file operation, with
//! crashes, full disks and budgets, checked against a model of the possible states of each name.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]
#![expect(clippy::print_stdout, reason = "the long run's figures, and the trace of a failure")]

mod model;
mod run;
mod script;

use script::Script;

/// Environment variable with the number of seeds to run and, optionally, the first one: `COUNT` or
/// `COUNT@FIRST`.
const SEEDS: &str = "GREENWAVE_SIMULATION_SEEDS";

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var(SEEDS) else { return 0..300 };
    let (count, first) = text.split_once('@').unwrap_or((&text, "0"));
    let (count, first): (u64, u64) = (count.parse().unwrap(), first.parse().unwrap());
    first..first + count
}

/// Runs random operations, faults and crashes. A failing script is shrunk and printed.
#[test]
fn stores_in_several_processes_lose_no_data() {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let failed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let seeds = seeds.clone();
                scope.spawn(move || {
                    let mut total = run::Totals::default();
                    for seed in seeds.skip(worker as usize).step_by(threads as usize) {
                        match run::run(&Script::random(seed)) {
                            Ok(done) => total.add(&done),
                            Err(why) => return Err((seed, why)),
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
        println!("{} schedules of seeds {seeds:?}: {total:?}", seeds.end - seeds.start);
        failed
    });
    if let Some((seed, why)) = failed.into_iter().min() {
        let (shrunk, then) = run::shrink(Script::random(seed), &why);
        run::TRACED.set(true);
        drop(run::run(&shrunk));
        panic!("seed {seed}: {why}\n\nshrunk to: {then}\n{shrunk}\n");
    }
}
