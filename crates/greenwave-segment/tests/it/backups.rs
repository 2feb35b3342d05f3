//! Copies of a log that is written meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use greenwave_segment::{Error, Log, Options, WriteBatch};

use crate::{fresh, noise, small};

/// Values before the backup.
const BEFORE: u64 = 200;
const BACKUPS: u64 = 6;

fn check(log: &Log, flushed: u64) {
    assert!(log.check().unwrap().is_intact(), "{:?}", log.check().unwrap());
    for number in 0..BEFORE {
        assert_eq!(log.get(&number.to_le_bytes()).unwrap().unwrap(), noise(number, 300));
    }
    let number = |key: &[u8]| u64::from_le_bytes(log.get(key).unwrap().unwrap()[..8].try_into().unwrap());
    // Two keys of one batch, and the counter of another log.
    assert_eq!(number(b"one"), number(b"two"));
    assert!(number(b"one") >= flushed, "{} after {flushed}", number(b"one"));
    assert!(log.get(b"other").unwrap().is_some());
}

#[test]
fn everything_flushed_is_in_a_copy_made_while_logs_write_and_compact() {
    let (dir, log) = fresh(small());
    let other = Log::open(log.dir(), small()).unwrap();
    for number in 0..BEFORE {
        log.put(&number.to_le_bytes(), &noise(number, 300)).unwrap();
    }
    let (stop, flushed) = (AtomicBool::new(false), AtomicU64::new(0));
    let write = |number: u64| {
        let value = [&number.to_le_bytes()[..], &noise(number, 500)].concat();
        log.write(&WriteBatch::new().put(b"one", &value).put(b"two", &value)).unwrap();
        other.put(b"other", &value).unwrap();
        if number.is_multiple_of(10) {
            log.flush().unwrap();
            other.flush().unwrap();
            flushed.store(number, Ordering::SeqCst);
        }
        if number.is_multiple_of(50) {
            other.compact().unwrap();
        }
    };
    write(0);
    thread::scope(|scope| {
        scope.spawn(|| (1..).take_while(|_| !stop.load(Ordering::SeqCst)).for_each(write));
        for round in 0..BACKUPS {
            let target = dir.path().join(format!("backups/{round}"));
            let before = flushed.load(Ordering::SeqCst);
            let stats = log.backup(&target).unwrap();
            let size = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
            assert_eq!(stats.bytes, std::fs::read_dir(&target).unwrap().map(size).sum::<u64>());
            let copy = Log::open(&target, small()).unwrap();
            check(&copy, before);
            copy.put(b"one", &u64::MAX.to_le_bytes()).unwrap();
            assert!(stats.segments > 1, "{stats:?}");
        }
        stop.store(true, Ordering::SeqCst);
    });
    log.refresh().unwrap();
    check(&log, 0);
}

#[test]
fn nothing_in_the_target_is_replaced() {
    let (dir, log) = fresh(Options::default());
    log.put(b"key", b"value").unwrap();
    let target = dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("file"), "mine").unwrap();
    let error = log.backup(&target).unwrap_err();
    assert!(error.to_string().starts_with("cannot copy a log into "), "{error}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
    let reader = Log::open_read_only(log.dir(), Options::default()).unwrap();
    let refused = reader.backup(dir.path().join("other"));
    assert!(matches!(refused, Err(Error::ReadOnly { .. })), "{refused:?}");
    assert!(!dir.path().join("other").exists());
}
