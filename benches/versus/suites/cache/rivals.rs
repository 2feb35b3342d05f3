//! The caches behind one trait, each at its best settings.

use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroUsize;

use greenwave_cache::{Adaptive, Cache, CacheOptions, IdentityHasher, Key, KeyHasher, Policy};
use parking_lot::Mutex;

use crate::contest::{CacheUnderTest, Contestant, Value};

const CAPACITY: usize = 65_536;

struct Greenwave(Cache<Key, Value, Adaptive, IdentityHasher>);
struct Quick(quick_cache::sync::Cache<Key, Value, quick_cache::UnitWeighter, FirstBytes>);
struct Moka(moka::sync::Cache<Key, Value, FirstBytes>);
struct MiniMoka(mini_moka::sync::Cache<Key, Value, FirstBytes>);
struct Foyer(foyer_memory::Cache<Key, Value, FirstBytes>);
struct LruCrate(Mutex<lru::LruCache<Key, Value, FirstBytes>>);

/// Uses the first eight bytes of a key as its hash, since keys are hashes already.
type FirstBytes = BuildHasherDefault<FirstBytesHasher>;

#[derive(Default)]
struct FirstBytesHasher(u64);

impl Hasher for FirstBytesHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    }

    // Ignores the length prefix, which is constant.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

macro_rules! cache_under_test {
    ($type:ty, $name:literal, $get:expr, $put:expr) => {
        impl CacheUnderTest for $type {
            fn name(&self) -> &'static str {
                $name
            }

            #[inline]
            fn get(&self, key: &Key) -> Option<Value> {
                $get(&self.0, key)
            }

            #[inline]
            fn put(&self, key: Key, value: Value) {
                $put(&self.0, key, value);
            }
        }
    };
}

cache_under_test!(
    Greenwave,
    "Greenwave",
    |cache: &Cache<_, _, _, _>, key| cache.get(key),
    |cache: &Cache<_, _, _, _>, key, value| {
        cache.insert(key, value);
    }
);
cache_under_test!(
    Quick,
    "quick_cache",
    |cache: &quick_cache::sync::Cache<_, _, _, _>, key| cache.get(key),
    |cache: &quick_cache::sync::Cache<_, _, _, _>, key, value| cache.insert(key, value)
);
cache_under_test!(
    Moka,
    "moka",
    |cache: &moka::sync::Cache<_, _, _>, key| cache.get(key),
    |cache: &moka::sync::Cache<_, _, _>, key, value| cache.insert(key, value)
);
cache_under_test!(
    MiniMoka,
    "mini-moka",
    |cache: &mini_moka::sync::Cache<_, _, _>, key| cache.get(key),
    |cache: &mini_moka::sync::Cache<_, _, _>, key, value| cache.insert(key, value)
);
cache_under_test!(
    Foyer,
    "foyer",
    |cache: &foyer_memory::Cache<Key, Value, _>, key| cache.get(key).map(|entry| entry.value().clone()),
    |cache: &foyer_memory::Cache<Key, Value, _>, key, value| drop(cache.insert(key, value))
);
cache_under_test!(
    LruCrate,
    "lru",
    |cache: &Mutex<lru::LruCache<Key, Value, _>>, key| cache.lock().get(key).cloned(),
    |cache: &Mutex<lru::LruCache<Key, Value, _>>, key, value| _ = cache.lock().push(key, value)
);

/// Returns all caches, Greenwave first.
pub(crate) fn contestants() -> Vec<Box<dyn Contestant>> {
    let foyer = foyer_memory::CacheBuilder::new(CAPACITY)
        .with_shards(64)
        .with_eviction_config(foyer_memory::S3FifoConfig::default())
        .with_hash_builder(FirstBytes::default());
    let quick = quick_cache::sync::Cache::with(
        CAPACITY,
        CAPACITY as u64,
        quick_cache::UnitWeighter,
        FirstBytes::default(),
        quick_cache::sync::DefaultLifecycle::default(),
    );
    let capacity = NonZeroUsize::new(CAPACITY).expect("the capacity is not zero");
    let moka = moka::sync::Cache::builder().max_capacity(CAPACITY as u64);
    let mini_moka = mini_moka::sync::Cache::builder().max_capacity(CAPACITY as u64);
    vec![
        Box::new(Greenwave(greenwave(CAPACITY))),
        Box::new(Quick(quick)),
        Box::new(Moka(moka.build_with_hasher(FirstBytes::default()))),
        Box::new(MiniMoka(mini_moka.build_with_hasher(FirstBytes::default()))),
        Box::new(Foyer(foyer.build())),
        Box::new(LruCrate(Mutex::new(lru::LruCache::with_hasher(capacity, FirstBytes::default())))),
    ]
}

/// Returns a cache of Greenwave's with a number of entries.
pub(crate) fn greenwave<P: Policy, S: KeyHasher<Key> + Default, V>(
    entries_max: usize,
) -> Cache<Key, V, P, S> {
    Cache::with(CacheOptions { entries_max, ..CacheOptions::default() }).expect("the options are valid")
}
