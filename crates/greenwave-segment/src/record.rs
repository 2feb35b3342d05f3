//! The bytes of one record. Knows nothing of files, segments or what is kept in them.
//!
//! All integers are little-endian. A record is 48 bytes of header, the key, and the payload:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `F5 47 57 52`: `F5` never occurs in UTF-8 text |
//! | 4 | 1 | record version, 1 |
//! | 5 | 1 | codec: 0 raw, 1 zstd, 3 zstd with a dictionary, 4 difference, 2 difference without tag (read only) |
//! | 6 | 1 | flags: 1 tombstone, 2 seal, 3 dictionary |
//! | 7 | 1 | bits 0 to 5: generation; bit 6: belongs to the batch of the record before; bit 7: the next record belongs to its batch |
//! | 8 | 8 | stamp: nanoseconds since the Unix epoch, or one more than the newest stamp seen, whichever is greater |
//! | 16 | 4 | key length |
//! | 20 | 4 | payload length as stored |
//! | 24 | 4 | payload length when decompressed |
//! | 28 | 4 | codecs 2 and 4: the base's key length (2 bytes), depth (1 byte), zero; codec 3: the dictionary's id; else zero |
//! | 32 | 8 | XXH3-64 of the payload as stored |
//! | 40 | 8 | header checksum |
//! | 48 | | key |
//! | | | payload |
//!
//! A copy of a record has the generation after that of its original, up to 63: of two records of one key with the same stamp the
//! later generation counts. The records of a batch follow each other without a gap, all but the first with bit 6 set, all but the last
//! with bit 7.
//!
//! A difference's payload is the key of its base, the lower half of the base's stamp (its *tag*), the lower half of the XXH3-64 of the
//! base's value, and one zstd frame that has the base's value as its prefix. A difference of codec 2 has no tag and the whole XXH3-64. Its depth is that of its base plus one; a base that is no difference has depth 0.
//!
//! The header checksum is `xxh3(key, seed = xxh3(bytes 0..40, seed = segment id + offset of the record))`, wrapping. It covers the key,
//! so that an index can be built without reading a payload. The seed ties a record to its place: the image of a segment stored *as a
//! value* holds no record that recovery could take for one of its own.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::format::{u32_at, u64_at};

/// Bytes before the key.
pub(crate) const HEADER_BYTES: usize = 48;
/// The first bytes of each record.
pub(crate) const MAGIC: [u8; 4] = [0xF5, b'G', b'W', b'R'];
/// The version of this layout.
const VERSION: u8 = 1;

/// Bytes that say which record of the base's key a difference is from: the lower half of its stamp.
pub(crate) const BASE_TAG_BYTES: usize = 4;
/// The last generation that is counted.
pub(crate) const GENERATION_MAX: u8 = 0x3F;
const FOLLOWS: u8 = 0x40;
const CONTINUES: u8 = 0x80;

/// How a payload is encoded. A newtype and not an enum: an unknown one must survive compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Codec(pub(crate) u8);

impl Codec {
    pub(crate) const RAW: Self = Self(0);
    pub(crate) const ZSTD: Self = Self(1);
    /// Against the value of another key, without a tag. Read, and not written any more.
    pub(crate) const UNTAGGED_DELTA: Self = Self(2);
    /// With a trained dictionary.
    pub(crate) const DICT: Self = Self(3);
    /// Against the value of another key.
    pub(crate) const DELTA: Self = Self(4);

    pub(crate) fn is_delta(self) -> bool {
        matches!(self, Self::DELTA | Self::UNTAGGED_DELTA)
    }
}

/// What a record does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sets it.
    Value,
    /// Removes it.
    Tombstone,
    /// Ends the segment; has no key.
    Seal,
    /// Holds a trained dictionary; its key is the dictionary's id. Not seen by callers.
    Dictionary,
}

impl Kind {
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

/// The header of a record, without what is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) codec: Codec,
    pub(crate) timestamp: u64,
    pub(crate) key_len: u32,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    /// How many times the record has been copied, up to [`GENERATION_MAX`].
    pub(crate) generation: u8,
    /// Whether the record before belongs to the same batch.
    pub(crate) follows: bool,
    /// Whether the next record belongs to the same batch.
    pub(crate) continues: bool,
    /// What the codec needs besides: see the table above.
    pub(crate) extra: [u8; 4],
    pub(crate) payload_hash: u64,
}

impl Header {
    /// The header of a record without payload.
    pub(crate) fn empty(kind: Kind, key: &[u8]) -> Self {
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

    /// Length of the key of the base that this record is a difference from; 0 if it is none.
    pub(crate) fn base_len(&self) -> usize {
        if self.codec.is_delta() { u16::from_le_bytes([self.extra[0], self.extra[1]]).into() } else { 0 }
    }

    /// Length of that key and of the tag behind it.
    pub(crate) fn base_and_tag_len(&self) -> usize {
        self.base_len() + if self.codec == Codec::DELTA { BASE_TAG_BYTES } else { 0 }
    }

    /// How many differences have to be undone for this value.
    pub(crate) fn depth(&self) -> u8 {
        if self.codec.is_delta() { self.extra[2] } else { 0 }
    }

    /// Bytes of the whole record.
    pub(crate) fn record_len(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.key_len) + u64::from(self.stored_len)
    }

    /// The header of a copy.
    pub(crate) fn copied(self) -> Self {
        let generation = self.generation.saturating_add(1).min(GENERATION_MAX);
        Self { generation, follows: false, continues: false, ..self }
    }

    /// The bytes, sealed to the place given by `seed` (see [`place_seed`]).
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

    /// Reads the fields; `None` if this cannot be a header. What it says is not to be believed before [`verified`] agrees.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        if bytes[0..4] != MAGIC || bytes[4] != VERSION {
            return None;
        }
        let kind = Kind::from_flags(bytes[6])?;
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

/// Whether the header and the key are the ones that were written at this place.
pub(crate) fn verified(header: &[u8; HEADER_BYTES], seed: u64, key: &[u8]) -> bool {
    checksum_of(header) == checksum(header, seed, key)
}

/// The header checksum that stands in a header.
pub(crate) fn checksum_of(header: &[u8; HEADER_BYTES]) -> u64 {
    u64_at(header, 40)
}

/// Ties a record to its segment and its offset in it.
pub(crate) fn location_seed(segment: u64, offset: u64) -> u64 {
    segment.wrapping_add(offset)
}

/// The hash kept of a payload as stored.
pub(crate) fn hash_payload(stored: &[u8]) -> u64 {
    xxh3_64(stored)
}

fn checksum(header: &[u8; HEADER_BYTES], seed: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, xxh3_64_with_seed(&header[..40], seed))
}
