//! The store against a map: any sequence of operations, with spills, promotions and reopening in between.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use crate::{contents, on_disk};

#[derive(Debug, Clone)]
enum Op {
    Put(u8, usize),
    Remove(u8),
    Get(u8),
    Flush,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..12_u8, 0..12_000_usize).prop_map(|(name, len)| Op::Put(name, len)),
        2 => (0..12_u8).prop_map(Op::Remove),
        4 => (0..12_u8).prop_map(Op::Get),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map(ops in proptest::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(ops))?;
    }
}

async fn check(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let mut store = on_disk(dir.path());
    let mut model: BTreeMap<String, Bytes> = BTreeMap::new();
    for (step, op) in ops.into_iter().enumerate() {
        match op {
            Op::Put(name, len) => {
                store.put(&name.to_string(), contents(step as u64, len)).await.unwrap();
                model.insert(name.to_string(), contents(step as u64, len));
            }
            Op::Remove(name) => {
                let removed = store.remove(&name.to_string()).await.unwrap();
                prop_assert_eq!(removed, model.remove(&name.to_string()).is_some());
            }
            Op::Get(name) => {
                let found = store.get(&name.to_string()).await.unwrap();
                prop_assert_eq!(found.as_ref(), model.get(&name.to_string()));
            }
            Op::Flush => store.flush().await.unwrap(),
            Op::Reopen => {
                store.close().await.unwrap();
                drop(store);
                store = on_disk(dir.path());
            }
        }
        prop_assert_eq!(store.list("").await.unwrap(), model.keys().cloned().collect::<Vec<_>>());
        let stats = store.stats();
        prop_assert!(stats.memory_bytes_used <= stats.memory_bytes_max, "{:?}", stats);
    }
    for (name, value) in &model {
        let found = store.get(name).await.unwrap();
        prop_assert_eq!(found.as_ref(), Some(value));
    }
    Ok(())
}
