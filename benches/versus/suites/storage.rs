//! The segment log and the store beside other stores: source files written once, read warm and cold, opened after a good and a bad end;
//! and the attempts of agents that try again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use greenwave_benches::{Page, Row, is_measuring};
use greenwave_versus::storage::{Corpus, Retries, STORES, Usage, Work, drop_page_cache, folder_bytes, open};
use serde_json::{Value, json};

const ABOUT: &str = "
Each store in a process of its own, on the same disk and the same 3,000 source files of 4 to 64 KiB from cargo's registry folder.

- *put and sync*: groups of 64 files, durable before the next group; foyer and cacache do not sync, so their figure is of less work.
- *get, cold*: the process is new, the page cache drops the store's files before each get, any order, one thread. *warm*: all of it a third time,
  nothing dropped after the first. Values are compared with the files outside the time.
- *written*: what `/proc/self/io` says the process made the disk write, as a multiple of the files as zstd level 1 compresses them.
  *on disk*: lengths of the files that are there then.
- *open*: after the store was closed, and after a SIGKILL right behind the last put, with the files in the page cache.
- All compress with zstd level 1, contexts used again: ours by itself, the others' values before they see them.
- redb: a transaction a group. fjall: keys and values apart, its own compression off, told on closing to move values out of its journal, which
  else are in memory after opening. foyer: 16 MiB blocks, write on insertion, a memory
  tier of 64 KiB. cacache: XXH3. Loose files: written beside, synced, renamed.
- *the disk* is no store: one file, written and read at places that are known, with nothing to check and nothing to recover. It is the limit.
- greenwave-storage is the hybrid store with 10 MiB of memory, from its cold tier after opening; *hot* is the same store when the file is in memory, through tokio's
  `block_on`.
- *a million*: values of 64 bytes with keys of 32, killed without a last flush; redb and fjall in groups of 10,000.
- *retries*: 50 features of 10 files of 16 to 64 KiB, 20 attempts each, 1 to 5 % of the lines changed per attempt, all kept with `Attempts`,
  under each profile's settings. *Everything* holds them in a map; *plain zstd* compresses every file by itself.

Development does not compress, so it keeps no differences; production's budget is larger than everything, so it spills nothing until it
closes.";

/// What the issue asks for.
const COLD_P50_US: f64 = 35.0;
const WARM_P50_US: f64 = 15.0;
const HOT_NS: f64 = 1000.0;
const WRITTEN_TIMES: f64 = 1.1;
const OPEN_KILLED_MS: f64 = 5.0;
const OPEN_MILLION_MS: f64 = 200.0;
const RETRIES_DISK_PERCENT: f64 = 5.0;
const RETRIES_OF_ZSTD_PERCENT: f64 = 100.0 / 6.0;
const RETRIES_MEMORY_PERCENT: f64 = 10.0;
const BESIDES_BUDGET_MB: f64 = 16.0;

