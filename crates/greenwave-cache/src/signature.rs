//! Ed25519 keys that sign records.

#[cfg_attr(not(feature = "signatures"), path = "signature/disabled.rs")]
mod ed25519;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of a signature after the public key.
pub(crate) const SIGNATURE_BYTES: usize = 64;
/// Bytes before the signed hash, so that a signature for another purpose does not verify.
const CONTEXT: &[u8] = b"greenwave cache 2026-12 record signature";
/// Start of the text of a public key. A private key has none, so neither is taken for the other.
const PREFIX: &str = "ed25519:";

/// Public Ed25519 key (RFC 8032) of somebody who signs records. Displayed as `ed25519:` and 64
/// hexadecimal digits.
///
/// Without the feature `signatures`, no signature verifies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Creates a key from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn verify(&self, hash: &[u8; 32], signature: &[u8]) -> bool {
        ed25519::verify(&self.0, &message(hash), signature)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Error for a text that is no public key. Omits the text, which may be a private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid public key: expected `ed25519:` and 64 hexadecimal digits")]
pub struct ParsePublicKeyError(());

impl FromStr for PublicKey {
    type Err = ParsePublicKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(PREFIX).ok_or(ParsePublicKeyError(()))?;
        let bytes = blake3::Hash::from_hex(digits).map_err(|_| ParsePublicKeyError(()))?;
        Ok(Self(*bytes.as_bytes()))
    }
}

/// Private Ed25519 key that signs records. Omitted from `Debug` output.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<ed25519::Pair>,
    public: PublicKey,
}

impl SigningKey {
    /// Creates a key from 32 random bytes.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`](crate::Error::InvalidOption) if the library of cryptography
    /// refuses the bytes.
    #[cfg(feature = "signatures")]
    pub fn new(seed: &[u8; 32]) -> Result<Self, crate::Error> {
        let (pair, public) = ed25519::pair(seed).ok_or(crate::Error::InvalidOption {
            option: "signing key",
            value: "(hidden)".to_owned(),
            expected: "32 random bytes",
        })?;
        Ok(Self { pair: Arc::new(pair), public: PublicKey(public) })
    }

    /// Returns the public key, which others trust.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn sign(&self, hash: &[u8; 32]) -> [u8; SIGNATURE_BYTES] {
        ed25519::sign(&self.pair, &message(hash))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public).finish()
    }
}

fn message(hash: &[u8; 32]) -> Vec<u8> {
    [CONTEXT, hash].concat()
}
