//! The HTTP client that sends to the collector.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::runtime::Handle;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Time limit for a request, unless the environment has another one.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Variable with the time limit in milliseconds.
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
/// Maximum size of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A client that remembers its first failure, which is said once, at the end of the run.
#[derive(Debug)]
pub(super) struct Client {
    remote: reqwest::Client,
    /// Servers on this machine, which a proxy cannot reach.
    local: reqwest::Client,
    runtime: Handle,
    problem: Arc<OnceLock<String>>,
}

impl Client {
    /// Creates a client that works in the current runtime: the threads of the SDK have none.
    pub(super) fn new() -> Result<Self, BoxError> {
        let limit = std::env::var(TIMEOUT).ok().and_then(|limit| limit.parse().ok());
        let limit = limit.map_or(REQUEST_TIME_MAX, Duration::from_millis);
        let builder = || -> Result<_, BoxError> {
            let client = reqwest::Client::builder().tls_backend_preconfigured(tls()?).http1_only();
            let agent = concat!("greenwave/", env!("CARGO_PKG_VERSION"));
            Ok(client.user_agent(agent).redirect(Policy::none()).timeout(limit))
        };
        let (remote, local) = (builder()?.build()?, builder()?.no_proxy().build()?);
        Ok(Self { remote, local, runtime: Handle::current(), problem: Arc::default() })
    }

    /// Returns the first failure.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.get().cloned()
    }
}

/// Returns the configuration of TLS. The cryptography is passed here, because a default would be
/// global.
fn tls() -> Result<ClientConfig, BoxError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_platform_verifier()?.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let address = format!("{}", request.uri());
        let host = request.uri().host().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let client = if is_local { self.local.clone() } else { self.remote.clone() };
        let problem = Arc::clone(&self.problem);
        let sending = self.runtime.spawn(async move {
            let sent = send(&client, request).await;
            let failed = match &sent {
                Ok(response) if response.status().is_success() => None,
                Ok(response) => Some(response.status().to_string()),
                Err(error) => Some(with_causes(&**error)),
            };
            if let Some(failed) = failed {
                // Later failures usually have the same cause.
                let _ = problem.set(format!("cannot send to {address}: {failed}"));
            }
            sent
        });
        sending.await?
    }
}

async fn send(client: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut response = client.execute(request.try_into()?).await?;
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let left = ANSWER_BYTES_MAX - answer.len();
        answer.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if answer.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    let mut received = Response::new(Bytes::from(answer));
    *received.status_mut() = response.status();
    *received.headers_mut() = std::mem::take(response.headers_mut());
    Ok(received)
}

/// Returns an error with its causes.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
