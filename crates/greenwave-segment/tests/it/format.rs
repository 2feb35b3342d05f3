//! Format version 1, byte by byte: built here by hand from `docs/formats/storage.md`, so that neither changes unnoticed.

use greenwave_segment::{Compression, Log, Options};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const ID: u64 = 0x0123_4567_89AB_CDEF;
const STAMP: u64 = 1_700_000_000_000_000_000;

struct Image(Vec<u8>);

impl Image {
    fn new() -> Self {
        let mut bytes = b"\xF5GWSEG\r\n\x01\0\0\0\0\0\0\0".to_vec();
        bytes.extend(ID.to_le_bytes());
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        Self(bytes)
    }

    /// Codec, flags, stamp, key, payload as stored, its length when decompressed, and what stands for its hash.
    fn record(
        mut self,
        (codec, flags): (u8, u8),
        stamp: u64,
        key: &[u8],
        stored: &[u8],
        raw_len: u32,
        hash: u64,
    ) -> Self {
        let offset = self.0.len();
        let mut header = vec![0xF5, b'G', b'W', b'R', 1, codec, flags, 0];
        header.extend(stamp.to_le_bytes());
        for len in [key.len() as u32, stored.len() as u32, raw_len, 0] {
            header.extend(len.to_le_bytes());
        }
        header.extend(hash.to_le_bytes());
        let seed = xxh3_64_with_seed(&header, ID.wrapping_add(offset as u64));
        header.extend(xxh3_64_with_seed(key, seed).to_le_bytes());
        assert_eq!(header.len(), 48);
        self.0.extend(header);
        self.0.extend(key);
        self.0.extend(stored);
        self
    }

    fn value(self, stamp: u64, key: &[u8], value: &[u8]) -> Self {
        self.record((0, 0), stamp, key, value, value.len() as u32, xxh3_64(value))
    }

    fn tombstone(self, stamp: u64, key: &[u8]) -> Self {
        self.record((0, 1), stamp, key, b"", 0, xxh3_64(b""))
    }
}

fn options() -> Options {
    Options { clock: || STAMP, compression: Compression::None, ..Options::default() }
}

#[test]
fn an_image_made_by_hand_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let text = b"green wave ".repeat(100);
    let compressed = zstd::bulk::compress(&text, 3).unwrap();
    let image = Image::new()
        .value(STAMP, b"key", b"value")
        .value(STAMP + 1, b"gone", b"value")
        .tombstone(STAMP + 2, b"gone")
        .value(STAMP + 3, b"key", b"older, though it stands later")
        .value(STAMP + 9, b"key", b"newest")
        .value(STAMP + 4, b"key", b"older too")
        .record((1, 0), STAMP + 5, b"text", &compressed, 1100, xxh3_64(&compressed))
        .record((0, 2), 0, b"", b"", 0, 0);
    let path = dir.path().join(format!("{ID:016x}.seg"));
    std::fs::write(&path, &image.0).unwrap();

    let log = Log::open(dir.path(), options()).unwrap();
    assert_eq!(log.keys_with_prefix(b""), [b"key".to_vec(), b"text".to_vec()]);
    assert_eq!(log.get(b"key").unwrap().unwrap(), "newest");
    assert_eq!(log.get(b"text").unwrap().unwrap(), text);
    log.put(b"new", b"").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), image.0, "a sealed segment does not grow");
    assert_eq!(log.stats().bad_records, 0);
}

#[test]
fn what_is_written_is_that_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("{ID:016x}.seg"));
    // An empty file is what a process leaves that died between making a segment and beginning it.
    std::fs::write(&path, "").unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    log.put(b"key", b"value").unwrap();
    log.put(b"other", b"").unwrap();
    log.remove(b"key").unwrap();
    let image = Image::new()
        .value(STAMP, b"key", b"value")
        .value(STAMP + 1, b"other", b"")
        .tombstone(STAMP + 2, b"key");
    assert_eq!(std::fs::read(path).unwrap(), image.0);
}

#[test]
fn an_unknown_codec_is_a_miss_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let image =
        Image::new().record((9, 0), STAMP, b"key", b"?", 1, xxh3_64(b"?")).value(STAMP, b"other", b"value");
    std::fs::write(dir.path().join(format!("{ID:016x}.seg")), &image.0).unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    assert_eq!(log.get(b"key").unwrap(), None);
    assert_eq!(log.stats().bad_records, 1);
    assert!(log.contains(b"key"), "a later version may read it");
    assert_eq!(log.get(b"other").unwrap().unwrap(), "value");
}

#[test]
fn a_length_that_lies_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let compressed = zstd::bulk::compress(&[0; 100_000], 3).unwrap();
    let lie =
        |raw_len| Image::new().record((1, 0), STAMP, b"key", &compressed, raw_len, xxh3_64(&compressed));
    for raw_len in [0, 10, 99_999, 100_001, u32::MAX] {
        std::fs::write(dir.path().join(format!("{ID:016x}.seg")), lie(raw_len).0).unwrap();
        let log = Log::open(dir.path(), options()).unwrap();
        assert_eq!(log.get(b"key").unwrap(), None, "claiming {raw_len}");
    }
}

#[test]
fn of_equal_stamps_the_tombstone_counts_in_any_order() {
    for tombstone_first in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let image = match tombstone_first {
            true => Image::new().tombstone(STAMP, b"key").value(STAMP, b"key", b"value"),
            false => Image::new().value(STAMP, b"key", b"value").tombstone(STAMP, b"key"),
        };
        std::fs::write(dir.path().join(format!("{ID:016x}.seg")), &image.0).unwrap();
        assert!(!Log::open(dir.path(), options()).unwrap().contains(b"key"));
    }
}
