//! Two real processes that write to one directory and are killed with SIGKILL at any point: what was flushed is there, and whatever is
//! there is right.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenwave_cache::{
    DiskBackend, DiskOptions, Key, KeyBuilder, Record, Tier, Tiered, TieredOptions, WriteMode,
};

/// Names the directory to the child, which is this same test binary, and which of two it is.
const CHILD_DIR: &str = "GREENWAVE_CACHE_CRASH_DIR";
const CHILD_NUMBER: &str = "GREENWAVE_CACHE_CRASH_CHILD";
/// More rounds, for the long run.
const ROUNDS: &str = "GREENWAVE_CACHE_CRASH_ROUNDS";

fn key(child: u64, number: u64) -> Key {
    KeyBuilder::new("crash", 1).number(child).number(number).finish()
}

/// Different for every key, and of many lengths.
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

/// Not a test of its own: puts until it is killed, and reports what is flushed. The records go through a queue, so that a kill finds some
/// of them on the way.
#[test]
#[ignore = "the child of the test below"]
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

/// The last number that a child reports before it has reported so many times.
fn last_report(child: &mut Child, reports: usize) -> Option<u64> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("flushed ")?.parse().ok()).take(reports).last()
}

#[tokio::test]
async fn nothing_flushed_is_lost_to_sigkill_and_nothing_is_wrong() {
    let rounds: u64 = std::env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6);
    let mut dir = tempfile::tempdir().unwrap();
    let mut flushed = [None::<u64>; 2];
    for round in 0..rounds {
        // Now and then a new directory, since every round reads all of it.
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
        assert_eq!(tiered.quarantined(), [], "round {round}: a record was half written");
    }
}

/// A small store, closed; the names of its files, and what is in them.
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

/// Whatever was done to the files, a record is right or missing.
async fn is_right_or_missing(dir: &Path, what: &str) -> usize {
    // A store that cannot be opened at all is an error, and no wrong value.
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
async fn a_bit_flipped_in_any_byte_makes_no_wrong_value() {
    let dir = tempfile::tempdir().unwrap();
    let files = small_store(dir.path()).await;
    let (mut lost, mut tried) = (0, 0);
    for (file, (path, bytes)) in files.iter().enumerate() {
        for at in 0..bytes.len() {
            let dir = damaged(&files, |bytes| bytes[at] ^= 1 << (at % 8), file);
            lost += 3 - is_right_or_missing(dir.path(), &format!("byte {at} of {}", path.display())).await;
            tried += 1;
        }
    }
    assert!(tried > 300 && lost > tried / 3, "{lost} lost of {tried}: the damage is real");
}

#[tokio::test]
async fn a_store_cut_at_any_byte_makes_no_wrong_value() {
    let dir = tempfile::tempdir().unwrap();
    let files = small_store(dir.path()).await;
    let mut lost = 0;
    for (file, (path, bytes)) in files.iter().enumerate() {
        for at in 0..bytes.len() {
            let dir = damaged(&files, |bytes| bytes.truncate(at), file);
            lost += 3 - is_right_or_missing(dir.path(), &format!("{} cut at {at}", path.display())).await;
        }
    }
    assert!(lost > 0, "the damage is real");
}

/// As much as a process may write to one file, from here on; more is an error, as on a full disk.
fn limit_file_size(bytes: u64) {
    let limit = rustix::process::Rlimit { current: Some(bytes), maximum: None };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
}

/// Not a test of its own: puts until the disk is full, in a process whose limits are its own.
#[test]
#[ignore = "the child of the test below"]
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
            // Nobody is failed, and what was put is there.
            tiered.put(&key(9, number), &record(9, number)).await.unwrap();
            assert_eq!(tiered.get(&key(9, number)).await, Some(record(9, number)));
        }
        let stats = tiered.stats();
        println!("\nerrors {}", stats.tiers[1].errors);
    });
}

#[tokio::test]
async fn a_full_disk_fails_nobody_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new("sh")
        // A write beyond the limit is to be an error, not the end.
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact crash::full_child --ignored --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
    let errors: u64 = output.lines().find_map(|line| line.strip_prefix("errors ")?.parse().ok()).unwrap();
    assert!(errors > 0, "the disk was full");
    let tiered = open(dir.path());
    let mut there = 0;
    for number in 0..200 {
        let found: Option<Bytes> = tiered.get(&key(9, number)).await.map(|record| record.payload);
        there += usize::from(found.is_some());
        assert!(found.is_none_or(|payload| payload == record(9, number).payload), "{number} is wrong");
    }
    assert!(there > 10, "{there} were put before the disk was full");
}
