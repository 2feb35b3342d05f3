//! Tests of greenwave-telemetry through its public face, over real sockets of the loopback.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

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
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_keys_are_those_that_were_promised() {
    let source = || MetricsSnapshot {
        cache: CacheMetrics::new(15_234, 2_156),
        parallel: ParallelMetrics::new(4, 12, 0.725),
        memory: memory_usage(false),
        extra: serde_json::Map::from_iter([("run".to_owned(), "calc".into())]),
    };
    let serving = MetricsEndpoint::bind(any_port()).await.unwrap().serve(source);
    let answer = get(serving.address(), "/metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
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
    assert!(get(serving.address(), "/").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = MetricsEndpoint::bind(any_port()).await.unwrap();
    let error = MetricsEndpoint::bind(first.address()).await.unwrap_err();
    assert!(matches!(error, Error::AddressInUse { address } if address == first.address()), "{error}");
}

#[tokio::test]
async fn dropping_stops_serving() {
    let serving = MetricsEndpoint::bind(any_port()).await.unwrap().serve(MetricsSnapshot::default);
    let address = serving.address();
    drop(serving);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_that_of_this_process() {
    let figures = memory_usage(true);
    assert!(figures.used_mb > 0 && figures.peak_mb >= figures.used_mb && figures.spillover_active);
}
