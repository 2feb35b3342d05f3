//! Serves snapshots over HTTP. Knows nothing of what the figures mean.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{Error, MetricsSnapshot};

/// Where snapshots come from: any `Fn() -> MetricsSnapshot`.
///
/// # Contract
/// Called once for each request, on a tokio worker: it must not block, and may be called from several
/// threads at once.
pub trait MetricsSource: Send + Sync + 'static {
    /// The figures at this moment.
    fn snapshot(&self) -> MetricsSnapshot;
}

impl<F: Fn() -> MetricsSnapshot + Send + Sync + 'static> MetricsSource for F {
    fn snapshot(&self) -> MetricsSnapshot {
        self()
    }
}

/// A bound address that nothing is served on yet.
#[derive(Debug)]
pub struct MetricsEndpoint {
    listener: TcpListener,
    address: SocketAddr,
}

/// A served endpoint. Dropping it stops it.
#[derive(Debug)]
pub struct MetricsServer {
    task: JoinHandle<()>,
    address: SocketAddr,
}

impl MetricsEndpoint {
    /// Binds an address; with port 0 a free port is chosen.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] when another program listens there, [`Error::Bind`] otherwise.
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

    /// The address that was bound, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the source's snapshots at `GET /metrics` until the returned value is dropped.
    pub fn serve(self, source: impl MetricsSource) -> MetricsServer {
        let source = Arc::new(source);
        let metrics = move || {
            let json = source.snapshot().to_json() + "\n";
            async move {
                ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], json)
            }
        };
        let nothing_else = || async { (StatusCode::NOT_FOUND, "the figures are at /metrics\n") };
        let router = Router::new().route("/metrics", get(metrics)).fallback(nothing_else);
        let address = self.address;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(self.listener, router).await {
                tracing::warn!(%error, %address, "the metrics endpoint has stopped");
            }
        });
        MetricsServer { task, address }
    }
}

impl MetricsServer {
    /// The address that is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
