//! The seam between a pool and what it holds. Knows nothing of pools.

#[cfg(unix)]
mod process;
mod tcp;
#[cfg(unix)]
mod unix;

use std::fmt::Debug;

use async_trait::async_trait;

#[cfg(unix)]
pub use process::Process;
pub use tcp::Tcp;
#[cfg(unix)]
pub use unix::Unix;

/// Makes and judges the connections of one kind, to one peer.
///
/// # Contract
///
/// - `connect` and `check` may be cancelled at any await point: nothing is leaked by that. A connection whose `check` was cancelled or
///   failed is dropped, never lent.
/// - `connect` is called concurrently, up to the size of the pool. The pool bounds the time it takes.
/// - `Ok` of `connect` promises a connection that passes `check` and is not [broken](Self::is_broken) until it is used.
/// - `check` asks whether the connection still works, with a round trip if need be, and leaves it as it found it.
/// - `is_broken` is asked whenever a connection comes back. It does not block or wait: it says what is known without asking the peer,
///   such as that the peer has hung up or that an answer was left half read.
/// - A connection closes when it is dropped. The drop neither blocks nor needs a runtime.
///
/// The suite in `conformance` (feature) checks this; `examples/custom_manager.rs` is a manager to start from.
#[async_trait]
pub trait Manager: Debug + Send + Sync + 'static {
    /// What is lent.
    type Connection: Send + 'static;
    /// Why it could not be made, or does not work any more.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Makes a connection.
    async fn connect(&self) -> Result<Self::Connection, Self::Error>;

    /// Asks whether the connection still works.
    async fn check(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// Whether the connection is known to be of no more use.
    fn is_broken(&self, connection: &mut Self::Connection) -> bool;
}
