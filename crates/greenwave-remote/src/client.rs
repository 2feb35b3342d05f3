//! A client of one server: its connection, deadlines, and what failed.

pub(crate) mod actions;
mod batches;
mod blobs;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use parking_lot::Mutex;
use proto::capabilities_client::CapabilitiesClient;
use tokio::runtime::{self, Handle};
use tokio::sync::Semaphore;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::address::Address;
use crate::breaker::Breaker;
use crate::capabilities::ServerCapabilities;
use crate::options::ClientOptions;
use crate::token::Credentials;
use crate::{Error, Failure};

/// Maximum size of a message that is accepted. A batch of blobs is smaller.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes of a stream, and of all streams, that the server may send ahead.
const WINDOW_BYTES: u32 = 2 << 20;
/// Longest deadline that a server is asked to keep. The protocol has no room for the longest times.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes of header fields that are accepted.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// A client of a server of the Remote Execution API. Clones share one connection.
///
/// Connects with the first call, which asks the server for its capabilities, and again after a
/// failure. A dropped call is cancelled at the server. A server that fails or hangs costs one
/// [timeout](ClientOptions::timeout), after which calls fail immediately for some time.
#[derive(Debug, Clone)]
pub struct Client {
    state: Arc<ClientState>,
}

#[derive(Debug)]
struct ClientState {
    address: Address,
    endpoint: Endpoint,
    options: ClientOptions,
    breaker: Breaker,
    slots: Semaphore,
    session: Mutex<Option<Arc<Session>>>,
    /// Held while one task connects, so that others wait for it.
    connecting: tokio::sync::Mutex<()>,
    /// Whether a blob that does not match its digest was reported.
    has_warned: AtomicBool,
}

/// A connection to a server whose capabilities have been read. After a failure, another one is
/// made: the server may have been replaced.
#[derive(Debug)]
pub(crate) struct Session {
    channel: Channel,
    header: Option<(AsciiMetadataKey, AsciiMetadataValue)>,
    capabilities: ServerCapabilities,
    timeout: Duration,
    /// The runtime of the channel's task. In another one, the channel may never answer.
    runtime: runtime::Id,
    /// Name of the instance, which every message carries.
    instance: String,
}

/// Why an attempt failed.
#[derive(Debug)]
enum CallError {
    Status(Status),
    /// A stream made no progress within this time.
    Late(Duration),
    Incompatible(String),
    /// The server sent something else, and may send the right thing when asked again.
    Damaged(String),
    /// The server sends more than it was asked for.
    TooLong(String),
    Token(String),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Client {
    /// Creates a client for `grpc://HOST:PORT` or `grpcs://HOST[:PORT]`, the latter over TLS, with
    /// `/INSTANCE` at the end if the server wants the name of an instance. Does not connect yet.
    ///
    /// # Errors
    /// Returns [`Error::InvalidOption`] if the address or an option is invalid.
    pub fn new(address: &str, options: ClientOptions) -> Result<Self, Error> {
        options.check()?;
        let address = Address::parse(address)?;
        if options.credentials.is_some() && !address.is_private() {
            let expected = "grpcs://, because a token would be sent without encryption";
            let value = format!("`{address}`");
            return Err(Error::InvalidOption { option: "address", value, expected });
        }
        let state = ClientState {
            endpoint: endpoint(&address, &options)?,
            breaker: Breaker::new(options.backoff_min, options.backoff_max, options.seed),
            slots: Semaphore::new(options.calls_max),
            session: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            has_warned: AtomicBool::new(false),
            address,
            options,
        };
        Ok(Self { state: Arc::new(state) })
    }

    /// Returns the address of the server.
    #[must_use]
    pub fn server(&self) -> String {
        self.state.address.to_string()
    }

    /// Returns the capabilities of the server. Asks for them once per connection.
    ///
    /// # Errors
    /// Returns [`Error::Incompatible`] if the server cannot be used.
    pub async fn capabilities(&self) -> Result<ServerCapabilities, Error> {
        let timeout = self.state.options.timeout;
        self.call("ask for the capabilities", timeout, |session| async move { Ok(session.capabilities) })
            .await
    }

    /// Returns the current connection, for calls that take longer than the time limit.
    pub(crate) async fn current_session(&self) -> Result<Arc<Session>, Error> {
        let timeout = self.state.options.timeout;
        self.call("connect", timeout, |session| async move { Ok(session) }).await
    }

    /// Makes a call within a time limit, unless the server failed recently.
    async fn call<T, Work>(
        &self,
        operation: &'static str,
        limit: Duration,
        work: impl Fn(Arc<Session>) -> Work,
    ) -> Result<T, Error>
    where
        Work: Future<Output = Result<T, CallError>>,
    {
        let state = &*self.state;
        let _slot = state.slots.acquire().await.expect("the semaphore is never closed");
        let server = || state.address.to_string();
        let admission =
            state.breaker.admit().map_err(|retry_in| Error::Unavailable { server: server(), retry_in })?;
        let error = match tokio::time::timeout(limit, state.attempt(&work)).await {
            Ok(Ok(answer)) => {
                admission.succeed();
                return Ok(answer);
            }
            Ok(Err(error)) => error,
            Err(_) => CallError::Late(limit),
        };
        let error = match error {
            CallError::Status(status) => {
                Error::Call { operation, server: server(), source: Failure::of(&status) }
            }
            CallError::Late(limit) => {
                Error::Call { operation, server: server(), source: Failure::Late(limit) }
            }
            CallError::Incompatible(problem) => Error::Incompatible { server: server(), problem },
            CallError::Damaged(problem) | CallError::TooLong(problem) => {
                Error::Damaged { operation, server: server(), problem }
            }
            CallError::Token(problem) => Error::Token { server: server(), problem },
        };
        if error.is_refusal() || matches!(error, Error::Damaged { .. }) {
            admission.succeed();
        } else {
            admission.fail();
            *state.session.lock() = None;
        }
        Err(error)
    }

    /// Reports wrong blobs and results of the server, the first one as a warning.
    fn report_damage(&self, problem: &str) {
        let server = &self.state.address;
        // Relaxed: the flag guards no other memory.
        if self.state.has_warned.swap(true, Ordering::Relaxed) {
            tracing::debug!(%server, problem, "the server sent damaged data again");
        } else {
            tracing::warn!(%server, problem, "the server sent damaged data, which counts as missing");
        }
    }
}

impl ClientState {
    /// Makes one attempt, or two if the first one's token has expired and can be renewed.
    async fn attempt<T, Work>(&self, work: &impl Fn(Arc<Session>) -> Work) -> Result<T, CallError>
    where
        Work: Future<Output = Result<T, CallError>>,
    {
        let session = self.session().await?;
        match work(session.clone()).await {
            Err(CallError::Status(status)) if self.can_renew_token(&status) => {
                let expired = |current: &mut Arc<Session>| Arc::ptr_eq(current, &session);
                self.session.lock().take_if(expired);
                let session = self.session().await?;
                work(session).await
            }
            result => result,
        }
    }

