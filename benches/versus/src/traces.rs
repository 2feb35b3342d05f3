//! Traces: reproducible sequences of keys to read through a cache, and the optimal hit ratio of
//! each.

use std::collections::{BinaryHeap, HashMap};

/// A random number generator that its seed determines: `SplitMix64` (Steele et al., OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Returns the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A Zipf distribution of ranks from 0: rank `r` has a probability proportional to `1 / (r +
/// 1)^exponent`.
#[derive(Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Creates a distribution over the given number of ranks.
    pub fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=ranks).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        let sums: Vec<f64> = weights.collect();
        Self(sums.iter().map(|part| part / sum).collect())
    }

    /// Draws a rank.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let at = random.unit();
        self.0.partition_point(|sum| *sum < at) as u64
    }
}

/// A sequence of keys, and the capacity of the caches that read it.
#[derive(Debug)]
pub struct Trace {
    /// Name in tables.
    pub name: &'static str,
    /// Maximum number of entries of a cache.
    pub capacity: usize,
    /// Keys in the order in which they are read.
    pub keys: Vec<u64>,
}

const CAPACITY: usize = 10_000;
/// Number of tests in the suite that eight agents run.
const SUITE: usize = 4_000;

/// Returns all traces.
pub fn traces() -> Vec<Trace> {
    let trace = |name, keys| Trace { name, capacity: CAPACITY, keys };
    let reads = 60 * CAPACITY;
    vec![
        trace("zipf 0.9, 100 times as many keys", zipf(0.9, reads, 1, 0)),
        trace("zipf 1.0, 100 times as many keys", zipf(1.0, reads, 2, 0)),
        trace("zipf 0.9 with scans of 2 capacities", scans(reads)),
        trace("loop of 1.25 capacities", repeat(CAPACITY * 5 / 4, reads, 0)),
        trace("loop of 2 capacities", repeat(CAPACITY * 2, reads, 0)),
        trace("drifting zipf 0.9", drift(reads, 0)),
        trace("phases: drift, loop, zipf, twice", phases()),
        Trace { name: "eight agents, room for half the suite", capacity: SUITE / 2, keys: agents() },
        Trace { name: "eight agents, room for 1.5 suites", capacity: SUITE * 3 / 2, keys: agents() },
    ]
}

fn zipf(exponent: f64, reads: usize, seed: u64, first: u64) -> Vec<u64> {
    let (zipf, mut random) = (Zipf::new(100 * CAPACITY, exponent), Random(seed));
    (0..reads).map(|_| first + zipf.draw(&mut random)).collect()
}

/// Returns Zipf reads with a scan after every ten capacities. Each scan reads two capacities of
/// keys that never recur.
fn scans(reads: usize) -> Vec<u64> {
    let (zipf, mut random) = (Zipf::new(100 * CAPACITY, 0.9), Random(3));
    let mut fresh = 1 << 40..;
    let mut keys = Vec::new();
    while keys.len() < reads {
        keys.extend((0..10 * CAPACITY).map(|_| zipf.draw(&mut random)));
        keys.extend(fresh.by_ref().take(2 * CAPACITY));
    }
    keys
}

fn repeat(length: usize, reads: usize, first: u64) -> Vec<u64> {
    (0..reads).map(|read| first + (read % length) as u64).collect()
}

/// Returns reads of two capacities of keys. Every ten reads the least popular key is replaced by a
/// new one, so that each key gains popularity and then disappears.
fn drift(reads: usize, first: u64) -> Vec<u64> {
    let (zipf, mut random) = (Zipf::new(2 * CAPACITY, 0.9), Random(5));
    (0..reads as u64).map(|read| first + read / 10 + zipf.draw(&mut random)).collect()
}

fn phases() -> Vec<u64> {
    let reads = 40 * CAPACITY;
    let round = |round: u64| {
        let drift = drift(reads, round << 50);
        let repeats = repeat(CAPACITY * 5 / 4, reads, 1 << 42);
        [drift, repeats, zipf(1.0, reads, 10 + round, 1 << 43)].concat()
    };
    [round(1), round(2)].concat()
}

