//! The interface between a pool and the connections in it.

#[cfg(feature = "bb8")]
mod bb8;
#[cfg(feature = "deadpool")]
mod deadpool;
mod hooked;
#[cfg(unix)]
mod process;
mod tcp;
#[cfg(unix)]
mod unix;

use std::fmt::Debug;

use async_trait::async_trait;

#[cfg(feature = "bb8")]
pub use self::bb8::Bb8Manager;
#[cfg(feature = "deadpool")]
pub use self::deadpool::{DeadpoolConnection, DeadpoolError, DeadpoolManager};
pub use hooked::{Hook, HookError, HookedManager};
#[cfg(unix)]
pub use process::Process;
pub use tcp::Tcp;
#[cfg(unix)]
pub use unix::Unix;

/// Connects to one peer and checks connections.
///
/// # Contract
///
/// - `connect` and `check` may be cancelled at any await point without leaking anything. A
///   connection whose `check` was cancelled or failed is dropped and never lent again.
/// - `connect` is called concurrently, up to the size of the pool. The pool applies a time limit.
/// - `connect` returns a connection that passes `check` and is not [broken](Self::is_broken) until
///   it is used.
/// - `check` tests whether the connection still works, with a round trip if necessary, and leaves
///   its state unchanged.
/// - `is_broken` is called whenever a connection is returned. It must not block or wait. It reports
///   what can be detected without asking the peer, such as a closed connection or an unread rest of
///   a response.
/// - A connection closes when it is dropped. The drop must neither block nor require a runtime.
///
/// The feature `conformance` provides tests for these promises. `examples/custom_manager.rs` is a
/// small implementation.
#[async_trait]
pub trait Manager: Debug + Send + Sync + 'static {
    /// The connection.
    type Connection: Send + 'static;
    /// The error of `connect` and `check`.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Opens a connection.
    async fn connect(&self) -> Result<Self::Connection, Self::Error>;

    /// Tests whether the connection still works.
    async fn check(&self, connection: &mut Self::Connection) -> Result<(), Self::Error>;

    /// Returns true if the connection is known to be unusable.
    fn is_broken(&self, connection: &mut Self::Connection) -> bool;
}
