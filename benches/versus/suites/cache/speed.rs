//! The time per operation of all caches, which take turns on the same keys.

use std::sync::Arc;

use greenwave_benches::Row;
use greenwave_versus::traces::{Random, Zipf};

use crate::contest::{Contestant, Mix, UNIVERSE, Work};
use crate::keys::key;
use crate::rivals::contestants;

/// Expected ratio of times, Greenwave by quick_cache, stated before measuring.
const QUICK_MAX: f64 = 1.1;
/// Expected ratio of times, Greenwave by moka.
const MOKA_MAX: f64 = 0.25;

const OPERATIONS: usize = 600_000;
const ROUNDS: usize = 7;

/// Measures the operations of all caches.
pub(crate) fn speed(rows: &mut Vec<Row>) {
    let keys = (0..UNIVERSE as u64).map(key).collect();
    let values = (0..UNIVERSE).map(|_| Arc::new([7; 256])).collect();
    let mut work = Work { keys, values, threads: Vec::new() };
    for exponent in [0.9, 1.0] {
        for mix in [Mix::Hits, Mix::Reads, Mix::Mixed] {
            let zipf = Zipf::new(mix.universe(), exponent);
            for threads in [1, 2, 4] {
                let mut random = Random(threads as u64);
                // Popular keys are spread over the whole universe.
                let draw = |random: &mut Random| scatter(zipf.draw(random), mix.universe() as u64);
                let each = OPERATIONS / threads;
                work.threads = (0..threads).map(|_| (0..each).map(|_| draw(&mut random)).collect()).collect();
                let what = format!("{}, zipf {exponent:.1}, {threads} threads", mix.name());
                rows.extend(compare(&what, &work, mix));
            }
        }
    }
}

fn scatter(rank: u64, universe: u64) -> u32 {
    // The prime divides no universe used here, so each rank maps to a different key.
    (rank.wrapping_mul(7_368_787) % universe) as u32
}

fn compare(what: &str, work: &Work, mix: Mix) -> Vec<Row> {
    let contestants = contestants();
    contestants.iter().for_each(|contestant| contestant.fill(work));
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contestants.len()];
    // The first round fills the caches and does not count.
    for round in 0..=ROUNDS {
        for (contestant, times) in contestants.iter().zip(&mut times) {
            let time = contestant.run(work, mix);
            times.extend((round > 0).then_some(time));
        }
    }
    let greenwave = times[0].clone();
    let ratio = |rival: &[f64]| {
        greenwave.iter().zip(rival).map(|(greenwave, rival)| greenwave / rival).collect::<Vec<_>>()
    };
    let versus = |(rival, times): (&dyn Contestant, &Vec<f64>)| {
        let row = Row::new(format!("{what}: Greenwave / {}", rival.name()), "x", ratio(times));
        match rival.name() {
            "quick_cache" => row.at_most(QUICK_MAX),
            "moka" => row.at_most(MOKA_MAX),
            _ => row,
        }
    };
    let rivals = contestants.iter().map(|rival| &**rival).zip(&times).skip(1).map(versus);
    std::iter::once(Row::new(format!("{what}: Greenwave"), "ns", greenwave.clone())).chain(rivals).collect()
}
