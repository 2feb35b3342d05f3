//! The log through its public interface: behaviour, damage, sharing, crashes.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod basics;
mod batches;
mod budget;
mod crash;
mod damage;
mod differences;
mod disks;
mod format;
mod golden;
mod index_file;
mod lost;
mod model;
mod sharing;

use greenwave_segment::{Log, Options};
use tempfile::TempDir;

/// A log in a directory that ends with the test.
fn fresh(options: Options) -> (TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log"), options).unwrap();
    (dir, log)
}

/// Segments small enough to see several.
fn small() -> Options {
    Options { segment_bytes_max: 4096, ..Options::default() }
}

/// How often a randomised test repeats itself: what the long run's variable says, or a number for every day.
fn rounds(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).map_or(usual, |number| number.parse().expect("a number of rounds"))
}

/// Bytes that do not compress, the same for the same seed.
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

#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
