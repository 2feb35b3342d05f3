//! Binds an address and serves metrics there over HTTP.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::routes::{Connection, Routes};
use crate::source::MetricsSource;
use crate::{Dashboard, Error, limits};

/// Time in which a client must send the head of a request. It includes the idle time before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Age at which a connection gets no further response. A client that uses it until then has
/// received one with `Connection: close`.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// Further time for the response that is under way then. A client that does not read is cut off.
const LAST_RESPONSE_TIME_MAX: Duration = Duration::from_secs(30);
/// Maximum size of the head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Pause after a failed `accept`, for example while the process has no free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    dashboard: Option<Dashboard>,
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
    /// process may have. Further clients wait. A client has five seconds to send a request, so a
    /// client that stays silent does not lock out others. A connection that is in use is closed
    /// after a minute: the last response has `Connection: close` and is sent to its end, for which
    /// a slow client has half a minute more.
    ///
    /// An endpoint on a loopback address answers only requests whose `Host` is `localhost` or a
    /// loopback address, with 421 otherwise. A web page could otherwise read the metrics through a
    /// domain name that resolves to the loopback address (DNS rebinding). On every address,
    /// requests with an `Origin` other than the endpoint itself are refused with 403.
    pub fn serve(self, source: impl MetricsSource) -> MetricsServer {
        self.start(source, None)
    }

    /// Like [`serve`](Self::serve), with a dashboard at `/`. The dashboard has further paths:
    /// `/events` for its events, and `/feature` for details.
    ///
    /// On addresses other than the loopback, requests need the dashboard's
    /// [token](Dashboard::with_token), except for `/metrics`.
    pub fn serve_with(self, source: impl MetricsSource, dashboard: Dashboard) -> MetricsServer {
        self.start(source, Some(dashboard))
    }

    fn start(self, source: impl MetricsSource, dashboard: Option<Dashboard>) -> MetricsServer {
        let address = self.address;
        let routes = Routes { address, source, dashboard: dashboard.clone() };
        let task = tokio::spawn(accept(self.listener, Arc::new(routes)));
        MetricsServer { task, address, dashboard }
    }
}

impl MetricsServer {
    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the feed of the dashboard, and stops the server once all open dashboards have got all
    /// events, at the latest after `time_max`.
    pub async fn finish(self, time_max: Duration) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.feed.close();
            let _late = timeout(time_max, dashboard.streams_ended()).await;
        }
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections until it is dropped. The connections end with the future.
async fn accept(listener: TcpListener, routes: Arc<Routes<impl MetricsSource>>) {
    let free = Arc::new(Semaphore::new(limits::connections_max()));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let routes = Arc::clone(&routes);
                connections.spawn(async move {
                    let _permit = permit;
                    serve_connection(stream, routes).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, address = %routes.address, "cannot accept a connection for metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, routes: Arc<Routes<impl MetricsSource>>) {
    let state = Arc::new(Connection::new());
    let service = service_fn(move |request| {
        let (routes, state) = (Arc::clone(&routes), Arc::clone(&state));
        async move { Ok::<_, Infallible>(routes.respond(&request, &state).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_header_size(HEAD_BYTES_MAX);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut ended = timeout(CONNECTION_TIME_MAX, connection.as_mut()).await;
    if ended.is_err() {
        connection.as_mut().graceful_shutdown();
        ended = timeout(LAST_RESPONSE_TIME_MAX, connection).await;
    }
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "a connection for metrics broke off");
    }
}