const FILES: usize = 3000;
const SIZES: std::ops::RangeInclusive<u64> = 4 << 10..=64 << 10;
const GROUP: usize = 64;
const ROUNDS: usize = 3;
/// 20 at each of 50 features, as `Retries` has them.
const ATTEMPTS: f64 = 1000.0;
const MILLION: u64 = 1_000_000;
const PROFILES: [(&str, f64); 3] =
    [("memory-constrained", 10.0), ("development", 50.0), ("production", 500.0)];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, verb, what, folder] = &args[..]
        && child == "child"
    {
        return child_main(verb, what, Path::new(folder));
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

/// The rounds of all stores, interleaved.
fn files(rows: &mut Vec<Row>) {
    let packed = packed_bytes(&Corpus::new(FILES, &SIZES));
    let mut found: Vec<[Vec<f64>; 9]> = STORES.iter().map(|_| Default::default()).collect();
    for _ in 0..ROUNDS {
        for (store, found) in STORES.iter().zip(&mut found) {
            let folder = folder();
            let loaded = child("load", store, folder.path());
            let closed = child("open", store, folder.path());
            let read = child("read", store, folder.path());
            let killed = tempfile::tempdir_in(folder.path()).expect("a folder can be made");
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
        let ours = store.starts_with("greenwave");
        let [put, cold50, cold99, warm50, warm99, written, disk, closed, killed] = found;
        let expected = |row: Row, limit| if ours { row.at_most(limit) } else { row };
        rows.push(Row::new(format!("put and sync, {store}"), "MB/s", put));
        rows.push(expected(Row::new(format!("get, cold, median, {store}"), "us", cold50), COLD_P50_US));
        rows.push(Row::new(format!("get, cold, 99 of 100, {store}"), "us", cold99));
        rows.push(expected(Row::new(format!("get, warm, median, {store}"), "us", warm50), WARM_P50_US));
        rows.push(Row::new(format!("get, warm, 99 of 100, {store}"), "us", warm99));
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
    let samples = (0..ROUNDS).map(|_| child("hot", "greenwave-storage", folder().path())["hot_ns"].as_f64());
    Row::new("get, hot, greenwave-storage", "ns", samples.flatten()).at_most(HOT_NS)
}

fn million(rows: &mut Vec<Row>) {
    for store in ["greenwave-segment", "redb", "fjall"] {
        let folder = folder();
        child("million-killed", store, folder.path());
        let open = |_| child("million-open", store, folder.path())["open_ms"].as_f64();
        let row = Row::new(format!("open a million, killed, {store}"), "ms", (0..ROUNDS).filter_map(open));
        rows.push(if store == "greenwave-segment" { row.at_most(OPEN_MILLION_MS) } else { row });
    }
}

fn retries(rows: &mut Vec<Row>) {
    let figure = |value: &Value, name: &str| value[name].as_f64().expect("the child prints it");
    let everything = child("retries", "everything", folder().path());
    let plain = child("retries", "plain", folder().path());
    let (raw, held) = (figure(&everything, "raw_bytes"), figure(&everything, "peak_bytes"));
    rows.push(Row::new("retries, all bytes", "MB", [raw / 1e6]));
    rows.push(Row::new("retries, peak memory, everything", "MB", [held / 1e6]));
    let attempt = "retries, peak memory for an attempt at ten files, everything";
    rows.push(Row::new(attempt, "kB", [held / 1e3 / ATTEMPTS]));
    rows.push(Row::new(
        "retries, on disk / all bytes, plain zstd 6",
        "%",
        [figure(&plain, "disk_bytes") / raw * 100.0],
    ));
    for (profile, budget) in PROFILES {
        let kept = child("retries", profile, folder().path());
        let (disk, peak) = (figure(&kept, "disk_bytes"), figure(&kept, "peak_bytes"));
        let besides = Row::new(
            format!("retries, peak memory besides the budget, {profile}"),
            "MB",
            [peak / 1e6 - budget],
        );
        rows.push(besides.at_most(BESIDES_BUDGET_MB));
        let attempt = format!("for an attempt at ten files, {profile}");
        rows.push(Row::new(format!("retries, on disk {attempt}"), "kB", [disk / 1e3 / ATTEMPTS]));
        rows.push(Row::new(format!("retries, peak memory {attempt}"), "kB", [peak / 1e3 / ATTEMPTS]));
        let share =
            Row::new(format!("retries, peak memory / everything, {profile}"), "%", [peak / held * 100.0]);
        rows.push(if profile == "memory-constrained" {
            share.at_most(RETRIES_MEMORY_PERCENT)
        } else {
            share
        });
        let share = Row::new(format!("retries, on disk / all bytes, {profile}"), "%", [disk / raw * 100.0]);
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

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

fn packed_bytes(corpus: &Corpus) -> f64 {
    let mut zstd = zstd::bulk::Compressor::new(1).expect("level 1 exists");
    let packed = corpus.files.iter().map(|file| zstd.compress(file).expect("there is memory").len() as u64);
    packed.sum::<u64>() as f64
}

/// What a process of its own prints, which may end by SIGKILL.
fn child(verb: &str, what: &str, folder: &Path) -> Value {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["child", verb, what]).arg(folder).stdout(Stdio::piped());
    let output = command.output().expect("this program can be started again");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{verb} {what} ended with {}: {text:?}", output.status))
}

#[expect(clippy::print_stdout, reason = "what the parent reads")]
fn child_main(verb: &str, what: &str, folder: &Path) {
    let figures = match verb {
        "load" | "load-killed" => load(what, folder, verb == "load-killed"),
        "open" => open_only(what, folder),
        "read" => read(what, folder),
        "hot" => hot_gets(what, folder),
        "million-killed" => load_million(what, folder),
        "million-open" => open_million(what, folder),
        "retries" => retry(what, folder),
        other => panic!("there is no verb {other:?}"),
    };
    println!("{figures}");
    if verb.ends_with("-killed") {
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL).expect("a process may kill itself");
    }
}

fn load(store: &str, folder: &Path, killed: bool) -> Value {
    let corpus = Corpus::new(FILES, &SIZES);
    let before = Usage::now().written_bytes;
    let mut opened = open(store, folder, &corpus.files);
    let begun = Instant::now();
    for (at, group) in corpus.files.chunks(GROUP).enumerate() {
        opened.put((at * GROUP) as u64, group);
    }
    let seconds = begun.elapsed().as_secs_f64();
    if killed {
        // Not closed: the kill comes at once.
        std::mem::forget(opened);
    } else {
        opened.close();
    }
    json!({
        "put_mbs": corpus.bytes() as f64 / 1e6 / seconds,
        "written_bytes": Usage::now().written_bytes - before,
        "disk_bytes": folder_bytes(folder),
    })
}

fn open_only(store: &str, folder: &Path) -> Value {
    // Only what goes by contents wants to know them, and its figure is not of that.
    let begun = Instant::now();
    let opened = open(store, folder, &[]);
    let open_ms = begun.elapsed().as_secs_f64() * 1e3;
    opened.close();
    json!({ "open_ms": open_ms })
}

fn read(store: &str, folder: &Path) -> Value {
    let corpus = Corpus::new(FILES, &SIZES);
    let mut opened = open(store, folder, &corpus.files);
    // Whoever keeps a file for each value has nothing of the others in the page cache.
    let is_file_each = matches!(store, "cacache" | "loose files");
    let mut pass = |seed, is_cold| {
        let mut times: Vec<f64> = Vec::with_capacity(FILES);
        for number in Work::new(seed).order(FILES) {
            if is_cold && (times.is_empty() || !is_file_each) {
                drop_page_cache(folder);
            }
            let begun = Instant::now();
            let found = opened.get(number as u64);
            times.push(begun.elapsed().as_secs_f64() * 1e6);
            assert!(found == corpus.files[number], "{store} returned another file than {number}");
        }
        times.sort_by(f64::total_cmp);
        (times[FILES / 2], times[FILES / 100 * 99])
    };
    let (cold50, cold99) = pass(1, true);
    // The cold pass leaves hardly anything in the page cache.
    pass(2, false);
    let (warm50, warm99) = pass(3, false);
    json!({ "cold_p50_us": cold50, "cold_p99_us": cold99, "warm_p50_us": warm50, "warm_p99_us": warm99 })
}

fn hot_gets(_: &str, folder: &Path) -> Value {
    use greenwave_storage::{SegmentColdTier, SegmentOptions, Store, StoreOptions};
    let corpus = Corpus::new(FILES, &SIZES);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
    let cold = SegmentColdTier::open(folder, SegmentOptions::default()).expect("the cold tier opens");
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
                store.put(&number.to_string(), file.clone().into()).await.expect("the store takes a file"),
            );
        }
        let order = Work::new(3).order(FILES);
        let begun = Instant::now();
        for _ in 0..100 {
            for number in &order {
                let found =
                    store.get_blob(&ids[*number]).await.expect("the store reads").expect("the file is there");
                std::hint::black_box(found);
            }
        }
        json!({ "hot_ns": begun.elapsed().as_secs_f64() * 1e9 / (100 * FILES) as f64 })
    })
}

