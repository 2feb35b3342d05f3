//! The peer of all pools, and their common interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Number of connections of each pool.
pub(crate) const CONNECTIONS: usize = 8;

/// A simulated peer of all pools.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// Number of restarts.
    pub(crate) restarts: Arc<AtomicUsize>,
    /// Time that connecting takes.
    pub(crate) connect: Duration,
}

/// A connection of 32 bytes, which holds the number of the peer's restarts when it was opened.
pub(crate) type Connection = [usize; 4];

/// Error of a connection that the peer has closed.
#[derive(Debug)]
pub(crate) struct Lost;

impl From<&str> for Lost {
    fn from(_: &str) -> Self {
        Self
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("lost")
    }
}

impl std::error::Error for Lost {}

impl Peer {
    pub(crate) async fn open(&self) -> Connection {
        if !self.connect.is_zero() {
            tokio::time::sleep(self.connect).await;
        }
        [self.restarts.load(Ordering::Relaxed); 4]
    }

    pub(crate) fn is_alive(&self, connection: &Connection) -> bool {
        connection[0] == self.restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn check_alive(&self, connection: &Connection) -> Result<(), Lost> {
        if self.is_alive(connection) { Ok(()) } else { Err(Lost) }
    }
}

/// Reason why a checkout does not fail.
pub(crate) const LENT: &str = "the peer accepts every connection";

/// The common interface of the pools.
pub(crate) trait PoolUnderTest: Clone + Send + Sync + 'static {
    type Lease: Send;
    fn lend(&self) -> impl Future<Output = Self::Lease> + Send;
}
