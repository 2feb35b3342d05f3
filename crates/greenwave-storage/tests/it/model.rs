//! Property tests against a map: arbitrary operations under arbitrary budgets, with spills,
//! promotions, compaction, crashes and reopening.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use greenwave_storage::{BlobId, SegmentColdTier, SegmentOptions, Store, StoreOptions};
use proptest::prelude::*;

use crate::{contents, rounds};

/// Environment variable that sets the number of cases, for long runs.
const CASES: &str = "GREENWAVE_MODEL_CASES";
const NAMES: u8 = 12;

#[derive(Debug, Clone)]
enum Op {
    Put(u8, usize),
    /// Put a version of the contents of another name.
    PutWithBase(u8, u8),
    Remove(u8),
    Get(u8),
    GetAll,
    Sweep,
    Flush,
    Compact,
    Reopen,
    /// Reopen after losing unflushed changes.
    Crash,
}

#[derive(Debug, Clone)]
struct Budget {
    memory_kib: u64,
    threshold: f64,
    promote_after: u32,
    delta_chain_max: u8,
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..NAMES;
    prop_oneof![
        6 => (name(), 0..12_000_usize).prop_map(|(name, len)| Op::Put(name, len)),
        4 => (name(), name()).prop_map(|(name, base)| Op::PutWithBase(name, base)),
        2 => name().prop_map(Op::Remove),
        4 => name().prop_map(Op::Get),
        1 => Just(Op::GetAll),
        1 => Just(Op::Sweep),
        2 => Just(Op::Flush),
        1 => Just(Op::Compact),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
    ]
}

fn budget() -> impl Strategy<Value = Budget> {
    (64..200_u64, 0.3..=1.0, 1..4_u32, prop_oneof![Just(0_u8), Just(2), Just(16)]).prop_map(
        |(memory_kib, threshold, promote_after, delta_chain_max)| Budget {
            memory_kib,
            threshold,
            promote_after,
            delta_chain_max,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(CASES, 48), ..ProptestConfig::default() })]

    #[test]
    fn matches_the_model(budget in budget(), ops in proptest::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(&budget, ops))?;
    }
}

fn open(dir: &Path, budget: &Budget) -> (Store, SegmentColdTier) {
    let delta_chain_max = budget.delta_chain_max;
    let options =
        SegmentOptions { segment_bytes_max: 16 << 10, delta_chain_max, ..SegmentOptions::default() };
    let cold = SegmentColdTier::open(dir, options).unwrap();
    let options = StoreOptions {
        memory_bytes_max: budget.memory_kib << 10,
        spillover_threshold: budget.threshold,
        promote_after: budget.promote_after,
        ..StoreOptions::default()
    };
    (Store::open(options, Arc::new(cold.clone())).unwrap(), cold)
}

type Names = BTreeMap<String, Bytes>;

async fn check(budget: &Budget, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut cold) = open(dir.path(), budget);
    let mut model = Names::new();
    // States that each name may have after a crash: the state at the last flush, and every state
    // since.
    let mut possible: BTreeMap<String, Vec<Option<Bytes>>> = BTreeMap::new();
    for (step, op) in ops.into_iter().enumerate() {
        match op {
            Op::Put(..) | Op::PutWithBase(..) => {
                let (name, contents) = match op {
                    Op::PutWithBase(name, base) => (name, changed(model.get(&base.to_string()), step)),
                    Op::Put(name, len) => (name, contents(step as u64, len)),
                    _ => unreachable!("the arm matches puts only"),
                };
                let name = name.to_string();
                let id = store.put(&name, contents.clone()).await.unwrap();
                prop_assert_eq!(id, BlobId::of(&contents));
                record_possible(&mut possible, &model, &name, Some(contents.clone()));
                model.insert(name, contents);
            }
            Op::Remove(name) => {
                let name = name.to_string();
                let removed = store.remove(&name).await.unwrap();
                record_possible(&mut possible, &model, &name, None);
                prop_assert_eq!(removed, model.remove(&name).is_some());
            }
            Op::Get(name) => {
                let found = store.get(&name.to_string()).await.unwrap();
                prop_assert_eq!(found.as_ref(), model.get(&name.to_string()));
            }
            Op::GetAll => {
                let ids: Vec<BlobId> = model.values().map(|contents| BlobId::of(contents)).collect();
                let found = store.get_many(&ids).await.unwrap();
                let expected: Vec<_> = model.values().cloned().map(Some).collect();
                prop_assert_eq!(found, expected);
            }
            Op::Sweep => drop(store.sweep(&Default::default()).await.unwrap()),
            Op::Flush => store.flush().await.unwrap(),
            Op::Compact => cold.compact().await.unwrap(),
            Op::Reopen => {
                store.close().await.unwrap();
                drop((store, cold));
                (store, cold) = open(dir.path(), budget);
            }
            Op::Crash => {
                drop((store, cold));
                (store, cold) = open(dir.path(), budget);
                model = after_crash(&store, &model, &possible).await?;
            }
        }
        if matches!(op, Op::Sweep | Op::Flush | Op::Reopen | Op::Crash) {
            possible.clear();
        }
        prop_assert_eq!(store.list("").await.unwrap(), model.keys().cloned().collect::<Vec<_>>());
        let stats = store.stats();
        prop_assert!(stats.memory_bytes_used <= stats.memory_bytes_max, "{:?}", stats);
    }
    check_all(&store, &model).await
}

/// Asserts that every name has the contents of the model.
async fn check_all(store: &Store, model: &Names) -> Result<(), TestCaseError> {
    for (name, value) in model {
        let found = store.get(name).await.unwrap();
        prop_assert_eq!(found.as_ref(), Some(value));
    }
    prop_assert_eq!(store.stats().corrupt_blobs, 0);
    Ok(())
}

/// Returns slightly changed contents.
fn changed(base: Option<&Bytes>, step: usize) -> Bytes {
    let mut bytes = base.map(|bytes| bytes.to_vec()).unwrap_or_default();
    let at = bytes.len() / 3;
    bytes.splice(at..at, step.to_le_bytes());
    bytes.into()
}

fn record_possible(
    possible: &mut BTreeMap<String, Vec<Option<Bytes>>>,
    model: &Names,
    name: &str,
    new: Option<Bytes>,
) {
    let values = possible.entry(name.to_owned()).or_insert_with(|| vec![model.get(name).cloned()]);
    values.push(new);
}

/// Reads the state after a crash, and asserts that it is possible.
async fn after_crash(
    store: &Store,
    model: &Names,
    possible: &BTreeMap<String, Vec<Option<Bytes>>>,
) -> Result<Names, TestCaseError> {
    let mut found = Names::new();
    for name in (0..NAMES).map(|name| name.to_string()) {
        let contents = store.get(&name).await.unwrap();
        match possible.get(&name) {
            Some(values) => prop_assert!(values.contains(&contents), "name {}", name),
            None => prop_assert_eq!(contents.as_ref(), model.get(&name), "name {}", name),
        }
        found.extend(contents.map(|contents| (name, contents)));
    }
    Ok(found)
}
