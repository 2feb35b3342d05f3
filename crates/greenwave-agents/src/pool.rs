//! Pools sessions with an agent.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use greenwave_pooling::{Lease, Manager, Pool, PoolOptions, PoolStats};

use crate::{Agent, Error, Preflight, Session};

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
    /// Those of the agent.
    pub fn preflight(&self, context: &Preflight<'_>) -> Result<(), Error> {
        self.agent.preflight(context)
    }

    /// Returns [`Agent::kind`].
    pub fn kind(&self) -> &'static str {
        self.agent.kind()
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

impl Deref for PooledSession {
    type Target = dyn Session;

    fn deref(&self) -> &Self::Target {
        &**self.0
    }
}

impl DerefMut for PooledSession {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut **self.0
    }
}

#[derive(Debug)]
struct SessionManager {
    agent: Arc<dyn Agent>,
}

#[async_trait]
impl Manager for SessionManager {
    type Connection = Box<dyn Session>;
    type Error = Error;

    async fn connect(&self) -> Result<Self::Connection, Error> {
        self.agent.connect().await
    }

    async fn check(&self, session: &mut Self::Connection) -> Result<(), Error> {
        if session.is_open() { Ok(()) } else { Err(Error::BrokeOff { bytes: 0 }) }
    }

    fn is_broken(&self, session: &mut Self::Connection) -> bool {
        !session.is_open()
    }
}
