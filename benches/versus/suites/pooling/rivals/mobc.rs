//! mobc.

use crate::peer::{CONNECTIONS, Connection, LENT, Lost, Peer, PoolUnderTest};

/// A pool of connections to the peer.
#[derive(Clone)]
pub(crate) struct Mobc(mobc::Pool<Peer>);

impl Mobc {
    pub(crate) fn new(peer: Peer) -> Self {
        let size = CONNECTIONS as u64;
        Self(mobc::Pool::builder().max_open(size).max_idle(size).get_timeout(None).build(peer))
    }
}

#[async_trait::async_trait]
impl mobc::Manager for Peer {
    type Connection = Connection;
    type Error = Lost;

    async fn connect(&self) -> Result<Connection, Lost> {
        Ok(self.open().await)
    }

    async fn check(&self, connection: Connection) -> Result<Connection, Lost> {
        self.check_alive(&connection).map(|()| connection)
    }
}

impl PoolUnderTest for Mobc {
    type Lease = mobc::Connection<Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get().await.expect(LENT)
    }
}
