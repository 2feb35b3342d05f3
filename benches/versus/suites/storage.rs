//! Compares the segment log and the store with other stores: files that are written once, read warm
//! and cold, and opened after closing or a kill. Also stores the attempts of retrying agents.

#[path = "storage/child.rs"]
mod child;

use std::path::Path;
use std::process::{Command, Stdio};

use greenwave_benches::{Page, Result, Row, is_measuring};
use greenwave_versus::storage::{Corpus, STORES};
use serde_json::Value;

const ABOUT: &str = "
Each store runs in a separate process, on the same disk, with the same 3,000 source files of 4 to 64
KiB from cargo's registry directory.

- *put and sync*: groups of 64 files, durable before the next group. foyer and cacache do not sync,
  so they do less work.
- *get, cold*: a new process, random order, one thread. The store's files are dropped from the page
  cache before each get. *get, warm*: a third pass over all files, with nothing dropped since the
  first. Values are compared with the files outside of the measured time.
- *written*: bytes that the process wrote to the disk according to `/proc/self/io`, divided by the
  size of the files compressed with zstd level 1. *on disk*: the length of the store's files at the
  end, divided by the same size.
- *open*: after closing the store, and after a SIGKILL right after the last put, with the files in
  the page cache.
- All stores compress with zstd level 1 and reused contexts: Greenwave by itself, the others by
  compressing values before the put.
- redb: one transaction per group. fjall: key-value separation, its own compression off, and values
  moved out of the journal on closing, since they would otherwise be in memory after opening. foyer:
  blocks of 16 MiB, write on insertion, a memory tier of 64 KiB. cacache: XXH3. Loose files: written
  to a temporary file, synced and renamed.
- *the disk* is a lower bound, not a store: one file, written and read at given offsets, without
  checks or recovery.
- greenwave-storage is the hybrid store with 10 MiB of memory, read from its cold tier after
  opening. *get, hot* reads files in memory through tokio's `block_on`.
- *a million*: values of 64 bytes with keys of 32, killed without a last flush. redb and fjall write
  groups of 10,000.
- *retries*: 50 features of 10 files of 16 to 64 KiB, 20 attempts each, with 1 to 5 % of the lines
  changed per attempt. `Attempts` stores all of them under each profile's settings. *everything*
  holds them in a map; *plain zstd* compresses every file separately.

The profile development does not compress and therefore stores no deltas. The budget of production
is larger than all attempts, so it spills nothing until it closes.";

/// Expectations, from the issue that introduced the suite.
const COLD_P50_US: f64 = 35.0;
const WARM_P50_US: f64 = 15.0;
const HOT_NS: f64 = 1000.0;
const WRITTEN_TIMES: f64 = 1.1;
const OPEN_KILLED_MS: f64 = 5.0;
const OPEN_MILLION_MS: f64 = 200.0;
const RETRIES_DISK_PERCENT: f64 = 5.0;
const RETRIES_OF_ZSTD_PERCENT: f64 = 100.0 / 6.0;
const RETRIES_MEMORY_PERCENT: f64 = 10.0;
const BEYOND_BUDGET_MB: f64 = 16.0;

const FILES: usize = 3000;
const SIZES: std::ops::RangeInclusive<u64> = 4 << 10..=64 << 10;
const GROUP: usize = 64;
const ROUNDS: usize = 3;
/// Number of attempts in `Retries`: 20 at each of 50 features.
const ATTEMPTS: f64 = 1000.0;
const MILLION: u64 = 1_000_000;
const PROFILES: [(&str, f64); 3] =
    [("memory-constrained", 10.0), ("development", 50.0), ("production", 500.0)];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, verb, what, directory] = &args[..]
        && child == "child"
    {
        return child::run(verb, what, Path::new(directory));
    }
    if !is_measuring() {
        return Ok(());
    }
    let mut rows = Vec::new();
    files(&mut rows)?;
    rows.push(hot()?);
    million(&mut rows)?;
    retries(&mut rows)?;
    Page { suite: "versus-storage", about: ABOUT, rows }.publish();
    Ok(())
}

/// Runs the rounds of all stores, interleaved.
fn files(rows: &mut Vec<Row>) -> Result<()> {
    let packed = packed_bytes(&Corpus::new(FILES, &SIZES))?;
    let mut found: Vec<[Vec<f64>; 9]> = STORES.iter().map(|_| Default::default()).collect();
    for _ in 0..ROUNDS {
        for (store, found) in STORES.iter().zip(&mut found) {
            let directory = tempfile::tempdir()?;
            let loaded = child("load", store, directory.path())?;
            let closed = child("open", store, directory.path())?;
            let read = child("read", store, directory.path())?;
            let killed = tempfile::tempdir_in(directory.path())?;
            child("load-killed", store, killed.path())?;
            let after = child("open", store, killed.path())?;
            let figures = [
                loaded["put_mbs"].as_f64(),
                read["cold_p50_us"].as_f64(),
                read["cold_p99_us"].as_f64(),
                read["warm_p50_us"].as_f64(),
                read["warm_p99_us"].as_f64(),
                loaded["written_bytes"].as_f64().map(|bytes| bytes / packed),
                loaded["disk_bytes"].as_f64().map(|bytes| bytes / packed),
                closed["open_ms"].as_f64(),
                after["open_ms"].as_f64(),
            ];
            found.iter_mut().zip(figures).for_each(|(samples, figure)| samples.extend(figure));
        }
    }
    for (store, found) in STORES.iter().zip(found) {
        let is_greenwave = store.starts_with("greenwave");
        let [put, cold50, cold99, warm50, warm99, written, disk, closed, killed] = found;
        let expected = |row: Row, limit| if is_greenwave { row.at_most(limit) } else { row };
        rows.push(Row::new(format!("put and sync, {store}"), "MB/s", put));
        rows.push(expected(Row::new(format!("get, cold, median, {store}"), "us", cold50), COLD_P50_US));
        rows.push(Row::new(format!("get, cold, 99th percentile, {store}"), "us", cold99));
        rows.push(expected(Row::new(format!("get, warm, median, {store}"), "us", warm50), WARM_P50_US));
        rows.push(Row::new(format!("get, warm, 99th percentile, {store}"), "us", warm99));
        rows.push(expected(
            Row::new(format!("written / compressed, {store}"), "times", written),
            WRITTEN_TIMES,
        ));
        rows.push(expected(Row::new(format!("on disk / compressed, {store}"), "times", disk), WRITTEN_TIMES));
        rows.push(Row::new(format!("open, closed, {store}"), "ms", closed));
        rows.push(expected(Row::new(format!("open, killed, {store}"), "ms", killed), OPEN_KILLED_MS));
    }
    Ok(())
}

