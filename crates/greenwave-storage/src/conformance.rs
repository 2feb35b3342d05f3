//! Tests of the contract of [`ColdTier`], for every implementation to pass.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::{ColdEntry, ColdTier};

/// Location for the tier under test. It is empty when created, and deleted on drop.
pub trait ColdTierFixture {
    /// Opens the tier at this location. A second call, after the tier was closed, opens the
    /// existing data.
    fn open(&self) -> impl Future<Output = Arc<dyn ColdTier>>;
}

/// Generates one `#[test]` per promise, for the [`ColdTierFixture`] that the expression creates.
///
/// ```ignore
/// mod my_tier {
///     greenwave_storage::cold_conformance!(MyFixture::new());
/// }
/// ```
#[macro_export]
macro_rules! cold_conformance {
    ($fixture:expr) => {
        $crate::cold_conformance!(@each $fixture;
            get_returns_what_was_put, last_put_wins, remove_is_idempotent, get_many_preserves_order,
            list_filters_by_prefix, keys_and_values_are_arbitrary_bytes, empty_calls_have_no_effect,
            flushed_entries_survive_reopening, values_outlive_their_delta_base, tasks_can_share_a_tier,
            stats_name_the_codec);
    };
    (@each $fixture:expr; $($promise:ident),*) => {
        $(#[test]
        fn $promise() {
            $crate::conformance::run($crate::conformance::$promise(&$fixture));
        })*
    };
}

/// Decodes arbitrary bytes as each kind of record that stores write: attempts, snapshots and pins.
/// Used for fuzzing.
///
/// # Panics
///
/// Panics if a decoded record does not encode to the same bytes.
pub fn check_stored_record(record: &[u8]) {
    crate::attempts::check_record(record);
    crate::snapshot::check_record(record);
    crate::store::check_pin(record);
}

/// Decodes arbitrary bytes as an object of `ObjectColdTier`. Used for fuzzing.
///
/// # Panics
///
/// Panics if a decoded value cannot be encoded and decoded again.
#[cfg(feature = "object")]
pub fn check_stored_object(bytes: &[u8]) {
    crate::cold::check_object(bytes);
}

/// Runs a test of a promise on a new runtime.
///
/// # Panics
///
/// Panics if the promise is broken.
pub fn run(promise: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the runtime starts").block_on(promise);
}

async fn put(cold: &Arc<dyn ColdTier>, key: &str, value: &str) {
    let entry = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    cold.put_many(vec![entry.into()]).await.expect("put succeeds");
}

async fn get(cold: &Arc<dyn ColdTier>, key: &str) -> Option<Bytes> {
    cold.get(key.as_bytes()).await.expect("get succeeds")
}

