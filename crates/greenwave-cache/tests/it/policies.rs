//! Tests of the eviction policies, and their conformance.

use greenwave_cache::{Adaptive, Cache, CacheOptions, Candidate, Lru, Policy, S3Fifo, SeededHasher};

use crate::small;

#[test]
fn lru_evicts_the_least_recently_used_entry() {
    let cache = small(3);
    for key in 1..=3 {
        cache.insert(key, ());
    }
    cache.get(&1);
    cache.insert(4, ());
    cache.get(&3);
    cache.insert(5, ());
    let mut keys = cache.keys();
    keys.sort_unstable();
    assert_eq!(keys, [3, 4, 5]);
}

/// Creates a policy for a single shard.
fn single_shard<P: Policy>(capacity: usize) -> P {
    P::shards(&[capacity]).pop().unwrap()
}

fn hashed(hash: u64) -> Candidate {
    Candidate { hash, ..Candidate::default() }
}

#[test]
fn popular_entries_survive_a_scan() {
    fn survivors<P: Policy>() -> usize {
        let options = CacheOptions { entries_max: 100, ..CacheOptions::default() };
        let cache: Cache<u64, (), P, SeededHasher> = Cache::with(options).unwrap();
        for key in 0..50 {
            cache.insert(key, ());
        }
        for _ in 0..3 {
            (0..50).for_each(|key| _ = cache.get(&key));
        }
        (1000..2000).for_each(|key| cache.insert(key, ()));
        (0..50).filter(|key| cache.contains(key)).count()
    }
    assert_eq!(survivors::<Lru>(), 0);
    assert_eq!(survivors::<S3Fifo>(), 50);
    assert!(survivors::<Adaptive>() > 45);
}

#[test]
fn adaptive_suits_both_loops_and_drifting_working_sets() {
    fn hits<P: Policy>(keys: impl Iterator<Item = u64>) -> usize {
        let options = CacheOptions { entries_max: 1000, shards: Some(1), ..CacheOptions::default() };
        let cache: Cache<u64, (), P, SeededHasher> = Cache::with(options).unwrap();
        keys.filter(|key| {
            cache.get(key).is_some() || {
                cache.insert(*key, ());
                false
            }
        })
        .count()
    }
    // In a loop a quarter larger than the cache, LRU has always just evicted the next key.
    let looping = || (0..20_000).map(|step| step % 1250);
    assert_eq!(hits::<Lru>(looping()), 0);
    assert!(hits::<Adaptive>(looping()) > 12_000, "{}", hits::<Adaptive>(looping()));
    // In a drifting working set most accesses are to new keys, and frequency is useless.
    let drifting = || (0..40_000_u64).flat_map(|step| [step, step.saturating_sub(step * 7919 % 900)]);
    let (adaptive, lru) = (hits::<Adaptive>(drifting()), hits::<Lru>(drifting()));
    assert!(adaptive * 100 > lru * 95, "{adaptive} of {lru}");
}

#[test]
fn s3_fifo_admits_returning_keys_to_the_main_queue() {
    let mut policy: S3Fifo = single_shard(10);
    (0..10).for_each(|slot| policy.insert(slot, hashed(u64::from(slot))));
    let victim = policy.victim().unwrap();
    policy.insert(victim, hashed(u64::from(victim)));
    // The returning key is in the main queue, so all others, still in the small queue, are evicted
    // first.
    let order: Vec<u32> = std::iter::from_fn(|| policy.victim()).collect();
    assert_eq!(order.len(), 10);
    assert!(order.iter().position(|slot| *slot == victim) >= Some(8), "{order:?}");
}

mod keep_the_contract {
    macro_rules! each {
        ($($name:ident: $policy:ident),*) => {
            $(mod $name {
                greenwave_cache::policy_conformance!(greenwave_cache::$policy);
            })*
        };
    }

    each!(adaptive: Adaptive, s3fifo: S3Fifo, lru: Lru);
}
