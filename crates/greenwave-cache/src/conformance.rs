//! Tests of the contracts of [`Backend`] and [`Policy`], for every implementation to pass.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Backend, Candidate, Key, KeyBuilder, Policy};

/// Location for the backend under test. It is empty when created, deleted on drop, and large enough
/// for a few hundred small values.
pub trait BackendFixture {
    /// Opens the backend at this location. A second call, after the backend was closed, opens the
    /// existing data.
    fn open(&self) -> impl Future<Output = Arc<dyn Backend>>;
}

/// Generates one `#[test]` per promise, for the [`BackendFixture`] that the expression creates.
///
/// ```ignore
/// mod my_backend {
///     greenwave_cache::backend_conformance!(MyFixture::new());
/// }
/// ```
#[macro_export]
macro_rules! backend_conformance {
    ($fixture:expr) => {
        $crate::backend_conformance!(@each $fixture;
            get_returns_what_was_put, last_put_wins, remove_is_idempotent, get_many_preserves_order,
            values_are_arbitrary_bytes, list_returns_all_keys_if_supported, entries_expire_if_supported,
            flushed_entries_survive_reopening_if_durable, tasks_can_share_a_backend);
    };
    (@each $fixture:expr; $($promise:ident),*) => {
        $(#[test]
        fn $promise() {
            $crate::conformance::run($crate::conformance::$promise(&$fixture));
        })*
    };
}

