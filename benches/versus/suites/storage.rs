//! Compares the segment log and the store with other stores: files that are written once, read warm
//! and cold, and opened after closing or a kill. Also stores the attempts of retrying agents.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use greenwave_benches::{Page, Row, is_measuring};
use greenwave_versus::storage::{
    Corpus, Random, Retries, STORES, Usage, directory_bytes, drop_page_cache, open,
};
use serde_json::{Value, json};

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

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, verb, what, directory] = &args[..]
        && child == "child"
    {
        return child_main(verb, what, Path::new(directory));
    }
    if !is_measuring() {
        return;
    }
    let mut rows = Vec::new();
    files(&mut rows);
    rows.push(hot());
    million(&mut rows);
    retries(&mut rows);
    Page { suite: "versus-storage", about: ABOUT, rows }.publish();
}

/// Runs the rounds of all stores, interleaved.
fn files(rows: &mut Vec<Row>) {
    let packed = packed_bytes(&Corpus::new(FILES, &SIZES));
    let mut found: Vec<[Vec<f64>; 9]> = STORES.iter().map(|_| Default::default()).collect();
    for _ in 0..ROUNDS {
        for (store, found) in STORES.iter().zip(&mut found) {
            let directory = temporary_directory();
            let loaded = child("load", store, directory.path());
            let closed = child("open", store, directory.path());
            let read = child("read", store, directory.path());
            let killed =
                tempfile::tempdir_in(directory.path()).expect("a temporary directory can be created");
            child("load-killed", store, killed.path());
            let after = child("open", store, killed.path());
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
}

fn hot() -> Row {
    let samples = (0..ROUNDS)
        .map(|_| child("hot", "greenwave-storage", temporary_directory().path())["hot_ns"].as_f64());
    Row::new("get, hot, greenwave-storage", "ns", samples.flatten()).at_most(HOT_NS)
}

fn million(rows: &mut Vec<Row>) {
    for store in ["greenwave-segment", "redb", "fjall"] {
        let directory = temporary_directory();
        child("million-killed", store, directory.path());
        let open = |_| child("million-open", store, directory.path())["open_ms"].as_f64();
        let row = Row::new(format!("open a million, killed, {store}"), "ms", (0..ROUNDS).filter_map(open));
        rows.push(if store == "greenwave-segment" { row.at_most(OPEN_MILLION_MS) } else { row });
    }
}

fn retries(rows: &mut Vec<Row>) {
    let figure = |value: &Value, name: &str| value[name].as_f64().expect("the child prints the figure");
    let everything = child("retries", "everything", temporary_directory().path());
    let plain = child("retries", "plain", temporary_directory().path());
    let (raw, held) = (figure(&everything, "raw_bytes"), figure(&everything, "peak_bytes"));
    rows.push(Row::new("retries, total size", "MB", [raw / 1e6]));
    rows.push(Row::new("retries, peak memory, everything", "MB", [held / 1e6]));
    let attempt = "retries, peak memory per attempt at ten files, everything";
    rows.push(Row::new(attempt, "kB", [held / 1e3 / ATTEMPTS]));
    rows.push(Row::new(
        "retries, on disk / total size, plain zstd 6",
        "%",
        [figure(&plain, "disk_bytes") / raw * 100.0],
    ));
    for (profile, budget) in PROFILES {
        let usage = child("retries", profile, temporary_directory().path());
        let (disk, peak) = (figure(&usage, "disk_bytes"), figure(&usage, "peak_bytes"));
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
        let of_plain = disk / figure(&plain, "disk_bytes") * 100.0;
        let row = Row::new(format!("retries, on disk / plain zstd 6, {profile}"), "%", [of_plain]);
        rows.push(row.at_most(RETRIES_OF_ZSTD_PERCENT));
    }
}

fn temporary_directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be created")
}

fn packed_bytes(corpus: &Corpus) -> f64 {
    let mut zstd = zstd::bulk::Compressor::new(1).expect("level 1 exists");
    let packed =
        corpus.files.iter().map(|file| zstd.compress(file).expect("the buffer is large enough").len() as u64);
    packed.sum::<u64>() as f64
}

/// Runs a part of this program in a child process, which may end by SIGKILL. Returns its
/// output.
fn child(verb: &str, what: &str, directory: &Path) -> Value {
    let mut command = Command::new(std::env::current_exe().expect("a running program has an executable"));
    command.args(["child", verb, what]).arg(directory).stdout(Stdio::piped());
    let output = command.output().expect("this program can be started again");
    let text = String::from_utf8(output.stdout).expect("the output is UTF-8");
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{verb} {what} ended with {}: {text:?}", output.status))
}

#[expect(clippy::print_stdout, reason = "the parent reads the output")]
fn child_main(verb: &str, what: &str, directory: &Path) {
    let figures = match verb {
        "load" | "load-killed" => load(what, directory, verb == "load-killed"),
        "open" => open_only(what, directory),
        "read" => read(what, directory),
        "hot" => hot_gets(what, directory),
        "million-killed" => load_million(what, directory),
        "million-open" => open_million(what, directory),
        "retries" => retry(what, directory),
        other => panic!("invalid verb {other:?}"),
    };
    println!("{figures}");
    if verb.ends_with("-killed") {
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL).expect("a process may kill itself");
    }
}

