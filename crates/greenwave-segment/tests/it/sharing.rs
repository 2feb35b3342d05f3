//! Tests of several logs on one directory, which behave like several processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use greenwave_segment::{Log, Options};

use crate::{fresh, noise, small};

#[test]
fn a_refresh_shows_writes_of_other_logs() {
    let (_dir, one) = fresh(small());
    let two = Log::open(one.dir(), small()).unwrap();
    for round in 0..20_u64 {
        one.put(&round.to_le_bytes(), &noise(round, 300)).unwrap();
        two.put(&(100 + round).to_le_bytes(), &noise(round, 200)).unwrap();
        one.refresh().unwrap();
        two.refresh().unwrap();
        assert_eq!(two.get(&round.to_le_bytes()).unwrap().unwrap(), noise(round, 300));
        assert_eq!(one.get(&(100 + round).to_le_bytes()).unwrap().unwrap(), noise(round, 200));
    }
    assert_eq!(one.keys_with_prefix(b""), two.keys_with_prefix(b""));
}

#[test]
fn the_last_writer_wins_everywhere() {
    let (_dir, one) = fresh(Options::default());
    let two = Log::open(one.dir(), Options::default()).unwrap();
    one.put(b"key", b"one").unwrap();
    two.refresh().unwrap();
    two.put(b"key", b"two").unwrap();
    one.refresh().unwrap();
    assert_eq!(one.get(b"key").unwrap().unwrap(), "two");
    one.remove(b"key").unwrap();
    two.refresh().unwrap();
    assert_eq!(two.get(b"key").unwrap(), None);
    let three = Log::open(one.dir(), Options::default()).unwrap();
    assert_eq!(three.get(b"key").unwrap(), None);
}

#[test]
fn an_abandoned_segment_is_continued() {
    let (_dir, log) = fresh(Options::default());
    let dir = log.dir().to_owned();
    log.put(b"0", b"zero").unwrap();
    drop(log);
    for round in 1..10_u8 {
        let log = Log::open(&dir, Options::default()).unwrap();
        log.put(&[round], &[round]).unwrap();
    }
    let names =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.ends_with(".seg")).count(), 1);
}

