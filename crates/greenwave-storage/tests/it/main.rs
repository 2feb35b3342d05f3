//! The store through its public interface, and the tiers through their contract.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod attempts;
mod crash;
mod damage;
mod differences;
mod disks;
mod limits;
mod model;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod reclaim;
mod sharing;
mod sizes;
mod snapshot;
mod store;
mod tiers;

use std::sync::Arc;

use bytes::Bytes;
use greenwave_storage::{MemoryColdTier, SegmentColdTier, SegmentOptions, Store, StoreOptions};

/// A store on memory with a small budget.
fn small(cold: Arc<MemoryColdTier>) -> Store {
    Store::open(small_options(), cold).unwrap()
}

fn small_options() -> StoreOptions {
    StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() }
}

fn on_disk(dir: &std::path::Path) -> Store {
    let options = SegmentOptions { segment_bytes_max: 16 << 10, ..SegmentOptions::default() };
    Store::open(small_options(), Arc::new(SegmentColdTier::open(dir, options).unwrap())).unwrap()
}

/// How often a randomised test repeats itself, or how large something is: what the long run's variable says, or a number for every day.
fn rounds(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |number| number.parse().expect("a number of rounds"))
}

/// Contents that differ for each number.
fn contents(number: u64, len: usize) -> Bytes {
    let mut reader = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
    let mut bytes = vec![0; len];
    reader.fill(&mut bytes);
    bytes.into()
}

#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
