//! Constants and helpers of the on-disk format that several files share: file headers, file names,
//! byte order.
//!
//! Segments, index files and the manifest begin with the same 32 bytes (integers little-endian):
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic of the kind of file |
//! | 8 | 2 | format version, 1 |
//! | 10 | 6 | zero |
//! | 16 | 8 | segment id, or identity of the directory (manifest) |
//! | 24 | 8 | XXH3-64 of bytes 0 to 24 |
//!
//! Every format version keeps this header, so that any reader can distinguish a newer file from a
//! damaged one.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// Size of the header of a segment, and so the offset of its first record.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 32;
/// Newest format version that this crate reads, and the one it writes.
pub(crate) const VERSION: u16 = 1;
/// File name extension of segments.
pub(crate) const SEGMENT_EXTENSION: &str = "seg";
/// File name extension of index files.
pub(crate) const INDEX_EXTENSION: &str = "idx";
/// Prefix of the names of liveness lock files; 16 hexadecimal digits follow.
pub(crate) const HOLDER_PREFIX: &str = "holder-";
/// Prefix of the names of the lock files of writer numbers; 2 hexadecimal digits follow.
pub(crate) const WRITER_PREFIX: &str = "writer-";
/// Longest key that the format allows, in bytes.
pub(crate) const KEY_BYTES_MAX: u32 = 1 << 16;
/// Decoding error for a codec of a later version. Such a record must survive compaction.
pub(crate) const UNKNOWN_CODEC: &str = "its codec is unknown";

/// Returns the header of a file with this magic and id.
pub(crate) fn file_header(magic: [u8; 8], id: u64) -> [u8; SEGMENT_HEADER_BYTES as usize] {
    let mut header = [0; SEGMENT_HEADER_BYTES as usize];
    header[0..8].copy_from_slice(&magic);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&id.to_le_bytes());
    let checksum = xxh3_64(&header[..24]);
    header[24..32].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Returns the path of a segment.
pub(crate) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.{SEGMENT_EXTENSION}"))
}

/// Returns the path of the index file of the segment at `segment`.
pub(crate) fn index_path(segment: &Path) -> PathBuf {
    segment.with_extension(INDEX_EXTENSION)
}

/// Returns the path of the lock file that shows that the holder of `number` is alive.
pub(crate) fn holder_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{HOLDER_PREFIX}{number:016x}"))
}

/// Returns the path of the lock file of a writer number.
pub(crate) fn writer_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{WRITER_PREFIX}{number:02x}"))
}

/// Returns the segment id in a file name, if the name is 16 lower-case hexadecimal digits and
/// `extension`.
pub(crate) fn parse_name(name: &str, extension: &str) -> Option<u64> {
    let id = name.strip_suffix(extension)?.strip_suffix('.')?;
    let well_formed = id.len() == 16 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    well_formed.then(|| u64::from_str_radix(id, 16).ok())?
}

/// Returns whether a regular file of this name belongs to a log.
pub(crate) fn is_log_file(name: &str) -> bool {
    let is_lock = |prefix, len| {
        name.strip_prefix(prefix)
            .is_some_and(|digits: &str| digits.len() == len && digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    matches!(name, "clock" | "fence" | "compactor" | "manifest")
        || is_lock(HOLDER_PREFIX, 16)
        || is_lock(WRITER_PREFIX, 2)
        || [SEGMENT_EXTENSION, INDEX_EXTENSION].iter().any(|it| parse_name(name, it).is_some())
}

/// Returns the identity of a directory with these device and inode numbers.
pub(crate) fn directory_identity(device: u64, inode: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&device.to_le_bytes());
    bytes[8..].copy_from_slice(&inode.to_le_bytes());
    xxh3_64(&bytes)
}

/// Reads a little-endian integer at `offset`, which must leave four bytes.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("a range of four bytes"))
}

/// Reads a little-endian integer at `offset`, which must leave eight bytes.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("a range of eight bytes"))
}
