//! bb8.

use crate::peer::{CONNECTIONS, Connection, LENT, Lost, Peer, PoolUnderTest};

/// A pool of connections to the peer.
#[derive(Clone)]
pub(crate) struct Bb8(bb8::Pool<Peer>);

impl Bb8 {
    pub(crate) async fn new(peer: Peer) -> Self {
        let pool = bb8::Pool::builder().max_size(CONNECTIONS as u32).test_on_check_out(false);
        Self(pool.idle_timeout(None).max_lifetime(None).build(peer).await.expect(LENT))
    }
}

impl bb8::ManageConnection for Peer {
    type Connection = Connection;
    type Error = Lost;

    async fn connect(&self) -> Result<Connection, Lost> {
        Ok(self.open().await)
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Lost> {
        self.check_alive(connection)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !self.is_alive(connection)
    }
}

impl PoolUnderTest for Bb8 {
    type Lease = bb8::PooledConnection<'static, Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get_owned().await.expect(LENT)
    }
}
