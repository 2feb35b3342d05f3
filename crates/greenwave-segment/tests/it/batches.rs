//! Tests of batches and compare-and-swap, among threads and processes.

use std::process::Command;

use bytes::Bytes;
use greenwave_segment::{Compression, Log, Options, WriteBatch};

use crate::{fresh, noise, small};

#[test]
fn a_batch_makes_all_its_changes() {
    let (_dir, log) = fresh(small());
    log.put(b"old", b"value").unwrap();
    let batch = WriteBatch::new().put(b"one", b"1").put(b"two", b"2").remove(b"old").put(b"one", b"again");
    assert!(log.write(&batch).unwrap());
    for log in [&log, &Log::open(log.dir(), small()).unwrap()] {
        assert_eq!(log.get(b"one").unwrap().unwrap(), "again");
        assert_eq!(log.get(b"two").unwrap().unwrap(), "2");
        assert_eq!(log.get(b"old").unwrap(), None);
    }
    assert!(log.write(&WriteBatch::new()).unwrap() && WriteBatch::new().is_empty());
}

#[test]
fn a_batch_of_small_large_and_compressible_values_is_read_as_written() {
    let random: Vec<Bytes> = [10, 200_000, 60, 131_024, 131_025, 3000, 200_001, 0]
        .iter()
        .enumerate()
        .map(|(seed, len)| Bytes::from(noise(seed as u64, *len)))
        .collect();
    let repeated = |len: usize| Bytes::from(b"the same text again and again, ".repeat(len));
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let (_dir, log) = fresh(Options { compression, ..Options::default() });
        let values: Vec<Bytes> = random.iter().cloned().chain([repeated(1000), repeated(2)]).collect();
        let put = |batch: WriteBatch, (key, value): (usize, &Bytes)| {
            batch.put_bytes(Bytes::from(key.to_string()), value.clone())
        };
        assert!(log.write(&values.iter().enumerate().fold(WriteBatch::new(), put)).unwrap());
        assert!(
            log.write(&values.iter().rev().enumerate().fold(WriteBatch::new().remove(b"3"), put)).unwrap()
        );
        for log in [&log, &Log::open(log.dir(), Options::default()).unwrap()] {
            for (key, value) in values.iter().rev().enumerate() {
                assert_eq!(log.get(key.to_string().as_bytes()).unwrap().as_ref(), Some(value), "{key}");
            }
            assert_eq!(log.check().unwrap().problems, []);
        }
    }
}

#[test]
fn a_failed_condition_changes_nothing() {
    let (_dir, log) = fresh(small());
    log.put(b"key", b"value").unwrap();
    let batch =
        |expected| WriteBatch::new().expect(b"key", expected).put(b"key", b"new").put(b"other", b"new");
    assert!(!log.write(&batch(None)).unwrap());
    assert!(!log.write(&batch(Some(&b"other"[..]))).unwrap());
    assert_eq!(
        (log.get(b"key").unwrap().unwrap().as_ref(), log.get(b"other").unwrap()),
        (&b"value"[..], None)
    );
    assert!(log.write(&batch(Some(&b"value"[..]))).unwrap());
    assert_eq!(log.get(b"other").unwrap().unwrap(), "new");
    assert!(log.compare_and_swap(b"key", Some(b"new"), None).unwrap());
    assert!(log.compare_and_swap(b"key", None, Some(b"first")).unwrap());
    assert!(!log.compare_and_swap(b"key", None, Some(b"second")).unwrap());
    // A batch may consist of conditions only.
    assert!(log.write(&WriteBatch::new().expect(b"key", Some(b"first"))).unwrap());
    assert!(!log.write(&WriteBatch::new().expect(b"key", None)).unwrap());
}

#[test]
fn a_batch_torn_at_any_byte_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Options::default()).unwrap();
    for key in 0..3_u8 {
        log.put(&[key], b"old").unwrap();
    }
    let file = || {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|it| it == "seg")).unwrap()
    };
    let before = std::fs::metadata(file()).unwrap().len() as usize;
    let batch = (0..3_u8).fold(WriteBatch::new(), |batch, key| batch.put(&[key], &noise(key.into(), 30)));
    log.write(&batch).unwrap();
    drop(log);
    let image = std::fs::read(file()).unwrap();
    let image_and = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = image.clone();
        change(&mut image);
        std::fs::write(file(), image).unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        for key in 0..3_u8 {
            assert_eq!(log.get(&[key]).unwrap().unwrap(), "old");
        }
    };
    for len in before..image.len() {
        image_and(&|image| image.truncate(len));
        image_and(&|image| image[len] ^= 0x10);
    }
}

#[test]
fn threads_increment_a_counter() {
    let (_dir, log) = fresh(Options::default());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| add(&log, 100));
        }
    });
    assert_eq!(log.get(b"counter").unwrap().unwrap(), 400_u64.to_le_bytes()[..]);
}

/// Increments the counter `times` times, despite concurrent increments.
fn add(log: &Log, times: u64) {
    for _ in 0..times {
        loop {
            let old = log.get(b"counter").unwrap();
            let number = old.as_ref().map_or(0, |old| u64::from_le_bytes(old.as_ref().try_into().unwrap()));
            if log.compare_and_swap(b"counter", old.as_deref(), Some(&(number + 1).to_le_bytes())).unwrap() {
                break;
            }
        }
    }
}

/// Environment variable with the directory for the child process, which runs this test binary.
const CHILD_DIR: &str = "GREENWAVE_SEGMENT_COUNT_DIR";

#[test]
#[ignore = "the child of the test below"]
fn child() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    add(&Log::open(dir, small()).unwrap(), 100);
}

#[test]
fn processes_increment_a_counter() {
    let (_dir, log) = fresh(small());
    let children: Vec<_> = (0..3)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "batches::child", "--ignored"])
                .env(CHILD_DIR, log.dir())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    add(&log, 50);
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    log.refresh().unwrap();
    assert_eq!(log.get(b"counter").unwrap().unwrap(), 350_u64.to_le_bytes()[..]);
}
