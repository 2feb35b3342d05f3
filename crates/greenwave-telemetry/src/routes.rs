//! Answers requests: the metrics, and the dashboard with its data.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::dashboard::{self, Dashboard};
use crate::event_stream::EventStream;
use crate::limits::LAST_RESPONSE_AGE;
use crate::negotiation::Format;
use crate::source::MetricsSource;
use crate::{exposition, origin};

/// Body of a response: complete, or a stream of events.
pub(crate) type Body = Either<Full<Bytes>, EventStream>;

/// A connection of a client.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) opened: Instant,
    /// The permit of a stream of events. The stream counts until its end is written.
    permit: OnceLock<OwnedSemaphorePermit>,
}

impl Connection {
    /// Creates the state of a connection that is opened now.
    pub(crate) fn new() -> Self {
        Self { opened: Instant::now(), permit: OnceLock::new() }
    }
}

/// The sources of a server's responses.
#[derive(Debug)]
pub(crate) struct Routes<S> {
    pub(crate) address: SocketAddr,
    pub(crate) source: S,
    pub(crate) dashboard: Option<Dashboard>,
}

/// Headers of the dashboard's responses. They keep other pages from embedding and reading them, and
/// the token out of `Referer`.
const PRIVATE: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

impl<S: MetricsSource> Routes<S> {
    /// Responds to a request. The last response on a connection has `Connection: close`.
    pub(crate) async fn respond<B>(&self, request: &Request<B>, connection: &Connection) -> Response<Body> {
        let mut response = self.response(request, connection).await;
        if connection.opened.elapsed() >= LAST_RESPONSE_AGE {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Returns a response. A stream of events puts its permit where the connection holds it.
    async fn response<B>(&self, request: &Request<B>, connection: &Connection) -> Response<Body> {
        if let Err(refusal) = origin::check(request, self.address) {
            return text(refusal.status(), refusal.message());
        }
        let path = request.uri().path();
        let dashboard = self.dashboard.as_ref().filter(|_| matches!(path, "/" | "/events" | "/feature"));
        if path != "/metrics" && dashboard.is_none() {
            return text(StatusCode::NOT_FOUND, "not found, see /metrics\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let Some(dashboard) = dashboard else { return self.metrics(request) };
        if !dashboard.allows(request.uri(), request.headers(), self.address) {
            return text(StatusCode::FORBIDDEN, "the dashboard needs the token that the run prints\n");
        }
        let mut response = match path {
            "/events" => events(request, dashboard, connection),
            "/feature" => details(request, dashboard).await,
            _ => page(),
        };
        for (name, value) in PRIVATE {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn metrics<B>(&self, request: &Request<B>) -> Response<Body> {
        // Unwind safety is asserted: the snapshot is not used after a panic.
        let Ok(snapshot) = catch_unwind(AssertUnwindSafe(|| self.source.snapshot())) else {
            tracing::error!(address = %self.address, "the source of metrics panicked");
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the source of metrics panicked\n");
        };
        let format = Format::negotiate(request.headers());
        let body = match format {
            Format::Json => snapshot.to_json() + "\n",
            Format::Text(format) => exposition::render(&snapshot.into_families(), format),
        };
        let mut response = complete(format.content_type(), body);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        response
    }
}

fn page() -> Response<Body> {
    let mut response = complete("text/html; charset=utf-8", dashboard::PAGE);
    let policy = HeaderValue::from_static(dashboard::POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn events<B>(request: &Request<B>, dashboard: &Dashboard, connection: &Connection) -> Response<Body> {
    if *request.method() == Method::HEAD {
        return complete("text/event-stream", "");
    }
    let permit = Arc::clone(&dashboard.streams).try_acquire_owned().ok();
    if permit.is_none_or(|permit| connection.permit.set(permit).is_err()) {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many dashboards are open\n");
    }
    let last_id = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    let stream = EventStream::open(dashboard.feed.clone(), last_id, connection.opened);
    let mut response = Response::new(Either::Right(stream));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // The end of the stream ends the connection, and with it the permit.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn details<B>(request: &Request<B>, dashboard: &Dashboard) -> Response<Body> {
    match dashboard.details(request.uri()).await {
        Some(details) => complete("application/json", details),
        None => text(StatusCode::NOT_FOUND, "there is no such feature\n"),
    }
}

fn complete(kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, message: &'static str) -> Response<Body> {
    let mut response = complete("text/plain; charset=utf-8", message);
    *response.status_mut() = status;
    response
}