fn load(store: &str, directory: &Path, killed: bool) -> Value {
    let corpus = Corpus::new(FILES, &SIZES);
    let before = Usage::now().written_bytes;
    let mut opened = open(store, directory, &corpus.files);
    let begun = Instant::now();
    for (at, group) in corpus.files.chunks(GROUP).enumerate() {
        opened.put((at * GROUP) as u64, group);
    }
    let seconds = begun.elapsed().as_secs_f64();
    if killed {
        // The store is not closed, because the process is killed at once.
        std::mem::forget(opened);
    } else {
        opened.close();
    }
    json!({
        "put_mbs": corpus.bytes() as f64 / 1e6 / seconds,
        "written_bytes": Usage::now().written_bytes - before,
        "disk_bytes": directory_bytes(directory),
    })
}

fn open_only(store: &str, directory: &Path) -> Value {
    // Stores that address contents by hash need no files for opening.
    let begun = Instant::now();
    let opened = open(store, directory, &[]);
    let open_ms = begun.elapsed().as_secs_f64() * 1e3;
    opened.close();
    json!({ "open_ms": open_ms })
}

fn read(store: &str, directory: &Path) -> Value {
    let corpus = Corpus::new(FILES, &SIZES);
    let mut opened = open(store, directory, &corpus.files);
    // In stores with one file per value, reading a value does not cache others.
    let is_file_each = matches!(store, "cacache" | "loose files");
    let mut pass = |seed, is_cold| {
        let mut times: Vec<f64> = Vec::with_capacity(FILES);
        for number in Random::new(seed).order(FILES) {
            if is_cold && (times.is_empty() || !is_file_each) {
                drop_page_cache(directory);
            }
            let begun = Instant::now();
            let found = opened.get(number as u64);
            times.push(begun.elapsed().as_secs_f64() * 1e6);
            assert!(found == corpus.files[number], "{store} returned the wrong file for {number}");
        }
        times.sort_by(f64::total_cmp);
        (times[FILES / 2], times[FILES / 100 * 99])
    };
    let (cold50, cold99) = pass(1, true);
    // The cold pass leaves almost nothing in the page cache.
    pass(2, false);
    let (warm50, warm99) = pass(3, false);
    json!({ "cold_p50_us": cold50, "cold_p99_us": cold99, "warm_p50_us": warm50, "warm_p99_us": warm99 })
}

fn hot_gets(_: &str, directory: &Path) -> Value {
    use greenwave_storage::{SegmentColdTier, SegmentOptions, Store, StoreOptions};
    let corpus = Corpus::new(FILES, &SIZES);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
    let cold = SegmentColdTier::open(directory, SegmentOptions::default()).expect("the cold tier opens");
    let store = runtime
        .block_on(async {
            Store::open(
                StoreOptions { memory_bytes_max: 1 << 30, ..StoreOptions::default() },
                std::sync::Arc::new(cold),
            )
        })
        .expect("the store opens");
    runtime.block_on(async {
        let mut ids = Vec::new();
        for (number, file) in corpus.files.iter().enumerate() {
            ids.push(
                store.put(&number.to_string(), file.clone().into()).await.expect("the store stores a file"),
            );
        }
        let order = Random::new(3).order(FILES);
        let begun = Instant::now();
        for _ in 0..100 {
            for number in &order {
                let found = store
                    .get_blob(&ids[*number])
                    .await
                    .expect("the store reads")
                    .expect("the file is stored");
                std::hint::black_box(found);
            }
        }
        json!({ "hot_ns": begun.elapsed().as_secs_f64() * 1e9 / (100 * FILES) as f64 })
    })
}

