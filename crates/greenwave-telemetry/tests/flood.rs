//! Tests that a flood of connections leaves the process its descriptors. Counts the descriptors of
//! the process, so no other test may run beside it.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "test helpers may unwrap")]

use std::fs;

use greenwave_telemetry::{MetricsEndpoint, MetricsSnapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Number of silent clients. Each has one descriptor in this process, like its connection.
const CLIENTS: usize = 200;
/// Maximum number of connections that the endpoint opens.
const CONNECTIONS_MAX: usize = 64;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_silent_clients_leaves_descriptors_and_delays_others_only() {
    let server =
        MetricsEndpoint::bind("127.0.0.1:0".parse().unwrap()).await.unwrap().serve(MetricsSnapshot::default);
    let before = descriptors();
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        silent.push(TcpStream::connect(server.address()).await.unwrap());
        let opened = descriptors() - before - silent.len();
        assert!(opened <= CONNECTIONS_MAX, "{opened} connections for {} clients", silent.len());
    }
    // The silent clients are disconnected one after the other, and then this one is served.
    let mut client = TcpStream::connect(server.address()).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}
