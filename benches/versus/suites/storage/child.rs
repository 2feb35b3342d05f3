//! The parts of the suite that run in processes of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use greenwave_benches::Result;
use greenwave_segment::{Log, Options};
use greenwave_storage::{SegmentColdTier, SegmentOptions, Store, StoreOptions};
use greenwave_versus::storage::{Corpus, Random, Retries, Usage, directory_bytes, drop_page_cache, open};
use redb::{ReadableDatabase, TableDefinition};
use serde_json::{Value, json};

use crate::{FILES, GROUP, MILLION, SIZES};

/// Error of a store without a value that was put.
const MISSING: &str = "the value is not stored";

/// Runs a part of the suite in this process, and prints its figures.
///
/// # Errors
/// If a store fails.
#[expect(clippy::print_stdout, reason = "the parent reads the output")]
pub(crate) fn run(verb: &str, what: &str, directory: &Path) -> Result<()> {
    let figures = match verb {
        "load" | "load-killed" => load(what, directory, verb == "load-killed"),
        "open" => open_only(what, directory),
        "read" => read(what, directory),
        "hot" => hot_gets(what, directory),
        "million-killed" => load_million(what, directory),
        "million-open" => open_million(what, directory),
        "retries" => retry(what, directory),
        other => return Err(format!("invalid verb {other:?}").into()),
    }?;
    println!("{figures}");
    if verb.ends_with("-killed") {
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL)?;
    }
    Ok(())
}

