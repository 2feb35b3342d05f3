//! Serves metrics over HTTP.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{Error, MetricsSnapshot};

/// A source of metrics, such as any `Fn() -> MetricsSnapshot`.
///
/// # Contract
/// `snapshot` is called once per request on a tokio worker thread. It must not block, and may be
/// called from several threads at once.
pub trait MetricsSource: Send + Sync + 'static {
    /// Returns the current metrics.
    fn snapshot(&self) -> MetricsSnapshot;
}

impl<F: Fn() -> MetricsSnapshot + Send + Sync + 'static> MetricsSource for F {
    fn snapshot(&self) -> MetricsSnapshot {
        self()
    }
}

/// A bound address that does not serve requests yet.
#[derive(Debug)]
pub struct MetricsEndpoint {
    listener: TcpListener,
    address: SocketAddr,
}

/// A running metrics server. Dropping it stops the server.
#[derive(Debug)]
pub struct MetricsServer {
    task: JoinHandle<()>,
    address: SocketAddr,
}

impl MetricsEndpoint {
    /// Binds an address. Port 0 selects a free port.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] if another program listens on the address, [`Error::Bind`]
    /// otherwise.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            Ok(Self { address: listener.local_addr()?, listener })
        };
        bound.await.map_err(|source: std::io::Error| match source.kind() {
            ErrorKind::AddrInUse => Error::AddressInUse { address },
            _ => Error::Bind { address, source },
        })
    }

    /// Returns the bound address, including the selected port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the source's metrics at `GET /metrics` until the returned value is dropped.
    pub fn serve(self, source: impl MetricsSource) -> MetricsServer {
        let source = Arc::new(source);
        let metrics = move || {
            let json = source.snapshot().to_json() + "\n";
            async move {
                ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], json)
            }
        };
        let not_found = || async { (StatusCode::NOT_FOUND, "not found, see /metrics\n") };
        let router = Router::new().route("/metrics", get(metrics)).fallback(not_found);
        let address = self.address;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(self.listener, router).await {
                tracing::warn!(%error, %address, "metrics endpoint stopped");
            }
        });
        MetricsServer { task, address }
    }
}

impl MetricsServer {
    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
