//! fast_pool.

use crate::peer::{CONNECTIONS, Connection, LENT, Lost, Peer, PoolUnderTest};

/// A pool of connections to the peer.
#[derive(Clone)]
pub(crate) struct FastPool(fast_pool::Pool<Peer>);

impl FastPool {
    pub(crate) fn new(peer: Peer) -> Self {
        let pool = fast_pool::Pool::new(peer);
        pool.set_max_open(CONNECTIONS as u64);
        pool.set_timeout_check(None);
        Self(pool)
    }
}

impl fast_pool::Manager for Peer {
    type Connection = Connection;
    type Error = Lost;

    async fn connect(&self) -> Result<Connection, Lost> {
        Ok(self.open().await)
    }

    async fn check(&self, connection: &mut Connection) -> Result<(), Lost> {
        self.check_alive(connection)
    }
}

impl PoolUnderTest for FastPool {
    type Lease = fast_pool::ConnectionGuard<Peer>;
    fn lend(&self) -> impl Future<Output = Self::Lease> + Send {
        let pool = self.0.clone();
        async move { pool.get().await.expect(LENT) }
    }
}
