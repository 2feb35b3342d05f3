//! Keys of contents and names in the cold tier.

use bytes::{BufMut, Bytes, BytesMut};

use crate::BlobId;

/// First byte of the keys in the cold tier. `sharing.rs` defines further ones.
pub(crate) const BLOB: u8 = b'b';
pub(crate) const NAME: u8 = b'n';

/// Decodes an id from a value in the cold tier, or from a key without its first byte.
pub(crate) fn id_of(value: &Bytes) -> Option<BlobId> {
    Some(BlobId::from_bytes(value.as_ref().try_into().ok()?))
}

pub(crate) fn blob_key(id: &BlobId) -> Bytes {
    key_of(BLOB, id.as_bytes())
}

pub(crate) fn name_key(name: &str) -> Bytes {
    key_of(NAME, name.as_bytes())
}

pub(crate) fn key_of(kind: u8, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + rest.len());
    key.put_u8(kind);
    key.put_slice(rest);
    key.freeze()
}
