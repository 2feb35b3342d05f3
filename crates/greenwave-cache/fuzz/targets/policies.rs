//! Runs arbitrary calls on small caches with each policy: limits hold, values are right, and
//! nothing panics.
#![no_main]

use std::collections::HashMap;

use greenwave_cache::{
    Adaptive, Cache, CacheOptions, EntryOptions, Lru, Policy, S3Fifo, SeededHasher,
};
use libfuzzer_sys::fuzz_target;

const WEIGHT_MAX: u64 = 40;

fuzz_target!(|input: &[u8]| {
    run::<Adaptive>(input);
    run::<S3Fifo>(input);
    run::<Lru>(input);
});

fn run<P: Policy>(input: &[u8]) {
    let options = CacheOptions {
        entries_max: 8,
        weight_max: Some(WEIGHT_MAX),
        weigher: Some(std::sync::Arc::new(|_: &u8, value: &u8| u64::from(*value % 50))),
        shards: Some(1),
        ..CacheOptions::default()
    };
    let cache: Cache<u8, u8, P, SeededHasher> = Cache::with(options).expect("the options are valid");
    let mut newest: HashMap<u8, u8> = HashMap::new();
    for step in input.chunks_exact(3) {
        let (key, value) = (step[1] % 24, step[2]);
        match step[0] % 8 {
            0..=2 => assert!(cache.get(&key).is_none_or(|found| newest.get(&key) == Some(&found))),
            3..=5 => {
                let tag = [["a", "b", "c"][usize::from(value % 3)]];
                let cost = std::time::Duration::from_micros(u64::from(step[0]));
                let options = EntryOptions {
                    tags: &tag,
                    cost: Some(cost),
                    heat: value % 16,
                    ..EntryOptions::default()
                };
                cache.insert_with(key, value, &options);
                newest.insert(key, value);
            }
            6 => _ = cache.remove(&key),
            _ => _ = cache.invalidate_tag(["a", "b", "c"][usize::from(value % 3)]),
        }
        let stats = cache.stats();
        assert!(stats.entries <= 8 && stats.weight <= WEIGHT_MAX);
        let weighed: u64 = cache.iter().map(|(_, value)| u64::from(value % 50)).sum();
        assert_eq!((weighed, cache.hottest(100).len() as u64), (stats.weight, stats.entries));
    }
}
