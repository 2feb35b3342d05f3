//! Tests of snapshots: saving, loading and comparing.

use std::sync::Arc;

use greenwave_storage::{Error, Snapshot};

use crate::{contents, on_disk, small};

#[tokio::test]
async fn a_snapshot_survives_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let store = on_disk(dir.path());
    let mut snapshot = Snapshot::default();
    for number in 0..50 {
        let mode = if number % 2 == 0 { 0o100_644 } else { 0o100_755 };
        snapshot.add(&store, &format!("src/{number}.rs"), mode, contents(number, 3000)).await.unwrap();
    }
    snapshot.save(&store, "snapshots/one").await.unwrap();
    store.close().await.unwrap();
    drop(store);

    let store = on_disk(dir.path());
    let loaded = Snapshot::load(&store, "snapshots/one").await.unwrap().unwrap();
    assert_eq!(loaded, snapshot);
    let files = loaded.contents(&store).await.unwrap();
    assert_eq!(files.len(), 50);
    assert_eq!(files["src/7.rs"], (0o100_755, contents(7, 3000)));
    assert_eq!(Snapshot::load(&store, "snapshots/two").await.unwrap(), None);
}

#[tokio::test]
async fn changes_are_found_in_both_directions() {
    let store = small(Arc::default());
    let mut old = Snapshot::default();
    for path in ["unchanged", "changed", "removed", "mode"] {
        old.add(&store, path, 0o644, "text".into()).await.unwrap();
    }
    let mut new = old.clone();
    new.add(&store, "changed", 0o644, "other".into()).await.unwrap();
    new.add(&store, "mode", 0o755, "text".into()).await.unwrap();
    new.add(&store, "added", 0o644, "text".into()).await.unwrap();
    new.files.remove("removed");
    assert_eq!(new.changed_paths(&old), ["added", "changed", "mode", "removed"]);
    assert_eq!(new.changed_paths(&old), old.changed_paths(&new));
    assert_eq!(new.blobs().len(), 2);
}

#[tokio::test]
async fn invalid_records_and_missing_contents_are_errors() {
    let store = small(Arc::default());
    store.put("garbage", "GWS\u{1}\u{9}".into()).await.unwrap();
    let error = Snapshot::load(&store, "garbage").await.unwrap_err();
    assert_eq!(error.to_string(), "invalid record garbage: expected a snapshot of version 1");

    let mut snapshot = Snapshot::default();
    snapshot.add(&store, "file", 0, "text".into()).await.unwrap();
    store.sweep(&std::collections::HashSet::new()).await.unwrap();
    let error = snapshot.contents(&store).await.unwrap_err();
    assert!(matches!(error, Error::Missing { ref what, .. } if what == "file"), "{error}");
}

#[test]
fn arbitrary_bytes_decode_to_a_record_or_nothing() {
    for kind in [b"GWA\x01", b"GWS\x01"] {
        for number in 0..2000 {
            let rest = contents(number, (number % 90) as usize);
            // Small numbers, so that length fields are plausible.
            let rest: Vec<u8> = rest.iter().map(|byte| if byte % 4 == 0 { byte % 9 } else { 0 }).collect();
            greenwave_storage::conformance::check_stored_record(&[kind, &rest[..]].concat());
        }
    }
    let twice = [&b"GWS\x01\x02\0\0\0"[..], &[&b"\x01\0\0\0a"[..], &[0; 36]].concat().repeat(2)].concat();
    greenwave_storage::conformance::check_stored_record(&twice);
}
