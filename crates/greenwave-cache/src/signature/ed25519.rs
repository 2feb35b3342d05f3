//! Ed25519 of ring.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::SIGNATURE_BYTES;

pub(super) type Pair = Ed25519KeyPair;

/// Returns the pair of keys of a seed, and its public key.
pub(super) fn pair(seed: &[u8; 32]) -> Option<(Pair, [u8; 32])> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    let public = pair.public_key().as_ref().try_into().ok()?;
    Some((pair, public))
}

pub(super) fn sign(pair: &Pair, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
    pair.sign(message).as_ref().try_into().expect("a signature of Ed25519 has 64 bytes")
}

pub(super) fn verify(public: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}
