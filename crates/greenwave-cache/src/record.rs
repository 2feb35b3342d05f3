//! The stored form of a result: its payload with a header, a checksum or a seal, and a signature.
//!
//! Integers are little-endian:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `F5 47 57 43` |
//! | 4 | 1 | record version, 1 |
//! | 5 | 1 | trailer: 0 checksum, 1 seal, 2 hash and signature, 3 seal and signature |
//! | 6 | 2 | zero |
//! | 8 | 4 | schema of the payload |
//! | 12 | 4 | number of tags |
//! | 16 | 8 | created, milliseconds since the Unix epoch |
//! | 24 | 8 | cost, microseconds |
//! | 32 | | each tag: its length in 4 bytes, and its UTF-8 text |
//! | | | payload, up to the trailer, which has 16, 32 or 128 bytes |
//! | end - 16 | 16 | checksum: the first bytes of BLAKE3 over all preceding bytes and the key |
//! | or end - 32 | 32 | seal: BLAKE3, keyed with the secret, over the same bytes |
//! | or end - 128 | 32 | hash: all of BLAKE3 over the same bytes, or the seal |
//! | end - 96 | 32 | public key of the signer |
//! | end - 64 | 64 | Ed25519 signature of the preceding hash or seal |
//!
//! All of them cover the key, so a record that ends up under another key does not verify. The
//! BLAKE3 key of the seal is derived from the secret (`derive_key`) with the context `greenwave
//! cache 2026-11 record seal`. What is signed is `greenwave cache 2026-12 record signature` and the
//! 32 bytes of the hash or the seal.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Key;
use crate::signature::{PublicKey, SIGNATURE_BYTES, SigningKey};

const MAGIC: [u8; 4] = [0xF5, b'G', b'W', b'C'];
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 16;
const SEAL_BYTES: usize = blake3::OUT_LEN;
const PUBLIC_KEY_BYTES: usize = 32;
const TRAILER_BYTES_MAX: usize = SEAL_BYTES + PUBLIC_KEY_BYTES + SIGNATURE_BYTES;
/// Bits of the trailer field.
const SEALED: u8 = 1;
const SIGNED: u8 = 2;

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
    /// The record is not signed although the reader requires a signature.
    #[error("cannot trust record: it is not signed")]
    Unsigned,
    /// The reader does not trust the signer of the record.
    #[error("cannot trust record: {0} is not trusted")]
    UntrustedSigner(PublicKey),
    /// The signature does not verify.
    #[error("cannot trust record: its signature is wrong")]
    WrongSignature,
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
        self.encode_with(key, None, None)
    }

    /// Encodes the record for storage under `key`, with a seal. Without the secret nobody can
    /// create a sealed record or move one to another key.
    pub fn seal(&self, key: &Key, secret: &Secret) -> Bytes {
        self.encode_with(key, Some(secret), None)
    }

    /// Encodes the record for storage under `key`, with a seal if there is a secret, and with a
    /// signature if there is a signing key. The signature covers the key and the seal: nobody else
    /// can create such a record, or move one to another key.
    pub fn encode_with(&self, key: &Key, secret: Option<&Secret>, signing: Option<&SigningKey>) -> Bytes {
        let sealed = if secret.is_some() { SEALED } else { 0 };
        let signed = if signing.is_some() { SIGNED } else { 0 };
        let mut out = self.body(sealed | signed);
        let hash = match secret {
            Some(secret) => seal(key, &out, secret),
            None => hash(key, &out),
        };
        let hash_bytes = hash_bytes(sealed | signed);
        out.put_slice(&hash.as_bytes()[..hash_bytes]);
        if let Some(signing) = signing {
            out.put_slice(signing.public().as_bytes());
            out.put_slice(&signing.sign(hash.as_bytes()));
        }
        out.freeze()
    }

    /// Decodes a record for `key` that is not sealed. A signature is not verified.
    ///
    /// # Errors
    ///
    /// Returns a [`RecordError`] if the record does not verify or has another schema.
    pub fn decode(key: &Key, stored: &Bytes, schema: u32) -> Result<Self, RecordError> {
        Self::decode_with(key, stored, schema, &[], &[])
    }

    /// Decodes a record for `key` that is sealed with this secret. A signature is not verified.
    ///
    /// # Errors
    ///
    /// Returns a [`RecordError`] if the record does not verify or has another schema.
    pub fn unseal(key: &Key, stored: &Bytes, schema: u32, secret: &Secret) -> Result<Self, RecordError> {
        Self::decode_with(key, stored, schema, std::slice::from_ref(secret), &[])
    }

    /// Decodes a record for `key`. With `trusted` keys, one of them must have signed it; without,
    /// signatures are not verified. With `secrets`, it must be sealed with one of them; without, it
    /// must not be sealed.
    ///
    /// # Errors
    ///
    /// Returns a [`RecordError`] if the record does not verify or has another schema.
    pub fn decode_with(
        key: &Key,
        stored: &Bytes,
        schema: u32,
        secrets: &[Secret],
        trusted: &[PublicKey],
    ) -> Result<Self, RecordError> {
        let parts = Parts::of(stored)?;
        if !trusted.is_empty() {
            parts.check_signature(trusted)?;
        }
        parts.check_hash(key, secrets)?;
        Self::read(&stored.slice_ref(parts.body), schema)
    }

    fn body(&self, end: u8) -> BytesMut {
        let tags: usize = self.tags.iter().map(|tag| 4 + tag.len()).sum();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + tags + self.payload.len() + TRAILER_BYTES_MAX);
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

