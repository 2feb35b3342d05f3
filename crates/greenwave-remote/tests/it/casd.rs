//! The client on buildbox-casd.

use std::sync::Arc;

use bytes::Bytes;
use greenwave_cache::conformance::{self, BackendFixture};
use greenwave_cache::{Backend, Key};
use greenwave_remote::{Digest, Error};
use greenwave_testkit::server::Server;

use crate::{backend, blob, client, impatient, key, patient};

struct Fixture(Server);

impl BackendFixture for Fixture {
    async fn open(&self) -> Arc<dyn Backend> {
        Arc::new(backend(self.0.port(), patient()))
    }
}

/// Generates a test per promise of the contract. Tests are skipped with a note if the server is not
/// installed.
macro_rules! conformance_on_casd {
    ($($promise:ident),*) => {
        $(#[test]
        fn $promise() {
            let Some(server) = Server::casd() else { return };
            conformance::run(conformance::$promise(&Fixture(server)));
        })*
    };
}

conformance_on_casd!(
    get_returns_what_was_put,
    last_put_wins,
    remove_is_idempotent,
    get_many_preserves_order,
    values_are_arbitrary_bytes,
    list_returns_all_keys_if_supported,
    entries_expire_if_supported,
    flushed_entries_survive_reopening_if_durable,
    tasks_can_share_a_backend
);

#[tokio::test]
async fn machines_share_small_and_large_values() {
    let Some(server) = Server::casd() else { return };
    let (one, two) = (backend(server.port(), patient()), backend(server.port(), patient()));
    let values: Vec<Bytes> = [0, 1, 1000, 3 << 20, (3 << 20) + 1, 9 << 20].map(blob).to_vec();
    for (number, value) in (0..).zip(&values) {
        one.put(&key(number), value.clone(), None).await.unwrap();
    }
    let keys: Vec<Key> = (0..=6).map(key).collect();
    let mut expected: Vec<Option<Bytes>> = values.into_iter().map(Some).collect();
    expected.push(None);
    assert!(two.get_many(&keys).await.unwrap() == expected);
}

#[tokio::test]
async fn a_thousand_keys_are_looked_up_at_once() {
    let Some(server) = Server::casd() else { return };
    let backend = backend(server.port(), patient());
    for number in (0..1000).step_by(10) {
        backend.put(&key(number), number.to_string().into(), None).await.unwrap();
    }
    let keys: Vec<Key> = (0..1000).map(key).collect();
    let found = backend.get_many(&keys).await.unwrap();
    for (number, found) in found.into_iter().enumerate() {
        let expected = (number % 10 == 0).then(|| number.to_string().into());
        assert_eq!(found, expected, "{number}");
    }
}

#[tokio::test]
async fn a_value_whose_blob_is_gone_is_missing_and_can_be_put_again() {
    let Some(mut server) = Server::casd() else { return };
    for size in [10, 5 << 20] {
        let first = backend(server.port(), patient());
        first.put(&key(1), blob(size), None).await.unwrap();
        assert!(first.get(&key(1)).await.unwrap() == Some(blob(size)), "{size}");
        // The server reads its directory when it starts.
        server.kill();
        let objects = server.directory().join("cache/cas/objects");
        std::fs::remove_dir_all(&objects).unwrap();
        std::fs::create_dir(&objects).unwrap();
        server.restart();
        let second = backend(server.port(), patient());
        assert_eq!(second.get(&key(1)).await.unwrap(), None, "{size}");
        second.put(&key(1), blob(size), None).await.unwrap();
        assert!(second.get(&key(1)).await.unwrap() == Some(blob(size)), "{size}");
    }
}

#[tokio::test]
async fn a_server_that_was_restarted_is_used_again() {
    let Some(mut server) = Server::casd() else { return };
    let backend = backend(server.port(), patient());
    backend.put(&key(1), "one".into(), None).await.unwrap();
    server.kill();
    assert!(backend.get(&key(1)).await.is_err());
    server.restart();
    let value = loop {
        // Calls are skipped for up to 10 ms at a time.
        match backend.get(&key(1)).await {
            Ok(value) => break value,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(value.as_deref(), Some(&b"one"[..]));
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_timeout() {
    let Some(server) = Server::casd() else { return };
    let client = client(server.port(), impatient());
    server.freeze();
    let hung = client.missing_blobs(&[Digest::of(b"")]).await.unwrap_err();
    let Error::Call { operation, server: address, source } = &hung else { panic!("{hung}") };
    assert_eq!((*operation, address.as_str()), ("look for blobs", client.server().as_str()));
    assert_eq!(source.to_string(), "no answer within 100ms");
    let skipped = client.missing_blobs(&[Digest::of(b"")]).await.unwrap_err();
    assert!(matches!(skipped, Error::Unavailable { .. }), "{skipped}");
}
