//! Crash tests: two processes write to one directory and are killed with SIGKILL at arbitrary
//! points. Flushed records must survive, and every record found must be correct.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenwave_cache::{
    DiskBackend, DiskOptions, Key, KeyBuilder, Record, Tier, Tiered, TieredOptions, WriteMode,
};

/// Environment variables that pass the directory and the child's number to a child process, which
/// runs this test binary.
const CHILD_DIR: &str = "GREENWAVE_CACHE_CRASH_DIR";
const CHILD_NUMBER: &str = "GREENWAVE_CACHE_CRASH_CHILD";
/// Environment variable that sets the number of rounds, for long runs.
const ROUNDS: &str = "GREENWAVE_CACHE_CRASH_ROUNDS";

fn key(child: u64, number: u64) -> Key {
    KeyBuilder::new("crash", 1).number(child).number(number).finish()
}

/// Returns a record that differs for every key and varies in length.
fn record(child: u64, number: u64) -> Record {
    let seed = key(child, number);
    let payload: Vec<u8> =
        seed.as_bytes().iter().cycle().take((number * 37 % 5000) as usize).copied().collect();
    Record {
        schema: 1,
        created_ms: number,
        cost: Duration::from_micros(child),
        tags: vec![],
        payload: payload.into(),
    }
}

fn open(dir: &Path) -> Tiered {
    let disk = DiskBackend::open(dir, DiskOptions { disk_bytes_max: None, compress: true }).unwrap();
    let back = WriteMode::Back { queued_max: 64 };
    let tier = Tier { writes: back, ..Tier::new("disk", Arc::new(disk)) };
    Tiered::new(vec![tier], TieredOptions::new(1))
}

/// Runs in a child process: stores records until killed, and reports flushed ones. The records go
/// through a queue, so that a kill finds some of them unwritten.
#[test]
#[ignore = "runs as a child process of the next test"]
fn child() {
    let (Ok(dir), Ok(child)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_NUMBER)) else { return };
    let (child, runtime) = (child.parse().unwrap(), tokio::runtime::Runtime::new().unwrap());
    runtime.block_on(async {
        let tiered = open(Path::new(&dir));
        let mut first = 0;
        while tiered.get(&key(child, first)).await.is_some() {
            first += 1;
        }
        for number in first.. {
            tiered.put(&key(child, number), &record(child, number)).await.unwrap();
            if number % 5 == 0 {
                assert!(tiered.flush().await);
                let mut out = std::io::stdout();
                writeln!(out, "\nflushed {number}").unwrap();
                out.flush().unwrap();
            }
        }
    });
}

fn spawn(dir: &Path, number: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .env(CHILD_NUMBER, number.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Returns the last number among the first `reports` reports of a child.
fn last_report(child: &mut Child, reports: usize) -> Option<u64> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("flushed ")?.parse().ok()).take(reports).last()
}

#[tokio::test]
async fn flushed_records_survive_sigkill_and_all_records_are_correct() {
    let rounds: u64 = std::env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6);
    let mut dir = tempfile::tempdir().unwrap();
    let mut flushed = [None::<u64>; 2];
    for round in 0..rounds {
        // Changes the directory now and then, because every round reads all of it.
        if round % 20 == 19 {
            (dir, flushed) = (tempfile::tempdir().unwrap(), [None; 2]);
        }
        let mut children = [spawn(dir.path(), 0), spawn(dir.path(), 1)];
        for (child, flushed) in children.iter_mut().zip(&mut flushed) {
            *flushed = last_report(child, 1 + (round * 5 % 7) as usize).or(*flushed);
        }
        for mut child in children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let tiered = open(dir.path());
        for (child, flushed) in (0..).zip(flushed) {
            let flushed = flushed.expect("a child reports at least once");
            for number in 0..flushed + 200 {
                let found = tiered.get(&key(child, number)).await;
                assert!(
                    found.is_some() || number > flushed,
                    "round {round}: {number} of child {child} is lost"
                );
                assert!(found.is_none_or(|found| found == record(child, number)), "round {round}: wrong");
            }
        }
        assert_eq!(tiered.quarantined(), [], "round {round}: a record was partially written");
    }
}

/// Creates and closes a small store. Returns its files and their contents.
async fn small_store(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let tiered = open(dir);
    for number in 1..4 {
        tiered.put(&key(7, number), &record(7, number)).await.unwrap();
    }
    assert!(tiered.close().await);
    drop(tiered);
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.is_file());
    files
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect()
}

