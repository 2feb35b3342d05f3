//! Tests of greenwave-telemetry through its public API, over loopback sockets.

#![expect(clippy::unwrap_used, reason = "test helpers may unwrap")]

use std::net::SocketAddr;

use greenwave_telemetry::{
    CacheMetrics, Error, MetricsEndpoint, MetricsSnapshot, ParallelMetrics, memory_usage,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn json_keys_are_stable() {
    let source = || MetricsSnapshot {
        cache: CacheMetrics::new(15_234, 2_156),
        parallel: ParallelMetrics::new(4, 12, 0.725),
        memory: memory_usage(false),
        extra: serde_json::Map::from_iter([("run".to_owned(), "calc".into())]),
    };
    let server = MetricsEndpoint::bind(any_port()).await.unwrap().serve(source);
    let response = get(server.address(), "/metrics").await;
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/json"), "{head}");
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    let keys = |at: &str| json[at].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys("cache"), ["hit_rate", "total_hits", "total_misses"]);
    assert_eq!(keys("parallel"), ["active_workers", "efficiency", "queue_depth"]);
    assert_eq!(keys("memory"), ["peak_mb", "spillover_active", "used_mb"]);
    assert_eq!(
        (json["cache"]["hit_rate"].as_f64(), json["parallel"]["efficiency"].as_f64()),
        (Some(87.6), Some(72.5))
    );
    assert_eq!(json["run"], "calc");
    assert!(get(server.address(), "/").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn an_address_in_use_is_reported() {
    let first = MetricsEndpoint::bind(any_port()).await.unwrap();
    let error = MetricsEndpoint::bind(first.address()).await.unwrap_err();
    assert!(matches!(error, Error::AddressInUse { address } if address == first.address()), "{error}");
}

#[tokio::test]
async fn dropping_the_server_stops_it() {
    let server = MetricsEndpoint::bind(any_port()).await.unwrap().serve(MetricsSnapshot::default);
    let address = server.address();
    drop(server);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[test]
#[cfg(target_os = "linux")]
fn memory_usage_is_measured() {
    let metrics = memory_usage(true);
    assert!(metrics.used_mb > 0 && metrics.peak_mb >= metrics.used_mb && metrics.spillover_active);
}
