//! Managers of bb8 in pools of this crate.

use std::fmt;

use async_trait::async_trait;
use bb8::ManageConnection;

use super::Manager;

/// Connects through a manager that was written for bb8, such as that of `bb8-postgres` or
/// `bb8-redis`.
///
/// `is_valid` runs as the check, after [`PoolOptions::check_after`](crate::PoolOptions::check_after)
/// of idleness rather than at each checkout.
pub struct Bb8Manager<M>(M);

impl<M: ManageConnection> Bb8Manager<M> {
    /// Wraps a manager.
    pub fn new(manager: M) -> Self {
        Self(manager)
    }

    /// Returns the wrapped manager.
    pub fn inner(&self) -> &M {
        &self.0
    }
}

#[async_trait]
impl<M: ManageConnection> Manager for Bb8Manager<M>
where
    M::Error: std::error::Error + Sync,
{
    type Connection = M::Connection;
    type Error = M::Error;

    async fn connect(&self) -> Result<M::Connection, M::Error> {
        self.0.connect().await
    }

    async fn check(&self, connection: &mut M::Connection) -> Result<(), M::Error> {
        self.0.is_valid(connection).await
    }

    fn is_broken(&self, connection: &mut M::Connection) -> bool {
        self.0.has_broken(connection)
    }
}

impl<M> fmt::Debug for Bb8Manager<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bb8Manager").field(&std::any::type_name::<M>()).finish()
    }
}