fn small(number: u64) -> ([u8; 32], [u8; 64]) {
    let mut random = Random::new(number);
    (std::array::from_fn(|_| random.below(256) as u8), std::array::from_fn(|_| random.below(256) as u8))
}

fn load_million(store: &str, directory: &Path) -> Value {
    match store {
        "greenwave-segment" => {
            let log = greenwave_segment::Log::open(directory, greenwave_segment::Options::default())
                .expect("the log opens");
            for number in 0..MILLION {
                let (key, value) = small(number);
                log.put(&key, &value).expect("the log stores a value");
            }
            std::mem::forget(log);
        }
        "redb" => {
            let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("small");
            let database = redb::Database::create(directory.join("redb")).expect("redb opens");
            for first in (0..MILLION).step_by(10_000) {
                let write = database.begin_write().expect("redb begins");
                {
                    let mut table = write.open_table(table).expect("redb has a table");
                    for number in first..first + 10_000 {
                        let (key, value) = small(number);
                        table.insert(&key[..], &value[..]).expect("redb stores a value");
                    }
                }
                write.commit().expect("redb commits");
            }
            std::mem::forget(database);
        }
        _ => {
            let database = fjall::Database::builder(directory).open().expect("fjall opens");
            let values = database
                .keyspace("small", fjall::KeyspaceCreateOptions::default)
                .expect("fjall has a keyspace");
            for number in 0..MILLION {
                let (key, value) = small(number);
                values.insert(key, value).expect("fjall stores a value");
                if number % 10_000 == 9_999 {
                    database.persist(fjall::PersistMode::SyncData).expect("fjall syncs");
                }
            }
            std::mem::forget((database, values));
        }
    }
    json!({})
}

fn open_million(store: &str, directory: &Path) -> Value {
    use redb::ReadableDatabase;
    let (key, value) = small(MILLION / 2);
    let begun = Instant::now();
    let (open_ms, found) = match store {
        "greenwave-segment" => {
            let log = greenwave_segment::Log::open(directory, greenwave_segment::Options::default())
                .expect("the log opens");
            let open_ms = begun.elapsed().as_secs_f64() * 1e3;
            assert_eq!(log.stats().entries, MILLION);
            let found = log.get(&key).expect("the log reads").expect("the value is stored").to_vec();
            // Closing would save the next round the work of recovery.
            std::mem::forget(log);
            (open_ms, found)
        }
        "redb" => {
            let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("small");
            let database = redb::Database::create(directory.join("redb")).expect("redb opens");
            let open_ms = begun.elapsed().as_secs_f64() * 1e3;
            let read = database.begin_read().expect("redb begins");
            let table = read.open_table(table).expect("redb has a table");
            let found =
                table.get(&key[..]).expect("redb reads").expect("the value is stored").value().to_vec();
            drop((table, read));
            std::mem::forget(database);
            (open_ms, found)
        }
        _ => {
            let database = fjall::Database::builder(directory).open().expect("fjall opens");
            let values = database
                .keyspace("small", fjall::KeyspaceCreateOptions::default)
                .expect("fjall has a keyspace");
            let open_ms = begun.elapsed().as_secs_f64() * 1e3;
            let found = values.get(key).expect("fjall reads").expect("the value is stored").to_vec();
            std::mem::forget((database, values));
            (open_ms, found)
        }
    };
    assert_eq!(found, value);
    json!({ "open_ms": open_ms })
}

fn retry(what: &str, directory: &Path) -> Value {
    let mut retries = Retries::new(directory.join("copy"));
    let store: PathBuf = directory.join("store");
    let usage = match what {
        "everything" => retries.hold_everything(),
        "plain" => retries.compress_each(6),
        profile => retries.record(&store, profile),
    };
    json!({ "raw_bytes": usage.raw_bytes, "disk_bytes": usage.disk_bytes, "peak_bytes": usage.peak_bytes })
}
