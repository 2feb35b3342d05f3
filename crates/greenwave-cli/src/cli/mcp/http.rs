//! Serves clients over Streamable HTTP.

mod sessions;
mod token;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::sessions::{Reservation, Sessions};
use self::token::Token;
use super::server::Server;
use super::server::session::Session;
use crate::error::CliError;
use crate::output;

/// Path of the server's only resource.
const PATH: &str = "/mcp";
/// Maximum number of open connections: a session has a stream and a few calls.
const CONNECTIONS_MAX: usize = 192;
/// Time in which a client must send the head of a request. It includes the idle time before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of the head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Pause after a failed `accept`, for example while the process has no free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = BoxBody<Bytes, Infallible>;

/// Serves clients at an address until the future is dropped, and prints the URL first.
///
/// A client can run code as this user: `run_tests` runs the tests of any directory. Requests
/// therefore need a token on every address, also on the loopback, which all users of a machine
/// share.
///
/// # Errors
/// [`CliError::Listen`], and [`CliError::Token`] if the file has no token.
pub(super) async fn serve(
    session: Arc<Session>,
    address: SocketAddr,
    token_file: Option<PathBuf>,
) -> Result<Infallible, CliError> {
    let token = Token::read(token_file.as_deref())?;
    let listen = |source| CliError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let url = format!("http://{address}{PATH}");
    output::line(&format!("Model Context Protocol: {}", token.url(&url)));
    let endpoint = Arc::new(Endpoint::new(session, address, token));
    Ok(accept(listener, endpoint).await)
}

/// Answers requests.
struct Endpoint {
    token: Token,
    sessions: Arc<Sessions>,
    service: StreamableHttpService<Server, sessions::Manager>,
}

impl Endpoint {
    fn new(session: Arc<Session>, address: SocketAddr, token: Token) -> Self {
        let sessions = Arc::new(Sessions::default());
        let new_server = move || Ok(Server::new(Arc::clone(&session)));
        let service = StreamableHttpService::new(new_server, sessions.manager(), settings(address));
        Self { token, sessions, service }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        if !self.token.is_in(request.uri(), request.headers()) {
            let mut response = text(StatusCode::UNAUTHORIZED, "requests need the token of this server\n");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
        if request.uri().path() != PATH {
            return text(StatusCode::NOT_FOUND, "not found, see /mcp\n");
        }
        let reservation = self.sessions.reserve(request.headers());
        let response = self.service.handle(request).await;
        match self.sessions.hold(reservation, response.headers()).await {
            // The session is in use as long as its response.
            Some(in_use) => response.map(|body| {
                let held = body.map_frame(move |frame| {
                    let _in_use: &Reservation = &in_use;
                    frame
                });
                held.boxed()
            }),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "too many sessions are in use\n"),
        }
    }
}

/// Returns the checks of `Host` and `Origin`, with which the page of another server cannot use a
/// browser to send requests. On the loopback, `Host` is a name of this machine. Elsewhere, the
/// server may have any name.
fn settings(address: SocketAddr) -> StreamableHttpServerConfig {
    let settings = StreamableHttpServerConfig::default().enforce_origin_validation();
    if !address.ip().is_loopback() {
        return settings.disable_allowed_hosts();
    }
    let port = address.port();
    settings
        .with_allowed_origins(["localhost", "127.0.0.1", "[::1]"].map(|host| format!("http://{host}:{port}")))
}

/// Accepts connections until it is dropped. The connections end with the future.
async fn accept(listener: TcpListener, endpoint: Arc<Endpoint>) -> Infallible {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&free).acquire_owned().await.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let endpoint = Arc::clone(&endpoint);
                connections.spawn(async move {
                    let _permit = permit;
                    serve_connection(stream, endpoint).await;
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve_connection(stream: TcpStream, endpoint: Arc<Endpoint>) {
    // Answers are small, and each follows a request.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let endpoint = Arc::clone(&endpoint);
        async move { Ok::<_, Infallible>(endpoint.respond(request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_header_size(HEAD_BYTES_MAX);
    // A client may break off at any time.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

fn text(status: StatusCode, message: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(message.as_bytes())).boxed());
    *response.status_mut() = status;
    response
}
