//! What can go wrong on the way to an endpoint.

use std::net::SocketAddr;

/// Everything this crate refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another program listens there already.
    #[error("cannot serve metrics on {address}: the port is taken")]
    AddressInUse {
        /// Where it was to be served.
        address: SocketAddr,
    },
    /// The address could not be bound for another reason.
    #[error("cannot serve metrics on {address}")]
    Bind {
        /// Where it was to be served.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}
