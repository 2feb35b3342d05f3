//! Tests of index files: opening reads them instead of the records. They may be missing, torn,
//! stale or foreign.

use std::path::{Path, PathBuf};

use greenwave_segment::{Log, Options};

use crate::{noise, small};

const ENTRIES: u64 = 3000;

fn fill(dir: &Path, from: u64, to: u64) {
    let log = Log::open(dir, Options::default()).unwrap();
    for number in from..to {
        log.put(&number.to_le_bytes(), &noise(number, 40)).unwrap();
        if number % 700 == 0 {
            log.flush().unwrap();
        }
    }
    log.remove(&(to / 2).to_le_bytes()).unwrap();
    log.flush().unwrap();
}

fn check(dir: &Path, to: u64, removed: u64) {
    let log = Log::open(dir, Options::default()).unwrap();
    for number in 0..to {
        let expected = (number != removed).then(|| noise(number, 40));
        assert_eq!(log.get(&number.to_le_bytes()).unwrap().as_deref(), expected.as_deref(), "{number}");
    }
    assert_eq!(log.stats().entries, to - 1);
}

fn file(dir: &Path, extension: &str) -> PathBuf {
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.into_iter().find(|path| path.extension().is_some_and(|it| it == extension)).unwrap()
}

/// Creates a log with one segment and its index file; returns the paths and contents of both.
fn filled_log() -> (tempfile::TempDir, [(PathBuf, Vec<u8>); 2]) {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0, ENTRIES);
    let images = ["seg", "idx"].map(|extension| {
        let path = file(dir.path(), extension);
        let image = std::fs::read(&path).unwrap();
        (path, image)
    });
    (dir, images)
}

#[test]
fn opening_does_not_read_records_covered_by_the_index_file() {
    let (dir, [(segment, image), (index, _)]) = filled_log();
    // Reading the segment would find this damage.
    let mut damaged = image;
    damaged[60..1000].fill(0);
    std::fs::write(&segment, &damaged).unwrap();
    let log = Log::open(dir.path(), Options::default()).unwrap();
    assert_eq!(log.stats().entries, ENTRIES - 1);
    assert_eq!(log.stats().bad_records, 0, "damage before the mark is found by reads");
    assert_eq!(log.get(&1_u64.to_le_bytes()).unwrap(), None);
    drop(log);
    std::fs::remove_file(index).unwrap();
    let log = Log::open(dir.path(), Options::default()).unwrap();
    assert!(log.stats().entries < ENTRIES - 1);
}

#[test]
fn a_missing_index_file_is_written_again() {
    let (dir, [_, (index, image)]) = filled_log();
    std::fs::remove_file(&index).unwrap();
    check(dir.path(), ENTRIES, ENTRIES / 2);
    let log = Log::open(dir.path(), Options::default()).unwrap();
    log.put(&1_u64.to_le_bytes(), &noise(1, 40)).unwrap();
    log.flush().unwrap();
    assert!(std::fs::metadata(&index).unwrap().len() > image.len() as u64 / 2);
    drop(log);
    check(dir.path(), ENTRIES, ENTRIES / 2);
}

#[test]
fn a_damaged_index_file_loses_nothing() {
    let (dir, [_, (index, image)]) = filled_log();
    let damage = (0..image.len()).step_by(5003).chain((0..100).step_by(3)).flat_map(|at| {
        let mut flipped = image.clone();
        flipped[at] ^= 1 << (at % 8);
        [image[..at].to_vec(), flipped]
    });
    for damaged in damage {
        std::fs::write(&index, &damaged).unwrap();
        check(dir.path(), ENTRIES, ENTRIES / 2);
    }
    let mut longer = image.clone();
    longer.extend(noise(1, 500));
    std::fs::write(&index, &longer).unwrap();
    check(dir.path(), ENTRIES, ENTRIES / 2);
}

#[test]
fn an_index_file_of_another_log_is_ignored() {
    let (dir, [_, (index, _)]) = filled_log();
    let (_other, [_, (_, foreign)]) = filled_log();
    std::fs::write(&index, foreign).unwrap();
    check(dir.path(), ENTRIES, ENTRIES / 2);
}

#[test]
fn an_older_or_newer_index_file_is_used_as_far_as_it_matches() {
    let (dir, [(segment, older_segment), (index, older_index)]) = filled_log();
    fill(dir.path(), ENTRIES, 2 * ENTRIES);
    let newer_index = std::fs::read(&index).unwrap();
    // The index file is restored from a backup.
    std::fs::write(&index, &older_index).unwrap();
    let log = Log::open(dir.path(), Options::default()).unwrap();
    assert_eq!(log.stats().entries, 2 * ENTRIES - 2);
    drop(log);
    // The segment is restored too, and continues with other records than the index file lists.
    std::fs::write(&segment, &older_segment).unwrap();
    std::fs::write(&index, &older_index).unwrap();
    {
        let log = Log::open(dir.path(), Options::default()).unwrap();
        for number in ENTRIES..2 * ENTRIES {
            log.put(&number.to_be_bytes(), &noise(number, 41)).unwrap();
        }
    }
    std::fs::write(&index, &newer_index).unwrap();
    let log = Log::open(dir.path(), Options::default()).unwrap();
    for number in ENTRIES..2 * ENTRIES {
        assert_eq!(log.get(&number.to_be_bytes()).unwrap().unwrap(), noise(number, 41));
    }
    assert_eq!(log.stats().entries, 2 * ENTRIES - 1);
}

#[test]
fn compaction_removes_index_files() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    for round in 0..200 {
        log.put(&[round % 3], &noise(round.into(), 400)).unwrap();
    }
    log.compact().unwrap();
    let count = |extension: &str| {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|it| it == extension)).count()
    };
    assert!(count("idx") <= count("seg") && count("seg") < 5, "{} and {}", count("idx"), count("seg"));
    // An index file whose segment was removed.
    std::fs::write(dir.path().join("00000000deadbeef.idx"), "").unwrap();
    drop(log);
    Log::open(dir.path(), small()).unwrap();
    assert!(!dir.path().join("00000000deadbeef.idx").exists());
}
