//! Compares format version 1 with a segment built by hand from `docs/formats/storage.md`, so that
//! neither changes unnoticed.

use greenwave_segment::{Compression, Log, Options};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const ID: u64 = 0x0123_4567_89AB_CDEF;
const TIMESTAMP: u64 = 1_700_000_000_000_000_000;

struct Image(Vec<u8>);

impl Image {
    fn new() -> Self {
        let mut bytes = b"\xF5GWSEG\r\n\x01\0\0\0\0\0\0\0".to_vec();
        bytes.extend(ID.to_le_bytes());
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        Self(bytes)
    }

    /// Appends a record with these fields: codec and flags, timestamp, key, payload as stored, its
    /// length when decompressed, and its hash.
    fn record(
        mut self,
        (codec, flags): (u8, u8),
        timestamp: u64,
        key: &[u8],
        stored: &[u8],
        raw_len: u32,
        hash: u64,
    ) -> Self {
        let offset = self.0.len();
        let mut header = vec![0xF5, b'G', b'W', b'R', 1, codec, flags, 0];
        header.extend(timestamp.to_le_bytes());
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

    fn value(self, timestamp: u64, key: &[u8], value: &[u8]) -> Self {
        self.record((0, 0), timestamp, key, value, value.len() as u32, xxh3_64(value))
    }

    fn tombstone(self, timestamp: u64, key: &[u8]) -> Self {
        self.record((0, 1), timestamp, key, b"", 0, xxh3_64(b""))
    }
}

fn options() -> Options {
    Options { clock: || TIMESTAMP, compression: Compression::None, ..Options::default() }
}

#[test]
fn a_segment_built_by_hand_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let text = b"green wave ".repeat(100);
    let compressed = zstd::bulk::compress(&text, 3).unwrap();
    let image = Image::new()
        .value(TIMESTAMP, b"key", b"value")
        .value(TIMESTAMP + 1, b"gone", b"value")
        .tombstone(TIMESTAMP + 2, b"gone")
        .value(TIMESTAMP + 3, b"key", b"older, at a later offset")
        .value(TIMESTAMP + 9, b"key", b"newest")
        .value(TIMESTAMP + 4, b"key", b"older too")
        .record((1, 0), TIMESTAMP + 5, b"text", &compressed, 1100, xxh3_64(&compressed))
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
fn written_bytes_match_a_segment_built_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("{ID:016x}.seg"));
    // A process that dies right after creating a segment leaves an empty file.
    std::fs::write(&path, "").unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    log.put(b"key", b"value").unwrap();
    log.put(b"other", b"").unwrap();
    log.remove(b"key").unwrap();
    // The only writer has number 0.
    let first = TIMESTAMP.next_multiple_of(256);
    let image = Image::new()
        .value(first, b"key", b"value")
        .value(first + 256, b"other", b"")
        .tombstone(first + 512, b"key");
    assert_eq!(std::fs::read(path).unwrap(), image.0);
}

#[test]
fn a_record_with_an_unknown_codec_is_a_miss_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new()
        .record((9, 0), TIMESTAMP, b"key", b"?", 1, xxh3_64(b"?"))
        .value(TIMESTAMP, b"other", b"value");
    std::fs::write(dir.path().join(format!("{ID:016x}.seg")), &image.0).unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    assert_eq!(log.get(b"key").unwrap(), None);
    assert_eq!(log.stats().bad_records, 1);
    assert!(log.contains(b"key"), "a later version may read it");
    assert_eq!(log.get(b"other").unwrap().unwrap(), "value");
}

#[test]
fn a_wrong_decompressed_length_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let compressed = zstd::bulk::compress(&[0; 100_000], 3).unwrap();
    let segment =
        |raw_len| Image::new().record((1, 0), TIMESTAMP, b"key", &compressed, raw_len, xxh3_64(&compressed));
    for raw_len in [0, 10, 99_999, 100_001, u32::MAX] {
        std::fs::write(dir.path().join(format!("{ID:016x}.seg")), segment(raw_len).0).unwrap();
        let log = Log::open(dir.path(), options()).unwrap();
        assert_eq!(log.get(b"key").unwrap(), None, "claiming {raw_len}");
    }
}

#[test]
fn a_tombstone_wins_over_a_value_with_the_same_timestamp() {
    for tombstone_first in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let image = if tombstone_first {
            Image::new().tombstone(TIMESTAMP, b"key").value(TIMESTAMP, b"key", b"value")
        } else {
            Image::new().value(TIMESTAMP, b"key", b"value").tombstone(TIMESTAMP, b"key")
        };
        std::fs::write(dir.path().join(format!("{ID:016x}.seg")), &image.0).unwrap();
        assert!(!Log::open(dir.path(), options()).unwrap().contains(b"key"));
    }
}
