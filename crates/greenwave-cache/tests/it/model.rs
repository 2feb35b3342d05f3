//! Property tests against a list in order of use.

use greenwave_cache::{Adaptive, Cache, CacheOptions, EntryOptions, Policy, S3Fifo, SeededHasher};
use proptest::prelude::*;

use crate::small;

const ENTRIES_MAX: usize = 6;

#[derive(Debug, Clone)]
enum Op {
    Get(u64),
    Insert(u64, u64, Vec<u8>),
    Remove(u64),
    Tag(u8),
    All,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..12_u64).prop_map(Op::Get),
        6 => (0..12_u64, any::<u64>(), proptest::collection::vec(0..3_u8, 0..3)).prop_map(|(k, v, t)| Op::Insert(k, v, t)),
        2 => (0..12_u64).prop_map(Op::Remove),
        1 => (0..3_u8).prop_map(Op::Tag),
        1 => Just(Op::All),
    ]
}

/// Entries, the least recently used first.
#[derive(Default)]
struct Model(Vec<(u64, u64, Vec<u8>)>);

impl Model {
    fn take(&mut self, key: u64) -> Option<(u64, u64, Vec<u8>)> {
        let at = self.0.iter().position(|entry| entry.0 == key)?;
        Some(self.0.remove(at))
    }

    fn get(&mut self, key: u64) -> Option<u64> {
        let entry = self.take(key)?;
        let value = entry.1;
        self.0.push(entry);
        Some(value)
    }

    fn insert(&mut self, key: u64, value: u64, tags: Vec<u8>) {
        self.take(key);
        if self.0.len() == ENTRIES_MAX {
            self.0.remove(0);
        }
        self.0.push((key, value, tags));
    }
}

proptest! {
    #[test]
    fn lru_matches_the_model(ops in proptest::collection::vec(op(), 0..200)) {
        let cache = small(ENTRIES_MAX);
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Get(key) => prop_assert_eq!(cache.get(&key), model.get(key)),
                Op::Insert(key, value, tags) => {
                    let names: Vec<String> = tags.iter().map(u8::to_string).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    cache.insert_with(key, value, &EntryOptions { tags: &names, ..EntryOptions::default() });
                    model.insert(key, value, tags);
                }
                Op::Remove(key) => prop_assert_eq!(cache.remove(&key), model.take(key).map(|entry| entry.1)),
                Op::Tag(tag) => {
                    let before = model.0.len();
                    model.0.retain(|entry| !entry.2.contains(&tag));
                    prop_assert_eq!(cache.invalidate_tag(&tag.to_string()), before - model.0.len());
                }
                Op::All => prop_assert_eq!(cache.invalidate_all(), std::mem::take(&mut model.0).len()),
            }
            prop_assert_eq!(cache.len(), model.0.len());
        }
    }

    #[test]
    fn every_policy_returns_correct_values(ops in proptest::collection::vec(op(), 0..200)) {
        check_values::<Adaptive>(&ops)?;
        check_values::<S3Fifo>(&ops)?;
    }
}

fn check_values<P: Policy>(ops: &[Op]) -> Result<(), TestCaseError> {
    let options = CacheOptions { entries_max: ENTRIES_MAX, ..CacheOptions::default() };
    let cache: Cache<u64, u64, P, SeededHasher> = Cache::with(options).unwrap();
    let mut newest = std::collections::HashMap::new();
    for op in ops {
        match op {
            Op::Get(key) => prop_assert!(cache.get(key).is_none_or(|value| newest.get(key) == Some(&value))),
            Op::Insert(key, value, tags) => {
                let names: Vec<String> = tags.iter().map(u8::to_string).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                cache.insert_with(*key, *value, &EntryOptions { tags: &names, ..EntryOptions::default() });
                newest.insert(*key, *value);
                prop_assert_eq!(cache.get(key), Some(*value));
            }
            Op::Remove(key) => {
                cache.remove(key);
                newest.remove(key);
            }
            Op::Tag(tag) => _ = cache.invalidate_tag(&tag.to_string()),
            Op::All => {
                cache.invalidate_all();
                newest.clear();
            }
        }
        prop_assert!(cache.len() <= ENTRIES_MAX);
        prop_assert_eq!(cache.iter().count(), cache.len());
    }
    Ok(())
}
