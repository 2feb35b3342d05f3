//! How a cache spreads its keys over shards and tables.

use std::hash::{BuildHasher, Hash, RandomState};

use crate::Key;

/// Turns a key into 64 evenly spread bits. Implemented for every `BuildHasher`, and for [`Identity`].
pub trait Hashing<K>: Send + Sync + 'static {
    /// The bits: equal for equal keys.
    fn bits(&self, key: &K) -> u64;
}

impl<K: Hash, S: BuildHasher + Send + Sync + 'static> Hashing<K> for S {
    fn bits(&self, key: &K) -> u64 {
        self.hash_one(key)
    }
}

/// The standard library's seeded hash: nobody outside can choose keys that collide.
pub type Seeded = RandomState;

/// Takes the first eight bytes of a [`Key`] as they are: these have been hashed already. For no other type of key, which is why this is
/// no `BuildHasher`:
///
/// ```compile_fail
/// use greenwave_cache::{Cache, Identity, Lru, Options};
/// let cache: Cache<u64, (), Lru, Identity> = Cache::with(Options::default()).unwrap();
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

impl Hashing<Key> for Identity {
    fn bits(&self, key: &Key) -> u64 {
        u64::from_le_bytes(*key.as_bytes().first_chunk().expect("a key has 32 bytes"))
    }
}
