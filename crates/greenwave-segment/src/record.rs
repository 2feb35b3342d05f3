//! Encodes and verifies record headers.
//!
//! All integers are little-endian. A record is 48 bytes of header, the key, and the payload:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `F5 47 57 52`; `F5` never occurs in UTF-8 text |
//! | 4 | 1 | record version, 1 |
//! | 5 | 1 | codec: 0 raw, 1 zstd, 3 zstd with a dictionary, 4 delta, 2 delta without tag (read only) |
//! | 6 | 1 | flags: 0 value, 1 tombstone, 2 seal, 3 dictionary |
//! | 7 | 1 | bits 0 to 5: generation; bit 6: same batch as the record before; bit 7: same batch as the next record |
//! | 8 | 8 | timestamp: nanoseconds since the Unix epoch, but later than the latest timestamp seen |
//! | 16 | 4 | key length |
//! | 20 | 4 | payload length as stored |
//! | 24 | 4 | payload length when decompressed |
//! | 28 | 4 | codecs 2 and 4: length of the base's key (2 bytes), depth (1 byte), zero; codec 3: id of the dictionary; otherwise zero |
//! | 32 | 8 | XXH3-64 of the payload as stored |
//! | 40 | 8 | header checksum |
//! | 48 | | key |
//! | | | payload |
//!
//! A copy of a record has the generation of its original plus one, at most 63. Of two records of a
//! key with the same timestamp, the later generation wins. The records of a batch follow each other
//! without a gap. All of them except the first have bit 6 set, and all except the last have bit 7
//! set.
//!
//! The payload of a delta is the key of its base, the lower half of the base's timestamp (the
//! *tag*), the lower half of the XXH3-64 of the base's value, and one zstd frame with the base's
//! value as its prefix. Codec 2 has no tag and the whole XXH3-64. The depth of a delta is the depth
//! of its base plus one; a base that is not a delta has depth 0.
//!
//! The header checksum is `xxh3(key, seed = xxh3(bytes 0..40, seed = segment id + offset of the
//! record))`, where the sum wraps. It covers the key, so that an index can be built without reading
//! payloads. The seed ties a record to its location: a segment stored *as a value* contains no
//! record that recovery could mistake for one of the outer segment.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::format::{u32_at, u64_at};

/// Size of the header in bytes.
pub(crate) const HEADER_BYTES: usize = 48;
/// First bytes of each record.
pub(crate) const MAGIC: [u8; 4] = [0xF5, b'G', b'W', b'R'];
/// Version of this layout.
const VERSION: u8 = 1;

/// Size of a tag in bytes. It identifies the record of the base's key that a delta was encoded
/// against.
pub(crate) const BASE_TAG_BYTES: usize = 4;
/// Highest generation; further copies do not increase it.
pub(crate) const GENERATION_MAX: u8 = 0x3F;
const FOLLOWS: u8 = 0x40;
const CONTINUES: u8 = 0x80;

/// Encoding of a payload. A newtype instead of an enum, since records with unknown codecs must
/// survive compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Codec(pub(crate) u8);

impl Codec {
    pub(crate) const RAW: Self = Self(0);
    pub(crate) const ZSTD: Self = Self(1);
    /// Zstandard with the value of another key as prefix, without a tag. Read but no longer
    /// written.
    pub(crate) const UNTAGGED_DELTA: Self = Self(2);
    /// Zstandard with a trained dictionary.
    pub(crate) const DICT: Self = Self(3);
    /// Zstandard with the value of another key as prefix.
    pub(crate) const DELTA: Self = Self(4);

    pub(crate) fn is_delta(self) -> bool {
        matches!(self, Self::DELTA | Self::UNTAGGED_DELTA)
    }
}

/// Effect of a record on its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// Sets the key.
    Value,
    /// Removes the key.
    Tombstone,
    /// Ends the segment; has no key.
    Seal,
    /// Contains a trained dictionary, with its id as the key. Not visible to callers.
    Dictionary,
}

impl RecordKind {
    pub(crate) fn flags(self) -> u8 {
        match self {
            Self::Value => 0,
            Self::Tombstone => 1,
            Self::Seal => 2,
            Self::Dictionary => 3,
        }
    }

    pub(crate) fn from_flags(flags: u8) -> Option<Self> {
        match flags {
            0 => Some(Self::Value),
            1 => Some(Self::Tombstone),
            2 => Some(Self::Seal),
            3 => Some(Self::Dictionary),
            _ => None,
        }
    }
}

