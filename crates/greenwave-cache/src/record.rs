//! What is stored in a backend: a result with what is needed to trust it and to judge its worth. Knows nothing of backends.
//!
//! Integers are little-endian:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `F5 47 57 43` |
//! | 4 | 1 | record version, 1 |
//! | 5 | 3 | zero |
//! | 8 | 4 | schema of the payload |
//! | 12 | 4 | number of tags |
//! | 16 | 8 | created, milliseconds since the Unix epoch |
//! | 24 | 8 | cost, microseconds |
//! | 32 | | each tag: its length in 4 bytes, and its UTF-8 text |
//! | | | payload, up to 16 bytes before the end |
//! | end - 16 | 16 | the first bytes of BLAKE3 over the key and all bytes before |
//!
//! The checksum covers the key, so that a record which strayed under another key does not verify.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Key;

const MAGIC: [u8; 4] = [0xF5, b'G', b'W', b'C'];
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 16;

/// A result as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Version of the payload's layout, and of whatever else its readers rely on. A reader of another schema misses.
    pub schema: u32,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// How long it took to make; kept in microseconds.
    pub cost: Duration,
    /// What it may be invalidated by.
    pub tags: Vec<String>,
    /// The result itself.
    pub payload: Bytes,
}

/// Why bytes are no record for this reader. Always a miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRecord {
    /// They were damaged, cut short, or never a record.
    #[error("record is damaged")]
    Damaged,
    /// They were written by a later version of this crate.
    #[error("record has version {0}, and this program reads 1")]
    Version(u8),
    /// The payload has another schema.
    #[error("record has schema {found}, where {wanted} is wanted")]
    Schema {
        /// The record's.
        found: u32,
        /// The reader's.
        wanted: u32,
    },
}

impl Record {
    /// The bytes to store under `key`.
    pub fn encode(&self, key: &Key) -> Bytes {
        let tags: usize = self.tags.iter().map(|tag| 4 + tag.len()).sum();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + tags + self.payload.len() + CHECKSUM_BYTES);
        out.put_slice(&MAGIC);
        out.put_slice(&[VERSION, 0, 0, 0]);
        out.put_u32_le(self.schema);
        out.put_u32_le(len_u32(self.tags.len()));
        out.put_u64_le(self.created_ms);
        out.put_u64_le(u64::try_from(self.cost.as_micros()).unwrap_or(u64::MAX));
        assert_eq!(out.len(), HEADER_BYTES);
        for tag in &self.tags {
            out.put_u32_le(len_u32(tag.len()));
            out.put_slice(tag.as_bytes());
        }
        out.put_slice(&self.payload);
        let checksum = checksum(key, &out);
        out.put_slice(&checksum);
        out.freeze()
    }

    /// The record in what was stored under `key`, if it verifies and has the schema that is wanted.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn decode(key: &Key, stored: &Bytes, schema: u32) -> Result<Self, BadRecord> {
        let body_len = stored.len().checked_sub(CHECKSUM_BYTES).ok_or(BadRecord::Damaged)?;
        let (body, stored_checksum) = stored.split_at(body_len);
        if body_len < HEADER_BYTES || body[..4] != MAGIC || stored_checksum != checksum(key, body) {
            return Err(BadRecord::Damaged);
        }
        if body[4] != VERSION {
            return Err(BadRecord::Version(body[4]));
        }
        let mut rest = stored.slice(8..body_len);
        let found = rest.get_u32_le();
        if found != schema {
            return Err(BadRecord::Schema { found, wanted: schema });
        }
        let tag_count = rest.get_u32_le();
        let (created_ms, cost) = (rest.get_u64_le(), Duration::from_micros(rest.get_u64_le()));
        let tags = (0..tag_count).map(|_| tag(&mut rest)).collect::<Option<_>>();
        Ok(Self { schema, created_ms, cost, tags: tags.ok_or(BadRecord::Damaged)?, payload: rest })
    }
}

fn tag(rest: &mut Bytes) -> Option<String> {
    let len = rest.try_get_u32_le().ok()? as usize;
    let text = (len <= rest.len()).then(|| rest.split_to(len))?;
    String::from_utf8(text.to_vec()).ok()
}

fn checksum(key: &Key, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::Hasher::new().update(key.as_bytes()).update(body).finalize();
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("tags are short and few")
}
