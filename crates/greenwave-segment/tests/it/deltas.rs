//! Tests of deltas: the space that they save, and the removal of their bases.

use greenwave_segment::{Compression, Log, Options, WhenFull};

use crate::{fresh, noise, small};

/// Returns version `n` of a text that does not compress; each version changes a few bytes.
fn version(n: u64) -> Vec<u8> {
    let mut text = noise(1, 3000);
    for change in 1..=n {
        let at = (change as usize * 397) % 2900;
        text[at..at + 20].copy_from_slice(&noise(change + 7, 20));
    }
    text
}

fn key(n: u64) -> Vec<u8> {
    format!("version {n}").into_bytes()
}

/// Puts versions 0 to `last`, each with the one before as its base.
fn put_versions(log: &Log, last: u64) {
    for n in 0..=last {
        log.put_delta(&key(n), &version(n), &key(n.wrapping_sub(1))).unwrap();
    }
}

fn check_versions(log: &Log, present: impl IntoIterator<Item = u64>) {
    for n in present {
        assert_eq!(log.get(&key(n)).unwrap().as_deref(), Some(&version(n)[..]), "version {n}");
    }
}

#[test]
fn versions_take_a_fraction_of_the_space() {
    let (_dir, log) = fresh(Options::default());
    put_versions(&log, 40);
    check_versions(&log, 0..=40);
    let stats = log.stats();
    assert_eq!(stats.deltas, 40);
    assert!(stats.stored_bytes < stats.raw_bytes / 10, "{stats:?}");
    let again = Log::open(log.dir(), Options::default()).unwrap();
    check_versions(&again, 0..=40);
    assert_eq!(again.stats().deltas, 40);
}

#[test]
fn chains_stay_within_the_maximum_depth() {
    for (depth_max, deltas) in [(0, 0), (1, 10), (3, 10)] {
        let (_dir, log) = fresh(Options { chain_depth_max: depth_max, ..Options::default() });
        put_versions(&log, 10);
        check_versions(&log, 0..=10);
        assert_eq!(log.stats().deltas, deltas, "at {depth_max}");
    }
}

#[test]
fn dissimilar_values_are_stored_whole() {
    let (_dir, log) = fresh(Options::default());
    log.put(b"base", &noise(1, 3000)).unwrap();
    log.put_delta(b"other", &noise(2, 3000), b"base").unwrap();
    log.put_delta(b"tiny", b"tiny", b"base").unwrap();
    log.put_delta(b"orphan", &version(1), b"missing").unwrap();
    log.put_delta(b"self", &version(1), b"self").unwrap();
    assert_eq!(log.stats().deltas, 0);
    assert_eq!(log.get(b"other").unwrap().unwrap(), noise(2, 3000));
}

#[test]
fn logs_that_drop_values_or_do_not_compress_store_no_deltas() {
    for options in [
        Options { compression: Compression::None, ..Options::default() },
        Options { when_full: WhenFull::DropOldest, disk_bytes_max: Some(1 << 20), ..Options::default() },
    ] {
        let (_dir, log) = fresh(options);
        put_versions(&log, 3);
        check_versions(&log, 0..=3);
        assert_eq!(log.stats().deltas, 0);
    }
}

#[test]
fn a_base_may_be_removed_or_replaced() {
    let (_dir, log) = fresh(small());
    put_versions(&log, 12);
    assert!(log.remove(&key(5)).unwrap());
    log.put(&key(0), b"something else").unwrap();
    for log in [&log, &Log::open(log.dir(), small()).unwrap()] {
        check_versions(log, (1..=12).filter(|n| *n != 5));
        assert_eq!(log.get(&key(5)).unwrap(), None);
        assert_eq!(log.get(&key(0)).unwrap().unwrap(), "something else");
        assert_eq!(log.stats().bad_records, 0);
    }
}