/// Fields of a record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: RecordKind,
    pub(crate) codec: Codec,
    pub(crate) timestamp: u64,
    pub(crate) key_len: u32,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    /// Number of times the record has been copied, at most [`GENERATION_MAX`].
    pub(crate) generation: u8,
    /// Whether the record before belongs to the same batch.
    pub(crate) follows: bool,
    /// Whether the next record belongs to the same batch.
    pub(crate) continues: bool,
    /// Data of the codec; see the table above.
    pub(crate) extra: [u8; 4],
    pub(crate) payload_hash: u64,
}

impl Header {
    /// Creates the header of a record without payload.
    pub(crate) fn empty(kind: RecordKind, key: &[u8]) -> Self {
        let key_len = u32::try_from(key.len()).expect("checked against key_bytes_max");
        Self {
            kind,
            codec: Codec::RAW,
            timestamp: 0,
            key_len,
            stored_len: 0,
            raw_len: 0,
            generation: 0,
            follows: false,
            continues: false,
            extra: [0; 4],
            payload_hash: hash_payload(&[]),
        }
    }

    /// Returns the length of the base's key; 0 if the record is not a delta.
    pub(crate) fn base_len(&self) -> usize {
        if self.codec.is_delta() { u16::from_le_bytes([self.extra[0], self.extra[1]]).into() } else { 0 }
    }

    /// Returns the length of the base's key and tag.
    pub(crate) fn base_and_tag_len(&self) -> usize {
        self.base_len() + if self.codec == Codec::DELTA { BASE_TAG_BYTES } else { 0 }
    }

    /// Returns the number of deltas to apply to read the value.
    pub(crate) fn depth(&self) -> u8 {
        if self.codec.is_delta() { self.extra[2] } else { 0 }
    }

    /// Returns the size of the whole record in bytes.
    pub(crate) fn record_len(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.key_len) + u64::from(self.stored_len)
    }

    /// Returns the header of a copy.
    pub(crate) fn copied(self) -> Self {
        let generation = self.generation.saturating_add(1).min(GENERATION_MAX);
        Self { generation, follows: false, continues: false, ..self }
    }

    /// Encodes the header for the location that `seed` identifies; see [`location_seed`].
    pub(crate) fn encode(&self, seed: u64, key: &[u8]) -> [u8; HEADER_BYTES] {
        assert_eq!(key.len(), self.key_len as usize);
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.codec.0;
        out[6] = self.kind.flags();
        out[7] = self.generation.min(GENERATION_MAX)
            | if self.follows { FOLLOWS } else { 0 }
            | if self.continues { CONTINUES } else { 0 };
        out[8..16].copy_from_slice(&self.timestamp.to_le_bytes());
        out[16..20].copy_from_slice(&self.key_len.to_le_bytes());
        out[20..24].copy_from_slice(&self.stored_len.to_le_bytes());
        out[24..28].copy_from_slice(&self.raw_len.to_le_bytes());
        out[28..32].copy_from_slice(&self.extra);
        out[32..40].copy_from_slice(&self.payload_hash.to_le_bytes());
        let checksum = checksum(&out, seed, key);
        out[40..48].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Decodes the fields; `None` if these bytes cannot be a header. The fields are unreliable
    /// until [`verified`] returns `true`.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        if bytes[0..4] != MAGIC || bytes[4] != VERSION {
            return None;
        }
        let kind = RecordKind::from_flags(bytes[6])?;
        Some(Self {
            kind,
            codec: Codec(bytes[5]),
            timestamp: u64_at(bytes, 8),
            key_len: u32_at(bytes, 16),
            stored_len: u32_at(bytes, 20),
            raw_len: u32_at(bytes, 24),
            generation: bytes[7] & GENERATION_MAX,
            follows: bytes[7] & FOLLOWS != 0,
            continues: bytes[7] & CONTINUES != 0,
            extra: bytes[28..32].try_into().expect("a range of four"),
            payload_hash: u64_at(bytes, 32),
        })
    }
}

/// Returns whether the header and the key were written at the location that `seed` identifies.
pub(crate) fn verified(header: &[u8; HEADER_BYTES], seed: u64, key: &[u8]) -> bool {
    checksum_of(header) == checksum(header, seed, key)
}

/// Returns the checksum field of a header.
pub(crate) fn checksum_of(header: &[u8; HEADER_BYTES]) -> u64 {
    u64_at(header, 40)
}

/// Returns the checksum seed for a record at this offset of a segment.
pub(crate) fn location_seed(segment: u64, offset: u64) -> u64 {
    segment.wrapping_add(offset)
}

/// Returns the hash of a payload as stored.
pub(crate) fn hash_payload(stored: &[u8]) -> u64 {
    xxh3_64(stored)
}

fn checksum(header: &[u8; HEADER_BYTES], seed: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, xxh3_64_with_seed(&header[..40], seed))
}