fn small(number: u64) -> ([u8; 32], [u8; 64]) {
    let mut work = Work::new(number);
    (std::array::from_fn(|_| work.below(256) as u8), std::array::from_fn(|_| work.below(256) as u8))
}

fn load_million(store: &str, folder: &Path) -> Value {
    match store {
        "greenwave-segment" => {
            let log = greenwave_segment::Log::open(folder, greenwave_segment::Options::default())
                .expect("the log opens");
            for number in 0..MILLION {
                let (key, value) = small(number);
                log.put(&key, &value).expect("the log takes a value");
            }
            std::mem::forget(log);
        }
        "redb" => {
            let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("small");
            let database = redb::Database::create(folder.join("redb")).expect("redb opens");
            for first in (0..MILLION).step_by(10_000) {
                let write = database.begin_write().expect("redb begins");
                {
                    let mut table = write.open_table(table).expect("redb has a table");
                    for number in first..first + 10_000 {
                        let (key, value) = small(number);
                        table.insert(&key[..], &value[..]).expect("redb takes a value");
                    }
                }
                write.commit().expect("redb commits");
            }
            std::mem::forget(database);
        }
        _ => {
            let database = fjall::Database::builder(folder).open().expect("fjall opens");
            let values = database
                .keyspace("small", fjall::KeyspaceCreateOptions::default)
                .expect("fjall has a keyspace");
            for number in 0..MILLION {
                let (key, value) = small(number);
                values.insert(key, value).expect("fjall takes a value");
                if number % 10_000 == 9_999 {
                    database.persist(fjall::PersistMode::SyncData).expect("fjall syncs");
                }
            }
            std::mem::forget((database, values));
        }
    }
    json!({})
}