#[test]
fn threads_share_one_log() {
    let (_dir, log) = fresh(small());
    let log = Arc::new(log);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let log = log.clone();
            scope.spawn(move || {
                for round in 0..50_u64 {
                    let key = (thread << 32 | round).to_le_bytes();
                    log.put(&key, &noise(thread + round, 200)).unwrap();
                    assert_eq!(log.get(&key).unwrap().unwrap(), noise(thread + round, 200));
                    if round % 16 == 0 {
                        log.flush().unwrap();
                        log.compact().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(Log::open(log.dir(), small()).unwrap().stats().entries, 200);
}

#[test]
fn the_fingerprint_changes_with_every_put_and_removal() {
    let (_dir, one) = fresh(small());
    let fingerprint = || Log::fingerprint(one.dir()).unwrap();
    let mut fingerprints = vec![fingerprint()];
    assert!(fingerprints[0].is_empty(), "there is no segment yet");
    for round in 0..40_u64 {
        one.put(&round.to_le_bytes(), &noise(round, 300)).unwrap();
        fingerprints.push(fingerprint());
        if round % 3 == 0 {
            one.remove(&round.to_le_bytes()).unwrap();
            fingerprints.push(fingerprint());
        }
    }
    one.compact().unwrap();
    // Opening a second log, reading and refreshing change nothing.
    let before = fingerprint();
    let two = Log::open(one.dir(), small()).unwrap();
    for round in 0..40_u64 {
        assert_eq!(two.get(&round.to_le_bytes()).unwrap().is_some(), round % 3 != 0);
    }
    two.refresh().unwrap();
    assert_eq!(fingerprint(), before);
    two.put(b"key", b"of the other").unwrap();
    fingerprints.extend([before, fingerprint()]);
    let mut distinct = fingerprints.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), fingerprints.len());
}

#[test]
fn a_missing_directory_has_no_fingerprint() {
    let (dir, _one) = fresh(small());
    assert!(Log::fingerprint(dir.path().join("other")).is_err());
}

#[test]
fn a_log_is_up_to_date_until_another_changes_something() {
    let (_dir, one) = fresh(Options::default());
    let two = Log::open(one.dir(), Options::default()).unwrap();
    assert!(one.is_up_to_date() && two.is_up_to_date());
    one.put(b"key", b"value").unwrap();
    assert!(one.is_up_to_date(), "its own changes do not count");
    assert!(!two.is_up_to_date());
    two.refresh().unwrap();
    assert!(two.is_up_to_date());
    // In a segment that is in the index.
    one.put(b"other", b"value").unwrap();
    assert!(!two.is_up_to_date());
    two.refresh().unwrap();
    one.remove(b"key").unwrap();
    assert!(!two.is_up_to_date());
    two.refresh().unwrap();
    assert!(two.is_up_to_date() && two.get(b"key").unwrap().is_none());
}

#[test]
fn a_refresh_returns_whether_anything_changed() {
    let (_dir, one) = fresh(small());
    let two = Log::open(one.dir(), small()).unwrap();
    assert!(!two.refresh_if_stale().unwrap());
    for round in 0..30_u64 {
        one.put(&round.to_le_bytes(), &noise(round, 900)).unwrap();
        let before = two.revision();
        assert!(two.refresh_if_stale().unwrap());
        assert_ne!(two.revision(), before);
        assert_eq!(two.get(&round.to_le_bytes()).unwrap().unwrap(), noise(round, 900));
        two.put(b"own", &noise(round, 10)).unwrap();
        let before = two.revision();
        assert!(!two.refresh_if_stale().unwrap());
        assert_eq!(two.revision(), before);
    }
}

/// A write that failed leaves bytes that are no record. Their writer truncates them and may write
/// records of exactly the same total length.
#[test]
fn a_record_in_place_of_a_failed_write_of_the_same_length_is_noticed() {
    let (_dir, writer) = fresh(Options::default());
    writer.put(b"first", b"value").unwrap();
    let files = || std::fs::read_dir(writer.dir()).unwrap().map(|entry| entry.unwrap().path());
    let path = files().find(|path| path.extension().is_some_and(|name| name == "seg")).unwrap();
    let len = std::fs::metadata(&path).unwrap().len() as usize;
    writer.put(b"second", &noise(2, 3000)).unwrap();
    let complete = std::fs::read(&path).unwrap();
    for missing in [len..complete.len(), len..len + 8, complete.len() - 1..complete.len()] {
        let mut torn = complete.clone();
        torn[missing].fill(0);
        std::fs::write(&path, &torn).unwrap();
        let reader = Log::open_read_only(writer.dir(), Options::default()).unwrap();
        assert_eq!(reader.get(b"second").unwrap(), None);
        assert!(reader.is_up_to_date() && !reader.refresh_if_stale().unwrap());
        std::fs::write(&path, &complete).unwrap();
        assert!(!reader.is_up_to_date());
        assert!(reader.refresh_if_stale().unwrap());
        assert_eq!(reader.get(b"second").unwrap().unwrap(), noise(2, 3000));
        assert!(reader.is_up_to_date() && reader.get(b"first").unwrap().is_some());
    }
}

#[test]
fn a_hold_lasts_until_it_is_dropped() {
    let (_dir, one) = fresh(small());
    let two = Log::open(one.dir(), small()).unwrap();
    assert!(!two.is_held(7).unwrap());
    for _ in 0..2 {
        let hold = one.hold(7).unwrap();
        assert!(two.is_held(7).unwrap() && one.is_held(7).unwrap());
        assert!(two.hold(7).is_err());
        assert!(!two.is_held(8).unwrap());
        assert_eq!(two.check().unwrap().problems, []);
        drop(hold);
        assert!(!two.is_held(7).unwrap());
    }
}

/// A second log on the directory writes, starts segments and compacts in another thread. If the
/// reader's log is up to date, its index contains every write that was finished before.
#[test]
fn a_log_that_is_up_to_date_has_every_finished_write() {
    const WRITES: u64 = 5_000;
    let (_dir, reader) = fresh(small());
    let writer = Log::open(reader.dir(), small()).unwrap();
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=WRITES {
                writer.put(b"key", &[&number.to_le_bytes()[..], &noise(number, 300)].concat()).unwrap();
                written.store(number, Ordering::SeqCst);
                if number.is_multiple_of(500) {
                    writer.compact().unwrap();
                }
            }
        });
        loop {
            let before = written.load(Ordering::SeqCst);
            if reader.is_up_to_date() {
                let value = reader.get(b"key").unwrap();
                let number = value.map_or(0, |value| u64::from_le_bytes(value[..8].try_into().unwrap()));
                assert!(number >= before, "{number} shows after {before} was written");
                if number == WRITES {
                    break;
                }
            } else {
                reader.refresh().unwrap();
            }
        }
    });
}

#[test]
fn every_change_of_another_log_is_noticed() {
    let (_dir, reader) = fresh(small());
    let writer = Log::open(reader.dir(), small()).unwrap();
    for number in 0..200 {
        writer.put(&[number % 8], &noise(number.into(), 300)).unwrap();
        if number % 50 == 49 {
            writer.flush().unwrap();
            assert!(writer.compact().unwrap().segments > 0);
        }
        assert!(!reader.is_up_to_date(), "{number}");
        reader.refresh().unwrap();
        // The first call compares, later ones need not.
        for _ in 0..3 {
            assert!(reader.is_up_to_date(), "{number}");
        }
    }
}

/// While nothing changes, a log asks only the notifications of the system: it does not even look
/// up its directory, which has another path meanwhile.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_read_while_nothing_changes() {
    let parent = tempfile::tempdir().unwrap();
    let log = Log::open(parent.path().join("above/log"), small()).unwrap();
    let other = Log::open(log.dir(), small()).unwrap();
    other.put(b"key", b"value").unwrap();
    log.refresh().unwrap();
    assert!(log.is_up_to_date());
    std::fs::rename(parent.path().join("above"), parent.path().join("elsewhere")).unwrap();
    assert!(log.is_up_to_date());
    other.put(b"key", b"other").unwrap();
    assert!(!log.is_up_to_date());
}
