//! Tests of a store on a full disk: a small in-memory file system that a child process mounts in a
//! private namespace.

use std::path::Path;
use std::sync::Arc;

use greenwave_storage::{Error, SegmentColdTier, SegmentOptions, Store, StoreOptions};
use greenwave_testkit::disk::{mounted, run_with_disk};

use crate::contents;

fn open(dir: &Path) -> Store {
    let cold = SegmentColdTier::open(dir, SegmentOptions::default()).unwrap();
    Store::open(StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() }, Arc::new(cold))
        .unwrap()
}

fn message(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn a_full_disk_loses_nothing_and_the_error_names_it() {
    run_with_disk("disks::on_a_full_disk", "1m");
}

#[tokio::test]
#[ignore = "runs as a child process of the previous test"]
async fn on_a_full_disk() {
    let Some(mounted) = mounted() else { return };
    let dir = mounted.join("store");
    // A file that takes up space and is removed later.
    let other = mounted.join("other");
    std::fs::write(&other, vec![1; 256 << 10]).unwrap();
    let store = open(&dir);
    let mut put = 0;
    let error = loop {
        let result = store.put(&put.to_string(), contents(put, 2000)).await;
        put += 1;
        if let Err(error) = result {
            break error;
        }
    };
    let said = message(&error);
    assert!(said.contains(dir.to_str().unwrap()) && said.contains("No space left"), "{said}");
    let mut refused = 0;
    for _ in 0..40 {
        // Contents that do not fit on the disk stay in memory.
        refused += u32::from(store.put(&put.to_string(), contents(put, 2000)).await.is_err());
        put += 1;
    }
    assert!(refused > 5, "{refused}");
    assert!(store.flush().await.is_err());
    for number in 0..put {
        assert_eq!(store.get(&number.to_string()).await.unwrap(), Some(contents(number, 2000)));
    }
    std::fs::remove_file(other).unwrap();
    store.flush().await.unwrap();
    assert!(store.stats().memory_bytes_used > 0);
    drop(store);
    let store = open(&dir);
    for number in 0..put {
        assert_eq!(store.get(&number.to_string()).await.unwrap(), Some(contents(number, 2000)));
    }
}
