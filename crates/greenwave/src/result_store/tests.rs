//! Tests of servers that a store of test results does not use, and of its size.

use bytes::Bytes;
use greenwave_cache::{Backend, Key};

use crate::result_store::{ResultStore, ResultStoreError};
use crate::{Settings, result_keys::ResultKeys};

fn problem(address: &str) -> Option<ResultStoreError> {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::default().testing;
    settings.remote = address.to_owned();
    let mut store = ResultStore::open(directory.path(), &settings, &ResultKeys::default()).unwrap();
    store.take_remote_problem()
}

/// Returns bytes that do not compress.
fn noise(seed: u8) -> Bytes {
    let mut bytes = vec![0; 3 << 20];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

#[tokio::test]
async fn the_size_of_a_large_store_is_shown_without_reading_its_keys() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let settings = Settings::default().testing;
        ResultStore::open(directory.path(), &settings, &ResultKeys::default()).unwrap()
    };
    let put = |range: std::ops::Range<u8>, salt: u8| async move {
        let disk = open().disk.unwrap();
        for number in range {
            disk.put(&Key::from_bytes([number; 32]), noise(number ^ salt), None).await.unwrap();
        }
        disk.flush().await.unwrap();
    };
    let exact = || async { open().disk.unwrap().list().await.unwrap().len() };
    put(0..2, 0).await;
    let small = open().stats();
    assert_eq!((small.entries, small.is_exact), (2, true));
    put(2..12, 0).await;
    let store = open();
    let large = store.stats();
    assert_eq!((large.entries, large.is_exact), (exact().await, false));
    assert!(large.disk_bytes > 36 << 20, "{large:?}");
    assert!(store.disk.as_ref().unwrap().stats().unread_segments > 0);
    // Each replaced entry that is in another segment counts again until all keys are read. How
    // many of them are depends on when a thread closed the writer before it.
    put(0..3, 128).await;
    let store = open();
    let replaced = store.stats();
    assert_eq!((exact().await, replaced.is_exact), (12, false));
    assert!((12..=15).contains(&replaced.entries), "{replaced:?}");
    store.disk.as_ref().unwrap().list().await.unwrap();
    assert_eq!((store.stats().entries, store.stats().is_exact), (12, true));
}

#[test]
fn a_store_without_a_server_has_no_problem() {
    assert!(problem("").is_none());
}

#[cfg(all(feature = "remote", not(feature = "remote-objects")))]
#[tokio::test]
async fn a_bucket_without_the_feature_is_an_error_that_names_the_feature() {
    for scheme in ["s3", "gs", "az"] {
        let problem = problem(&format!("{scheme}://bucket/results")).unwrap().to_string();
        assert!(problem.ends_with("the feature `remote-objects` is disabled"), "{problem}");
    }
}

#[cfg(feature = "remote")]
#[tokio::test]
async fn a_directory_has_an_absolute_path() {
    let directory = tempfile::tempdir().unwrap();
    assert!(problem(&format!("file://{}", directory.path().display())).is_none());
    assert!(problem("file://host/results").is_some());
}

#[cfg(feature = "remote")]
#[tokio::test]
async fn an_address_that_cannot_be_used_is_an_error_without_the_address() {
    let problem = problem("redis://:hunter2@127.0.0.1:port").unwrap();
    assert_eq!(problem.to_string(), "cannot use the redis server for test results");
}
