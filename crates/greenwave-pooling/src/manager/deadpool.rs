//! Managers of deadpool in pools of this crate.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use deadpool::managed::{Metrics, RecycleError};

use super::Manager;

/// Connects through a manager that was written for deadpool, such as that of `deadpool-postgres` or
/// `deadpool-redis`.
///
/// `recycle` runs as the check, after [`PoolOptions::check_after`](crate::PoolOptions::check_after)
/// of idleness rather than at each checkout. Its users must reset the settings that they change,
/// or discard the connection.
pub struct DeadpoolManager<M>(Arc<M>);

impl<M: deadpool::managed::Manager> DeadpoolManager<M> {
    /// Wraps a manager.
    pub fn new(manager: M) -> Self {
        Self(Arc::new(manager))
    }

    /// Returns the wrapped manager.
    pub fn inner(&self) -> &M {
        &self.0
    }
}

/// The error of a [`DeadpoolManager`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadpoolError<E: std::error::Error + 'static> {
    /// The manager did not create a connection.
    #[error("cannot create the connection")]
    Create(#[source] E),
    /// The connection cannot be used again.
    #[error("cannot recycle the connection")]
    Recycle(#[source] RecycleError<E>),
}

#[async_trait]
impl<M> Manager for DeadpoolManager<M>
where
    M: deadpool::managed::Manager + 'static,
    M::Error: std::error::Error + Send + Sync + 'static,
{
    type Connection = DeadpoolConnection<M>;
    type Error = DeadpoolError<M::Error>;

    async fn connect(&self) -> Result<DeadpoolConnection<M>, Self::Error> {
        let object = self.0.create().await.map_err(DeadpoolError::Create)?;
        Ok(DeadpoolConnection { object, metrics: Metrics::default(), manager: Arc::clone(&self.0) })
    }

    async fn check(&self, connection: &mut DeadpoolConnection<M>) -> Result<(), Self::Error> {
        let DeadpoolConnection { object, metrics, .. } = connection;
        self.0.recycle(object, metrics).await.map_err(DeadpoolError::Recycle)?;
        metrics.recycle_count += 1;
        metrics.recycled = Some(Instant::now());
        Ok(())
    }

    /// Returns false: such a manager notices a broken connection in its `recycle`.
    fn is_broken(&self, _: &mut DeadpoolConnection<M>) -> bool {
        false
    }
}

impl<M> fmt::Debug for DeadpoolManager<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeadpoolManager").field(&std::any::type_name::<M>()).finish()
    }
}

/// A connection of a [`DeadpoolManager`], which dereferences to that of the wrapped manager. When
/// it is dropped, the wrapped manager detaches it.
pub struct DeadpoolConnection<M: deadpool::managed::Manager> {
    object: M::Type,
    metrics: Metrics,
    manager: Arc<M>,
}

impl<M: deadpool::managed::Manager> Deref for DeadpoolConnection<M> {
    type Target = M::Type;

    fn deref(&self) -> &M::Type {
        &self.object
    }
}

impl<M: deadpool::managed::Manager> DerefMut for DeadpoolConnection<M> {
    fn deref_mut(&mut self) -> &mut M::Type {
        &mut self.object
    }
}

impl<M: deadpool::managed::Manager> Drop for DeadpoolConnection<M> {
    fn drop(&mut self) {
        self.manager.detach(&mut self.object);
    }
}

impl<M: deadpool::managed::Manager> fmt::Debug for DeadpoolConnection<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadpoolConnection").field("metrics", &self.metrics).finish_non_exhaustive()
    }
}
