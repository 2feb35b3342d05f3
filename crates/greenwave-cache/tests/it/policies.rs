//! Policies: exact order for LRU, resistance to scans for S3-FIFO, and the contract for both.

use std::collections::HashSet;

use greenwave_cache::{Cache, Lru, Options, Policy, S3Fifo, Seeded};
use proptest::prelude::*;

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

#[test]
fn s3_fifo_keeps_what_is_popular_through_a_scan() {
    fn survivors<P: Policy>() -> usize {
        let options = Options { entries_max: 100, ..Options::default() };
        let cache: Cache<u64, (), P, Seeded> = Cache::with(options).unwrap();
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
}

#[test]
fn s3_fifo_welcomes_back_what_it_let_go_too_early() {
    let mut policy = S3Fifo::new(10);
    (0..10).for_each(|slot| policy.insert(slot, u64::from(slot)));
    let victim = policy.victim().unwrap();
    policy.insert(victim, u64::from(victim));
    // Everything else goes first: it never left the small queue, while this one is in the main queue now.
    let order: Vec<u32> = std::iter::from_fn(|| policy.victim()).collect();
    assert_eq!(order.len(), 10);
    assert!(order.iter().position(|slot| *slot == victim) >= Some(8), "{order:?}");
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u32, u64),
    Hit(u32),
    Remove(u32),
    Victim,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..20_u32, 0..40_u64).prop_map(|(slot, hash)| Op::Insert(slot, hash)),
        4 => (0..20_u32).prop_map(Op::Hit),
        1 => (0..20_u32).prop_map(Op::Remove),
        3 => Just(Op::Victim),
    ]
}

fn keeps_the_contract<P: Policy>(ops: &[Op]) {
    let mut policy = P::new(20);
    let mut held = HashSet::new();
    for op in ops {
        match *op {
            Op::Insert(slot, hash) if held.insert(slot) => policy.insert(slot, hash),
            Op::Hit(slot) if held.contains(&slot) => policy.hit(slot),
            Op::Remove(slot) if held.remove(&slot) => policy.remove(slot),
            Op::Victim => match policy.victim() {
                Some(victim) => assert!(held.remove(&victim), "slot {victim} is not held"),
                None => assert!(held.is_empty()),
            },
            _ => {}
        }
    }
    let rest: HashSet<u32> = std::iter::from_fn(|| policy.victim()).collect();
    assert_eq!(rest, held);
}

proptest! {
    #[test]
    fn victims_are_held_and_all_come_up(ops in proptest::collection::vec(op(), 0..200)) {
        keeps_the_contract::<Lru>(&ops);
        keeps_the_contract::<S3Fifo>(&ops);
    }
}
