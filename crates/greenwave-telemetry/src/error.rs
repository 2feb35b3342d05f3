//! Defines the errors of binding an endpoint.

use std::net::SocketAddr;

/// An error of binding a metrics endpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another program listens on the address.
    #[error("cannot serve metrics on {address}: the port is taken")]
    AddressInUse {
        /// The address to serve on.
        address: SocketAddr,
    },
    /// The address cannot be bound for another reason.
    #[error("cannot serve metrics on {address}")]
    Bind {
        /// The address to serve on.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}
