//! Tests of the individual calls.

use greenwave_segment::{Compression, Error, Log, Nowait, Options};

use crate::{fresh, noise, small};

#[test]
fn a_value_is_read_before_and_after_reopening() {
    let (_dir, log) = fresh(Options::default());
    for (key, value) in [(&b"a"[..], vec![]), (b"", b"empty key".to_vec()), (b"b", vec![7; 100_000])] {
        log.put(key, &value).unwrap();
        assert_eq!(log.get(key).unwrap().unwrap(), value);
        assert!(log.contains(key));
    }
    let again = Log::open(log.dir(), Options::default()).unwrap();
    assert_eq!(again.get(b"b").unwrap().unwrap(), vec![7; 100_000]);
    assert_eq!(again.get(b"").unwrap().unwrap(), "empty key");
    assert_eq!(again.get(b"c").unwrap(), None);
}

#[test]
fn removal_and_overwriting_survive_reopening() {
    let (_dir, log) = fresh(small());
    for round in 0..50_u64 {
        log.put(b"counter", &round.to_le_bytes()).unwrap();
        log.put(b"removed", &noise(round, 300)).unwrap();
    }
    assert!(log.remove(b"removed").unwrap());
    assert!(!log.remove(b"removed").unwrap());
    assert!(!log.remove(b"never").unwrap());
    assert!(log.stats().segments > 2);
    let dir = log.dir().to_owned();
    drop(log);
    let again = Log::open(dir, small()).unwrap();
    assert_eq!(again.get(b"removed").unwrap(), None);
    assert_eq!(again.get(b"counter").unwrap().unwrap(), 49_u64.to_le_bytes().to_vec());
    assert_eq!(again.stats().entries, 1);
}

#[test]
fn keys_with_prefix_are_sorted() {
    let (_dir, log) = fresh(Options::default());
    for key in ["b/2", "a/1", "b/1", "b/3", "c"] {
        log.put(key.as_bytes(), b"").unwrap();
    }
    log.remove(b"b/3").unwrap();
    assert_eq!(log.keys_with_prefix(b"b/"), [b"b/1".to_vec(), b"b/2".to_vec()]);
    assert_eq!(log.keys_with_prefix(b"").len(), 4);
}

#[test]
fn values_that_do_not_shrink_are_stored_raw() {
    let (_dir, log) = fresh(Options::default());
    log.put(b"text", &b"green wave ".repeat(1000)).unwrap();
    let text = log.stats();
    assert!(text.stored_bytes * 10 < text.raw_bytes, "{text:?}");
    log.put(b"noise", &noise(1, 10_000)).unwrap();
    let both = log.stats();
    assert_eq!(both.stored_bytes - text.stored_bytes, 10_000);
    assert_eq!(log.get(b"noise").unwrap().unwrap(), noise(1, 10_000));
    assert_eq!(log.get(b"text").unwrap().unwrap(), b"green wave ".repeat(1000));

    let (_dir, raw) = fresh(Options { compression: Compression::None, ..Options::default() });
    raw.put(b"text", &b"green wave ".repeat(1000)).unwrap();
    assert_eq!(raw.stats().stored_bytes, 11_000);
}

#[test]
fn a_value_in_the_page_cache_is_read_without_blocking() {
    let (_dir, log) = fresh(Options::default());
    log.put(b"key", b"value").unwrap();
    let expected = Nowait::Ready(Some("value".into()));
    let answer = log.get_nowait(b"key");
    // The file system may not support it, such as tmpfs on old kernels.
    assert!(answer == expected || answer == Nowait::WouldBlock);
    assert_eq!(log.get_nowait(b"other"), Nowait::Ready(None));
}

#[test]
fn errors_name_the_value_and_the_limit() {
    let (_dir, log) = fresh(Options { key_bytes_max: 4, value_bytes_max: 8, ..Options::default() });
    let error = log.put(b"12345", b"").unwrap_err();
    assert!(matches!(error, Error::KeyTooLong { len: 5, max: 4 }), "{error}");
    let error = log.put(b"1", b"123456789").unwrap_err();
    assert!(matches!(error, Error::ValueTooLarge { len: 9, max: 8 }), "{error}");
    let options = Options { compression: Compression::Zstd { level: 99 }, ..Options::default() };
    let error = Log::open(log.dir(), options).unwrap_err();
    assert_eq!(error.to_string(), "invalid value 99 for compression.level: expected a number from -7 to 22");
}

#[test]
fn a_value_larger_than_a_segment_gets_its_own_segment() {
    let (_dir, log) = fresh(small());
    let large = noise(3, 50_000);
    log.put(b"before", b"x").unwrap();
    log.put(b"large", &large).unwrap();
    log.put(b"after", b"y").unwrap();
    let again = Log::open(log.dir(), small()).unwrap();
    assert_eq!(again.get(b"large").unwrap().unwrap(), large);
    assert_eq!(again.get(b"after").unwrap().unwrap(), "y");
}

#[test]
fn opening_and_reading_write_nothing() {
    let (_dir, log) = fresh(Options::default());
    log.get(b"key").unwrap();
    log.flush().unwrap();
    assert_eq!(std::fs::read_dir(log.dir()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn the_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, log) = fresh(Options::default());
    let mode = std::fs::metadata(log.dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_clock_that_steps_back_does_not_lose_writes() {
    fn back_in_time() -> u64 {
        1
    }
    let (_dir, log) = fresh(Options::default());
    log.put(b"key", b"old").unwrap();
    let dir = log.dir().to_owned();
    drop(log);
    let options = || Options { clock: back_in_time, ..Options::default() };
    let log = Log::open(&dir, options()).unwrap();
    log.put(b"key", b"new").unwrap();
    drop(log);
    assert_eq!(Log::open(&dir, options()).unwrap().get(b"key").unwrap().unwrap(), "new");
}

#[test]
fn a_dictionary_shrinks_small_values_and_survives_reopening() {
    let (_dir, log) = fresh(small());
    let value = |n: u64| {
        format!(
            "{{\"test\":\"module::case_{n}\",\"outcome\":\"passed\",\"duration_ms\":{},\"output\":\"\"}}",
            n * 7
        )
        .into_bytes()
    };
    for n in 0..400_u64 {
        log.put(&n.to_le_bytes(), &value(n)).unwrap();
    }
    let before = log.stats().stored_bytes;
    assert!(log.train_dictionary(4096).unwrap());
    for n in 0..400_u64 {
        log.put(&n.to_le_bytes(), &value(n)).unwrap();
    }
    assert!(log.stats().stored_bytes < before * 2 / 3, "{before}, then {:?}", log.stats());
    log.compact().unwrap();
    let other = Log::open(log.dir(), small()).unwrap();
    other.put(b"more", &value(1000)).unwrap();
    for log in [&log, &other] {
        log.refresh().unwrap();
        assert_eq!(log.stats().entries, 401, "the dictionary is not an entry");
        assert_eq!(log.get(b"more").unwrap().unwrap(), value(1000));
        for n in 0..400_u64 {
            assert_eq!(log.get(&n.to_le_bytes()).unwrap().unwrap(), value(n));
        }
    }
}

#[test]
fn a_dictionary_needs_enough_values() {
    let (_dir, log) = fresh(Options::default());
    log.put(b"one", &noise(1, 100)).unwrap();
    assert!(!log.train_dictionary(4096).unwrap());
    assert!(matches!(log.train_dictionary(10), Err(Error::Option { .. })));
}
