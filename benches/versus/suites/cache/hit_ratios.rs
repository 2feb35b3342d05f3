//! Hit ratios on traces, beside the optimum.

use std::fmt::Write as _;
use std::num::NonZeroUsize;

use greenwave_benches::Row;
use greenwave_cache::{Adaptive, Cache, IdentityHasher, Key, Lru, Policy, S3Fifo};
use greenwave_versus::traces::{Trace, optimal_hits, traces};

use crate::keys::spread;
use crate::rivals::greenwave;

/// Maximum difference to the hit ratio of the best rival on any trace, in percentage points.
const BEHIND_MAX: f64 = 2.0;
/// Expected misses in percent on the trace of phases: 68 % hits.
const PHASES_MISSES_MAX: f64 = 32.0;
/// Expected misses in percent on the trace of agents, with room for their working set: 85 % hits.
const AGENTS_MISSES_MAX: f64 = 15.0;

/// Returns the hit ratio in percent. `read` returns whether the key hits, and inserts it on a miss.
fn hit_ratio(trace: &Trace, mut read: impl FnMut(u64) -> bool) -> f64 {
    let hits = trace.keys.iter().filter(|key| read(**key)).count();
    hits as f64 * 100.0 / trace.keys.len() as f64
}

fn greenwave_on<P: Policy>(trace: &Trace) -> f64 {
    let cache: Cache<Key, (), P, IdentityHasher> = greenwave(trace.capacity);
    hit_ratio(trace, |number| {
        let key = spread(number);
        cache.get(&key).is_some() || {
            cache.insert(key, ());
            false
        }
    })
}

fn quick_on(trace: &Trace) -> f64 {
    let cache = quick_cache::sync::Cache::new(trace.capacity);
    hit_ratio(trace, |key| {
        cache.get(&key).is_some() || {
            cache.insert(key, ());
            false
        }
    })
}

fn moka_on(trace: &Trace) -> f64 {
    let cache = moka::sync::Cache::new(trace.capacity as u64);
    hit_ratio(trace, |key| {
        cache.get(&key).is_some() || {
            cache.insert(key, ());
            false
        }
    })
}

fn mini_moka_on(trace: &Trace) -> f64 {
    let cache = mini_moka::sync::Cache::new(trace.capacity as u64);
    hit_ratio(trace, |key| {
        cache.get(&key).is_some() || {
            cache.insert(key, ());
            false
        }
    })
}

fn foyer_on(trace: &Trace) -> f64 {
    let builder = foyer_memory::CacheBuilder::new(trace.capacity).with_shards(8);
    let cache: foyer_memory::Cache<u64, ()> =
        builder.with_eviction_config(foyer_memory::S3FifoConfig::default()).build();
    hit_ratio(trace, |key| {
        cache.get(&key).is_some() || {
            cache.insert(key, ());
            false
        }
    })
}

fn lru_on(trace: &Trace) -> f64 {
    let mut cache = lru::LruCache::new(NonZeroUsize::new(trace.capacity).expect("the capacity is not zero"));
    hit_ratio(trace, |key| {
        cache.get(&key).is_some() || {
            cache.put(key, ());
            false
        }
    })
}

/// A cache, and the function that measures its hit ratio on a trace.
type Column = (&'static str, fn(&Trace) -> f64);

/// Columns of Greenwave's policies.
const POLICIES: [Column; 3] = [
    ("Adaptive", greenwave_on::<Adaptive>),
    ("S3Fifo", greenwave_on::<S3Fifo>),
    ("Lru", greenwave_on::<Lru>),
];
/// Columns of the rivals.
const RIVALS: [Column; 5] = [
    ("lru", lru_on),
    ("moka", moka_on),
    ("mini-moka", mini_moka_on),
    ("quick_cache", quick_on),
    ("foyer", foyer_on),
];

/// Returns the table of hit ratios, and adds the rows with expectations.
pub(crate) fn hit_ratios(rows: &mut Vec<Row>) -> String {
    let names = POLICIES.iter().chain(&RIVALS).map(|(name, _)| format!(" {name} |"));
    let mut table = format!(
        "\nHits in percent. Keys are inserted on a miss.\n\n| trace | optimum |{}\n",
        names.collect::<String>()
    );
    let _ = writeln!(table, "|{}", " --- |".repeat(2 + POLICIES.len() + RIVALS.len()));
    for trace in traces() {
        let measure = |columns: &[Column]| -> Vec<f64> { columns.iter().map(|(_, on)| on(&trace)).collect() };
        let (greenwave, rivals) = (measure(&POLICIES), measure(&RIVALS));
        let cells: String = greenwave.iter().chain(&rivals).map(|hits| format!(" {hits:.1} |")).collect();
        let _ = writeln!(table, "| {} | {:.1} |{cells}", trace.name, optimal_hits(&trace));
        let best = rivals.iter().copied().fold(0.0, f64::max);
        let behind = Row::new(
            format!("{}: points behind the best rival", trace.name),
            "points",
            [best - greenwave[0]],
        );
        rows.push(behind.at_most(BEHIND_MAX));
        let limit = match trace.name {
            name if name.starts_with("phases") => Some(PHASES_MISSES_MAX),
            name if name.ends_with("1.5 suites") => Some(AGENTS_MISSES_MAX),
            _ => None,
        };
        let misses =
            |limit| Row::new(format!("{}: misses", trace.name), "%", [100.0 - greenwave[0]]).at_most(limit);
        rows.extend(limit.map(misses));
    }
    table
}