/// Generates one `#[test]` per promise, for a type that implements [`Policy`].
///
/// ```ignore
/// mod my_policy {
///     greenwave_cache::policy_conformance!(MyPolicy);
/// }
/// ```
#[macro_export]
macro_rules! policy_conformance {
    ($policy:ty) => {
        $crate::policy_conformance!(@each $policy; victims_are_present, every_slot_is_eventually_evicted,
            ranking_lists_every_slot_once, hit_is_thread_safe);
    };
    (@each $policy:ty; $($promise:ident),*) => {
        $(#[test]
        fn $promise() {
            $crate::conformance::$promise::<$policy>();
        })*
    };
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

fn key(number: u64) -> Key {
    KeyBuilder::new("conformance", 1).number(number).finish()
}

async fn put(backend: &Arc<dyn Backend>, number: u64, value: &'static str) {
    let value = Bytes::from_static(value.as_bytes());
    backend.put(&key(number), value, None).await.expect("put succeeds");
}

async fn get(backend: &Arc<dyn Backend>, number: u64) -> Option<Bytes> {
    backend.get(&key(number)).await.expect("get succeeds")
}

/// Tests visibility.
pub async fn get_returns_what_was_put(fixture: &impl BackendFixture) {
    let backend = fixture.open().await;
    assert_eq!(get(&backend, 1).await, None, "a new location is empty");
    put(&backend, 1, "one").await;
    assert_eq!(get(&backend, 1).await.as_deref(), Some(&b"one"[..]));
    assert_eq!(get(&backend, 2).await, None);
}

/// Tests that a second put of a key replaces the first.
pub async fn last_put_wins(fixture: &impl BackendFixture) {
    let backend = fixture.open().await;
    put(&backend, 1, "one").await;
    put(&backend, 1, "two").await;
    assert_eq!(get(&backend, 1).await.as_deref(), Some(&b"two"[..]));
}

/// Tests that a key can be removed repeatedly and put again.
pub async fn remove_is_idempotent(fixture: &impl BackendFixture) {
    let backend = fixture.open().await;
    put(&backend, 1, "one").await;
    for _ in 0..2 {
        backend.remove(&key(1)).await.expect("removal succeeds");
        assert_eq!(get(&backend, 1).await, None);
    }
    put(&backend, 1, "again").await;
    assert_eq!(get(&backend, 1).await.as_deref(), Some(&b"again"[..]));
}

/// Tests that `get_many` returns values in the order of its keys.
pub async fn get_many_preserves_order(fixture: &impl BackendFixture) {
    let backend = fixture.open().await;
    put(&backend, 1, "one").await;
    put(&backend, 2, "two").await;
    let found = backend.get_many(&[key(2), key(3), key(1), key(2)]).await.expect("get succeeds");
    assert_eq!(found, [Some("two".into()), None, Some("one".into()), Some("two".into())]);
    assert!(backend.get_many(&[]).await.expect("get succeeds").is_empty());
}

/// Tests empty, large and non-text values.
pub async fn values_are_arbitrary_bytes(fixture: &impl BackendFixture) {
    let backend = fixture.open().await;
    let large = vec![0xA5; 100_000];
    for (number, value) in [(1, vec![]), (2, (0..=255).collect()), (3, large)] {
        let value = Bytes::from(value);
        backend.put(&key(number), value.clone(), None).await.expect("put succeeds");
        assert_eq!(get(&backend, number).await, Some(value));
    }
}

/// Tests listing, if [`Capabilities::list`](crate::Capabilities::list) is set.
pub async fn list_returns_all_keys_if_supported(fixture: &impl BackendFixture) {
    let backend = fixture.open().await;
    put(&backend, 1, "one").await;
    put(&backend, 2, "two").await;
    put(&backend, 3, "three").await;
    backend.remove(&key(2)).await.expect("removal succeeds");
    match backend.list().await {
        Ok(keys) => assert_eq!(BTreeSet::from_iter(keys), BTreeSet::from([key(1), key(3)])),
        Err(error) => assert!(!backend.capabilities().list, "listing is supported but failed: {error}"),
    }
}

/// Tests that expired entries are missing and others are not, if
/// [`Capabilities::ttl`](crate::Capabilities::ttl) is set.
pub async fn entries_expire_if_supported(fixture: &impl BackendFixture) {
    let backend = fixture.open().await;
    let value = || Bytes::from_static(b"value");
    backend.put(&key(1), value(), Some(Duration::from_secs(3600))).await.expect("put succeeds");
    backend.put(&key(2), value(), Some(Duration::ZERO)).await.expect("put succeeds");
    assert_eq!(get(&backend, 1).await, Some(value()));
    assert!(
        !backend.capabilities().ttl || get(&backend, 2).await.is_none(),
        "expiry is supported but the entry is still there"
    );
}

/// Tests durability across closing and reopening, if
/// [`Capabilities::durable`](crate::Capabilities::durable) is set.
pub async fn flushed_entries_survive_reopening_if_durable(fixture: &impl BackendFixture) {
    let backend = fixture.open().await;
    put(&backend, 1, "flushed").await;
    put(&backend, 2, "removed").await;
    backend.remove(&key(2)).await.expect("removal succeeds");
    backend.flush().await.expect("flush succeeds");
    backend.close().await.expect("close succeeds");
    drop(backend);
    let backend = fixture.open().await;
    if backend.capabilities().durable {
        assert_eq!(get(&backend, 1).await.as_deref(), Some(&b"flushed"[..]));
        assert_eq!(get(&backend, 2).await, None);
    }
}

/// Tests concurrent use by many tasks.
pub async fn tasks_can_share_a_backend(fixture: &impl BackendFixture) {
    let backend = fixture.open().await;
    let task = |task: u64| {
        let backend = backend.clone();
        tokio::spawn(async move {
            for round in 0..8 {
                put(&backend, task * 100 + round, "value").await;
                assert_eq!(get(&backend, task * 100 + round).await.as_deref(), Some(&b"value"[..]));
            }
        })
    };
    let tasks: Vec<_> = (0..16).map(task).collect();
    for task in tasks {
        task.await.expect("no task fails");
    }
}

/// Number of slots of the policies under test.
const SLOTS: u32 = 20;

/// Drives a policy through `steps` pseudo-random but fixed steps, and calls `check` after each with
/// the slots in use.
fn drive<P: Policy>(steps: u64, mut check: impl FnMut(&mut P, &HashSet<u32>)) {
    let mut policy = P::shards(&[SLOTS as usize]).pop().expect("a policy for each shard");
    let mut held = HashSet::new();
    for step in 0..steps {
        let bits = u64::from_le_bytes(*key(step).as_bytes().first_chunk().expect("a key has 32 bytes"));
        let slot = (bits >> 8) as u32 % SLOTS;
        match bits % 8 {
            0..=2 if held.insert(slot) => policy.insert(slot, candidate(bits >> 16)),
            3..=5 if held.contains(&slot) => policy.hit(slot),
            6 if held.remove(&slot) => policy.remove(slot),
            7 => match policy.victim() {
                Some(victim) => assert!(held.remove(&victim), "step {step}: victim {victim} is not in use"),
                None => assert!(held.is_empty(), "step {step}: no victim among {} slots in use", held.len()),
            },
            _ => {}
        }
        check(&mut policy, &held);
    }
}

fn candidate(bits: u64) -> Candidate {
    // Uses few keys, so that some are inserted again.
    let hash = (bits % 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Candidate { hash, weight: bits % 7, cost_us: bits % 1000, heat: (bits % 5) as u8 }
}

/// Tests that each victim was inserted and not removed.
pub fn victims_are_present<P: Policy>() {
    drive::<P>(5_000, |_, _| {});
}

/// Tests that evicting repeatedly returns every slot.
pub fn every_slot_is_eventually_evicted<P: Policy>() {
    let mut step = 0;
    drive::<P>(5_000, |policy, held| {
        step += 1;
        if step == 4_999 {
            let victims: HashSet<u32> = std::iter::from_fn(|| policy.victim()).collect();
            assert_eq!(&victims, held);
            // Inserted again for the step that follows.
            victims.iter().for_each(|slot| policy.insert(*slot, Candidate::default()));
        }
    });
}

/// Tests that the ranking lists every slot exactly once.
pub fn ranking_lists_every_slot_once<P: Policy>() {
    drive::<P>(1_000, |policy, held| {
        let ranking = policy.ranking();
        let ranked: HashSet<u32> = ranking.iter().map(|(slot, _)| *slot).collect();
        assert_eq!((ranking.len(), &ranked), (held.len(), held));
    });
}

/// Tests concurrent hits.
pub fn hit_is_thread_safe<P: Policy>() {
    let mut policy = P::shards(&[SLOTS as usize]).pop().expect("a policy for each shard");
    (0..SLOTS).for_each(|slot| policy.insert(slot, candidate(u64::from(slot))));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|hit| policy.hit(hit % SLOTS)));
        }
    });
    assert_eq!(std::iter::from_fn(|| policy.victim()).count(), SLOTS as usize);
}
