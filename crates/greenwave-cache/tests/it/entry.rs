//! Tests of changes that depend on the value of a key, of borrowed keys, and of clones.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenwave_cache::{Cache, CacheOptions, Change, EntryOptions, RemovalCause, removal_channel};
use tokio::time::advance;

use crate::small;

const SECOND: Duration = Duration::from_secs(1);

type Removed = Arc<Mutex<Vec<(u64, &'static str, RemovalCause)>>>;

fn listening() -> (Cache<u64, &'static str>, Removed) {
    let removed = Removed::default();
    let log = removed.clone();
    let listener =
        move |key: &u64, value: &&'static str, cause| log.lock().unwrap().push((*key, *value, cause));
    let options = CacheOptions { listener: Some(Arc::new(listener)), ..CacheOptions::default() };
    (Cache::new(options).unwrap(), removed)
}

#[test]
fn keys_are_looked_up_in_borrowed_form() {
    let cache: Cache<String, usize> = Cache::new(CacheOptions::default()).unwrap();
    cache.insert("one".to_owned(), 1);
    assert_eq!(cache.get("one"), Some(1));
    assert_eq!(cache.get(&"one".to_owned()), Some(1));
    assert_eq!(cache.get_with("one", |value| value + 1), Some(2));
    assert_eq!(cache.get_tagged("one", &["t"]), Some(1));
    assert!(cache.contains("one") && !cache.contains("two"));
    assert_eq!(cache.remove("one"), Some(1));
    let paths: Cache<std::path::PathBuf, ()> = Cache::new(CacheOptions::default()).unwrap();
    paths.insert("/a/b".into(), ());
    assert!(paths.contains(std::path::Path::new("/a/b")));
}

#[test]
fn an_entry_is_inserted_if_absent() {
    let (cache, removed) = listening();
    assert_eq!(cache.entry(1).or_insert("one"), "one");
    assert_eq!(cache.entry(1).or_insert("uno"), "one");
    assert_eq!(cache.entry(1).or_insert_with(|| panic!("not called")), "one");
    assert_eq!(cache.entry(2).or_insert_with(|| "two"), "two");
    assert_eq!((cache.get(&1), cache.get(&2)), (Some("one"), Some("two")));
    assert!(removed.lock().unwrap().is_empty());
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.insertions), (4, 2, 2));
}

#[test]
fn an_entry_is_updated_in_one_step() {
    let (cache, removed) = listening();
    assert_eq!(cache.entry(1).and_update(|_| "never"), None);
    assert!(cache.is_empty());
    assert_eq!(cache.entry(1).upsert_with(|current| current.map_or("first", |_| "never")), "first");
    assert_eq!(
        cache.entry(1).and_update(|current| if *current == "first" { "second" } else { "never" }),
        Some("second")
    );
    assert_eq!(cache.entry(1).compute(|_| Change::Keep), Some("second"));
    assert_eq!(cache.entry(1).compute(|_| Change::Remove), None);
    assert_eq!(cache.entry(1).compute(|_| Change::Remove), None);
    assert_eq!(cache.entry(1).compute(|current| current.map_or(Change::Keep, |_| Change::Remove)), None);
    let expected = [(1, "first", RemovalCause::Replaced), (1, "second", RemovalCause::Removed)];
    assert_eq!(*removed.lock().unwrap(), expected);
    assert_eq!(cache.stats().removals, 1);
}

#[test]
fn concurrent_updates_lose_nothing() {
    let cache: Cache<u64, u64> = Cache::new(CacheOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // A clone is a handle of the same cache.
            let cache = cache.clone();
            scope.spawn(move || {
                for key in (0..1000).map(|number| number % 7) {
                    cache.entry(key).upsert_with(|count| count.unwrap_or(&0) + 1);
                }
            });
        }
    });
    assert_eq!(cache.iter().map(|(_, count)| count).sum::<u64>(), 4000);
    assert_eq!(cache.stats().insertions, 4000);
}