fn open_million(store: &str, folder: &Path) -> Value {
    use redb::ReadableDatabase;
    let (key, value) = small(MILLION / 2);
    let begun = Instant::now();
    let (open_ms, found) = match store {
        "greenwave-segment" => {
            let log = greenwave_segment::Log::open(folder, greenwave_segment::Options::default())
                .expect("the log opens");
            let open_ms = begun.elapsed().as_secs_f64() * 1e3;
            assert_eq!(log.stats().entries, MILLION);
            let found = log.get(&key).expect("the log reads").expect("the value is there").to_vec();
            // As if killed again: a good end would spare the next round its work.
            std::mem::forget(log);
            (open_ms, found)
        }
        "redb" => {
            let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("small");
            let database = redb::Database::create(folder.join("redb")).expect("redb opens");
            let open_ms = begun.elapsed().as_secs_f64() * 1e3;
            let read = database.begin_read().expect("redb begins");
            let table = read.open_table(table).expect("redb has a table");
            let found =
                table.get(&key[..]).expect("redb reads").expect("the value is there").value().to_vec();
            drop((table, read));
            std::mem::forget(database);
            (open_ms, found)
        }
        _ => {
            let database = fjall::Database::builder(folder).open().expect("fjall opens");
            let values = database
                .keyspace("small", fjall::KeyspaceCreateOptions::default)
                .expect("fjall has a keyspace");
            let open_ms = begun.elapsed().as_secs_f64() * 1e3;
            let found = values.get(key).expect("fjall reads").expect("the value is there").to_vec();
            std::mem::forget((database, values));
            (open_ms, found)
        }
    };
    assert_eq!(found, value);
    json!({ "open_ms": open_ms })
}

fn retry(what: &str, folder: &Path) -> Value {
    let mut retries = Retries::new(folder.join("copy"));
    let kept: PathBuf = folder.join("kept");
    let kept = match what {
        "everything" => retries.hold_everything(),
        "plain" => retries.compress_each(6),
        profile => retries.record(&kept, profile),
    };
    json!({ "raw_bytes": kept.raw_bytes, "disk_bytes": kept.disk_bytes, "peak_bytes": kept.peak_bytes })
}
