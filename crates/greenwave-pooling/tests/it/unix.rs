//! Tests of `Unix`.

use greenwave_pooling::{Pool, PoolOptions, Unix, manager_conformance};
use tokio::io::AsyncWriteExt;

/// Returns a socket that accepts connections until the end of the test.
fn listening() -> std::path::PathBuf {
    let dir = tempfile::tempdir().unwrap().keep();
    let path = dir.join("socket");
    Box::leak(Box::new(std::os::unix::net::UnixListener::bind(&path).unwrap()));
    path
}

manager_conformance!(Unix::new(listening()));

#[tokio::test]
async fn a_half_read_connection_is_not_reused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let pool = Pool::new(Unix::new(path), PoolOptions { size_min: 0, size_max: 1, ..PoolOptions::default() });
    let lease = pool.get().await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    drop(lease);
    let lease = pool.get().await.unwrap();
    assert_eq!(lease.uses(), 1);
    peer.write_all(b"left over").await.unwrap();
    lease.readable().await.unwrap();
    drop(lease);
    assert_eq!(pool.stats().discarded, 1);
}
