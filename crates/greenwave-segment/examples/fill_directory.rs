//! Fills a directory with records, to measure the cost of a large cache. The arguments are a path,
//! the number of records, and the maximum time in seconds.
//!
//! ```console
//! $ cargo run --release -p greenwave-segment --example fill_directory -- DIR 1000000 300
//! ```
#![expect(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::time::{Duration, Instant};

use greenwave_segment::{LoadIndex, Log, Options, WhenFull, WriteBatch};
use xxhash_rust::xxh3::xxh3_64;

/// Number of records that are written at once, which is several times faster.
const BATCH_RECORDS: u64 = 100;
/// Size of a key in 8-byte words.
const KEY_WORDS: u64 = 4;
/// Size of a value in 8-byte words, about that of a short test's result.
const VALUE_WORDS: u64 = 25;

/// Returns bytes that do not compress.
fn noise(seed: u64, words: u64) -> Vec<u8> {
    (0..words).flat_map(|word| xxh3_64(&[seed, word].map(u64::to_le_bytes).concat()).to_le_bytes()).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = |name: &str| args.next().ok_or(format!("missing argument {name}"));
    let (dir, records, seconds) = (next("DIR")?, next("RECORDS")?, next("SECONDS")?);
    let (records, limit) = (records.parse::<u64>()?, Duration::from_secs(seconds.parse()?));
    let options = Options {
        segment_bytes_max: 16 << 20,
        disk_bytes_max: Some(1 << 30),
        when_full: WhenFull::DropOldest,
        load_index: LoadIndex::OnDemand,
        ..Options::default()
    };
    let log = Log::open(dir, options)?;
    let begin = Instant::now();
    let mut written = 0;
    while written < records && begin.elapsed() < limit {
        let batch = (written..written + BATCH_RECORDS).fold(WriteBatch::new(), |batch, number| {
            batch.put(&noise(number, KEY_WORDS), &noise(!number, VALUE_WORDS))
        });
        log.write(&batch)?;
        written += BATCH_RECORDS;
    }
    log.flush()?;
    println!("{written} records in {:?}: {:?}", begin.elapsed(), log.stats());
    Ok(())
}
