//! Tests with many files, large files and unusual names.

use std::sync::Arc;

use bytes::Bytes;
use greenwave_storage::{SegmentColdTier, SegmentOptions, Store, StoreOptions};

use crate::{contents, on_disk, rounds};

/// Size of the large file in MiB. Long runs use 1 GiB.
const LARGE_MIB: &str = "GREENWAVE_LARGE_MIB";

fn open(dir: &std::path::Path) -> Store {
    let cold = SegmentColdTier::open(dir, SegmentOptions::default()).unwrap();
    Store::open(StoreOptions { memory_bytes_max: 1 << 20, ..StoreOptions::default() }, Arc::new(cold))
        .unwrap()
}

#[tokio::test]
async fn a_hundred_thousand_tiny_files_fit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let text = |number: u32| Bytes::from(format!("// {number}\n"));
    for number in 0..100_000 {
        store.put(&format!("src/{}/{number}.rs", number % 100), text(number)).await.unwrap();
    }
    let stats = store.stats();
    assert!(stats.memory_bytes_peak < stats.memory_bytes_max * 5 / 4, "{stats:?}");
    store.close().await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.list("").await.unwrap().len(), 100_000);
    assert_eq!(store.list("src/7/").await.unwrap().len(), 1000);
    for number in (0..100_000).step_by(97) {
        let found = store.get(&format!("src/{}/{number}.rs", number % 100)).await.unwrap();
        assert_eq!(found, Some(text(number)));
    }
}

#[tokio::test]
async fn a_large_file_survives_a_round_trip() {
    let len = rounds(LARGE_MIB, 8) as usize * (1 << 20);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let large = contents(1, len);
    let id = store.put("large", large.clone()).await.unwrap();
    // Another version, which is not stored as a delta if both are too large.
    let other = contents(2, len);
    store.put("large", other.clone()).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert!(store.get("large").await.unwrap() == Some(other));
    assert!(store.get_blob(&id).await.unwrap() == Some(large));
    let stats = store.stats();
    assert!(stats.memory_bytes_used <= stats.memory_bytes_max, "{stats:?}");
}

#[tokio::test]
async fn arbitrary_names_do_not_collide() {
    let around = tempfile::tempdir().unwrap();
    let dir = around.path().join("store");
    let store = on_disk(&dir);
    // Two encodings of one letter, direction marks, joiners, control characters, and names that
    // resemble paths or internal keys.
    let mut names: Vec<String> = [
        "é",
        "e\u{301}",
        "ß",
        "SS",
        "日本語",
        "🦀👩\u{200D}🚀",
        "\u{202E}txt",
        "a\0b",
        "\n",
        " ",
        "../x",
        "/etc",
        "C:\\x",
        "b",
        "n",
        "nul",
    ]
    .map(str::to_owned)
    .into();
    names.extend((0..=0x10_FFFF).step_by(4099).filter_map(char::from_u32).map(|c| format!("c{c}")));
    names.push("x".repeat(4096));
    for (number, name) in (0..).zip(&names) {
        store.put(name, contents(number, 100)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let store = on_disk(&dir);
    for (number, name) in (0..).zip(&names) {
        assert_eq!(store.get(name).await.unwrap(), Some(contents(number, 100)), "{name:?}");
    }
    names.sort();
    assert_eq!(store.list("").await.unwrap(), names);
    assert_eq!(std::fs::read_dir(around.path()).unwrap().count(), 1, "nothing escapes the directory");
}
