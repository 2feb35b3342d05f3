//! Tests of the space that versions take: under one name, in attempts and snapshots, and with
//! merely similar contents.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use greenwave_segment::{Log, Options as LogOptions, Stats};
use greenwave_storage::{
    AttemptOutcome, Attempts, NewAttempt, SegmentColdTier, SegmentOptions, Snapshot, Store, StoreOptions,
};

/// Returns incompressible lines. Each version up to 20 changes four of them.
fn version(file: u64, n: u64) -> Bytes {
    let line = |seed: u64| {
        let hash = blake3::hash(&seed.to_le_bytes()).to_hex();
        format!("{hash}\n")
    };
    let lines = (0..80).map(|at| line(file << 32 | if at % 20 < n { 1 << 16 | at } else { at }));
    lines.collect::<String>().into()
}

fn open(dir: &Path, options: SegmentOptions) -> Store {
    let cold = SegmentColdTier::open(dir, options).unwrap();
    Store::open(StoreOptions { memory_bytes_max: 1 << 20, ..StoreOptions::default() }, Arc::new(cold))
        .unwrap()
}

/// Closes the store and returns the statistics of its log.
async fn closed(dir: &Path, store: Store) -> Stats {
    store.close().await.unwrap();
    drop(store);
    Log::open(dir, LogOptions::default()).unwrap().stats()
}

#[tokio::test]
async fn versions_under_one_name_are_stored_as_deltas() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), SegmentOptions::default());
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(store.put("file", version(1, n)).await.unwrap());
        // Written one by one, and then several at once.
        if n < 5 {
            store.flush().await.unwrap();
        }
    }
    let stats = closed(dir.path(), store).await;
    assert_eq!(stats.deltas, 9, "{stats:?}");
    let store = open(dir.path(), SegmentOptions::default());
    for (n, id) in (0..).zip(&ids) {
        assert_eq!(store.get_blob(id).await.unwrap().unwrap(), version(1, n));
    }
    // The name is only in the cold tier, and still provides the delta base.
    store.put("file", version(1, 10)).await.unwrap();
    let removed = store.sweep(&std::collections::HashSet::new()).await.unwrap();
    assert_eq!(removed, 10, "all versions except the last");
    assert_eq!(store.get("file").await.unwrap().unwrap(), version(1, 10));
    let stats = closed(dir.path(), store).await;
    assert_eq!((stats.deltas, stats.bad_records), (0, 0), "{stats:?}");
}

#[tokio::test]
async fn attempts_and_snapshots_take_little_space() {
    let dir = tempfile::tempdir().unwrap();
    let options = SegmentOptions { find_similar: false, ..SegmentOptions::default() };
    let store = open(dir.path(), options);
    let attempts = Attempts::new(store.clone(), "attempts");
    let files = |n: u64| -> BTreeMap<String, Bytes> {
        (0..20).map(|file| (format!("src/file_{file}.rs"), version(file, n))).collect()
    };
    let mut snapshot = Snapshot::default();
    for n in 1..=8 {
        let draft = NewAttempt {
            files: files(n),
            outcome: AttemptOutcome::Failed,
            note: String::new(),
            ..NewAttempt::default()
        };
        assert_eq!(u64::from(attempts.record("feature", draft).await.unwrap().number), n);
        for (path, contents) in files(n + 8) {
            snapshot.add(&store, &path, 0o644, contents).await.unwrap();
        }
        snapshot.save(&store, &format!("state {n}")).await.unwrap();
    }
    let found = attempts.get("feature", 3).await.unwrap().unwrap();
    assert_eq!(attempts.files(&found).await.unwrap(), files(3));
    let stats = closed(dir.path(), store).await;
    assert!(stats.deltas >= 2 * 7 * 20, "{stats:?}");
    assert!(stats.stored_bytes * 3 < stats.raw_bytes, "{stats:?}");
}

#[tokio::test]
async fn similar_contents_without_a_hint_are_stored_as_deltas() {
    for find_similar in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), SegmentOptions { find_similar, ..SegmentOptions::default() });
        for file in 0..10 {
            store.put(&format!("original {file}"), version(file, 0)).await.unwrap();
        }
        store.flush().await.unwrap();
        for file in 0..10 {
            store.put(&format!("copy {file}"), version(file, 1)).await.unwrap();
        }
        let stats = closed(dir.path(), store).await;
        assert_eq!(stats.deltas > 5, find_similar, "{stats:?}");
    }
}

#[tokio::test]
async fn options_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let none = SegmentOptions { blocking_max: 0, ..SegmentOptions::default() };
    let error = SegmentColdTier::open(dir.path(), none).unwrap_err();
    assert!(error.to_string().contains("blocking_max"), "{error}");
}
