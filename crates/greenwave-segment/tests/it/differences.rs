//! Values stored as deltas: what they cost, what they survive, and that what they depend on may go.

use greenwave_segment::{Compression, Log, Options, WhenFull};

use crate::{fresh, noise, small};

/// Version `n` of a text that does not compress, each with a few bytes changed.
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

/// Versions 0 to `last`, each put as similar to the one before.
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
fn versions_take_a_fraction_of_the_room() {
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
fn a_chain_is_not_longer_than_asked_for() {
    for (depth_max, differences) in [(0, 0), (1, 10), (3, 10)] {
        let (_dir, log) = fresh(Options { chain_depth_max: depth_max, ..Options::default() });
        put_versions(&log, 10);
        check_versions(&log, 0..=10);
        assert_eq!(log.stats().deltas, differences, "at {depth_max}");
    }
}

#[test]
fn what_is_not_similar_is_stored_without() {
    let (_dir, log) = fresh(Options::default());
    log.put(b"base", &noise(1, 3000)).unwrap();
    log.put_delta(b"other", &noise(2, 3000), b"base").unwrap();
    log.put_delta(b"tiny", b"tiny", b"base").unwrap();
    log.put_delta(b"orphan", &version(1), b"never there").unwrap();
    log.put_delta(b"self", &version(1), b"self").unwrap();
    assert_eq!(log.stats().deltas, 0);
    assert_eq!(log.get(b"other").unwrap().unwrap(), noise(2, 3000));
}

#[test]
fn logs_that_drop_or_do_not_compress_store_none() {
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
fn a_base_may_be_removed_or_set_anew() {
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
fn a_whole_chain_is_removed_without_storing_any_of_it_anew() {
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
fn compaction_keeps_values_and_shortens_chains() {
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
fn a_damaged_base_costs_what_depends_on_it_and_no_wrong_byte() {
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
        assert_eq!(log.get(&key(6)).unwrap(), None, "byte {at} is part of all that version 6 needs");
        log.put_delta(&key(6), &version(6), &key(0)).unwrap();
        assert_eq!(log.get(&key(6)).unwrap().unwrap(), version(6));
        drop(log);
        std::fs::read_dir(&dir).unwrap().for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap());
    }
}

#[test]
fn readers_in_other_processes_follow_differences() {
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
fn differences_may_be_removed_while_they_are_read_and_stored_against() {
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

/// Two logs on one directory, of which the second has seen a value and not what the first stores against it.
fn apart() -> (tempfile::TempDir, Log, Log) {
    let (dir, one) = fresh(small());
    one.put(b"base", &noise(1, 900)).unwrap();
    one.flush().unwrap();
    let two = Log::open(one.dir(), small()).unwrap();
    let mut like = noise(1, 900);
    like.extend(b"and more");
    one.put_delta(b"like", &like, b"base").unwrap();
    assert_eq!(one.stats().deltas, 1);
    one.flush().unwrap();
    (dir, one, two)
}

/// Everybody reads it, before and after compaction by everybody, and so does who opens the log then.
fn everybody_has(key: &[u8], value: &[u8], logs: [&Log; 2]) {
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
        // Segments of both become full and mostly dead.
        for log in logs {
            fill(log);
            log.flush().unwrap();
            log.compact().unwrap();
        }
    }
}

#[test]
fn a_base_that_another_process_removes_unknowingly_is_kept_as_long_as_it_is_needed() {
    let (_dir, one, two) = apart();
    two.remove(b"base").unwrap();
    let mut like = noise(1, 900);
    like.extend(b"and more");
    assert_eq!(one.get(b"like").unwrap().unwrap(), like, "without having looked");
    everybody_has(b"like", &like, [&one, &two]);
    one.refresh().unwrap();
    assert_eq!(one.get(b"base").unwrap(), None);
    assert_eq!(one.stats().deltas, 0, "compaction has stored it anew");
}

#[test]
fn a_base_that_another_process_replaces_unknowingly_is_kept_as_long_as_it_is_needed() {
    let (_dir, one, two) = apart();
    two.put(b"base", &noise(2, 900)).unwrap();
    let mut like = noise(1, 900);
    like.extend(b"and more");
    everybody_has(b"like", &like, [&two, &one]);
    everybody_has(b"base", &noise(2, 900), [&two, &one]);
}

#[test]
fn nothing_is_stored_against_what_another_process_has_compacted_away() {
    let (_dir, one) = fresh(small());
    one.put(b"base", &noise(1, 900)).unwrap();
    let two = Log::open(one.dir(), small()).unwrap();
    (0..12).for_each(|n| one.put(b"filler", &noise(n, 900)).unwrap());
    one.flush().unwrap();
    two.refresh().unwrap();
    two.remove(b"base").unwrap();
    two.flush().unwrap();
    assert!(two.compact().unwrap().segments > 0);
    // The first still believes in it, and can even read it.
    assert_eq!(one.get(b"base").unwrap().unwrap(), noise(1, 900));
    let mut like = noise(1, 900);
    like.extend(b"and more");
    one.put_delta(b"like", &like, b"base").unwrap();
    everybody_has(b"like", &like, [&one, &two]);
}

#[test]
fn a_value_that_is_stored_anew_does_not_win_against_a_newer_one() {
    let (_dir, one, two) = apart();
    two.refresh().unwrap();
    // Unknown to the second, which stores the old value anew when it removes what that is from.
    one.put(b"like", b"newer").unwrap();
    two.remove(b"base").unwrap();
    everybody_has(b"like", b"newer", [&one, &two]);
}

#[test]
fn a_put_does_not_wait_for_whoever_compacts() {
    let (_dir, log) = fresh(small());
    log.put(b"base", &noise(1, 900)).unwrap();
    log.put_delta(b"like", &noise(1, 900), b"base").unwrap();
    assert_eq!(log.stats().deltas, 1);
    // Another process holds the fence, and does not let go.
    let fence = std::fs::File::open(log.dir().join("fence")).unwrap();
    fence.lock().unwrap();
    for n in 0..5_u64 {
        log.put_delta(&n.to_le_bytes(), &noise(1, 900), b"base").unwrap();
        assert_eq!(log.get(&n.to_le_bytes()).unwrap().unwrap(), noise(1, 900));
    }
    assert_eq!(log.stats().deltas, 1, "stored whole meanwhile");
    fence.unlock().unwrap();
    log.put_delta(b"after", &noise(1, 900), b"base").unwrap();
    assert_eq!(log.stats().deltas, 2);
}
