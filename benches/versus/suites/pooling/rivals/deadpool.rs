//! deadpool.

use crate::peer::{CONNECTIONS, Connection, LENT, Lost, Peer, PoolUnderTest};

/// A pool of connections to the peer.
#[derive(Clone)]
pub(crate) struct Deadpool(deadpool::managed::Pool<Peer>);

impl Deadpool {
    pub(crate) fn new(peer: Peer) -> Self {
        let pool = deadpool::managed::Pool::builder(peer).max_size(CONNECTIONS).build();
        Self(pool.expect("the options are valid"))
    }
}

impl deadpool::managed::Manager for Peer {
    type Type = Connection;
    type Error = Lost;

    async fn create(&self) -> Result<Connection, Lost> {
        Ok(self.open().await)
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Lost> {
        Ok(self.check_alive(connection)?)
    }
}

impl PoolUnderTest for Deadpool {
    type Lease = deadpool::managed::Object<Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get().await.expect(LENT)
    }
}
