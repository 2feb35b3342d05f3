//! The memory and disk space that results take, and the time to read them from the disk.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenwave_benches::{Result, Row};
use greenwave_cache::{Backend, DiskBackend, DiskOptions, Key, MemoryBackend, Record};
use greenwave_versus::traces::Random;

use crate::keys::key;

/// Expected size of a thousand results with 4 KB of output each, in memory and on disk together.
const RESULTS_MB_MAX: f64 = 5.0;
const DISK_GET_US_MAX: f64 = 20.0;
const OPEN_MS_MAX: f64 = 30.0;

/// Returns the output of a test, about 4 KB and different for each number.
fn output(number: u64) -> Bytes {
    let mut random = Random(number);
    let mut text = String::new();
    while text.len() < 4_000 {
        let (module, test) = (random.below(40), random.below(1000));
        let _ =
            writeln!(text, "test module_{module}::case_{test}_holds ... ok in {} us", random.below(10_000));
    }
    Bytes::from(text)
}

fn record(number: u64) -> (Key, Record) {
    let cost = Duration::from_millis(250);
    (key(number), Record { schema: 1, created_ms: number, cost, tags: vec![], payload: output(number) })
}

/// Returns the resident memory of this process, in bytes.
fn resident_bytes() -> Result<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok(pages * 4096.0)
}

/// Variable that makes this program fill a cache with the given number of results, and print how
/// many bytes each of them takes.
pub(crate) const FILL: &str = "CACHE_FILL";

/// Fills a cache in memory, and prints the bytes per result.
pub(crate) fn fill(results: u64) -> Result<()> {
    let backend = MemoryBackend::new(results as usize * 2, results * 16_000)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let before = resident_bytes()?;
    for number in 0..results {
        let (key, record) = record(number);
        let put = backend.put(&key, record.encode(&key), None);
        runtime.block_on(put)?;
    }
    println!("{}", (resident_bytes()? - before) / results as f64);
    Ok(())
}

/// Returns the bytes of memory per result, measured in a new process.
fn bytes_each(results: u64) -> Result<f64> {
    let mut child = std::process::Command::new(std::env::current_exe()?);
    let output = child.arg("--bench").env(FILL, results.to_string()).output()?.stdout;
    Ok(String::from_utf8_lossy(&output).trim().parse()?)
}

/// Measures the memory per result. Returns the bytes of a thousand results.
pub(crate) fn memory(rows: &mut Vec<Row>) -> Result<f64> {
    let few = bytes_each(1_000)?;
    rows.push(Row::new("memory per result of 4 KB, 1,000 results", "bytes", [few]));
    rows.push(Row::new("memory per result of 4 KB, 100,000 results", "bytes", [bytes_each(100_000)?]));
    Ok(few * 1_000.0)
}

fn directory_bytes(directory: &Path) -> Result<f64> {
    let files = std::fs::read_dir(directory)?.flatten();
    Ok(files.map(|file| file.metadata().map_or(0, |metadata| metadata.len()) as f64).sum())
}

/// Measures the space on disk, and reads from there.
pub(crate) fn disk(rows: &mut Vec<Row>, memory_bytes: f64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let few = tempfile::tempdir()?;
        put_results(few.path(), 1_000).await?;
        let total = (memory_bytes + directory_bytes(few.path())?) / 1e6;
        let name = "1,000 results of 4 KB, memory and disk together";
        rows.push(Row::new(name, "MB", [total]).at_most(RESULTS_MB_MAX));
        let many = tempfile::tempdir()?;
        put_results(many.path(), 100_000).await?;
        let disk_each = directory_bytes(many.path())? / 100_000.0;
        rows.push(Row::new("disk per result of 4 KB, 100,000 results", "bytes", [disk_each]));
        let mut opens = Vec::new();
        for _ in 0..9 {
            let begun = Instant::now();
            let opened = DiskBackend::open(many.path(), options())?;
            opens.push(begun.elapsed().as_secs_f64() * 1e3);
            drop(opened);
        }
        rows.push(Row::new("open a store of 100,000 results", "ms", opens).at_most(OPEN_MS_MAX));
        let backend = DiskBackend::open(many.path(), options())?;
        let (mut random, mut gets) = (Random(1), Vec::new());
        for _ in 0..20_000 {
            let (key, begun) = (key(random.below(100_000)), Instant::now());
            let found = backend.get(&key).await?;
            gets.push(begun.elapsed().as_secs_f64() * 1e6);
            assert!(found.is_some());
        }
        rows.push(Row::new("get from disk, page cache warm", "us", gets).at_most(DISK_GET_US_MAX));
        Ok(())
    })
}

fn options() -> DiskOptions {
    DiskOptions { disk_bytes_max: None, ..DiskOptions::default() }
}

async fn put_results(directory: &Path, results: u64) -> Result<()> {
    let backend = DiskBackend::open(directory, options())?;
    for number in 0..results {
        let (key, record) = record(number);
        backend.put(&key, record.encode(&key), None).await?;
    }
    backend.close().await?;
    Ok(())
}
