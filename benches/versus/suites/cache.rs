//! Compares the in-memory cache with `lru`, moka, mini-moka, quick_cache and foyer. Also measures
//! hit ratios, the memory that results take, and the disk.
#![expect(clippy::print_stdout, reason = "a child process prints its result")]

#[path = "cache/contest.rs"]
mod contest;
#[path = "cache/hit_ratios.rs"]
mod hit_ratios;
#[path = "cache/keys.rs"]
mod keys;
#[path = "cache/results.rs"]
mod results;
#[path = "cache/rivals.rs"]
mod rivals;
#[path = "cache/speed.rs"]
mod speed;
#[path = "cache/tiers.rs"]
mod tiers;

use greenwave_benches::{Page, Result, is_measuring};

const ABOUT: &str = "
Reads and writes of `Arc<[u8; 256]>` under 32-byte BLAKE3 keys, with 65,536 entries. Rows with `/`
are ratios of times, Greenwave's by the rival's, from rounds in which all caches take turns on the
same keys. A ratio below 1 is faster than the rival. `hits`: 50,000 keys, all of them cached.
`reads`: a million keys, each inserted on a miss. `mixed`: like `reads`, but every tenth operation
inserts unconditionally. Keys follow Zipf's law and are drawn beforehand. Times are those of all
threads together, per operation.

Settings: every cache uses the first eight bytes of the keys as their hash, except the table of
`lru`, which hashes those. quick_cache 0.7 with parking_lot, without counting hits; moka 0.12
`sync`; mini-moka 0.10 `sync`; foyer-memory 0.22 with S3-FIFO and 64 shards; `lru` in one
parking_lot mutex. Greenwave counts hits, per thread. Caveats: two cores do not show how locks
behave on many. Expiry is off everywhere; with expiry, Greenwave also reads a clock, which takes 24
ns. Misses of Greenwave cost more than those of quick_cache: one key in 64 is also read in three
simulated caches, which makes up a quarter of the difference (found by leaving that out), and the
rest is spread thinly. Entries of one cache line, a sketch that touches one line per key, no lock
where nothing is computed, and no copies of evicted entries were tried. They reduced the ratio from
1.3-1.4 to 1.2-1.3.

A thousand results of 4 KB take 4.1 MB in memory, which holds them uncompressed. Together with their
compressed copy on disk, they cannot take less than 5 MB. `warm` and prediction are measured on
tiers in memory: they show how many misses are avoided, not the speed of a disk.
";

fn main() -> Result<()> {
    if !is_measuring() {
        return Ok(());
    }
    if let Some(results) = std::env::var(results::FILL).ok().and_then(|results| results.parse().ok()) {
        return results::fill(results);
    }
    let mut rows = Vec::new();
    speed::speed(&mut rows);
    let memory_bytes = results::memory(&mut rows)?;
    results::disk(&mut rows, memory_bytes)?;
    tiers::tiers(&mut rows)?;
    let table = hit_ratios::hit_ratios(&mut rows);
    let about = Box::leak(format!("{}{table}", ABOUT.trim()).into_boxed_str());
    Page { suite: "versus-cache", about, rows }.publish();
    Ok(())
}
