//! TCP connections.

use std::io;

use async_trait::async_trait;
use tokio::net::TcpStream;

use crate::manager::Manager;

/// Connects to one address, without delaying small writes (`TCP_NODELAY`).
///
/// A connection with bytes that nobody has read is broken: they belong to an answer that its asker left behind.
#[derive(Debug, Clone)]
pub struct Tcp {
    address: String,
}

impl Tcp {
    /// Connects to `address`: host and port. A host name is resolved on each connect.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }

    /// What it connects to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

#[async_trait]
impl Manager for Tcp {
    type Connection = TcpStream;
    type Error = io::Error;

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn check(&self, stream: &mut TcpStream) -> io::Result<()> {
        quiet(stream)
    }

    fn is_broken(&self, stream: &mut TcpStream) -> bool {
        quiet(stream).is_err()
    }
}

/// Nothing is known against the connection: neither its end nor bytes that were not asked for.
fn quiet(stream: &TcpStream) -> io::Result<()> {
    silent(stream.try_read(&mut [0]))
}

/// What a read of one byte without waiting says of the connection.
pub(super) fn silent(read: io::Result<usize>) -> io::Result<()> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "bytes that nobody asked for")),
    }
}
