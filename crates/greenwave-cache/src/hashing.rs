//! How a cache spreads its keys over shards and tables.

use std::hash::{BuildHasher, Hash, RandomState};

use crate::Key;

/// Turns a key into 64 evenly spread bits. Implemented for every `BuildHasher`, and for [`IdentityHasher`].
pub trait KeyHasher<K>: Send + Sync + 'static {
    /// The bits: equal for equal keys.
    fn hash_key(&self, key: &K) -> u64;
}

impl<K: Hash, S: BuildHasher + Send + Sync + 'static> KeyHasher<K> for S {
    fn hash_key(&self, key: &K) -> u64 {
        self.hash_one(key)
    }
}

/// The standard library's seeded hash: nobody outside can choose keys that collide.
pub type SeededHasher = RandomState;

/// Takes the first eight bytes of a [`Key`] as they are: these have been hashed already. For no other type of key, which is why this is
/// no `BuildHasher`:
///
/// ```compile_fail
/// use greenwave_cache::{Cache, IdentityHasher, Lru, CacheOptions};
/// let cache: Cache<u64, (), Lru, IdentityHasher> = Cache::with(CacheOptions::default()).unwrap();
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct IdentityHasher;

impl KeyHasher<Key> for IdentityHasher {
    fn hash_key(&self, key: &Key) -> u64 {
        u64::from_le_bytes(*key.as_bytes().first_chunk().expect("a key has 32 bytes"))
    }
}
