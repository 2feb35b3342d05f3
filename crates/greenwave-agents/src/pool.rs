//! Pools sessions with an agent.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use greenwave_pooling::{Lease, Manager, Pool, PoolOptions, PoolStats};

use crate::{Agent, Error, Preflight, Request, ResponseStream, Session, callback};

/// Options of an [`AgentPool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentPoolOptions {
    /// Maximum number of sessions, at least 1.
    pub size: usize,
    /// Minimum number of sessions, which stay open when idle.
    pub min: usize,
    /// Idle time after which a session above the minimum is closed.
    pub idle_timeout: Duration,
}

/// An agent with a pool of sessions. Clones share the pool.
#[derive(Debug, Clone)]
pub struct AgentPool {
    name: Arc<str>,
    agent: Arc<dyn Agent>,
    pool: Pool<SessionManager>,
}

/// A session checked out of an [`AgentPool`]. Dropping it returns the session to the pool.
#[derive(Debug)]
pub struct PooledSession(Lease<SessionManager>);

impl AgentPool {
    /// Creates a pool for an agent, which messages refer to as `name`. Must be called inside a
    /// tokio runtime.
    pub fn new(name: &str, agent: Arc<dyn Agent>, options: AgentPoolOptions) -> Self {
        let config = PoolOptions {
            size_max: options.size,
            size_min: options.min.min(options.size),
            idle_timeout: Some(options.idle_timeout),
            // The scheduler orders waiting requests, and a response may take long.
            checkout_timeout: None,
            ..PoolOptions::default()
        };
        let pool = Pool::new(SessionManager { agent: Arc::clone(&agent) }, config);
        Self { name: name.into(), agent, pool }
    }

    /// Checks out a session, waiting until one is available. Callers are served in order.
    ///
    /// # Errors
    /// [`Error::Pool`] with the agent's error.
    pub async fn session(&self) -> Result<PooledSession, Error> {
        let session = self.pool.get().await;
        session
            .map(PooledSession)
            .map_err(|source| Error::Pool { agent: self.name.to_string(), source: source.into() })
    }

    /// Calls [`Agent::preflight`].
    ///
    /// # Errors
    /// Those of the agent, and [`Error::Panicked`] if it panics.
    pub fn preflight(&self, context: &Preflight<'_>) -> Result<(), Error> {
        callback::call("preflight", || self.agent.preflight(context))?
    }

    /// Returns [`Agent::kind`], or `unknown` if it panics.
    pub fn kind(&self) -> &'static str {
        callback::call("kind", || self.agent.kind()).unwrap_or("unknown")
    }

    /// Returns [`Agent::fingerprint`].
    pub fn fingerprint(&self) -> [u8; 32] {
        self.agent.fingerprint()
    }

    /// Returns the statistics of the pool.
    pub fn stats(&self) -> PoolStats {
        self.pool.stats()
    }
}

impl PooledSession {
    /// Calls [`Session::send`]. A session that panics is closed instead of returned to the pool.
    ///
    /// # Errors
    /// Those of the session, and [`Error::Panicked`] if it panics.
    pub async fn send(&mut self, request: &Request) -> Result<ResponseStream, Error> {
        let OpenSession { session, has_panicked } = &mut *self.0;
        let sent = callback::finish("send", async { session.send(request).await }).await;
        *has_panicked |= sent.is_err();
        sent?
    }
}

impl Deref for PooledSession {
    type Target = dyn Session;

    fn deref(&self) -> &Self::Target {
        &*self.0.session
    }
}

impl DerefMut for PooledSession {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.0.session
    }
}

/// A session of the pool.
#[derive(Debug)]
struct OpenSession {
    session: Box<dyn Session>,
    has_panicked: bool,
}

#[derive(Debug)]
struct SessionManager {
    agent: Arc<dyn Agent>,
}

#[async_trait]
impl Manager for SessionManager {
    type Connection = OpenSession;
    type Error = Error;

    async fn connect(&self) -> Result<Self::Connection, Error> {
        Ok(OpenSession { session: self.agent.connect().await?, has_panicked: false })
    }

    async fn check(&self, connection: &mut Self::Connection) -> Result<(), Error> {
        if connection.session.is_open() { Ok(()) } else { Err(Error::BrokeOff { bytes: 0 }) }
    }

    fn is_broken(&self, connection: &mut Self::Connection) -> bool {
        connection.has_panicked || !connection.session.is_open()
    }
}
