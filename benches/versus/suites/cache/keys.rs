//! Keys of the suite's entries.

use greenwave_cache::{Key, KeyBuilder};
use greenwave_versus::traces::Random;

/// Returns the key of a number.
pub(crate) fn key(number: u64) -> Key {
    KeyBuilder::new("versus", 1).number(number).finish()
}

/// Returns a uniformly distributed key, faster than by hashing.
pub(crate) fn spread(number: u64) -> Key {
    let mut bytes = [0; 32];
    let mut random = Random(number);
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.bits().to_le_bytes()));
    Key::from_bytes(bytes)
}
