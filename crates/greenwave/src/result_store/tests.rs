//! Tests of servers that a store of test results does not use.

use crate::result_store::{ResultStore, ResultStoreError};
use crate::{Settings, result_keys::ResultKeys};

fn problem(address: &str) -> Option<ResultStoreError> {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::default().testing;
    settings.remote = address.to_owned();
    let mut store = ResultStore::open(directory.path(), &settings, &ResultKeys::default()).unwrap();
    store.take_remote_problem()
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
