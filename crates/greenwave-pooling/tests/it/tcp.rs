//! Tests of `Tcp` on the loopback.

use std::net::TcpListener;

use greenwave_pooling::{Error, Pool, PoolOptions, Tcp, manager_conformance};
use tokio::io::AsyncWriteExt;

/// Returns an address that accepts connections until the end of the test.
fn listening() -> String {
    let listener: &'static TcpListener = Box::leak(Box::new(TcpListener::bind("127.0.0.1:0").unwrap()));
    listener.local_addr().unwrap().to_string()
}

manager_conformance!(Tcp::new(listening()));

fn one() -> PoolOptions {
    PoolOptions { size_min: 0, size_max: 1, ..PoolOptions::default() }
}

#[tokio::test]
async fn a_closed_or_half_read_connection_is_not_reused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = Pool::new(Tcp::new(listener.local_addr().unwrap().to_string()), one());

    let lease = pool.get().await.unwrap();
    drop(listener.accept().await.unwrap());
    lease.readable().await.unwrap();
    drop(lease);
    assert_eq!(pool.stats().discarded, 1);

    let lease = pool.get().await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    peer.write_all(b"left over").await.unwrap();
    lease.readable().await.unwrap();
    drop(lease);
    assert_eq!(pool.stats().discarded, 2);

    let lease = pool.get().await.unwrap();
    drop(lease);
    assert_eq!((pool.stats().discarded, pool.stats().idle), (2, 1));
}

#[tokio::test]
async fn a_refused_connect_reports_its_cause() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pool = Pool::new(Tcp::new(free.to_string()), one());
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.is_transient());
    let cause = std::error::Error::source(&error).unwrap().downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionRefused);
}