#[test]
fn a_function_that_changes_the_cache_panics_instead_of_waiting_for_itself() {
    let cache: Cache<u64, u64> =
        Cache::new(CacheOptions { shards: Some(1), ..CacheOptions::default() }).unwrap();
    cache.insert(1, 1);
    let nested = || cache.entry(1).upsert_with(|_| cache.entry(2).or_insert(2));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(nested)).is_err());
    let nested = || cache.invalidate_if(|_, _| cache.remove(&1).is_some());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(nested)).is_err());
    // The cache works as before.
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(1), None));
    assert_eq!(cache.entry(1).and_update(|value| value + 1), Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_expired_entry_does_not_exist() {
    let (cache, removed) = listening();
    let short = EntryOptions { ttl: Some(SECOND), ..EntryOptions::default() };
    assert_eq!(cache.entry(1).with_options(short.clone()).or_insert("old"), "old");
    advance(2 * SECOND).await;
    assert_eq!(cache.entry(1).and_update(|_| "never"), None);
    assert_eq!(
        cache.entry(1).with_options(short).upsert_with(|current| current.map_or("new", |_| "never")),
        "new"
    );
    assert_eq!(*removed.lock().unwrap(), [(1, "old", RemovalCause::Expired)]);
    assert_eq!(cache.stats().expirations, 1);
    advance(2 * SECOND).await;
    assert_eq!(cache.get(&1), None);
}

#[test]
fn entries_are_invalidated_by_a_predicate() {
    let (cache, removed) = listening();
    for key in 0..10 {
        cache.insert(key, if key < 5 { "low" } else { "high" });
    }
    assert_eq!(cache.invalidate_if(|key, value| *value == "high" && key % 2 == 0), 2);
    assert_eq!(cache.invalidate_if(|_, _| false), 0);
    assert_eq!((cache.len(), cache.get(&6), cache.get(&7)), (8, None, Some("high")));
    assert!(removed.lock().unwrap().iter().all(|(_, _, cause)| *cause == RemovalCause::Removed));
}

#[tokio::test]
async fn an_update_during_a_computation_wins() {
    let cache: Cache<u64, &'static str> = Cache::new(CacheOptions::default()).unwrap();
    let computed = cache.get_or_compute(1, async || {
        assert_eq!(cache.entry(1).compute(|_| Change::Keep), None, "changes nothing and cancels nothing");
        assert_eq!(cache.entry(1).or_insert("inserted"), "inserted");
        Ok::<_, std::io::Error>("computed")
    });
    assert_eq!(computed.await.unwrap(), "computed");
    assert_eq!(cache.get(&1), Some("inserted"));
}

#[tokio::test]
async fn a_removal_channel_delivers_every_entry() {
    let (listener, mut removals) = removal_channel();
    let options = CacheOptions { listener: Some(listener), ..CacheOptions::default() };
    let cache: Cache<String, u64> = Cache::new(options).unwrap();
    cache.insert("a".into(), 1);
    cache.insert("a".into(), 2);
    assert_eq!(cache.remove("a"), Some(2));
    let first = removals.next().await.unwrap();
    assert_eq!((first.key.as_str(), first.value, first.cause), ("a", 1, RemovalCause::Replaced));
    let second = removals.try_next().unwrap();
    assert_eq!((second.value, second.cause), (2, RemovalCause::Removed));
    assert!(removals.try_next().is_none());
    let clone = cache.clone();
    drop(cache);
    clone.insert("b".into(), 3);
    assert_eq!(clone.invalidate_all(), 1);
    drop(clone);
    assert_eq!(removals.next().await.unwrap().value, 3);
    assert!(removals.next().await.is_none());
}

#[test]
fn a_value_heavier_than_the_cache_is_returned_and_not_cached() {
    let options = CacheOptions {
        weight_max: Some(10),
        weigher: Some(Arc::new(|_: &u64, value: &u64| *value)),
        ..CacheOptions::default()
    };
    let cache: Cache<u64, u64> = Cache::new(options).unwrap();
    assert_eq!(cache.entry(1).or_insert(11), 11);
    assert_eq!(cache.entry(1).or_insert(4), 4);
    assert_eq!(cache.entry(1).upsert_with(|_| 11), 11);
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
    let nothing = small::<u64>(0);
    assert_eq!((nothing.entry(1).or_insert(7), nothing.len()), (7, 0));
}
