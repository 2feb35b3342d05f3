//! Tests of the public interface: behaviour, damage, sharing, crashes.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

mod backups;
mod basics;
mod batches;
mod budget;
mod crash;
mod damage;
mod deltas;
mod disks;
mod format;
mod golden;
mod index_file;
mod key_table;
mod lost;
mod model;
mod option_ranges;
mod ranges;
mod sharing;

use greenwave_segment::{Log, Options};
use tempfile::TempDir;

/// Creates a log in a temporary directory.
fn fresh(options: Options) -> (TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log"), options).unwrap();
    (dir, log)
}

/// Returns options for segments small enough that a test fills several.
fn small() -> Options {
    Options { segment_bytes_max: 4096, ..Options::default() }
}

/// Returns the number of rounds of a randomised test: `variable` if it is set, as by long runs, or
/// `usual`.
fn rounds(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |number| number.parse().expect("a number of rounds"))
}

/// Returns bytes that do not compress and are determined by the seed, by a generator of its own:
/// golden files contain them.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}
