//! Tests of damage: truncation and flipped bits at every byte, newer formats, foreign files. The
//! result is a miss, an older value or a clear error, never a wrong byte.

use std::path::{Path, PathBuf};

use greenwave_segment::{Compression, Error, Log, Options};
use tempfile::TempDir;

use crate::noise;

const RECORDS: u64 = 6;

fn value(record: u64) -> Vec<u8> {
    noise(record, 20 + record as usize)
}

/// Creates a small segment; returns its path and contents.
fn segment() -> (TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Options::default()).unwrap();
    for record in 0..RECORDS {
        log.put(&record.to_le_bytes(), &value(record)).unwrap();
    }
    drop(log);
    let path = only_file(dir.path());
    let image = std::fs::read(&path).unwrap();
    (dir, path, image)
}

/// Returns the path of the only segment.
fn only_file(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut segments = files.filter(|path| path.extension().is_some_and(|it| it == "seg"));
    let file = segments.next().unwrap();
    assert_eq!(segments.next(), None);
    file
}

/// Returns how many records are still correct; the others must be missing.
fn survivors(dir: &Path) -> u64 {
    let log = Log::open(dir, Options::default()).unwrap();
    let survives = |record: &u64| match log.get(&record.to_le_bytes()).unwrap() {
        Some(found) => {
            assert_eq!(found, value(*record));
            true
        }
        None => false,
    };
    let count = (0..RECORDS).filter(survives).count() as u64;
    log.put(b"still", b"writable").unwrap();
    drop(log);
    let again = Log::open(dir, Options::default()).unwrap();
    assert_eq!(again.get(b"still").unwrap().unwrap(), "writable");
    count
}

#[test]
fn truncation_at_any_byte_loses_only_the_tail() {
    let (dir, path, image) = segment();
    let mut at_most = 0;
    for len in 0..image.len() {
        std::fs::write(&path, &image[..len]).unwrap();
        let count = survivors(dir.path());
        assert!(count >= at_most && count < RECORDS, "{count} records of {len} bytes");
        at_most = count;
    }
    assert_eq!(at_most, RECORDS - 1);
}

#[test]
fn a_flipped_bit_at_any_byte_loses_at_most_one_record() {
    let (dir, path, image) = segment();
    for at in 0..image.len() {
        let mut damaged = image.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(&path, &damaged).unwrap();
        let count = survivors(dir.path());
        assert!(count >= RECORDS - 1, "{count} records with byte {at} damaged");
        for other in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::remove_file(other.unwrap().path()).unwrap();
        }
    }
}

#[test]
fn damage_after_opening_is_a_counted_miss() {
    let (dir, path, image) = segment();
    let log = Log::open(dir.path(), Options::default()).unwrap();
    let mut damaged = image;
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    assert_eq!(log.get(&(RECORDS - 1).to_le_bytes()).unwrap(), None);
    assert_eq!(log.stats().bad_records, 1);
    assert!(!log.contains(&(RECORDS - 1).to_le_bytes()));
    assert_eq!(log.get(&0_u64.to_le_bytes()).unwrap().unwrap(), value(0));
}

#[test]
fn a_newer_format_is_an_error() {
    let (dir, path, mut image) = segment();
    image[8] = 2;
    let checksum = xxhash_rust::xxh3::xxh3_64(&image[..24]);
    image[24..32].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&path, &image).unwrap();
    let error = Log::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 2, supported: 1, .. }), "{error}");
}

#[test]
fn a_segment_stored_as_a_value_yields_no_records() {
    let (_inner, _, image) = segment();
    let outer = tempfile::tempdir().unwrap();
    let options = || Options { compression: Compression::None, ..Options::default() };
    let log = Log::open(outer.path(), options()).unwrap();
    log.put(b"image", &image).unwrap();
    drop(log);
    let path = only_file(outer.path());
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[40] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let log = Log::open(outer.path(), options()).unwrap();
    assert_eq!(log.keys_with_prefix(b""), Vec::<Vec<u8>>::new());
}

#[test]
fn foreign_files_are_left_alone() {
    let (dir, _, _) = segment();
    for name in ["notes.txt", "0123.seg", "0123456789abcdeF.seg", ".seg"] {
        std::fs::write(dir.path().join(name), "mine").unwrap();
    }
    assert_eq!(survivors(dir.path()), RECORDS);
    assert_eq!(std::fs::read_to_string(dir.path().join("0123.seg")).unwrap(), "mine");
}

#[cfg(unix)]
#[test]
fn a_read_only_directory_can_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, path, _) = segment();
    let chmod = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(&path, 0o400);
    chmod(dir.path(), 0o500);
    let log = Log::open(dir.path(), Options::default()).unwrap();
    assert_eq!(log.get(&1_u64.to_le_bytes()).unwrap().unwrap(), value(1));
    // Root can write anywhere, so only other users see the refusal.
    if std::fs::write(dir.path().join("probe"), "").is_err() {
        assert!(matches!(log.put(b"key", b"value"), Err(Error::Io { operation: "create", .. })));
    }
    chmod(dir.path(), 0o700);
}

#[test]
fn a_torn_overwrite_leaves_the_older_value() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Options::default()).unwrap();
    log.put(b"key", b"older, and flushed").unwrap();
    log.flush().unwrap();
    let flushed_len = std::fs::metadata(only_file(dir.path())).unwrap().len();
    log.put(b"key", b"newer, and not").unwrap();
    drop(log);
    // A power cut may leave the file with its new length and the bytes of the header, but not of
    // the payload.
    let path = only_file(dir.path());
    let mut image = std::fs::read(&path).unwrap();
    let payload_at = image.len() - 14;
    image[payload_at..].fill(0);
    std::fs::write(&path, &image).unwrap();
    let log = Log::open(dir.path(), Options::default()).unwrap();
    assert_eq!(log.get(b"key").unwrap().unwrap(), "older, and flushed");
    assert_eq!(log.stats().torn_bytes, image.len() as u64 - flushed_len);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), flushed_len);
}

#[cfg(target_os = "linux")]
#[test]
fn links_in_the_directory_are_not_followed() {
    let (dir, _, _) = segment();
    let outside = tempfile::NamedTempFile::new().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap().path();
        let name = entry.file_name().unwrap().to_owned();
        std::fs::remove_file(&entry).unwrap();
        std::fs::write(outside.path(), "precious").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join(&name)).unwrap();
        if let Ok(log) = Log::open(dir.path(), Options::default()) {
            let _ = log.put(b"new", b"value");
        }
        assert_eq!(std::fs::read_to_string(outside.path()).unwrap(), "precious", "{name:?}");
    }
}

/// Reading four tebibytes of zeros would take an hour. The file does not have them.
#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn holes_are_not_read() {
    const LEN: u64 = 1 << 42;
    let (dir, path, _) = segment();
    let extend = || std::fs::File::options().write(true).open(&path).unwrap().set_len(LEN).unwrap();
    extend();
    let log = Log::open_read_only(dir.path(), Options::default()).unwrap();
    assert_eq!(log.check().unwrap().problems.len(), 1);
    drop(log);
    assert_eq!(survivors(dir.path()), RECORDS);
    let writer = Log::open(dir.path(), Options::default()).unwrap();
    writer.put(b"new", b"value").unwrap();
    extend();
    let reader = Log::open(dir.path(), Options::default()).unwrap();
    assert_eq!(reader.get(b"new").unwrap().unwrap(), "value");
    writer.put(b"newer", b"value").unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.get(b"newer").unwrap().unwrap(), "value");
}
