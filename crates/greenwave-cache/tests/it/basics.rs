//! Tests of lookups, insertions, removals, tags, limits and listeners.

use std::sync::{Arc, Mutex};

use greenwave_cache::{
    Cache, CacheOptions, EntryOptions, Error, IdentityHasher, Key, KeyBuilder, Lru, RemovalCause,
};

use crate::small;

#[test]
fn inserted_values_are_found_until_removed() {
    let cache = small(10);
    assert_eq!(cache.get(&1), None);
    cache.insert(1, "one");
    cache.insert(2, "two");
    cache.insert(1, "uno");
    assert_eq!((cache.get(&1), cache.get(&2), cache.len()), (Some("uno"), Some("two"), 2));
    assert_eq!(cache.get_with(&2, |value| value.len()), Some(3));
    assert_eq!(cache.remove(&1), Some("uno"));
    assert_eq!((cache.remove(&1), cache.get(&1)), (None, None));
    assert!(cache.contains(&2) && !cache.contains(&1) && !cache.is_empty());
    assert_eq!(cache.keys(), [2]);
    assert_eq!(cache.invalidate_all(), 1);
    assert!(cache.is_empty());
}

#[test]
fn stats_count_every_operation() {
    let cache = small(2);
    for key in 0..5 {
        cache.insert(key, ());
    }
    cache.get(&4);
    cache.get(&0);
    cache.remove(&4);
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.insertions, stats.evictions, stats.removals), (1, 5, 3, 1));
    assert_eq!((stats.hits, stats.misses, stats.hit_rate()), (1, 1, 0.5));
    assert_eq!(small::<()>(1).stats().hit_rate(), 0.0);
}

#[test]
fn the_entry_limit_holds_for_any_number_of_shards() {
    for (entries_max, shards) in
        [(0, None), (1, None), (50, None), (50, Some(8)), (7, Some(16)), (3000, None)]
    {
        let cache = Cache::new(CacheOptions { entries_max, shards, ..CacheOptions::default() }).unwrap();
        for key in 0..10_000_u64 {
            cache.insert(key, key);
            assert!(cache.len() <= entries_max);
        }
        if shards.is_none() {
            assert!(cache.len() >= entries_max / 10 * 9, "{} of {entries_max}", cache.len());
        }
    }
}

#[test]
fn the_weight_limit_holds() {
    let options = CacheOptions {
        weight_max: Some(100),
        weigher: Some(Arc::new(|_: &u64, value: &Vec<u8>| value.len() as u64)),
        ..CacheOptions::default()
    };
    let cache = Cache::new(options).unwrap();
    for key in 0..50 {
        cache.insert(key, vec![0; key as usize]);
        assert!(cache.stats().weight <= 100);
    }
    assert_eq!(cache.get(&49).map(|value| value.len()), Some(49));
    cache.insert(1000, vec![0; 101]);
    assert_eq!(cache.get(&1000), None);
    assert_eq!(cache.get(&49).map(|value| value.len()), Some(49), "an entry that never fits evicts nothing");
}

#[test]
fn invalidating_a_tag_removes_its_entries() {
    let cache = small(100);
    for key in 0..20 {
        let file = format!("file {}", key % 4);
        let tags = [file.as_str(), "all", "all"];
        cache.insert_with(key, key, &EntryOptions { tags: &tags, ..EntryOptions::default() });
    }
    cache.insert(100, 100);
    assert_eq!(cache.invalidate_tag("file 1"), 5);
    assert_eq!((cache.get(&1), cache.get(&2)), (None, Some(2)));
    cache.insert(2, 2); // the new value has no tags
    assert_eq!(cache.invalidate_tag("all"), 14);
    assert_eq!(cache.invalidate_tag("all"), 0);
    assert_eq!(cache.len(), 2);
}

#[test]
fn the_listener_is_called_for_every_removed_entry() {
    let removed = Arc::new(Mutex::new(Vec::new()));
    let listener_list = removed.clone();
    let options = CacheOptions {
        entries_max: 2,
        listener: Some(Arc::new(move |key: &u64, value: &char, cause| {
            listener_list.lock().unwrap().push((*key, *value, cause));
        })),
        ..CacheOptions::default()
    };
    let cache: Cache<u64, char, Lru> = Cache::with(options).unwrap();
    for (key, value) in [(1, 'a'), (1, 'b'), (2, 'c'), (3, 'd')] {
        cache.insert(key, value);
    }
    cache.remove(&2);
    cache.invalidate_all();
    use RemovalCause::{Evicted, Removed, Replaced};
    let expected = [(1, 'a', Replaced), (1, 'b', Evicted), (2, 'c', Removed), (3, 'd', Removed)];
    assert_eq!(*removed.lock().unwrap(), expected);
}

#[test]
fn a_listener_can_use_the_cache() {
    let (sender, receiver) = std::sync::mpsc::channel::<Arc<Cache<u64, u64>>>();
    let receiver = Mutex::new(receiver);
    let listener = move |key: &u64, _: &u64, _| {
        let cache = receiver.lock().unwrap().recv().unwrap();
        assert_eq!(cache.get(key), None);
    };
    let options =
        CacheOptions { entries_max: 1, listener: Some(Arc::new(listener)), ..CacheOptions::default() };
    let cache = Arc::new(Cache::new(options).unwrap());
    cache.insert(1, 1);
    sender.send(cache.clone()).unwrap();
    cache.insert(2, 2);
}

#[test]
fn keys_can_be_their_own_hash() {
    let cache: Cache<Key, u64, Lru, IdentityHasher> = Cache::with(CacheOptions::default()).unwrap();
    let key = |number| KeyBuilder::new("test", 1).number(number).finish();
    for number in 0..5_000 {
        cache.insert(key(number), number);
    }
    assert!((0..5_000).all(|number| cache.get(&key(number)) == Some(number)));
}

#[test]
fn invalid_options_are_rejected() {
    let rejected = |options: CacheOptions<u64, u64>| match Cache::new(options) {
        Err(Error::InvalidOption { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    assert_eq!(rejected(CacheOptions { weight_max: Some(1), ..CacheOptions::default() }), "weigher");
    assert_eq!(rejected(CacheOptions { shards: Some(0), ..CacheOptions::default() }), "shards");
    assert_eq!(rejected(CacheOptions { entries_max: usize::MAX, ..CacheOptions::default() }), "entries_max");
}

#[test]
fn threads_can_share_a_cache() {
    let cache =
        Cache::new(CacheOptions { entries_max: 2_000, shards: Some(4), ..CacheOptions::default() }).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let cache = &cache;
            scope.spawn(move || {
                for round in 0..20_000_u64 {
                    let key = (round * 7 + thread * 13) % 3_000;
                    match round % 10 {
                        0 => _ = cache.remove(&key),
                        1..=4 => cache.insert_with(
                            key,
                            key,
                            &EntryOptions { tags: &["t"], ..EntryOptions::default() },
                        ),
                        _ => assert!(cache.get(&key).is_none_or(|value| value == key)),
                    }
                    if round % 5_000 == 0 {
                        cache.invalidate_tag("t");
                    }
                }
            });
        }
    });
    assert!(cache.len() <= 2_000);
    assert_eq!(cache.stats().entries, cache.keys().len() as u64);
}