/// Returns the size of the hash or seal of a trailer. A checksum need not resist forgery; what is
/// signed must.
fn hash_bytes(trailer: u8) -> usize {
    if trailer == 0 { CHECKSUM_BYTES } else { SEAL_BYTES }
}

/// Body and trailer of stored bytes.
struct Parts<'s> {
    body: &'s [u8],
    /// Checksum, hash or seal.
    hash: &'s [u8],
    is_sealed: bool,
    signature: Option<(PublicKey, &'s [u8])>,
}

impl<'s> Parts<'s> {
    /// Splits stored bytes, after checking the magic and the kind of trailer.
    fn of(stored: &'s [u8]) -> Result<Self, RecordError> {
        if stored.len() < HEADER_BYTES || stored[..4] != MAGIC || stored[5] > (SEALED | SIGNED) {
            return Err(RecordError::Corrupt);
        }
        let trailer = stored[5];
        let split_end = |bytes: &'s [u8], end: usize| {
            let body = bytes.len().checked_sub(end).filter(|len| *len >= HEADER_BYTES);
            body.map(|len| bytes.split_at(len)).ok_or(RecordError::Corrupt)
        };
        let (rest, signature) = if trailer & SIGNED == 0 {
            (stored, None)
        } else {
            let (rest, end) = split_end(stored, PUBLIC_KEY_BYTES + SIGNATURE_BYTES)?;
            let (public, signature) = end.split_first_chunk().ok_or(RecordError::Corrupt)?;
            (rest, Some((PublicKey::from_bytes(*public), signature)))
        };
        let (body, hash) = split_end(rest, hash_bytes(trailer))?;
        Ok(Self { body, hash, is_sealed: trailer & SEALED != 0, signature })
    }

    /// Checks that a trusted key has signed the hash, which [`check_hash`](Self::check_hash) then
    /// compares with the body.
    fn check_signature(&self, trusted: &[PublicKey]) -> Result<(), RecordError> {
        let (public, signature) = self.signature.ok_or(RecordError::Unsigned)?;
        if !trusted.contains(&public) {
            return Err(RecordError::UntrustedSigner(public));
        }
        let hash = self.hash.try_into().map_err(|_| RecordError::Corrupt)?;
        if public.verify(hash, signature) { Ok(()) } else { Err(RecordError::WrongSignature) }
    }

    fn check_hash(&self, key: &Key, secrets: &[Secret]) -> Result<(), RecordError> {
        if self.is_sealed == secrets.is_empty() {
            return Err(RecordError::Untrusted { sealed: self.is_sealed });
        }
        let is_valid = if self.is_sealed {
            // `blake3::Hash` compares in constant time, so the comparison does not reveal how much
            // of a forged seal is right.
            secrets.iter().any(|secret| seal(key, self.body, secret) == *self.hash)
        } else {
            hash(key, self.body).as_bytes()[..self.hash.len()] == *self.hash
        };
        if is_valid { Ok(()) } else { Err(RecordError::Corrupt) }
    }
}

fn tag(rest: &mut Bytes) -> Option<String> {
    let len = rest.try_get_u32_le().ok()? as usize;
    let text = (len <= rest.len()).then(|| rest.split_to(len))?;
    String::from_utf8(text.to_vec()).ok()
}

fn hash(key: &Key, body: &[u8]) -> blake3::Hash {
    // The key comes last. Hashed first, it would prevent BLAKE3 from processing the body in large
    // blocks.
    blake3::Hasher::new().update(body).update(key.as_bytes()).finalize()
}

fn seal(key: &Key, body: &[u8], secret: &Secret) -> blake3::Hash {
    blake3::Hasher::new_keyed(&secret.0).update(body).update(key.as_bytes()).finalize()
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("tags are short and few")
}
