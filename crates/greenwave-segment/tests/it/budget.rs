//! Tests of compaction and the disk budget.

use greenwave_segment::{Compression, Error, Log, Options, WhenFull};

use crate::{fresh, noise, small};

#[test]
fn compaction_frees_dead_records() {
    let (_dir, log) = fresh(small());
    log.put(b"first", &noise(9, 500)).unwrap();
    for round in 0..100 {
        log.put(format!("key {}", round % 5).as_bytes(), &noise(round, 500)).unwrap();
    }
    let before = log.stats();
    let done = log.compact().unwrap();
    let after = log.stats();
    assert!(done.segments > 5 && after.disk_bytes * 3 < before.disk_bytes, "{done:?} {before:?} {after:?}");
    assert_eq!(after.entries, 6);
    let check = |log: &Log| {
        assert_eq!(log.get(b"first").unwrap().unwrap(), noise(9, 500));
        for key in 0..5 {
            assert_eq!(log.get(format!("key {key}").as_bytes()).unwrap().unwrap(), noise(95 + key, 500));
        }
    };
    check(&log);
    check(&Log::open(log.dir(), small()).unwrap());
}

#[test]
fn a_removed_key_stays_removed_through_compactions() {
    let (_dir, log) = fresh(small());
    for key in 0..40_u64 {
        log.put(&key.to_le_bytes(), &noise(key, 400)).unwrap();
    }
    for key in (0..40_u64).filter(|key| key % 8 != 0) {
        log.remove(&key.to_le_bytes()).unwrap();
    }
    let mut log = log;
    for round in 0..4 {
        log.compact().unwrap();
        log.put(b"filler", &noise(round, 3500)).unwrap();
        let dir = log.dir().to_owned();
        drop(log);
        log = Log::open(dir, small()).unwrap();
        for key in 0..40_u64 {
            assert_eq!(log.contains(&key.to_le_bytes()), key % 8 == 0, "key {key} in round {round}");
        }
    }
}

#[test]
fn a_full_log_refuses_puts_until_keys_are_removed() {
    let options =
        Options { disk_bytes_max: Some(32 << 10), compression: Compression::None, ..Options::default() };
    let (_dir, log) = fresh(options);
    let mut stored = 0_u64;
    let error = loop {
        match log.put(&stored.to_le_bytes(), &noise(stored, 1000)) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full { max: 32_768, .. }), "{error}");
    assert!(stored > 25, "{stored}");
    assert!(log.stats().disk_bytes <= 32 << 10);
    for key in 0..stored - 2 {
        log.remove(&key.to_le_bytes()).unwrap();
    }
    log.put(b"fits again", &noise(0, 1000)).unwrap();
    assert_eq!(log.get(&(stored - 1).to_le_bytes()).unwrap().unwrap(), noise(stored - 1, 1000));
}

#[test]
fn a_log_that_drops_the_oldest_stays_within_its_budget() {
    let bounded = || Options {
        disk_bytes_max: Some(64 << 10),
        when_full: WhenFull::DropOldest,
        compression: Compression::None,
        ..Options::default()
    };
    let (_dir, log) = fresh(bounded());
    for version in 0..400_u64 {
        log.put(format!("key {}", version % 150).as_bytes(), &noise(version, 500)).unwrap();
        assert!(log.stats().disk_bytes <= 64 << 10, "{:?}", log.stats());
    }
    let check = |log: &Log| {
        let mut found = 0;
        for key in 0..150_u64 {
            let newest = if key < 100 { 300 + key } else { 150 + key };
            if let Some(value) = log.get(format!("key {key}").as_bytes()).unwrap() {
                assert_eq!(value, noise(newest, 500), "key {key}");
                found += 1;
            }
        }
        found
    };
    assert!((60..150).contains(&check(&log)));
    assert_eq!(log.get(b"key 99").unwrap().unwrap(), noise(399, 500));
    assert!(log.stats().dropped_entries > 0);
    let before = check(&log);
    assert_eq!(check(&Log::open(log.dir(), bounded()).unwrap()), before);
}

#[test]
fn readers_follow_a_compaction_by_another_log() {
    let (_dir, writer) = fresh(small());
    for round in 0..60 {
        writer.put(format!("key {}", round % 3).as_bytes(), &noise(round, 500)).unwrap();
    }
    let reader = Log::open(writer.dir(), small()).unwrap();
    writer.compact().unwrap();
    for refreshed in [false, true] {
        if refreshed {
            reader.refresh().unwrap();
            assert_eq!(reader.stats().segments, writer.stats().segments);
        }
        for key in 0..3 {
            assert_eq!(reader.get(format!("key {key}").as_bytes()).unwrap().unwrap(), noise(57 + key, 500));
        }
    }
}

#[test]
fn dropping_a_value_hides_older_ones() {
    let bounded = || Options {
        disk_bytes_max: Some(64 << 10),
        when_full: WhenFull::DropOldest,
        compression: Compression::None,
        ..Options::default()
    };
    let (_dir, log) = fresh(bounded());
    // The older value is in a segment that cannot be dropped, since its writer is alive.
    let other = Log::open(log.dir(), bounded()).unwrap();
    other.put(b"key", b"older").unwrap();
    log.refresh().unwrap();
    log.put(b"key", b"newer").unwrap();
    let mut fill = 0_u64;
    while log.contains(b"key") {
        log.put(&fill.to_le_bytes(), &noise(fill, 500)).unwrap();
        fill += 1;
        assert!(fill < 1000, "the newer value is never dropped");
    }
    assert_eq!(Log::open(log.dir(), bounded()).unwrap().get(b"key").unwrap(), None);
}