#[test]
fn removing_a_whole_chain_rewrites_nothing() {
    let (_dir, log) = fresh(Options::default());
    put_versions(&log, 8);
    let keys: Vec<_> = (0..=8).map(key).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    assert_eq!(log.remove_many(&keys).unwrap(), 9);
    assert_eq!(log.stats().entries, 0);
    assert_eq!(log.stats().rebased_records, 0);
    assert_eq!(log.remove_many(&keys).unwrap(), 0);
}

#[test]
fn compaction_shortens_chains() {
    let (_dir, log) = fresh(Options { segment_bytes_max: 8192, ..Options::default() });
    for n in 0..=15 {
        log.put_delta(&key(n), &version(n), &key(n.wrapping_sub(1))).unwrap();
        log.put(b"garbage", &noise(n, 1500)).unwrap();
    }
    log.put(b"garbage", b"").unwrap();
    let freed = log.compact().unwrap();
    assert!(freed.segments > 0, "{freed:?}");
    check_versions(&log, 0..=15);
    assert!(log.stats().rebased_records > 0, "{:?}", log.stats());
    check_versions(&Log::open(log.dir(), Options::default()).unwrap(), 0..=15);
}

#[test]
fn a_damaged_base_makes_its_deltas_misses() {
    let (_dir, log) = fresh(Options::default());
    let dir = log.dir().to_owned();
    put_versions(&log, 6);
    drop(log);
    let path = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let image = std::fs::read(&path).unwrap();
    for at in (40..image.len()).step_by(97) {
        let mut damaged = image.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        let log = Log::open(&dir, Options::default()).unwrap();
        for n in 0..=6 {
            if let Some(found) = log.get(&key(n)).unwrap() {
                assert_eq!(found, version(n), "version {n} with byte {at} damaged");
            }
        }
        assert_eq!(log.get(&key(6)).unwrap(), None, "version 6 depends on byte {at}");
        log.put_delta(&key(6), &version(6), &key(0)).unwrap();
        assert_eq!(log.get(&key(6)).unwrap().unwrap(), version(6));
        drop(log);
        std::fs::read_dir(&dir).unwrap().for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap());
    }
}

#[test]
fn other_logs_read_deltas_after_a_refresh() {
    let (_dir, one) = fresh(small());
    let two = Log::open(one.dir(), small()).unwrap();
    for n in 0..=20 {
        let (writer, reader) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
        writer.refresh().unwrap();
        writer.put_delta(&key(n), &version(n), &key(n.wrapping_sub(1))).unwrap();
        if n % 5 == 0 {
            writer.compact().unwrap();
        }
        reader.refresh().unwrap();
        check_versions(reader, 0..=n);
    }
}

#[test]
fn threads_remove_read_and_extend_a_chain() {
    let (_dir, log) = fresh(small());
    put_versions(&log, 4);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..60 {
                log.remove(&key(2)).unwrap();
                log.put_delta(&key(2), &version(2), &key(1)).unwrap();
            }
        });
        scope.spawn(|| {
            for _ in 0..60 {
                log.put_delta(&key(3), &version(3), &key(2)).unwrap();
            }
        });
        scope.spawn(|| {
            for _ in 0..300 {
                check_versions(&log, [0, 1, 3, 4]);
                assert!(log.get(&key(2)).unwrap().is_none_or(|found| found == version(2)));
            }
        });
    });
    check_versions(&log, 0..=4);
    assert_eq!(log.stats().bad_records, 0);
}

/// Opens two logs on one directory. The second has read a value, but not the delta that the first
/// stores against it.
fn logs_with_unseen_delta() -> (tempfile::TempDir, Log, Log) {
    let (dir, one) = fresh(small());
    one.put(b"base", &noise(1, 900)).unwrap();
    one.flush().unwrap();
    let two = Log::open(one.dir(), small()).unwrap();
    let mut similar = noise(1, 900);
    similar.extend(b"and more");
    one.put_delta(b"delta", &similar, b"base").unwrap();
    assert_eq!(one.stats().deltas, 1);
    one.flush().unwrap();
    (dir, one, two)
}

