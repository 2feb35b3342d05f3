//! Entries of the index, which describe the newest record of a key, and their precedence.

use std::cmp::Ordering;

use crate::key::{INLINE_BYTES_MAX, Key};
use crate::record::{BASE_TAG_BYTES, Codec, HEADER_BYTES, Header, RecordKind};

/// Number of a segment in the index. Numbers are never reused.
pub(crate) type SlotId = u32;

/// Segment and offset of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) slot: SlotId,
    pub(crate) offset: u64,
}

/// Data of the index that a read needs to locate and verify a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordRef {
    pub(crate) location: Location,
    pub(crate) depth: u8,
    pub(crate) tag: u32,
    pub(crate) record_len: u64,
    pub(crate) raw_len: u32,
}

impl RecordRef {
    pub(crate) fn to(entry: &Entry) -> Self {
        Self {
            location: entry.location(),
            depth: entry.depth,
            tag: entry.tag(),
            record_len: entry.record_len(),
            raw_len: entry.raw_len,
        }
    }

    pub(crate) fn scanned(location: Location, header: &Header) -> Self {
        let (depth, tag, raw_len) = (header.depth(), header.timestamp as u32, header.raw_len);
        Self { location, depth, tag, record_len: header.record_len(), raw_len }
    }

    /// Allocates a buffer for the whole record.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        vec![0; usize::try_from(self.record_len).expect("value_bytes_max fits memory")]
    }
}

/// The newest record of a key.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// Base of the value, if it is a delta.
    pub(crate) base: Option<Box<BaseRef>>,
    pub(crate) offset: u64,
    pub(crate) timestamp: u64,
    pub(crate) slot: SlotId,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    /// Number of deltas to apply to read the value; 0 if it is not a delta.
    pub(crate) depth: u8,
    /// Number of times the record has been copied.
    pub(crate) generation: u8,
    /// Whether the key has no value: it was removed, or its newest record is lost.
    pub(crate) tombstone: bool,
    /// Whether the newest record of the key is damaged or missing.
    pub(crate) lost: bool,
    /// Whether another segment has an older record of this key, which would reappear if this entry
    /// were forgotten.
    pub(crate) shadows: bool,
}

/// Reference from a delta to its base.
#[derive(Debug, Clone)]
pub(crate) struct BaseRef {
    pub(crate) key: Key,
    /// Lower half of the base's timestamp, if the delta records it.
    pub(crate) tag: Option<u32>,
}

impl BaseRef {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.key.as_slice()
    }

    /// Returns whether `base` is certainly the record that the delta was encoded against.
    pub(crate) fn matches(&self, base: &Entry) -> bool {
        !base.tombstone && self.tag == Some(base.tag())
    }
}

/// Data of a record that the index needs.
#[derive(Debug, Clone)]
pub(crate) struct RecordInfo<'a> {
    pub(crate) kind: RecordKind,
    pub(crate) key: &'a [u8],
    /// The key with the bytes that follow it in memory, if the key is short and enough bytes
    /// follow.
    pub(crate) padded: Option<&'a [u8; INLINE_BYTES_MAX]>,
    /// Key of the base; empty if the value is not a delta.
    pub(crate) base: &'a [u8],
    /// Tag of the base, if the delta records it.
    pub(crate) base_tag: Option<u32>,
    pub(crate) timestamp: u64,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) depth: u8,
    pub(crate) generation: u8,
    /// Whether the record exists or existed but cannot be read.
    pub(crate) lost: bool,
}

impl<'a> RecordInfo<'a> {
    /// Describes a record. `base` is the key of the base and its tag, as in the payload.
    pub(crate) fn new(header: &Header, key: &'a [u8], base: &'a [u8]) -> Self {
        let (base, base_tag) = split_base(base, header.codec == Codec::DELTA);
        let Header { kind, timestamp, stored_len, raw_len, generation, .. } = *header;
        let depth = header.depth();
        Self {
            kind,
            key,
            padded: None,
            base,
            base_tag,
            timestamp,
            stored_len,
            raw_len,
            depth,
            generation,
            lost: false,
        }
    }

    /// Describes the same record as lost.
    pub(crate) fn as_lost(&self) -> Self {
        Self { base: &[], depth: 0, lost: true, ..self.clone() }
    }

    pub(crate) fn record_len(&self) -> u64 {
        HEADER_BYTES as u64 + self.key.len() as u64 + u64::from(self.stored_len)
    }
}

impl Entry {
    pub(crate) fn new(location: Location, record: &RecordInfo<'_>) -> Self {
        let RecordInfo {
            kind,
            key,
            padded,
            base,
            base_tag,
            timestamp,
            stored_len,
            raw_len,
            depth,
            generation,
            lost,
        } = *record;
        let short = padded.and_then(|padded| Some((u8::try_from(key.len()).ok()?, padded)));
        Self {
            key: short.map_or_else(|| key.into(), |(len, padded)| Key::from_padded(len, padded)),
            base: (!base.is_empty()).then(|| Box::new(BaseRef { key: base.into(), tag: base_tag })),
            offset: location.offset,
            timestamp,
            slot: location.slot,
            stored_len,
            raw_len,
            depth,
            generation,
            tombstone: kind == RecordKind::Tombstone || lost,
            lost,
            shadows: false,
        }
    }

    pub(crate) fn location(&self) -> Location {
        Location { slot: self.slot, offset: self.offset }
    }

    pub(crate) fn record_len(&self) -> u64 {
        HEADER_BYTES as u64 + self.key.as_slice().len() as u64 + u64::from(self.stored_len)
    }

    /// Returns the lower half of the timestamp.
    pub(crate) fn tag(&self) -> u32 {
        self.timestamp as u32
    }

    /// Returns whether compaction must copy the record.
    pub(crate) fn is_live(&self) -> bool {
        !self.tombstone || self.shadows
    }

    pub(crate) fn supersedes(&self, other: &Self) -> bool {
        match self.timestamp.cmp(&other.timestamp) {
            Ordering::Greater => true,
            Ordering::Less => false,
            // The latest copy wins, since its original is about to be removed. If two processes
            // have made copies, the one with fewer deltas wins, since the bases of the other may be
            // gone.
            Ordering::Equal => match self.rank().cmp(&other.rank()) {
                Ordering::Greater => true,
                Ordering::Less => false,
                Ordering::Equal => self.depth <= other.depth,
            },
        }
    }

    /// Rank among records with the same timestamp.
    fn rank(&self) -> (u8, u8) {
        let kind = match (self.tombstone, self.lost) {
            (_, true) => 0,
            (false, false) => 1,
            (true, false) => 2,
        };
        (kind, self.generation)
    }
}

/// Splits the reference to a base, as stored in a payload, into key and tag.
pub(crate) fn split_base(base: &[u8], tagged: bool) -> (&[u8], Option<u32>) {
    match base.split_last_chunk::<BASE_TAG_BYTES>() {
        Some((key, tag)) if tagged => (key, Some(u32::from_le_bytes(*tag))),
        _ => (base, None),
    }
}
