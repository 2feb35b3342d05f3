//! The stored form of a result: its payload with a header, and a checksum or a seal.
//!
//! Integers are little-endian:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `F5 47 57 43` |
//! | 4 | 1 | record version, 1 |
//! | 5 | 1 | trailer: 0 checksum, 1 seal |
//! | 6 | 2 | zero |
//! | 8 | 4 | schema of the payload |
//! | 12 | 4 | number of tags |
//! | 16 | 8 | created, milliseconds since the Unix epoch |
//! | 24 | 8 | cost, microseconds |
//! | 32 | | each tag: its length in 4 bytes, and its UTF-8 text |
//! | | | payload, up to 16 or 32 bytes before the end |
//! | end - 16 | 16 | checksum: the first bytes of BLAKE3 over all preceding bytes and the key |
//! | or end - 32 | 32 | seal: BLAKE3, keyed with the secret, over the same bytes |
//!
//! Both cover the key, so a record that ends up under another key does not verify. The BLAKE3 key
//! of the seal is derived from the secret (`derive_key`) with the context `greenwave cache 2026-11
//! record seal`.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Key;

const MAGIC: [u8; 4] = [0xF5, b'G', b'W', b'C'];
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 16;
const SEAL_BYTES: usize = blake3::OUT_LEN;
/// Values of the trailer field.
const CHECKED: u8 = 0;
const SEALED: u8 = 1;

/// A result with its metadata, as stored in a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Version of the payload's layout and meaning. A record with another schema than the reader's
    /// is a miss.
    pub schema: u32,
    /// Creation time, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Time that it took to compute the result; stored in microseconds.
    pub cost: Duration,
    /// Tags of the result.
    pub tags: Vec<String>,
    /// The result itself.
    pub payload: Bytes,
}

/// Reason why stored bytes are not a valid record for this reader. Always treated as a miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes are damaged, truncated, not a record, or sealed with another secret.
    #[error("record is damaged")]
    Corrupt,
    /// The record is not sealed although the reader requires a seal, or it is sealed and the reader
    /// has no secret to verify it.
    #[error("cannot trust record: {}", if *.sealed { "it is sealed, and no secret is set" } else { "it is not sealed" })]
    Untrusted {
        /// Whether the record is sealed.
        sealed: bool,
    },
    /// A later version of this crate wrote the record.
    #[error("unsupported record version {0}: expected 1")]
    Version(u8),
    /// The payload has another schema.
    #[error("unsupported record schema {found}: expected {expected}")]
    Schema {
        /// Schema of the record.
        found: u32,
        /// Schema of the reader.
        expected: u32,
    },
}

/// Secret that seals records. Nobody without it can produce a record that verifies. Omitted from
/// `Debug` output.
#[derive(Clone)]
pub struct Secret([u8; blake3::KEY_LEN]);

impl Secret {
    /// Creates a secret from bytes that cannot be guessed, such as 16 or more random bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(blake3::derive_key("greenwave cache 2026-11 record seal", secret))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Record {
    /// Encodes the record for storage under `key`, with a checksum. The checksum detects damage,
    /// not forgery.
    pub fn encode(&self, key: &Key) -> Bytes {
        let mut out = self.body(CHECKED);
        let checksum = checksum(key, &out);
        out.put_slice(&checksum);
        out.freeze()
    }

    /// Encodes the record for storage under `key`, with a seal. Without the secret nobody can
    /// create a sealed record or move one to another key.
    pub fn seal(&self, key: &Key, secret: &Secret) -> Bytes {
        let mut out = self.body(SEALED);
        let seal = seal(key, &out, secret);
        out.put_slice(seal.as_bytes());
        out.freeze()
    }

    /// Decodes a record made by [`encode`](Self::encode) for `key`.
    ///
    /// # Errors
    ///
    /// Returns a [`RecordError`] if the record does not verify or has another schema.
    pub fn decode(key: &Key, stored: &Bytes, schema: u32) -> Result<Self, RecordError> {
        let (body, end) = split(stored, CHECKED, CHECKSUM_BYTES)?;
        if *end != checksum(key, body) {
            return Err(RecordError::Corrupt);
        }
        Self::read(&stored.slice_ref(body), schema)
    }

    /// Decodes a record made by [`seal`](Self::seal) for `key` with the same secret.
    ///
    /// # Errors
    ///
    /// Returns a [`RecordError`] if the record does not verify or has another schema.
    pub fn unseal(key: &Key, stored: &Bytes, schema: u32, secret: &Secret) -> Result<Self, RecordError> {
        let (body, end) = split(stored, SEALED, SEAL_BYTES)?;
        // `blake3::Hash` compares in constant time, so the comparison does not reveal how much of a
        // forged seal is right.
        if seal(key, body, secret) != *end {
            return Err(RecordError::Corrupt);
        }
        Self::read(&stored.slice_ref(body), schema)
    }

    fn body(&self, end: u8) -> BytesMut {
        let tags: usize = self.tags.iter().map(|tag| 4 + tag.len()).sum();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + tags + self.payload.len() + SEAL_BYTES);
        out.put_slice(&MAGIC);
        out.put_slice(&[VERSION, end, 0, 0]);
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
        out
    }

    /// Decodes a body that has been verified.
    fn read(body: &Bytes, schema: u32) -> Result<Self, RecordError> {
        if body[4] != VERSION {
            return Err(RecordError::Version(body[4]));
        }
        if body[6..8] != [0; 2] {
            return Err(RecordError::Corrupt);
        }
        let mut rest = body.slice(8..);
        let found = rest.get_u32_le();
        if found != schema {
            return Err(RecordError::Schema { found, expected: schema });
        }
        let tag_count = rest.get_u32_le();
        let (created_ms, cost) = (rest.get_u64_le(), Duration::from_micros(rest.get_u64_le()));
        let tags = (0..tag_count).map(|_| tag(&mut rest)).collect::<Option<_>>();
        Ok(Self { schema, created_ms, cost, tags: tags.ok_or(RecordError::Corrupt)?, payload: rest })
    }
}

/// Splits stored bytes into body and trailer, after checking the magic and the kind of trailer.
fn split(stored: &[u8], trailer: u8, end_bytes: usize) -> Result<(&[u8], &[u8]), RecordError> {
    if stored.len() < HEADER_BYTES || stored[..4] != MAGIC {
        return Err(RecordError::Corrupt);
    }
    match stored[5] {
        end if end == trailer => {}
        end @ (CHECKED | SEALED) => return Err(RecordError::Untrusted { sealed: end == SEALED }),
        _ => return Err(RecordError::Corrupt),
    }
    let body_len = stored.len().checked_sub(end_bytes).filter(|len| *len >= HEADER_BYTES);
    Ok(stored.split_at(body_len.ok_or(RecordError::Corrupt)?))
}

fn tag(rest: &mut Bytes) -> Option<String> {
    let len = rest.try_get_u32_le().ok()? as usize;
    let text = (len <= rest.len()).then(|| rest.split_to(len))?;
    String::from_utf8(text.to_vec()).ok()
}

fn checksum(key: &Key, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    // The key comes last. Hashed first, it would prevent BLAKE3 from processing the body in large
    // blocks.
    let hash = blake3::Hasher::new().update(body).update(key.as_bytes()).finalize();
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn seal(key: &Key, body: &[u8], secret: &Secret) -> blake3::Hash {
    blake3::Hasher::new_keyed(&secret.0).update(body).update(key.as_bytes()).finalize()
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("tags are short and few")
}
