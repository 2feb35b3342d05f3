//! Tests of greenwave-telemetry through its public API, over loopback sockets.

#![expect(clippy::unwrap_used, reason = "test helpers may unwrap")]

mod browser;
mod dashboard;
mod prometheus;
mod volume;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use greenwave_telemetry::{
    CacheMetrics, Error, MetricsEndpoint, MetricsSnapshot, ParallelMetrics, memory_usage,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n")).await
}

/// Sends a request, given its head without the last line, and returns the whole response.
async fn send(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Connection: close\r\n\r\n");
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
        families: Vec::new(),
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

/// JSON has no number for infinity and results of invalid operations.
#[test]
fn every_number_is_a_number_in_json() {
    for count in [0, 1, u64::MAX] {
        for efficiency in [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, 0.5, f64::MAX, f64::INFINITY] {
            for misses in [0, 1, u64::MAX] {
                let cache = CacheMetrics::new(count, misses);
                assert!((0.0..=100.0).contains(&cache.hit_rate), "{cache:?}");
                let parallel = ParallelMetrics::new(count, misses, efficiency);
                let snapshot = MetricsSnapshot { cache, parallel, ..MetricsSnapshot::default() };
                let json: serde_json::Value = serde_json::from_str(&snapshot.to_json()).unwrap();
                assert!(json["parallel"]["efficiency"].is_number(), "{json}");
                assert_eq!(json["cache"]["total_hits"], count);
            }
        }
    }
}

/// More requests than the endpoint has connections, so that each must give its own back.
#[tokio::test]
async fn a_source_that_panics_fails_its_request_only() {
    let calls = AtomicUsize::new(0);
    let source = move || {
        assert!(calls.fetch_add(1, Ordering::Relaxed) >= 100, "no metrics");
        MetricsSnapshot::default()
    };
    let server = MetricsEndpoint::bind(any_port()).await.unwrap().serve(source);
    for _ in 0..100 {
        let response = get(server.address(), "/metrics").await;
        assert!(response.starts_with("HTTP/1.1 500"), "{response}");
        assert!(response.ends_with("\r\n\r\nthe source of metrics panicked\n"), "{response}");
    }
    assert!(get(server.address(), "/metrics").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn methods_other_than_get_are_refused() {
    let server = MetricsEndpoint::bind(any_port()).await.unwrap().serve(MetricsSnapshot::default);
    let post = send(server.address(), "POST /metrics HTTP/1.1\r\nHost: localhost\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405") && post.to_lowercase().contains("allow: get, head"), "{post}");
    let head = send(server.address(), "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn requests_from_a_page_of_another_server_are_refused() {
    let server = MetricsEndpoint::bind(any_port()).await.unwrap().serve(MetricsSnapshot::default);
    let rebound = send(server.address(), "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n").await;
    assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
    let page = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n";
    let page = send(server.address(), page).await;
    assert!(page.starts_with("HTTP/1.1 403"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_no_request_is_disconnected() {
    let server = MetricsEndpoint::bind(any_port()).await.unwrap().serve(MetricsSnapshot::default);
    for begun in ["", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        // The paused clock advances to the server's timeout, since nothing else can happen.
        stream.read_to_end(&mut response).await.unwrap();
        assert!(!response.starts_with(b"HTTP/1.1 200"), "{begun}");
    }
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
