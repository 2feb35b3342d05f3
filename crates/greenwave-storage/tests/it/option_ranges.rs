//! Every public option at zero, one and its maximum, and fractions that are not finite: each value
//! works, or is rejected with the name of the option and the expected range.

use std::sync::Arc;

use greenwave_storage::{
    ColdTier, Error, MemoryColdTier, SegmentColdTier, SegmentOptions, Store, StoreOptions,
};

use crate::contents;

/// `Ok`, or the name of the rejected option.
type Expected = Result<(), &'static str>;

#[track_caller]
fn assert_expected<T>(opened: Result<T, Error>, expected: Expected, shown: &str) -> Option<T> {
    match (opened, expected) {
        (Ok(opened), Ok(())) => Some(opened),
        (Err(Error::InvalidOption { option, expected, .. }), Err(name)) => {
            assert_eq!(option, name, "{shown}");
            assert!(!expected.is_empty());
            None
        }
        (opened, expected) => {
            panic!("{shown}: expected {expected:?}, got {:?}", opened.err().map(|error| error.to_string()))
        }
    }
}

/// Writes more than fits into a small memory budget, and reads it back.
async fn check(options: StoreOptions, cold: Arc<dyn ColdTier>, expected: Expected) {
    let shown = format!("{options:?} {cold:?}");
    let Some(store) = assert_expected(Store::open(options, cold), expected, &shown) else { return };
    for number in 0..40 {
        store.put(&format!("{number}"), contents(number, 4 << 10)).await.unwrap();
    }
    store.flush().await.unwrap();
    for _ in 0..2 {
        for number in 0..40 {
            let found = store.get(&format!("{number}")).await.unwrap();
            assert_eq!(found, Some(contents(number, 4 << 10)), "{number}: {shown}");
        }
    }
}

#[tokio::test]
async fn options_of_a_store() {
    let usual = || StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() };
    let cold = || Arc::new(MemoryColdTier::default());
    for memory_bytes_max in [0, 1, (64 << 10) - 1, 64 << 10, u64::MAX] {
        let expected = if memory_bytes_max < 64 << 10 { Err("memory_bytes_max") } else { Ok(()) };
        check(StoreOptions { memory_bytes_max, ..usual() }, cold(), expected).await;
    }
    let fractions = [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, f64::MIN_POSITIVE, 0.5, 1.0, 1.1, f64::INFINITY];
    for spillover_threshold in fractions {
        let in_range = spillover_threshold > 0.0 && spillover_threshold <= 1.0;
        let expected = if in_range { Ok(()) } else { Err("spillover_threshold") };
        check(StoreOptions { spillover_threshold, ..usual() }, cold(), expected).await;
    }
    for promote_after in [0, 1, u32::MAX] {
        for reclaim in [false, true] {
            let expected = if promote_after == 0 { Err("promote_after") } else { Ok(()) };
            check(StoreOptions { promote_after, reclaim, ..usual() }, cold(), expected).await;
        }
    }
}

#[tokio::test]
async fn options_of_a_segment_tier() {
    let store = || StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() };
    let check_tier = async |options: SegmentOptions, expected: Expected| {
        let dir = tempfile::tempdir().unwrap();
        let shown = format!("{options:?}");
        let opened = SegmentColdTier::open(dir.path().join("cold"), options);
        let Some(tier) = assert_expected(opened, expected, &shown) else { return };
        check(store(), Arc::new(tier), Ok(())).await;
    };
    let usual = SegmentOptions::default();
    for segment_bytes_max in [0, 1, (4 << 10) - 1, 4 << 10, u64::MAX] {
        let expected = if segment_bytes_max < 4 << 10 { Err("segment_bytes_max") } else { Ok(()) };
        check_tier(SegmentOptions { segment_bytes_max, ..usual }, expected).await;
    }
    for delta_chain_max in [0, 1, 200, 201, u8::MAX] {
        let expected = if delta_chain_max > 200 { Err("delta_chain_max") } else { Ok(()) };
        check_tier(SegmentOptions { delta_chain_max, ..usual }, expected).await;
    }
    for blocking_max in [0, 1, usize::MAX] {
        let expected = if blocking_max == 0 { Err("blocking_max") } else { Ok(()) };
        check_tier(SegmentOptions { blocking_max, ..usual }, expected).await;
    }
    for disk_bytes_max in [0, 1, (16 << 10) - 1, u64::MAX] {
        let expected = if disk_bytes_max < 16 << 10 { Err("disk_bytes_max") } else { Ok(()) };
        check_tier(SegmentOptions { disk_bytes_max: Some(disk_bytes_max), ..usual }, expected).await;
    }
}

#[cfg(feature = "object")]
#[tokio::test]
async fn options_of_an_object_tier() {
    use greenwave_storage::{ObjectColdTier, ObjectOptions};
    let check_tier = async |options: ObjectOptions, expected: Expected| {
        let opened = ObjectColdTier::open("memory:///", [] as [(&str, &str); 0], options);
        let Some(tier) = assert_expected(opened, expected, &format!("{options:?}")) else { return };
        let store = StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() };
        check(store, Arc::new(tier), Ok(())).await;
    };
    let usual = ObjectOptions::default();
    let levels = [None, Some(i32::MIN), Some(-8), Some(-7), Some(0), Some(22), Some(23), Some(i32::MAX)];
    for zstd_level in levels {
        let in_range = zstd_level.is_none_or(|level| (-7..=22).contains(&level));
        check_tier(ObjectOptions { zstd_level, ..usual }, if in_range { Ok(()) } else { Err("zstd_level") })
            .await;
    }
    for requests_max in [0, 1, usize::MAX] {
        let expected = if requests_max == 0 { Err("requests_max") } else { Ok(()) };
        check_tier(ObjectOptions { requests_max, ..usual }, expected).await;
    }
    for named_bytes_max in [0, 1, 400, 401, usize::MAX] {
        let in_range = (1..=400).contains(&named_bytes_max);
        let expected = if in_range { Ok(()) } else { Err("named_bytes_max") };
        check_tier(ObjectOptions { named_bytes_max, ..usual }, expected).await;
    }
    check_tier(ObjectOptions { value_bytes_max: u32::MAX, ..usual }, Ok(())).await;
    for value_bytes_max in [0, 1] {
        let options = ObjectOptions { value_bytes_max, ..usual };
        let tier = ObjectColdTier::open("memory:///", [] as [(&str, &str); 0], options).unwrap();
        let store = Store::open(StoreOptions::default(), Arc::new(tier)).unwrap();
        let refused = store.put("name", contents(0, 2)).await.unwrap_err();
        assert!(matches!(refused, Error::TooLarge { len: 2, .. }), "{refused:?}");
    }
}
