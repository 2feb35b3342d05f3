//! Tests of the object tier in memory, in a local directory, and on a real S3-compatible server on
//! the loopback interface.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

mod server;

use std::sync::Arc;

use bytes::Bytes;
use greenwave_storage::conformance::ColdTierFixture;
use greenwave_storage::{ColdTier, Error, ObjectColdTier, ObjectOptions, Store, StoreOptions};
use greenwave_testkit::server::Server;
use server::{open, open_with};

const NONE: [(&str, &str); 0] = [];

mod directory {
    use super::*;

    struct Directory(tempfile::TempDir);

    impl ColdTierFixture for Directory {
        async fn open(&self) -> Arc<dyn ColdTier> {
            let url = format!("file://{}", self.0.path().display());
            Arc::new(ObjectColdTier::open(&url, NONE, ObjectOptions::default()).unwrap())
        }
    }

    greenwave_storage::cold_conformance!(Directory(tempfile::tempdir().unwrap()));
}

mod s3 {
    use super::*;

    struct S3(Option<Server>);

    impl ColdTierFixture for S3 {
        async fn open(&self) -> Arc<dyn ColdTier> {
            match &self.0 {
                Some(server) => Arc::new(open(server, "some/dir", ObjectOptions::default())),
                // The test is skipped, as `Server::s3` has reported, so any tier will do.
                None => Arc::new(greenwave_storage::MemoryColdTier::new()),
            }
        }
    }

    greenwave_storage::cold_conformance!(S3(Server::s3()));
}

fn contents(number: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn store(cold: ObjectColdTier) -> Store {
    Store::open(StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() }, Arc::new(cold))
        .unwrap()
}

#[tokio::test]
async fn a_store_spills_to_a_server_and_reads_everything_back() {
    let Some(server) = Server::s3() else { return };
    let open = || store(open(&server, "store", ObjectOptions::default()));
    let first = open();
    // Names of any length and kind. The longest do not fit into an object's name.
    let name = |number: u64| match number % 3 {
        0 => format!("src/{number}/日本.rs"),
        1 => format!("{}/{number}", "long".repeat(500)),
        _ => format!("{}{number}", "é".repeat(200)),
    };
    for number in 0..60 {
        first.put(&name(number), contents(number, 3000)).await.unwrap();
    }
    first.close().await.unwrap();
    let again = open();
    for number in 0..60 {
        assert_eq!(again.get(&name(number)).await.unwrap(), Some(contents(number, 3000)));
    }
    let mut names: Vec<String> = (0..60).map(name).collect();
    names.sort();
    assert_eq!(again.list("").await.unwrap(), names);
    let long = "long".repeat(300);
    let expected: Vec<_> = names.iter().filter(|name| name.starts_with(&long)).cloned().collect();
    assert_eq!((again.list(&long).await.unwrap(), expected.len()), (expected, 20));
    assert!(again.remove(&name(1)).await.unwrap());
    assert_eq!(again.sweep(&Default::default()).await.unwrap(), 1);
    assert_eq!(open().list(&long).await.unwrap().len(), 19);
}

#[tokio::test]
async fn compressed_values_are_smaller_and_damaged_ones_are_missing() {
    let Some(server) = Server::s3() else { return };
    let text = Bytes::from("green wave ".repeat(1000));
    for (zstd_level, share) in [(Some(3), 10), (None, 1)] {
        let cold = open(&server, "one", ObjectOptions { zstd_level, ..ObjectOptions::default() });
        cold.put_many(vec![(Bytes::from_static(b"bkey"), text.clone()).into()]).await.unwrap();
        let file = server.directory().join("bucket/one/62/6b/6579z");
        let object = std::fs::read(&file).unwrap();
        assert!(object.len() <= text.len() / share + 40, "{}", object.len());
        assert_eq!(cold.get(b"bkey").await.unwrap(), Some(text.clone()));
        for at in (0..object.len().min(100)).chain([object.len() - 1]) {
            let mut damaged = object.clone();
            damaged[at] ^= 1;
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(cold.get(b"bkey").await.unwrap(), None, "byte {at} is damaged");
        }
        std::fs::write(&file, &object[..20]).unwrap();
        assert_eq!(cold.get(b"bkey").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_failing_server_loses_nothing_and_the_error_names_it() {
    let Some(mut server) = Server::s3() else { return };
    let store = store(open(&server, "store", ObjectOptions::default()));
    for number in 0..10 {
        store.put(&number.to_string(), contents(number, 2000)).await.unwrap();
    }
    store.flush().await.unwrap();
    server.kill();
    for number in 10..20 {
        store.put(&number.to_string(), contents(number, 2000)).await.unwrap();
    }
    // Shortens the client's retries, which would take long in a test.
    let mut flush = std::pin::pin!(store.flush());
    assert!(futures_util::poll!(&mut flush).is_pending());
    server.restart();
    flush.await.unwrap();
    let again =
        Store::open(StoreOptions::default(), Arc::new(open(&server, "store", ObjectOptions::default())))
            .unwrap();
    for number in 0..20 {
        assert_eq!(again.get(&number.to_string()).await.unwrap(), Some(contents(number, 2000)));
    }
}

#[tokio::test]
async fn a_wrong_secret_is_an_error_rather_than_a_miss() {
    let Some(server) = Server::s3() else { return };
    let cold = open_with(&server, "store", ObjectOptions::default(), "wrong");
    let error = cold.get(b"bkey").await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("403"), "{error}");
    let error = store(cold).get("name").await.unwrap_err();
    assert!(matches!(error, Error::ColdTier { .. }), "{error}");
}

#[test]
fn open_errors_name_the_cause() {
    let open = |url: &str, options| ObjectColdTier::open(url, NONE, options).unwrap_err();
    for url in ["bucket", "ftp://host/x", "s3://"] {
        let error = open(url, ObjectOptions::default());
        assert_eq!(error.to_string(), format!("cannot open {url}"));
    }
    let level = ObjectOptions { zstd_level: Some(23), ..ObjectOptions::default() };
    assert_eq!(open("memory:///", level).to_string(), "invalid value 23 for zstd_level: expected -7 to 22");
    let none = ObjectOptions { requests_max: 0, ..ObjectOptions::default() };
    assert_eq!(open("memory:///", none).to_string(), "invalid value 0 for requests_max: expected 1 or more");
}
