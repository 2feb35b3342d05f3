//! Names of blobs: their SHA-256 and their size.

use std::fmt;

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use sha2::{Digest as _, Sha256};

/// Name of a blob in content-addressed storage: the SHA-256 of its bytes, and their number.
/// Displayed as `HASH/SIZE`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// SHA-256 (FIPS 180-4) of the bytes.
    pub hash: [u8; 32],
    /// Number of bytes.
    pub bytes: u64,
}

impl Digest {
    /// Returns the digest of a blob.
    #[must_use]
    pub fn of(blob: &[u8]) -> Self {
        Self { hash: Sha256::digest(blob).into(), bytes: blob.len() as u64 }
    }

    /// Returns whether a blob has this digest.
    #[must_use]
    pub fn matches(&self, blob: &[u8]) -> bool {
        self.bytes == blob.len() as u64 && *self == Self::of(blob)
    }

    /// Reads the digest of a message. `None` if it is no SHA-256, or has a size below zero.
    pub(crate) fn of_message(message: &proto::Digest) -> Option<Self> {
        let mut hash = [0; 32];
        if message.hash.len() != 2 * hash.len() || !message.hash.is_ascii() {
            return None;
        }
        for (index, byte) in hash.iter_mut().enumerate() {
            let digits = &message.hash[2 * index..2 * index + 2];
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self { hash, bytes: u64::try_from(message.size_bytes).ok()? })
    }

    /// Returns the digest as part of a message.
    pub(crate) fn message(&self) -> proto::Digest {
        let size_bytes = i64::try_from(self.bytes).unwrap_or(i64::MAX);
        proto::Digest { hash: self.hash_text(), size_bytes }
    }

    fn hash_text(&self) -> String {
        self.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hash_text(), self.bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
