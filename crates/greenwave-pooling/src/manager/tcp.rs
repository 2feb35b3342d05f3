//! A manager of TCP connections.

use std::io;

use async_trait::async_trait;
use tokio::net::TcpStream;

use crate::manager::Manager;

/// Connects to one TCP address, with `TCP_NODELAY`.
///
/// A connection with unread bytes counts as broken: they belong to a response that a previous user
/// did not read.
#[derive(Debug, Clone)]
pub struct Tcp {
    address: String,
}

impl Tcp {
    /// Creates a manager for `address`, a host and port. Host names are resolved on each connect.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }

    /// Returns the address.
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
        check_idle(stream)
    }

    fn is_broken(&self, stream: &mut TcpStream) -> bool {
        check_idle(stream).is_err()
    }
}

/// Fails if the peer has closed the connection or if there are unread bytes.
fn check_idle(stream: &TcpStream) -> io::Result<()> {
    check_idle_read(stream.try_read(&mut [0]))
}

/// Interprets a non-blocking read of one byte from an idle connection.
pub(super) fn check_idle_read(read: io::Result<usize>) -> io::Result<()> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "unexpected bytes on an idle connection")),
    }
}