fn load(store: &str, directory: &Path, killed: bool) -> Result<Value> {
    let corpus = Corpus::new(FILES, &SIZES);
    let before = Usage::now()?.written_bytes;
    let mut opened = open(store, directory, &corpus.files)?;
    let begun = Instant::now();
    for (at, group) in corpus.files.chunks(GROUP).enumerate() {
        opened.put((at * GROUP) as u64, group)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    if killed {
        // The store is not closed, because the process is killed at once.
        std::mem::forget(opened);
    } else {
        opened.close()?;
    }
    Ok(json!({
        "put_mbs": corpus.bytes() as f64 / 1e6 / seconds,
        "written_bytes": Usage::now()?.written_bytes - before,
        "disk_bytes": directory_bytes(directory)?,
    }))
}

fn open_only(store: &str, directory: &Path) -> Result<Value> {
    // Stores that address contents by hash need no files for opening.
    let begun = Instant::now();
    let opened = open(store, directory, &[])?;
    let open_ms = begun.elapsed().as_secs_f64() * 1e3;
    opened.close()?;
    Ok(json!({ "open_ms": open_ms }))
}

fn read(store: &str, directory: &Path) -> Result<Value> {
    let corpus = Corpus::new(FILES, &SIZES);
    let mut opened = open(store, directory, &corpus.files)?;
    // In stores with one file per value, reading a value does not cache others.
    let is_file_each = matches!(store, "cacache" | "loose files");
    let mut pass = |seed, is_cold| -> Result<(f64, f64)> {
        let mut times: Vec<f64> = Vec::with_capacity(FILES);
        for number in Random::new(seed).order(FILES) {
            if is_cold && (times.is_empty() || !is_file_each) {
                drop_page_cache(directory)?;
            }
            let begun = Instant::now();
            let found = opened.get(number as u64)?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
            assert!(found == corpus.files[number], "{store} returned the wrong file for {number}");
        }
        times.sort_by(f64::total_cmp);
        Ok((times[FILES / 2], times[FILES / 100 * 99]))
    };
    let (cold50, cold99) = pass(1, true)?;
    // The cold pass leaves almost nothing in the page cache.
    pass(2, false)?;
    let (warm50, warm99) = pass(3, false)?;
    Ok(json!({
        "cold_p50_us": cold50, "cold_p99_us": cold99, "warm_p50_us": warm50, "warm_p99_us": warm99
    }))
}

fn hot_gets(_: &str, directory: &Path) -> Result<Value> {
    let corpus = Corpus::new(FILES, &SIZES);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cold = SegmentColdTier::open(directory, SegmentOptions::default())?;
    let options = StoreOptions { memory_bytes_max: 1 << 30, ..StoreOptions::default() };
    let store = runtime.block_on(async { Store::open(options, Arc::new(cold)) })?;
    runtime.block_on(async {
        let mut ids = Vec::new();
        for (number, file) in corpus.files.iter().enumerate() {
            ids.push(store.put(&number.to_string(), file.clone().into()).await?);
        }
        let order = Random::new(3).order(FILES);
        let begun = Instant::now();
        for _ in 0..100 {
            for number in &order {
                std::hint::black_box(store.get_blob(&ids[*number]).await?.ok_or(MISSING)?);
            }
        }
        Ok(json!({ "hot_ns": begun.elapsed().as_secs_f64() * 1e9 / (100 * FILES) as f64 }))
    })
}

fn small(number: u64) -> ([u8; 32], [u8; 64]) {
    let mut random = Random::new(number);
    (std::array::from_fn(|_| random.below(256) as u8), std::array::from_fn(|_| random.below(256) as u8))
}

fn load_million(store: &str, directory: &Path) -> Result<Value> {
    match store {
        "greenwave-segment" => {
            let log = Log::open(directory, Options::default())?;
            for number in 0..MILLION {
                let (key, value) = small(number);
                log.put(&key, &value)?;
            }
            std::mem::forget(log);
        }
        "redb" => {
            let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("small");
            let database = redb::Database::create(directory.join("redb"))?;
            for first in (0..MILLION).step_by(10_000) {
                let write = database.begin_write()?;
                {
                    let mut table = write.open_table(table)?;
                    for number in first..first + 10_000 {
                        let (key, value) = small(number);
                        table.insert(&key[..], &value[..])?;
                    }
                }
                write.commit()?;
            }
            std::mem::forget(database);
        }
        _ => {
            let database = fjall::Database::builder(directory).open()?;
            let values = database.keyspace("small", fjall::KeyspaceCreateOptions::default)?;
            for number in 0..MILLION {
                let (key, value) = small(number);
                values.insert(key, value)?;
                if number % 10_000 == 9_999 {
                    database.persist(fjall::PersistMode::SyncData)?;
                }
            }
            std::mem::forget((database, values));
        }
    }
    Ok(json!({}))
}

fn open_million(store: &str, directory: &Path) -> Result<Value> {
    let (key, value) = small(MILLION / 2);
    let begun = Instant::now();
    let (open_ms, found) = match store {
        "greenwave-segment" => {
            let log = Log::open(directory, Options::default())?;
            let open_ms = begun.elapsed().as_secs_f64() * 1e3;
            assert_eq!(log.stats().entries, MILLION);
            let found = log.get(&key)?.ok_or(MISSING)?.to_vec();
            // Closing would save the next round the work of recovery.
            std::mem::forget(log);
            (open_ms, found)
        }
        "redb" => {
            let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("small");
            let database = redb::Database::create(directory.join("redb"))?;
            let open_ms = begun.elapsed().as_secs_f64() * 1e3;
            let read = database.begin_read()?;
            let table = read.open_table(table)?;
            let found = table.get(&key[..])?.ok_or(MISSING)?.value().to_vec();
            drop((table, read));
            std::mem::forget(database);
            (open_ms, found)
        }
        _ => {
            let database = fjall::Database::builder(directory).open()?;
            let values = database.keyspace("small", fjall::KeyspaceCreateOptions::default)?;
            let open_ms = begun.elapsed().as_secs_f64() * 1e3;
            let found = values.get(key)?.ok_or(MISSING)?.to_vec();
            std::mem::forget((database, values));
            (open_ms, found)
        }
    };
    assert_eq!(found, value);
    Ok(json!({ "open_ms": open_ms }))
}

fn retry(what: &str, directory: &Path) -> Result<Value> {
    let mut retries = Retries::new(directory.join("copy"))?;
    let store: PathBuf = directory.join("store");
    let usage = match what {
        "everything" => retries.hold_everything()?,
        "plain" => retries.compress_each(6)?,
        profile => retries.record(&store, profile)?,
    };
    Ok(json!({
        "raw_bytes": usage.raw_bytes, "disk_bytes": usage.disk_bytes, "peak_bytes": usage.peak_bytes
    }))
}
