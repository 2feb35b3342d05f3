//! Binds an address and serves metrics there over HTTP.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::negotiation::Format;
use crate::{Error, MetricsSnapshot, exposition, limits, origin};

/// Time in which a client must send the head of a request. It includes the idle time before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which a connection is closed, even if it is in use. A scraper connects again.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// Maximum size of the head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Pause after a failed `accept`, for example while the process has no free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A source of metrics, such as any `Fn() -> MetricsSnapshot`.
///
/// # Contract
/// `snapshot` is called once per request on a tokio worker thread. It must not block, and may be
/// called from several threads at once. A request whose call panics gets a response with status
/// 500.
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

/// A running metrics server. Dropping it stops the server and closes its connections.
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
        bound.await.map_err(|source: io::Error| match source.kind() {
            ErrorKind::AddrInUse => Error::AddressInUse { address },
            _ => Error::Bind { address, source },
        })
    }

    /// Returns the bound address, including the selected port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the source's metrics at `GET /metrics` until the returned value is dropped.
    ///
    /// The response is JSON, unless the `Accept` header of the request prefers OpenMetrics 1.0
    /// (`application/openmetrics-text`) or Prometheus text 0.0.4 (`text/plain`).
    ///
    /// At most 64 connections are open at once, and at most an eighth of the descriptors that the
    /// process may have. Further clients wait. A client has five seconds to send a request, and a
    /// connection is closed after a minute, so a client that stays silent does not lock out others.
    ///
    /// An endpoint on a loopback address answers only requests whose `Host` is `localhost` or a
    /// loopback address, with 421 otherwise. A web page could otherwise read the metrics through a
    /// domain name that resolves to the loopback address (DNS rebinding). On every address,
    /// requests with an `Origin` other than the endpoint itself are refused with 403.
    pub fn serve(self, source: impl MetricsSource) -> MetricsServer {
        let address = self.address;
        let task = tokio::spawn(accept(self.listener, address, Arc::new(source)));
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

/// Accepts connections until it is dropped. The connections end with the future.
async fn accept(listener: TcpListener, address: SocketAddr, source: Arc<impl MetricsSource>) {
    let free = Arc::new(Semaphore::new(limits::connections_max()));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = Arc::clone(&source);
                connections.spawn(async move {
                    let _permit = permit;
                    serve_connection(stream, address, source).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, %address, "cannot accept a connection for metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, address: SocketAddr, source: Arc<impl MetricsSource>) {
    let service = service_fn(move |request| {
        let response = respond(&request, address, &*source);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_header_size(HEAD_BYTES_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_TIME_MAX, connection).await {
        tracing::debug!(%error, "a connection for metrics broke off");
    }
}

fn respond<B>(
    request: &Request<B>,
    address: SocketAddr,
    source: &impl MetricsSource,
) -> Response<Full<Bytes>> {
    if let Err(refusal) = origin::check(request, address) {
        return text(refusal.status(), refusal.message());
    }
    if request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "not found, see /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // Unwind safety is asserted: the snapshot is not used after a panic.
    let Ok(snapshot) = catch_unwind(AssertUnwindSafe(|| source.snapshot())) else {
        tracing::error!(%address, "the source of metrics panicked");
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the source of metrics panicked\n");
    };
    let format = Format::negotiate(request.headers());
    let body = match format {
        Format::Json => snapshot.to_json() + "\n",
        Format::Text(format) => exposition::render(&snapshot.into_families(), format),
    };
    let mut response = Response::new(Full::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

fn text(status: StatusCode, message: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(message));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