    fn can_renew_token(&self, status: &Status) -> bool {
        status.code() == Code::Unauthenticated
            && self.options.credentials.as_ref().is_some_and(Credentials::can_be_renewed)
    }

    /// Returns the current session, or connects.
    async fn session(&self) -> Result<Arc<Session>, CallError> {
        let runtime = Handle::current().id();
        let current = || self.session.lock().clone().filter(|session| session.runtime == runtime);
        if let Some(session) = current() {
            return Ok(session);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(session) = current() {
            return Ok(session);
        }
        let session = Arc::new(self.connect().await?);
        *self.session.lock() = Some(session.clone());
        Ok(session)
    }

    async fn connect(&self) -> Result<Session, CallError> {
        let header = match &self.options.credentials {
            Some(credentials) => Some(credentials.obtain().await.map_err(CallError::Token)?),
            None => None,
        };
        let mut session = Session {
            channel: self.endpoint.connect_lazy(),
            header,
            capabilities: ServerCapabilities::none(),
            timeout: self.options.timeout,
            runtime: Handle::current().id(),
            instance: self.address.instance.clone(),
        };
        let request = proto::GetCapabilitiesRequest { instance_name: session.instance.clone() };
        let mut client = CapabilitiesClient::new(session.channel.clone());
        let answer = client.get_capabilities(session.request(request)).await?.into_inner();
        session.capabilities = ServerCapabilities::read(&answer).map_err(CallError::Incompatible)?;
        Ok(session)
    }
}

impl Session {
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    pub(crate) fn limited<T>(&self, message: T) -> Request<T> {
        self.request(message)
    }

    pub(crate) fn unlimited<T>(&self, message: T) -> Request<T> {
        self.request_without_deadline(message)
    }

    /// Adds the header of the user and the deadline to a message.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.request_without_deadline(message);
        // For the server only: the time limit of the call ends earlier.
        request.set_timeout(self.timeout.min(DEADLINE_MAX) * 2);
        request
    }

    /// Adds the header of the user to a stream, whose pauses are limited instead of its length.
    fn request_without_deadline<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some((name, value)) = &self.header {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        request
    }

    /// Waits for the next part of a stream.
    async fn within<T>(&self, part: impl Future<Output = Result<T, Status>>) -> Result<T, CallError> {
        match tokio::time::timeout(self.timeout, part).await {
            Ok(part) => Ok(part?),
            Err(_) => Err(CallError::Late(self.timeout)),
        }
    }
}

fn endpoint(address: &Address, options: &ClientOptions) -> Result<Endpoint, Error> {
    let invalid = |problem: &tonic::transport::Error| {
        tracing::debug!(%problem, "invalid endpoint");
        let expected = "an address with certificates that can be read";
        Error::InvalidOption { option: "address", value: format!("`{address}`"), expected }
    };
    let endpoint = Endpoint::from_shared(address.origin()).map_err(|error| invalid(&error))?;
    let endpoint = endpoint
        .connect_timeout(options.timeout.min(DEADLINE_MAX))
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX);
    if !address.has_tls {
        return Ok(endpoint);
    }
    let mut tls = ClientTlsConfig::new().with_native_roots().domain_name(address.server_name());
    if !options.authorities_pem.is_empty() {
        tls = tls.ca_certificate(Certificate::from_pem(&options.authorities_pem));
    }
    endpoint.tls_config(tls).map_err(|error| invalid(&error))
}
