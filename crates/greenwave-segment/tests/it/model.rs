//! Compares the log with a map, under arbitrary operations of two handles, with reopening and
//! compaction in between.

use std::collections::BTreeMap;

use greenwave_segment::{Log, Options};
use proptest::prelude::*;

use crate::{noise, rounds, small};

/// Environment variable with the number of cases, for long runs.
const CASES: &str = "GREENWAVE_MODEL_CASES";

#[derive(Debug, Clone)]
enum Op {
    Put {
        by: usize,
        key: u8,
        len: usize,
    },
    /// Puts a value similar to that of another key.
    PutDelta {
        by: usize,
        key: u8,
        base: u8,
    },
    Remove {
        by: usize,
        key: u8,
    },
    Flush {
        by: usize,
    },
    Compact {
        by: usize,
    },
    Reopen {
        by: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (by, key) = (0..2_usize, 0..8_u8);
    prop_oneof![
        6 => (by.clone(), key.clone(), 0..1500_usize).prop_map(|(by, key, len)| Op::Put { by, key, len }),
        4 => (by.clone(), key.clone(), key.clone()).prop_map(|(by, key, base)| Op::PutDelta { by, key, base }),
        2 => (by.clone(), key).prop_map(|(by, key)| Op::Remove { by, key }),
        1 => by.clone().prop_map(|by| Op::Flush { by }),
        1 => by.clone().prop_map(|by| Op::Compact { by }),
        1 => by.prop_map(|by| Op::Reopen { by }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(CASES, 64), ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map(ops in proptest::collection::vec(op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let open = || Some(Log::open(dir.path(), small()).unwrap());
        let mut logs = [open(), open()];
        let mut model = BTreeMap::new();
        for (step, op) in ops.into_iter().enumerate() {
            let (Op::Put { by, .. } | Op::PutDelta { by, .. } | Op::Remove { by, .. } | Op::Flush { by } | Op::Compact { by } | Op::Reopen { by }) = op;
            let log = logs[by].as_ref().unwrap();
            // A put is correct without a refresh. A removal only removes values in the index.
            if matches!(op, Op::Remove { .. }) {
                log.refresh().unwrap();
            }
            match op {
                Op::Put { key, len, .. } => {
                    log.put(&[key], &noise(step as u64, len)).unwrap();
                    model.insert(vec![key], noise(step as u64, len));
                }
                Op::PutDelta { key, base, .. } => {
                    let mut value = model.get(&vec![base]).cloned().unwrap_or_default();
                    value.extend(noise(step as u64, 9));
                    log.put_delta(&[key], &value, &[base]).unwrap();
                    model.insert(vec![key], value);
                }
                Op::Remove { key, .. } => {
                    prop_assert_eq!(log.remove(&[key]).unwrap(), model.remove(&vec![key]).is_some());
                }
                Op::Flush { .. } => log.flush().unwrap(),
                Op::Compact { .. } => {
                    let done = log.compact().unwrap();
                    prop_assert!(done.written_bytes <= done.freed_bytes, "{done:?}");
                }
                Op::Reopen { .. } => {
                    logs[by] = None;
                    logs[by] = open();
                }
            }
            for log in logs.iter().flatten() {
                log.refresh().unwrap();
                prop_assert_eq!(log.keys_with_prefix(b""), model.keys().cloned().collect::<Vec<_>>());
                for (key, value) in &model {
                    let found = log.get(key).unwrap();
                    prop_assert_eq!(found.as_deref(), Some(&value[..]));
                }
                prop_assert_eq!(log.stats().entries, model.len() as u64);
                prop_assert_eq!(log.stats().bad_records, 0);
            }
        }
        let options = Options::default();
        prop_assert_eq!(Log::open(dir.path(), options).unwrap().keys_with_prefix(b"").len(), model.len());
    }
}