/// Checks that both logs and a newly opened one read the value, before and after compaction by
/// both.
fn check_all_read(key: &[u8], value: &[u8], logs: [&Log; 2]) {
    let fill = |log: &Log| (0..12).for_each(|n| log.put(b"filler", &noise(n, 900)).unwrap());
    for round in 0..3 {
        for log in logs {
            log.refresh().unwrap();
            assert_eq!(log.get(key).unwrap().as_deref(), Some(value), "in round {round}");
        }
        let opened = Log::open(logs[0].dir(), small()).unwrap();
        assert_eq!(opened.get(key).unwrap().as_deref(), Some(value), "opened in round {round}");
        assert_eq!(opened.stats().bad_records, 0);
        drop(opened);
        // Both logs fill segments that are then mostly dead.
        for log in logs {
            fill(log);
            log.flush().unwrap();
            log.compact().unwrap();
        }
    }
}

#[test]
fn a_base_removed_by_another_log_remains_readable() {
    let (_dir, one, two) = logs_with_unseen_delta();
    two.remove(b"base").unwrap();
    let mut similar = noise(1, 900);
    similar.extend(b"and more");
    assert_eq!(one.get(b"delta").unwrap().unwrap(), similar, "before a refresh");
    check_all_read(b"delta", &similar, [&one, &two]);
    one.refresh().unwrap();
    assert_eq!(one.get(b"base").unwrap(), None);
    assert_eq!(one.stats().deltas, 0, "compaction has rewritten it");
}

#[test]
fn a_base_replaced_by_another_log_remains_readable() {
    let (_dir, one, two) = logs_with_unseen_delta();
    two.put(b"base", &noise(2, 900)).unwrap();
    let mut similar = noise(1, 900);
    similar.extend(b"and more");
    check_all_read(b"delta", &similar, [&two, &one]);
    check_all_read(b"base", &noise(2, 900), [&two, &one]);
}

#[test]
fn a_base_compacted_away_by_another_log_is_not_used() {
    let (_dir, one) = fresh(small());
    one.put(b"base", &noise(1, 900)).unwrap();
    let two = Log::open(one.dir(), small()).unwrap();
    (0..12).for_each(|n| one.put(b"filler", &noise(n, 900)).unwrap());
    one.flush().unwrap();
    two.refresh().unwrap();
    two.remove(b"base").unwrap();
    two.flush().unwrap();
    assert!(two.compact().unwrap().segments > 0);
    // The value is still in the index of the first log, and can even be read.
    assert_eq!(one.get(b"base").unwrap().unwrap(), noise(1, 900));
    let mut similar = noise(1, 900);
    similar.extend(b"and more");
    one.put_delta(b"delta", &similar, b"base").unwrap();
    check_all_read(b"delta", &similar, [&one, &two]);
}

#[test]
fn a_rewritten_value_does_not_replace_a_newer_one() {
    let (_dir, one, two) = logs_with_unseen_delta();
    two.refresh().unwrap();
    // The second log does not know this value, and rewrites the old one when it removes its base.
    one.put(b"delta", b"newer").unwrap();
    two.remove(b"base").unwrap();
    check_all_read(b"delta", b"newer", [&one, &two]);
}

#[test]
fn a_put_does_not_wait_for_the_rewrite_lock() {
    let (_dir, log) = fresh(small());
    log.put(b"base", &noise(1, 900)).unwrap();
    log.put_delta(b"delta", &noise(1, 900), b"base").unwrap();
    assert_eq!(log.stats().deltas, 1);
    // Another process holds the rewrite lock.
    let lock_file = std::fs::File::open(log.dir().join("fence")).unwrap();
    lock_file.lock().unwrap();
    for n in 0..5_u64 {
        log.put_delta(&n.to_le_bytes(), &noise(1, 900), b"base").unwrap();
        assert_eq!(log.get(&n.to_le_bytes()).unwrap().unwrap(), noise(1, 900));
    }
    assert_eq!(log.stats().deltas, 1, "stored whole while the lock is held");
    lock_file.unlock().unwrap();
    log.put_delta(b"after", &noise(1, 900), b"base").unwrap();
    assert_eq!(log.stats().deltas, 2);
}
