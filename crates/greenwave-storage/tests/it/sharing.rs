//! Tests of several stores on one directory, as opened by several processes.

use std::collections::HashSet;
use std::sync::Arc;

use greenwave_storage::{
    AttemptOutcome, Attempts, BlobId, NewAttempt, SegmentColdTier, SegmentOptions, Store,
};

use crate::{contents, on_disk, small_options};

#[tokio::test]
async fn stores_see_each_others_flushed_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (on_disk(dir.path()), on_disk(dir.path()));
    assert_eq!(two.get("name").await.unwrap(), None);
    for number in 0..20 {
        one.put("name", contents(number, 300)).await.unwrap();
        one.put(&format!("{number}"), contents(1000 + number, 3000)).await.unwrap();
        one.flush().await.unwrap();
        assert_eq!(two.get("name").await.unwrap(), Some(contents(number, 300)));
        assert_eq!(two.resolve("name").await.unwrap(), Some(BlobId::of(&contents(number, 300))));
        let ids = [BlobId::of(&contents(1000 + number, 3000))];
        assert_eq!(two.get_many(&ids).await.unwrap(), [Some(contents(1000 + number, 3000))]);
        assert_eq!(two.list("").await.unwrap().len() as u64, number + 2);
        two.put("name", contents(500 + number, 300)).await.unwrap();
        assert_eq!(one.get("name").await.unwrap(), Some(contents(number, 300)), "not written yet");
        two.flush().await.unwrap();
        assert_eq!(one.get("name").await.unwrap(), Some(contents(500 + number, 300)));
    }
    assert!(one.remove("name").await.unwrap());
    one.flush().await.unwrap();
    assert!(!two.remove("name").await.unwrap());
    assert_eq!(two.get("name").await.unwrap(), None);
}

#[tokio::test]
async fn a_sweep_preserves_contents_of_other_stores() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (on_disk(dir.path()), on_disk(dir.path()));
    // Contents that are named before being written, unnamed, linked again, and larger than memory.
    one.put("first", contents(1, 300)).await.unwrap();
    let unnamed = one.put_blob(contents(2, 300)).await.unwrap();
    for number in 10..60 {
        one.put(&format!("{number}"), contents(number, 3000)).await.unwrap();
    }
    for _ in 0..3 {
        two.sweep(&HashSet::new()).await.unwrap();
        one.flush().await.unwrap();
        assert_eq!(two.get("first").await.unwrap(), Some(contents(1, 300)));
        assert_eq!(two.get_blob(&unnamed).await.unwrap(), Some(contents(2, 300)));
        for number in 10..60 {
            assert_eq!(two.get(&format!("{number}")).await.unwrap(), Some(contents(number, 3000)));
        }
    }
    // Puts the same contents again. They are in the first store's memory, and the second store has
    // swept them.
    one.remove("first").await.unwrap();
    one.flush().await.unwrap();
    assert_eq!(two.sweep(&HashSet::new()).await.unwrap(), 1);
    one.put("again", contents(1, 300)).await.unwrap();
    one.flush().await.unwrap();
    assert_eq!(two.get("again").await.unwrap(), Some(contents(1, 300)));
    // Once a store is closed, its unnamed contents can be swept.
    one.close().await.unwrap();
    drop(one);
    assert_eq!(two.sweep(&HashSet::new()).await.unwrap(), 1);
    assert_eq!(two.get_blob(&unnamed).await.unwrap(), None);
    assert_eq!(two.get("again").await.unwrap(), Some(contents(1, 300)));
}

/// Contents are put again while they are in memory and on the disk, but without a reference. Then
/// memory fills up, and another store sweeps before the new reference is written.
#[tokio::test]
async fn contents_that_are_put_again_survive_a_sweep_before_their_reference_is_written() {
    for named in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (on_disk(dir.path()), on_disk(dir.path()));
        let again = contents(1, 20_000);
        one.put("name", again.clone()).await.unwrap();
        one.flush().await.unwrap();
        one.put("name", contents(2, 300)).await.unwrap();
        one.flush().await.unwrap();
        if named {
            one.put("name", again.clone()).await.unwrap();
        } else {
            one.put_blob(again.clone()).await.unwrap();
        }
        for number in 10.. {
            one.put(&format!("{number}"), contents(number, 5000)).await.unwrap();
            if one.stats().spilled_blobs > 0 {
                break;
            }
        }
        two.sweep(&HashSet::new()).await.unwrap();
        one.flush().await.unwrap();
        for store in [&two, &on_disk(dir.path())] {
            assert_eq!(store.get_blob(&BlobId::of(&again)).await.unwrap().as_ref(), Some(&again));
            let expected = if named { &again } else { &contents(2, 300) };
            assert_eq!(store.get("name").await.unwrap().as_ref(), Some(expected));
        }
    }
}

#[tokio::test]
async fn stores_on_one_tier_have_different_ids() {
    let dir = tempfile::tempdir().unwrap();
    let cold = Arc::new(SegmentColdTier::open(dir.path(), SegmentOptions::default()).unwrap());
    let open = || Store::open(small_options(), cold.clone()).unwrap();
    let (one, two) = (open(), open());
    let unnamed = one.put_blob(contents(1, 300)).await.unwrap();
    one.flush().await.unwrap();
    two.put("name", contents(2, 300)).await.unwrap();
    two.flush().await.unwrap();
    assert_eq!(two.sweep(&HashSet::new()).await.unwrap(), 0);
    assert_eq!(two.get_blob(&unnamed).await.unwrap(), Some(contents(1, 300)));
    drop(one);
    assert_eq!(two.sweep(&HashSet::new()).await.unwrap(), 1);
}

#[tokio::test]
async fn the_keep_function_can_read_the_sweeping_store() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (on_disk(dir.path()), on_disk(dir.path()));
    let attempts = Attempts::new(one.clone(), "attempts");
    for number in 0..30 {
        let files = [("file".to_owned(), contents(number, 3000))].into();
        let draft = NewAttempt {
            files,
            outcome: AttemptOutcome::Passed,
            note: String::new(),
            ..NewAttempt::default()
        };
        attempts.record("feature", draft).await.unwrap();
    }
    one.close().await.unwrap();
    drop((attempts, one));
    let seen = Attempts::new(two.clone(), "attempts");
    two.put_blob(contents(100, 10)).await.unwrap();
    assert_eq!(two.sweep_with(|| seen.blobs()).await.unwrap(), 1);
    for attempt in seen.list("feature").await.unwrap() {
        seen.files(&attempt).await.unwrap();
    }
}