/// An agent that works on the suite's project.
struct Agent {
    /// Number of the next test in its run.
    at: usize,
    /// Versions of the tests that only this agent has edited.
    edited: HashMap<usize, u64>,
}

/// Returns the reads of eight agents that run the whole suite repeatedly, fifty tests at a time in
/// random turns and from random starting points. Before each run an agent edits a fiftieth of the
/// project, which changes the keys of those tests. Every tenth run is merged, which shares its keys
/// with all agents.
fn agents() -> Vec<u64> {
    let mut random = Random(9);
    let start = |_| Agent { at: random.below(SUITE as u64) as usize, edited: HashMap::new() };
    let mut agents: Vec<Agent> = (0..8).map(start).collect();
    let mut shared = vec![0_u64; SUITE];
    let (mut version, mut keys) = (0, Vec::new());
    while keys.len() < 100 * SUITE {
        let agent = &mut agents[random.below(8) as usize];
        if agent.at == SUITE {
            agent.at = 0;
            edit(agent, &mut random, &mut version);
            if random.below(10) == 0 {
                agent.edited.drain().for_each(|(test, version)| shared[test] = version);
            }
        }
        let end = SUITE.min(agent.at + 50);
        let run = (agent.at..end).zip(&shared[agent.at..end]);
        let key = |(test, shared)| agent.edited.get(&test).unwrap_or(shared) * SUITE as u64 + test as u64;
        keys.extend(run.map(key));
        agent.at = end;
    }
    keys
}

fn edit(agent: &mut Agent, random: &mut Random, version: &mut u64) {
    let part = SUITE / 50;
    let first = random.below(50) as usize * part;
    for test in first..first + part {
        *version += 1;
        agent.edited.insert(test, *version);
    }
}

/// Returns the optimal hit ratio in percent, reached by always evicting the key whose next read is
/// farthest away (Belady, IBM Systems Journal 1966).
pub fn optimal_hits(trace: &Trace) -> f64 {
    let next = next_uses(&trace.keys);
    let mut held: HashMap<u64, usize> = HashMap::new();
    let mut farthest = BinaryHeap::new();
    let mut hits = 0;
    for (key, next) in trace.keys.iter().zip(next) {
        if held.contains_key(key) {
            hits += 1;
        } else if held.len() >= trace.capacity {
            // An outdated entry of the heap is skipped: its key has been read since.
            while let Some((when, victim)) = farthest.pop() {
                if held.get(&victim) == Some(&when) {
                    held.remove(&victim);
                    break;
                }
            }
        }
        held.insert(*key, next);
        farthest.push((next, *key));
    }
    f64::from(hits) * 100.0 / trace.keys.len() as f64
}

/// Returns the index of the next read of each read's key, or `usize::MAX` for the last read.
fn next_uses(keys: &[u64]) -> Vec<usize> {
    let mut last = HashMap::new();
    let mut next: Vec<usize> =
        keys.iter().enumerate().rev().map(|(at, key)| last.insert(*key, at).unwrap_or(usize::MAX)).collect();
    next.reverse();
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_optimum_of_a_loop_matches_theory() {
        // A cache for 3 of 4 keys in a loop has one miss per 3 reads once it is full.
        let trace = Trace { name: "loop", capacity: 3, keys: repeat(4, 3_000, 0) };
        assert!((optimal_hits(&trace) - 66.6).abs() < 0.2, "{}", optimal_hits(&trace));
    }

    #[test]
    fn low_ranks_are_drawn_most_often() {
        let (zipf, mut random) = (Zipf::new(100, 1.0), Random(1));
        let firsts = (0..10_000).filter(|_| zipf.draw(&mut random) == 0).count();
        assert!((1_700..2_200).contains(&firsts), "{firsts}: expected one in 5.2");
    }

    #[test]
    fn agents_share_the_keys_of_unedited_tests() {
        let keys = agents();
        let distinct: std::collections::HashSet<&u64> = keys.iter().collect();
        assert!(distinct.len() > 2 * SUITE && distinct.len() < keys.len() / 10, "{}", distinct.len());
    }
}
