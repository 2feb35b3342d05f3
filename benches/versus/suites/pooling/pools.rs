//! Checkouts of all pools: by one task, by many tasks on few connections, and after the peer has
//! restarted.

use std::time::Duration;

use greenwave_benches::Row;
use greenwave_pooling::PoolOptions;
use tokio::runtime::Runtime;

use crate::ROUNDS;
use crate::peer::{CONNECTIONS, Peer, PoolUnderTest};
use crate::rivals::{Bb8, Deadpool, FastPool, Greenwave, Mobc, no_limits};
use crate::workloads::{crowd, one_task, storm};

/// Expectations, from the issue that introduced the suite.
const ONE_TASK_NS: f64 = 30.0;
const OF_RIVALS_PERCENT: f64 = 20.0;
const OF_DEADPOOL_PERCENT: f64 = 100.0;
const P99_US: f64 = 45.0;

#[derive(Debug, Default)]
struct PoolSamples {
    one: Vec<f64>,
    each: Vec<f64>,
    waits: [Vec<f64>; 4],
    unfinished: Vec<f64>,
    held: Vec<f64>,
    held_max: Vec<f64>,
    storm: Vec<f64>,
}

const NAMES: [&str; 6] = ["Greenwave", "Greenwave, defaults", "deadpool", "bb8", "mobc", "fast_pool"];

/// Measures all pools in turns.
pub(crate) fn pools(runtime: &Runtime, rows: &mut Vec<Row>) {
    let mut found: [PoolSamples; 6] = Default::default();
    for _ in 0..ROUNDS {
        for (at, found) in found.iter_mut().enumerate() {
            measure(runtime, at, found);
        }
    }
    let of = |at: usize, pick: fn(&PoolSamples) -> &Vec<f64>| {
        let (greenwave, other) = (pick(&found[0]), pick(&found[at]));
        greenwave.iter().zip(other).map(|(greenwave, other)| greenwave / other * 100.0).collect::<Vec<_>>()
    };
    rows.push(
        Row::new("one task, Greenwave / deadpool", "%", of(2, |it| &it.one)).at_most(OF_RIVALS_PERCENT),
    );
    rows.push(Row::new("one task, Greenwave / bb8", "%", of(3, |it| &it.one)).at_most(OF_RIVALS_PERCENT));
    rows.push(
        Row::new("64 on 8, yield, Greenwave / deadpool", "%", of(2, |it| &it.each))
            .at_most(OF_DEADPOOL_PERCENT),
    );
    for (name, found) in NAMES.iter().zip(found) {
        let has_expectations = *name == "Greenwave";
        let row = |what: &str, unit, samples: Vec<f64>| Row::new(format!("{what}, {name}"), unit, samples);
        let expected = |row: Row, limit| if has_expectations { row.at_most(limit) } else { row };
        rows.push(expected(row("one task", "ns", found.one), ONE_TASK_NS));
        rows.push(row("64 on 8, yield", "ns", found.each));
        for (percentile, samples) in ["p50", "p99", "p99.9", "max"].iter().zip(found.waits) {
            let row = row(&format!("64 on 8, yield, {percentile}"), "us", samples);
            rows.push(if *percentile == "p99" { expected(row, P99_US) } else { row });
        }
        rows.push(row("64 on 8, yield, unfinished", "tasks", found.unfinished));
        rows.push(row("64 on 8, 100 us", "us", found.held));
        rows.push(row("64 on 8, 100 us, max", "us", found.held_max));
        rows.push(row("storm", "ms", found.storm));
    }
}

fn measure(runtime: &Runtime, which: usize, found: &mut PoolSamples) {
    let peer = |connect: u64| Peer { connect: Duration::from_millis(connect), ..Peer::default() };
    let defaults = || PoolOptions { size_min: 0, size_max: CONNECTIONS, ..PoolOptions::default() };
    match which {
        0 => rounds(runtime, found, peer, |peer| async { Greenwave::new(peer, no_limits()) }),
        1 => rounds(runtime, found, peer, |peer| async { Greenwave::new(peer, defaults()) }),
        2 => rounds(runtime, found, peer, |peer| async { Deadpool::new(peer) }),
        3 => rounds(runtime, found, peer, Bb8::new),
        4 => rounds(runtime, found, peer, |peer| async { Mobc::new(peer) }),
        _ => rounds(runtime, found, peer, |peer| async { FastPool::new(peer) }),
    }
}

fn rounds<P: PoolUnderTest, F: Future<Output = P>>(
    runtime: &Runtime,
    found: &mut PoolSamples,
    peer: impl Fn(u64) -> Peer,
    make: impl Fn(Peer) -> F,
) {
    let pool = runtime.block_on(make(peer(0)));
    found.one.push(one_task(runtime, &pool));
    let crowd = crowd(runtime, &pool, 500, Duration::ZERO);
    found.each.push(crowd.each.as_nanos() as f64);
    for (samples, per_mille) in found.waits.iter_mut().zip([500, 990, 999, 1000]) {
        samples.push(crowd.wait(per_mille).as_nanos() as f64 / 1e3);
    }
    found.unfinished.push(crowd.unfinished as f64);
    let held = self::crowd(runtime, &pool, 20, Duration::from_micros(100));
    found.held.push(held.each.as_nanos() as f64 / 1e3);
    found.held_max.push(held.wait(1000).as_nanos() as f64 / 1e3);
    let slow = peer(2);
    let pool = runtime.block_on(make(slow.clone()));
    found.storm.push(storm(runtime, &pool, &slow).as_nanos() as f64 / 1e6);
}