/// Asserts that every record in a damaged store is either correct or missing. Returns the number of
/// missing records.
async fn check_correct_or_missing(dir: &Path, what: &str) -> usize {
    // Failing to open the store is acceptable, because it returns no wrong value.
    let Ok(disk) = DiskBackend::open(dir, DiskOptions::default()) else { return 0 };
    let tiered = Tiered::new(vec![Tier::new("disk", Arc::new(disk))], TieredOptions::new(1));
    let mut there = 0;
    for number in 1..4 {
        let found = tiered.get(&key(7, number)).await;
        assert!(found.iter().all(|found| *found == record(7, number)), "{what}: record {number} is wrong");
        there += usize::from(found.is_some());
    }
    there
}

fn damaged(
    files: &[(std::path::PathBuf, Vec<u8>)],
    damage: impl Fn(&mut Vec<u8>),
    file: usize,
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (number, (path, bytes)) in files.iter().enumerate() {
        let mut bytes = bytes.clone();
        if number == file {
            damage(&mut bytes);
        }
        std::fs::write(dir.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    dir
}

#[tokio::test]
async fn a_flipped_bit_never_yields_a_wrong_record() {
    let dir = tempfile::tempdir().unwrap();
    let files = small_store(dir.path()).await;
    let (mut lost, mut tried) = (0, 0);
    for (file, (path, bytes)) in files.iter().enumerate() {
        for at in 0..bytes.len() {
            let dir = damaged(&files, |bytes| bytes[at] ^= 1 << (at % 8), file);
            lost +=
                3 - check_correct_or_missing(dir.path(), &format!("byte {at} of {}", path.display())).await;
            tried += 1;
        }
    }
    assert!(tried > 300 && lost > tried / 3, "only {lost} of {tried} records were lost");
}

#[tokio::test]
async fn a_truncated_file_never_yields_a_wrong_record() {
    let dir = tempfile::tempdir().unwrap();
    let files = small_store(dir.path()).await;
    let mut lost = 0;
    for (file, (path, bytes)) in files.iter().enumerate() {
        for at in 0..bytes.len() {
            let dir = damaged(&files, |bytes| bytes.truncate(at), file);
            lost +=
                3 - check_correct_or_missing(dir.path(), &format!("{} cut at {at}", path.display())).await;
        }
    }
    assert!(lost > 0, "no record was lost");
}

/// Limits the size of files written from now on. Exceeding it is an error, as on a full disk.
fn limit_file_size(bytes: u64) {
    let limit = rustix::process::Rlimit { current: Some(bytes), maximum: None };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
}

/// Runs in a child process with its own limits: stores records until the disk is full.
#[test]
#[ignore = "runs as a child process of the next test"]
fn full_child() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let disk =
            Arc::new(DiskBackend::open(dir, DiskOptions { disk_bytes_max: None, compress: false }).unwrap());
        let memory = Arc::new(greenwave_cache::MemoryBackend::new(1000, 64 << 20).unwrap());
        let tiered =
            Tiered::new(vec![Tier::new("memory", memory), Tier::new("disk", disk)], TieredOptions::new(1));
        limit_file_size(64 << 10);
        for number in 0..200 {
            // Puts do not fail, and the record is found in the memory tier.
            tiered.put(&key(9, number), &record(9, number)).await.unwrap();
            assert_eq!(tiered.get(&key(9, number)).await, Some(record(9, number)));
        }
        let stats = tiered.stats();
        println!("\nerrors {}", stats.tiers[1].errors);
    });
}

#[tokio::test]
async fn a_full_disk_fails_no_put_and_preserves_stored_records() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new("sh")
        // Ignores SIGXFSZ, so that a write beyond the limit fails instead of killing the process.
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact crash::full_child --ignored --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
    let errors: u64 = output.lines().find_map(|line| line.strip_prefix("errors ")?.parse().ok()).unwrap();
    assert!(errors > 0, "the disk never filled up");
    let tiered = open(dir.path());
    let mut there = 0;
    for number in 0..200 {
        let found: Option<Bytes> = tiered.get(&key(9, number)).await.map(|record| record.payload);
        there += usize::from(found.is_some());
        assert!(found.is_none_or(|payload| payload == record(9, number).payload), "{number} is wrong");
    }
    assert!(there > 10, "only {there} records were stored before the disk was full");
}
