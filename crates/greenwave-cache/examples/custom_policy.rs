//! Implements a first-in, first-out policy.
//!
//! `cargo run -p greenwave-cache --features conformance --example custom_policy`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::VecDeque;

use greenwave_cache::{Cache, CacheOptions, Candidate, Error, Policy, SeededHasher};

/// Evicts the oldest entry, regardless of hits.
#[derive(Debug, Default)]
struct Fifo(VecDeque<u32>);

impl Policy for Fifo {
    fn shards(capacities: &[usize]) -> Vec<Self> {
        capacities.iter().map(|_| Self::default()).collect()
    }

    fn hit(&self, _: u32) {}

    fn insert(&mut self, slot: u32, _: Candidate) {
        self.0.push_back(slot);
    }

    // Takes time proportional to the number of entries. A policy for large caches would link its
    // slots.
    fn remove(&mut self, slot: u32) {
        self.0.retain(|other| *other != slot);
    }

    fn victim(&mut self) -> Option<u32> {
        self.0.pop_front()
    }

    fn ranking(&self) -> Vec<(u32, u8)> {
        self.0.iter().map(|slot| (*slot, 0)).collect()
    }
}

fn main() -> Result<(), Error> {
    let cache: Cache<&str, u32, Fifo, SeededHasher> =
        Cache::with(CacheOptions { entries_max: 2, ..CacheOptions::default() })?;
    for (number, key) in (1..).zip(["red", "yellow", "green"]) {
        cache.insert(key, number);
        cache.get(&"red");
    }
    println!("{:?}, although `red` was read after each insertion", cache.keys());
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Runs the conformance tests on the policy.
    use super::*;

    greenwave_cache::policy_conformance!(Fifo);
}
