//! The pool of this workspace.

use std::convert::Infallible;

use greenwave_pooling::{Manager, Pool, PoolOptions};

use crate::peer::{CONNECTIONS, Connection, LENT, Peer, PoolUnderTest};

/// A pool of connections to the peer.
#[derive(Clone)]
pub(crate) struct Greenwave(Pool<Peer>);

impl Greenwave {
    pub(crate) fn new(peer: Peer, options: PoolOptions) -> Self {
        Self(Pool::new(peer, options))
    }
}

/// Returns options without time limits.
pub(crate) fn no_limits() -> PoolOptions {
    PoolOptions {
        size_min: 0,
        size_max: CONNECTIONS,
        idle_timeout: None,
        max_lifetime: None,
        checkout_timeout: None,
        connect_timeout: None,
        check_after: None,
        ..PoolOptions::default()
    }
}

#[async_trait::async_trait]
impl Manager for Peer {
    type Connection = Connection;
    type Error = Infallible;

    async fn connect(&self) -> Result<Connection, Infallible> {
        Ok(self.open().await)
    }

    async fn check(&self, _: &mut Connection) -> Result<(), Infallible> {
        Ok(())
    }

    fn is_broken(&self, connection: &mut Connection) -> bool {
        !self.is_alive(connection)
    }
}

impl PoolUnderTest for Greenwave {
    type Lease = greenwave_pooling::Lease<Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get().await.expect(LENT)
    }
}
