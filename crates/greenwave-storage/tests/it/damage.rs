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
/// Number of threads that damage stores.
const PARTS: usize = 12;

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

#[test]
fn damaged_contents_are_missing_until_put_again() {
    let whole = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fill(whole.path()));
    let images: Vec<_> = std::fs::read_dir(whole.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
        .collect();
    let places = || images.iter().flat_map(|(name, image)| (0..image.len()).map(move |at| (name, image, at)));
    // A store waits for the disk most of the time.
    let part = |part: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut fewest = FILES;
        for (damaged, image, at) in places().skip(part).step_by(PARTS) {
            let mut flipped = image.clone();
            flipped[at] ^= 1 << (at % 8);
            for bytes in [flipped, image[..at].to_vec()] {
                let dir = tempfile::tempdir().unwrap();
                for (name, image) in &images {
                    let bytes = if name == damaged { &bytes } else { image };
                    std::fs::write(dir.path().join(name), bytes).unwrap();
                }
                fewest = fewest.min(runtime.block_on(survivors(dir.path())));
            }
        }
        fewest
    };
    let fewest = std::thread::scope(|scope| {
        let part = &part;
        let parts: Vec<_> = (0..PARTS).map(|number| scope.spawn(move || part(number))).collect();
        parts.into_iter().map(|part| part.join().unwrap()).min().unwrap()
    });
    assert_eq!(fewest, 0, "a store cut off at its first byte has nothing");
}