fn hot() -> Result<Row> {
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        samples.extend(child("hot", "greenwave-storage", tempfile::tempdir()?.path())?["hot_ns"].as_f64());
    }
    Ok(Row::new("get, hot, greenwave-storage", "ns", samples).at_most(HOT_NS))
}

fn million(rows: &mut Vec<Row>) -> Result<()> {
    for store in ["greenwave-segment", "redb", "fjall"] {
        let directory = tempfile::tempdir()?;
        child("million-killed", store, directory.path())?;
        let mut samples = Vec::new();
        for _ in 0..ROUNDS {
            samples.extend(child("million-open", store, directory.path())?["open_ms"].as_f64());
        }
        let row = Row::new(format!("open a million, killed, {store}"), "ms", samples);
        rows.push(if store == "greenwave-segment" { row.at_most(OPEN_MILLION_MS) } else { row });
    }
    Ok(())
}

fn retries(rows: &mut Vec<Row>) -> Result<()> {
    let figure = |value: &Value, name: &str| {
        value[name].as_f64().ok_or_else(|| format!("the child prints no {name}: {value}"))
    };
    let everything = child("retries", "everything", tempfile::tempdir()?.path())?;
    let plain = child("retries", "plain", tempfile::tempdir()?.path())?;
    let plain_disk = figure(&plain, "disk_bytes")?;
    let (raw, held) = (figure(&everything, "raw_bytes")?, figure(&everything, "peak_bytes")?);
    rows.push(Row::new("retries, total size", "MB", [raw / 1e6]));
    rows.push(Row::new("retries, peak memory, everything", "MB", [held / 1e6]));
    let attempt = "retries, peak memory per attempt at ten files, everything";
    rows.push(Row::new(attempt, "kB", [held / 1e3 / ATTEMPTS]));
    rows.push(Row::new("retries, on disk / total size, plain zstd 6", "%", [plain_disk / raw * 100.0]));
    for (profile, budget) in PROFILES {
        let usage = child("retries", profile, tempfile::tempdir()?.path())?;
        let (disk, peak) = (figure(&usage, "disk_bytes")?, figure(&usage, "peak_bytes")?);
        let beyond = Row::new(
            format!("retries, peak memory beyond the budget, {profile}"),
            "MB",
            [peak / 1e6 - budget],
        );
        rows.push(beyond.at_most(BEYOND_BUDGET_MB));
        let attempt = format!("per attempt at ten files, {profile}");
        rows.push(Row::new(format!("retries, on disk {attempt}"), "kB", [disk / 1e3 / ATTEMPTS]));
        rows.push(Row::new(format!("retries, peak memory {attempt}"), "kB", [peak / 1e3 / ATTEMPTS]));
        let share =
            Row::new(format!("retries, peak memory / everything, {profile}"), "%", [peak / held * 100.0]);
        rows.push(if profile == "memory-constrained" {
            share.at_most(RETRIES_MEMORY_PERCENT)
        } else {
            share
        });
        let share = Row::new(format!("retries, on disk / total size, {profile}"), "%", [disk / raw * 100.0]);
        if profile == "development" {
            rows.push(share);
            continue;
        }
        rows.push(share.at_most(RETRIES_DISK_PERCENT));
        let of_plain = disk / plain_disk * 100.0;
        let row = Row::new(format!("retries, on disk / plain zstd 6, {profile}"), "%", [of_plain]);
        rows.push(row.at_most(RETRIES_OF_ZSTD_PERCENT));
    }
    Ok(())
}

fn packed_bytes(corpus: &Corpus) -> Result<f64> {
    let mut zstd = zstd::bulk::Compressor::new(1)?;
    let mut bytes = 0;
    for file in &corpus.files {
        bytes += zstd.compress(file)?.len();
    }
    Ok(bytes as f64)
}

/// Runs a part of this program in a child process, which may end by SIGKILL. Returns its
/// output.
fn child(verb: &str, what: &str, directory: &Path) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", verb, what]).arg(directory).stdout(Stdio::piped());
    let output = command.output()?;
    let text = String::from_utf8(output.stdout)?;
    let ended = |_| format!("{verb} {what} ended with {}: {text:?}", output.status);
    Ok(serde_json::from_str(&text).map_err(ended)?)
}
