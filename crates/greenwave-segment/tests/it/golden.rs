//! Reads files that the first release of format version 1 has written, as every later version must:
//! all codecs and kinds of records, sealed segments with their index files, and an unsealed one.

use std::path::{Path, PathBuf};

use greenwave_segment::{Log, Options};

use crate::noise;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn small_value(n: u64) -> Vec<u8> {
    format!("{{\"test\":\"module::case_{n}\",\"outcome\":\"passed\",\"duration_ms\":{}}}", n * 7).into_bytes()
}

fn text() -> Vec<u8> {
    b"green wave ".repeat(100)
}

/// Returns a text with `n` changes.
fn version(n: u64) -> Vec<u8> {
    let mut text = noise(1, 1000);
    (0..n).for_each(|at| text[at as usize * 100] ^= 1);
    text
}

/// Writes the golden files. Only for a new format version, into a new directory.
#[test]
#[ignore = "writes the golden files"]
fn write_golden_files() {
    let dir = golden();
    std::fs::create_dir_all(&dir).unwrap();
    let log = Log::open(&dir, Options { segment_bytes_max: 8192, ..Options::default() }).unwrap();
    for n in 0..60_u64 {
        log.put(&n.to_le_bytes(), &small_value(n)).unwrap();
    }
    assert!(log.train_dictionary(1024).unwrap());
    for n in 60..80_u64 {
        log.put(&n.to_le_bytes(), &small_value(n)).unwrap();
    }
    log.put(b"raw", &noise(7, 500)).unwrap();
    log.put("text \u{1F7E2}".as_bytes(), &text()).unwrap();
    for n in 0..4 {
        log.put_delta(
            format!("version {n}").as_bytes(),
            &version(n),
            format!("version {}", n.max(1) - 1).as_bytes(),
        )
        .unwrap();
    }
    log.put(b"long key ".repeat(20).as_slice(), b"").unwrap();
    log.remove(&3_u64.to_le_bytes()).unwrap();
    log.flush().unwrap();
    assert!(log.stats().segments > 1 && log.stats().deltas == 3, "{:?}", log.stats());
}

#[test]
fn files_of_version_1_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut index_files = 0;
    for file in std::fs::read_dir(golden()).unwrap() {
        let file = file.unwrap();
        index_files += usize::from(file.path().extension().is_some_and(|it| it == "idx"));
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    assert!(index_files > 0);
    let log = Log::open(dir.path(), Options::default()).unwrap();
    for n in 0..80_u64 {
        let expected = (n != 3).then(|| small_value(n));
        assert_eq!(log.get(&n.to_le_bytes()).unwrap().as_deref(), expected.as_deref(), "{n}");
    }
    assert_eq!(log.get(b"raw").unwrap().unwrap(), noise(7, 500));
    assert_eq!(log.get("text \u{1F7E2}".as_bytes()).unwrap().unwrap(), text());
    for n in 0..4 {
        assert_eq!(log.get(format!("version {n}").as_bytes()).unwrap().unwrap(), version(n));
    }
    assert_eq!(log.get(&b"long key ".repeat(20)).unwrap().unwrap(), "");
    let stats = log.stats();
    assert_eq!((stats.entries, stats.tombstones, stats.deltas, stats.bad_records), (86, 1, 3, 0));
}
