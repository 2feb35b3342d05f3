//! Names the servers, pipes, devices and processes outside of a command.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Something outside of a command's own processes that may have given it data.
///
/// A server that the command itself started is not a peer at any address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// An address of IPv4 or IPv6 that the command connected or sent to. An address of this machine
    /// at which nothing listens is not a peer, but an absent [kernel
    /// object](crate::KernelObjects::absent).
    Inet(SocketAddr),
    /// A Unix socket with this path.
    Unix(PathBuf),
    /// A Unix socket with this abstract name, without the leading zero byte.
    Abstract(Vec<u8>),
    /// A named pipe that existed before the command and that it opened for reading.
    Pipe(PathBuf),
    /// A device with this path, unless nothing can be stored in it, as in `/dev/null`.
    Device(PathBuf),
    /// Something else, as a noun phrase such as "another process".
    Other(String),
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Inet(address) => write!(out, "{address}"),
            Peer::Unix(path) => write!(out, "{}", path.display()),
            Peer::Abstract(name) => write!(out, "@{}", String::from_utf8_lossy(name)),
            Peer::Pipe(path) => write!(out, "the pipe {}", path.display()),
            Peer::Device(path) => write!(out, "the device {}", path.display()),
            Peer::Other(description) => out.write_str(description),
        }
    }
}
