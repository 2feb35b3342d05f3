//! Policies: exact order for LRU, resistance to scans, what cost and change do, and the contract for all.

use greenwave_cache::{
    Adaptive, Cache, CacheOptions, Candidate, CostAware, EntryOptions, Lru, Policy, S3Fifo, SeededHasher,
};

use crate::small;

#[test]
fn lru_evicts_what_was_not_read_for_longest() {
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

/// A policy for one shard.
fn alone<P: Policy>(capacity: usize) -> P {
    P::shards(&[capacity]).pop().unwrap()
}

fn hashed(hash: u64) -> Candidate {
    Candidate { hash, ..Candidate::default() }
}

#[test]
fn what_is_popular_stays_through_a_scan() {
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
fn adaptive_holds_on_to_a_loop_and_follows_a_drift() {
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
    // Of a loop a quarter larger than the cache, LRU has always just lost what comes next.
    let in_circles = || (0..20_000).map(|step| step % 1250);
    assert_eq!(hits::<Lru>(in_circles()), 0);
    assert!(hits::<Adaptive>(in_circles()) > 12_000, "{}", hits::<Adaptive>(in_circles()));
    // What moves on for ever is new all the time: frequency is of no use.
    let onward = || (0..40_000_u64).flat_map(|step| [step, step.saturating_sub(step * 7919 % 900)]);
    let (adaptive, lru) = (hits::<Adaptive>(onward()), hits::<Lru>(onward()));
    assert!(adaptive * 100 > lru * 95, "{adaptive} of {lru}");
}

#[test]
fn cost_aware_keeps_what_saves_most() {
    let options = CacheOptions { entries_max: 10, shards: Some(1), ..CacheOptions::default() };
    let cache: Cache<u64, (), CostAware, SeededHasher> = Cache::with(options).unwrap();
    let cost = |key: u64| std::time::Duration::from_millis(if key < 5 { 60_000 } else { 10 });
    for key in 0..100 {
        cache.insert_with(key, (), &EntryOptions { cost: Some(cost(key)), ..EntryOptions::default() });
    }
    assert!((0..5).all(|key| cache.get(&key).is_some()), "what took a minute is still there");
    assert_eq!(cache.stats().saved, std::time::Duration::from_secs(5 * 60));
    for key in 100..100_000 {
        cache.insert_with(key, (), &EntryOptions { cost: Some(cost(key)), ..EntryOptions::default() });
    }
    assert!(!(0..5).any(|key| cache.contains(&key)), "but not for ever, unread");
}

#[test]
fn cost_aware_goes_by_weight_as_well() {
    let options = CacheOptions {
        weight_max: Some(1000),
        weigher: Some(std::sync::Arc::new(|_: &u64, weight: &u64| *weight)),
        shards: Some(1),
        ..CacheOptions::default()
    };
    let cache: Cache<u64, u64, CostAware, SeededHasher> = Cache::with(options).unwrap();
    let second = EntryOptions { cost: Some(std::time::Duration::from_secs(1)), ..EntryOptions::default() };
    cache.insert_with(1, 500, &second);
    (2..100).for_each(|key| cache.insert_with(key, 10, &second));
    assert!(!cache.contains(&1), "fifty others save as much each in the same room");
    assert!(cache.len() > 90);
}

#[test]
fn s3_fifo_welcomes_back_what_it_let_go_too_early() {
    let mut policy: S3Fifo = alone(10);
    (0..10).for_each(|slot| policy.insert(slot, hashed(u64::from(slot))));
    let victim = policy.victim().unwrap();
    policy.insert(victim, hashed(u64::from(victim)));
    // Everything else goes first: it never left the small queue, while this one is in the main queue now.
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

    each!(adaptive: Adaptive, cost_aware: CostAware, s3fifo: S3Fifo, lru: Lru);
}
