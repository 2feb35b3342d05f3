//! Tests of the backend in object stores: in memory, in a local directory, and on a real
//! S3-compatible server on the loopback interface.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::conformance::BackendFixture;
use greenwave_cache::{Backend, Error, Key, KeyBuilder, MemoryBackend, ObjectBackend, RemoteOptions};
use greenwave_testkit::server::Server;

const NONE: [(&str, &str); 0] = [];

/// Options with a timeout that is long enough on a busy machine.
fn options(prefix: &str) -> RemoteOptions {
    RemoteOptions { prefix: prefix.to_owned(), timeout: Duration::from_secs(20), ..RemoteOptions::default() }
}

fn key(number: u64) -> Key {
    KeyBuilder::new("object", 1).number(number).finish()
}

fn in_directory(directory: &tempfile::TempDir, prefix: &str) -> ObjectBackend {
    ObjectBackend::open(&format!("file://{}", directory.path().display()), NONE, &options(prefix)).unwrap()
}

fn on_server(server: &Server, prefix: &str, secret: &str) -> ObjectBackend {
    let keys = [("AWS_ACCESS_KEY_ID", "key".to_owned()), ("AWS_SECRET_ACCESS_KEY", secret.to_owned())];
    let settings = server.s3_settings().into_iter().chain(keys);
    ObjectBackend::open("s3://bucket/some/dir", settings, &options(prefix)).unwrap()
}

mod directory {
    use super::*;

    struct Directory(tempfile::TempDir);

    impl BackendFixture for Directory {
        async fn open(&self) -> Arc<dyn Backend> {
            Arc::new(in_directory(&self.0, "a:"))
        }
    }

    greenwave_cache::backend_conformance!(Directory(tempfile::tempdir().unwrap()));
}

mod s3 {
    use super::*;

    struct S3(Option<Server>);

    impl BackendFixture for S3 {
        async fn open(&self) -> Arc<dyn Backend> {
            match &self.0 {
                Some(server) => Arc::new(on_server(server, "a:", "secret")),
                // The test is skipped, as `Server::s3` has reported, so any backend will do.
                None => Arc::new(MemoryBackend::new(1000, 1 << 20).unwrap()),
            }
        }
    }

    greenwave_cache::backend_conformance!(S3(Server::s3()));
}

#[tokio::test]
async fn prefixes_separate_the_users_of_a_location() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (in_directory(&directory, "a/../:b"), in_directory(&directory, "c"));
    one.put(&key(1), "one".into(), None).await.unwrap();
    assert_eq!(two.get(&key(1)).await.unwrap(), None);
    two.put(&key(1), "two".into(), None).await.unwrap();
    assert_eq!(one.get(&key(1)).await.unwrap().unwrap(), "one");
    assert_eq!((one.list().await.unwrap(), two.list().await.unwrap()), (vec![key(1)], vec![key(1)]));
    assert_eq!(std::fs::read_dir(directory.path().parent().unwrap().join("b")).ok().map(|_| ()), None);
}

#[tokio::test]
async fn foreign_files_and_damaged_names_are_not_listed() {
    let directory = tempfile::tempdir().unwrap();
    let backend = in_directory(&directory, "a");
    backend.put(&key(1), "one".into(), None).await.unwrap();
    let digits = key(2).to_string();
    for name in
        ["README", "00/11", &digits, &digits.to_uppercase(), &format!("{}/{}x", &digits[..2], &digits[2..])]
    {
        let path = directory.path().join("a").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    assert_eq!(backend.list().await.unwrap(), [key(1)]);
}

#[tokio::test]
async fn values_above_the_limit_are_rejected_and_replace_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let backend = in_directory(&directory, "a");
    let limit = usize::try_from(backend.capabilities().value_bytes_max.unwrap()).unwrap();
    backend.put(&key(1), "old".into(), None).await.unwrap();
    let error = backend.put(&key(1), vec![0; limit + 1].into(), None).await.unwrap_err();
    assert!(error.to_string().contains("exceeds the limit"), "{error}");
    assert_eq!(backend.get(&key(1)).await.unwrap(), None);
    // A file that another program has written.
    backend.put(&key(1), "new".into(), None).await.unwrap();
    let digits = key(1).to_string();
    let path = directory.path().join("a").join(&digits[..2]).join(&digits[2..]);
    std::fs::File::create(path).unwrap().set_len(limit as u64 + 1).unwrap();
    assert_eq!(backend.get(&key(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_server_that_is_gone_or_refuses_costs_one_call() {
    let Some(mut server) = Server::s3() else { return };
    let refused = on_server(&server, "a", "wrong");
    assert!(refused.get(&key(1)).await.is_err());
    let backend = on_server(&server, "a", "secret");
    backend.put(&key(1), "one".into(), None).await.unwrap();
    server.kill();
    // The delay after a failure is random, up to an hour.
    let hour = Duration::from_secs(3600);
    let quick = RemoteOptions {
        timeout: Duration::from_millis(200),
        backoff_min: hour,
        backoff_max: hour,
        ..options("a")
    };
    let gone = ObjectBackend::open("s3://bucket/some/dir", server.s3_settings(), &quick).unwrap();
    assert!(gone.get(&key(1)).await.is_err());
    let error = gone.get_many(&[key(1), key(2)]).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::Unavailable { .. })), "{error}");
    server.restart();
    let again = on_server(&server, "a", "secret");
    assert_eq!(again.get(&key(1)).await.unwrap().unwrap(), "one");
}

#[test]
fn unusable_addresses_are_errors_without_their_text() {
    for address in ["nothing", "file://host/dir", "ftp://me:hunter2@host", "s3://"] {
        let error = ObjectBackend::open(address, NONE, &RemoteOptions::default()).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
