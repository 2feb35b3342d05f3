//! Hashers that distribute keys over shards and tables.

use std::hash::{BuildHasher, Hash, RandomState};

use crate::Key;

/// Maps a key to 64 evenly distributed bits. Implemented for every `BuildHasher` and for
/// [`IdentityHasher`].
pub trait KeyHasher<K: ?Sized>: Send + Sync + 'static {
    /// Returns the bits of `key`. Equal keys must have equal bits, also in their borrowed forms.
    fn hash_key(&self, key: &K) -> u64;
}

impl<K: Hash + ?Sized, S: BuildHasher + Send + Sync + 'static> KeyHasher<K> for S {
    fn hash_key(&self, key: &K) -> u64 {
        self.hash_one(key)
    }
}

/// The standard library's randomly seeded hasher, which protects against attackers that choose
/// colliding keys.
pub type SeededHasher = RandomState;

/// Uses the first eight bytes of a [`Key`], which is already a hash.
///
/// It supports no other type of key, and therefore is not a `BuildHasher`:
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
