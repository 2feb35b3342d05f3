//! Sessions with one agent, lent and taken back. Knows nothing of what is asked.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use greenwave_pooling::{Lease, Manager, Pool, PoolOptions, PoolStats};

use crate::{Agent, Error, Session};

/// How many sessions there may be with an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentPoolOptions {
    /// Most sessions at once; from 1.
    pub size: usize,
    /// Sessions that are kept even when idle.
    pub min: usize,
    /// How long a session above the minimum stays idle before it is closed.
    pub idle_timeout: Duration,
}

/// An agent with a pool of sessions. Clones share the pool.
#[derive(Debug, Clone)]
pub struct AgentPool {
    name: Arc<str>,
    agent: Arc<dyn Agent>,
    pool: Pool<Sessions>,
}

/// A session on loan. Dropping it gives it back.
#[derive(Debug)]
pub struct PooledSession(Lease<Sessions>);

impl AgentPool {
    /// A pool for an agent that is called `name` in messages. Must be made inside a tokio runtime.
    pub fn new(name: &str, agent: Arc<dyn Agent>, limits: AgentPoolOptions) -> Self {
        let config = PoolOptions {
            size_max: limits.size,
            size_min: limits.min.min(limits.size),
            idle_timeout: Some(limits.idle_timeout),
            // Questions wait in the scheduler's order, and an answer may take long.
            checkout_timeout: None,
            ..PoolOptions::default()
        };
        let pool = Pool::new(Sessions { agent: Arc::clone(&agent) }, config);
        Self { name: name.into(), agent, pool }
    }

    /// A session, as soon as one is free, first come, first served.
    ///
    /// # Errors
    /// [`Error::Pool`] with what the agent said.
    pub async fn session(&self) -> Result<PooledSession, Error> {
        let lent = self.pool.get().await;
        lent.map(PooledSession)
            .map_err(|source| Error::Pool { agent: self.name.to_string(), source: source.into() })
    }

    /// [`Agent::kind`].
    pub fn kind(&self) -> &'static str {
        self.agent.kind()
    }

    /// [`Agent::fingerprint`].
    pub fn fingerprint(&self) -> [u8; 32] {
        self.agent.fingerprint()
    }

    /// The pool's figures.
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
struct Sessions {
    agent: Arc<dyn Agent>,
}

#[async_trait]
impl Manager for Sessions {
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
