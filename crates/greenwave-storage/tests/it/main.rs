//! Tests of the store and its cold tiers through the public interface.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

mod attempts;
mod crash;
mod damage;
mod deltas;
mod disks;
mod limits;
mod model;
mod option_ranges;
mod panics;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod reclaim;
mod sharing;
mod sizes;
mod snapshot;
mod store;
mod tiers;
mod unreliable;

use std::sync::Arc;

use bytes::Bytes;
use greenwave_storage::{MemoryColdTier, SegmentColdTier, SegmentOptions, Store, StoreOptions};

/// Opens a store in memory with a small budget.
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

/// Returns the number set by an environment variable for long runs, or the default.
fn rounds(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |number| number.parse().expect("a number of rounds"))
}

/// Returns contents that differ for each number.
fn contents(number: u64, len: usize) -> Bytes {
    let mut reader = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
    let mut bytes = vec![0; len];
    reader.fill(&mut bytes);
    bytes.into()
}