fn keys(keys: &[&'static str]) -> Vec<Bytes> {
    keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect()
}

/// Tests visibility.
pub async fn get_returns_what_was_put(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    assert_eq!(get(&cold, "key").await, None, "a new location is empty");
    put(&cold, "key", "value").await;
    assert_eq!(get(&cold, "key").await.as_deref(), Some(&b"value"[..]));
    assert_eq!(get(&cold, "ke").await, None, "a prefix is not the key");
}

/// Tests that a later put of a key replaces an earlier one, also within one call.
pub async fn last_put_wins(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    put(&cold, "key", "one").await;
    put(&cold, "key", "two").await;
    assert_eq!(get(&cold, "key").await.as_deref(), Some(&b"two"[..]));
    let entry = |value| (Bytes::from_static(b"key"), Bytes::from_static(value));
    cold.put_many(vec![entry(b"three").into(), entry(b"four").into()]).await.expect("put succeeds");
    assert_eq!(get(&cold, "key").await.as_deref(), Some(&b"four"[..]));
}

/// Tests that a key can be removed repeatedly and put again.
pub async fn remove_is_idempotent(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    put(&cold, "key", "value").await;
    for _ in 0..2 {
        cold.remove_many(keys(&["key", "missing"])).await.expect("removal succeeds");
        assert_eq!(get(&cold, "key").await, None);
    }
    put(&cold, "key", "again").await;
    assert_eq!(get(&cold, "key").await.as_deref(), Some(&b"again"[..]));
}

/// Tests that `get_many` and `contains_many` return results in the order of their keys.
pub async fn get_many_preserves_order(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    put(&cold, "a", "1").await;
    put(&cold, "b", "2").await;
    let found = cold.get_many(keys(&["b", "none", "a", "b"])).await.expect("get succeeds");
    assert_eq!(found, [Some("2".into()), None, Some("1".into()), Some("2".into())]);
    let contained = cold.contains_many(keys(&["b", "none"])).await.expect("contains succeeds");
    assert_eq!(contained.len(), 2);
    assert!(!contained[1], "a missing key is not contained");
}

/// Tests listing.
pub async fn list_filters_by_prefix(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    for key in ["a", "b/1", "b/2", "b/3", "c"] {
        put(&cold, key, "").await;
    }
    cold.remove_many(keys(&["b/2"])).await.expect("removal succeeds");
    let found: BTreeSet<Bytes> = cold.list(b"b/").await.expect("list succeeds").into_iter().collect();
    assert_eq!(found, keys(&["b/1", "b/3"]).into_iter().collect());
    assert_eq!(cold.list(b"").await.expect("list succeeds").len(), 4);
    assert!(cold.list(b"d").await.expect("list succeeds").is_empty());
}

/// Tests keys and values that are not text, and keys of up to 4097 bytes.
pub async fn keys_and_values_are_arbitrary_bytes(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    let all = Bytes::from_iter(0..=255_u8);
    let long = Bytes::from(vec![0xFF; 4097]);
    let large = Bytes::from(vec![7; 3 << 20]);
    let entries = [(all.clone(), long.clone()), (long, large), ("../up/\0".into(), Bytes::new())];
    cold.put_many(entries.iter().cloned().map(ColdEntry::from).collect()).await.expect("put succeeds");
    for (key, value) in entries {
        assert_eq!(cold.get(&key).await.expect("get succeeds"), Some(value));
    }
}

/// Tests calls without entries.
pub async fn empty_calls_have_no_effect(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    cold.put_many(Vec::new()).await.expect("put succeeds");
    cold.remove_many(Vec::new()).await.expect("removal succeeds");
    assert!(cold.get_many(Vec::new()).await.expect("get succeeds").is_empty());
    assert!(cold.contains_many(Vec::new()).await.expect("contains succeeds").is_empty());
    assert!(cold.list(b"").await.expect("list succeeds").is_empty());
}

/// Tests durability across closing and reopening.
pub async fn flushed_entries_survive_reopening(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    put(&cold, "flushed", "value").await;
    put(&cold, "removed", "value").await;
    cold.remove_many(keys(&["removed"])).await.expect("removal succeeds");
    cold.flush().await.expect("flush succeeds");
    cold.close().await.expect("close succeeds");
    drop(cold);
    let cold = fixture.open().await;
    assert_eq!(get(&cold, "flushed").await.as_deref(), Some(&b"value"[..]));
    assert_eq!(get(&cold, "removed").await, None);
}

/// Tests that values do not depend on their delta base.
pub async fn values_outlive_their_delta_base(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    let version = |n: u8| Bytes::from_iter((0..4000_u32).map(|i| (i % 251) as u8).chain(0..n));
    let key = |n: u8| Bytes::from(format!("version {n}"));
    for n in 0..6_u8 {
        // The first value has a base that does not exist.
        let base = Some(key(n.wrapping_sub(1)));
        cold.put_many(vec![ColdEntry { key: key(n), value: version(n), base }]).await.expect("put succeeds");
    }
    cold.remove_many(vec![key(0), key(3)]).await.expect("removal succeeds");
    put(&cold, "version 1", "something else").await;
    cold.flush().await.expect("flush succeeds");
    for n in [2, 4, 5] {
        assert_eq!(cold.get(&key(n)).await.expect("get succeeds"), Some(version(n)), "version {n}");
    }
    assert_eq!(cold.get(&key(3)).await.expect("get succeeds"), None);
}

/// Tests concurrent use by many tasks.
pub async fn tasks_can_share_a_tier(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let cold = cold.clone();
            tokio::spawn(async move {
                for round in 0..8 {
                    let (key, value) = (format!("{task}/{round}"), format!("value {task} {round}"));
                    put(&cold, &key, &value).await;
                    assert_eq!(get(&cold, &key).await.as_deref(), Some(value.as_bytes()));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task fails");
    }
    assert_eq!(cold.list(b"").await.expect("list succeeds").len(), 128);
}

/// Tests the statistics.
pub async fn stats_name_the_codec(fixture: &impl ColdTierFixture) {
    let cold = fixture.open().await;
    put(&cold, "key", "value").await;
    let stats = cold.stats();
    assert!(!stats.codec.is_empty(), "the codec without compression is `none`");
    assert!(stats.entries.is_none_or(|entries| entries == 1), "{stats:?}");
}
