//! Damage tests: flips every byte of a small store and truncates it at every byte. Contents must be
//! correct or missing, and the store must continue to work.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use greenwave_storage::{SegmentColdTier, SegmentOptions, Store, StoreOptions};

use crate::contents;

fn open(dir: &Path) -> Store {
    let cold = SegmentColdTier::open(dir, SegmentOptions::default()).unwrap();
    Store::open(StoreOptions::default(), Arc::new(cold)).unwrap()
}

fn file(number: u64) -> Bytes {
    let mut bytes = contents(number / 3, 120).to_vec();
    bytes.extend(number.to_le_bytes());
    bytes.into()
}

const FILES: u64 = 6;

/// Fills a store with files, including several versions of the same file.
async fn fill(dir: &Path) {
    let store = open(dir);
    for number in 0..FILES {
        store.put(&format!("file {}", number / 3), file(number)).await.unwrap();
        store.put(&format!("all/{number}"), file(number)).await.unwrap();
    }
    store.close().await.unwrap();
}

/// Returns the number of correct files, and asserts that the others are missing. Then puts them
/// again.
async fn survivors(dir: &Path) -> u64 {
    let store = open(dir);
    let mut count = 0;
    for number in 0..FILES {
        if let Some(found) = store.get(&format!("all/{number}")).await.unwrap() {
            assert_eq!(found, file(number));
            count += 1;
        }
        store.put(&format!("all/{number}"), file(number)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let store = open(dir);
    for number in 0..FILES {
        assert_eq!(store.get(&format!("all/{number}")).await.unwrap(), Some(file(number)));
    }
    count
}

#[tokio::test]
async fn damaged_contents_are_missing_until_put_again() {
    let whole = tempfile::tempdir().unwrap();
    fill(whole.path()).await;
    let images: Vec<_> = std::fs::read_dir(whole.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
        .collect();
    let mut fewest = FILES;
    for (damaged, image) in &images {
        for at in 0..image.len() {
            let mut flipped = image.clone();
            flipped[at] ^= 1 << (at % 8);
            for bytes in [flipped, image[..at].to_vec()] {
                let dir = tempfile::tempdir().unwrap();
                for (name, image) in &images {
                    let bytes = if name == damaged { &bytes } else { image };
                    std::fs::write(dir.path().join(name), bytes).unwrap();
                }
                fewest = fewest.min(survivors(dir.path()).await);
            }
        }
    }
    assert_eq!(fewest, 0, "a store cut off at its first byte has nothing");
}
