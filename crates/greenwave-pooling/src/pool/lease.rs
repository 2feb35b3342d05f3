//! A lent connection, which returns itself to its pool.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use super::PoolInner;
use super::core::Pooled;
use super::event::CloseReason;
use crate::callback::{FAR, finish};
use crate::manager::Manager;

type PooledBox<M> = Box<Pooled<Arc<PoolInner<M>>, <M as Manager>::Connection>>;

const HELD: &str = "a lease holds its connection until it is taken apart";

/// A connection lent by a [`Pool`](super::Pool). Returned on drop, without waiting.
pub struct Lease<M: Manager> {
    /// `None` only after the lease was taken apart. The reference to the pool is stored with the
    /// connection, so that a checkout clones no reference.
    pooled: Option<PooledBox<M>>,
}

impl<M: Manager> Lease<M> {
    #[inline]
    pub(super) fn new(pooled: PooledBox<M>) -> Self {
        Self { pooled: Some(pooled) }
    }

    /// Closes the connection instead of returning it, because it is in an unusable state.
    pub fn discard(self) {
        self.close(CloseReason::Discarded);
    }

    /// Takes the connection out of the pool, which may establish another one in its place. It is
    /// open until the caller drops it.
    #[must_use = "the connection closes when it is dropped"]
    pub fn take(mut self) -> M::Connection {
        PoolInner::take(self.pooled.take().expect(HELD))
    }

    /// Returns the time since the connection was established.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.pooled().created.elapsed()
    }

    /// Returns the number of earlier checkouts of the connection.
    #[must_use]
    pub fn uses(&self) -> u64 {
        self.pooled().uses.saturating_sub(1)
    }

    /// Checks the connection. Closes it if the check fails, times out, or is cancelled.
    pub(super) async fn check(self) -> Option<Self> {
        let mut due_for_check = LeaseUnderCheck(Some(self));
        let pooled = due_for_check.0.as_mut().and_then(|lease| lease.pooled.as_mut()).expect(HELD);
        let limit = pooled.pool.options.connect_timeout.unwrap_or(FAR);
        let checked = tokio::time::timeout(
            limit.min(FAR),
            finish("check", pooled.pool.manager.check(&mut pooled.connection)),
        );
        if !matches!(checked.await, Ok(Ok(Ok(())))) {
            return None;
        }
        pooled.idle_since = None;
        due_for_check.0.take()
    }

    pub(super) fn pooled(&self) -> &Pooled<Arc<PoolInner<M>>, M::Connection> {
        self.pooled.as_ref().expect(HELD)
    }

    pub(super) fn into_pooled(mut self) -> PooledBox<M> {
        self.pooled.take().expect(HELD)
    }

    fn close(mut self, reason: CloseReason) {
        if let Some(pooled) = self.pooled.take() {
            PoolInner::discard(pooled, reason);
        }
    }
}

impl<M: Manager> Deref for Lease<M> {
    type Target = M::Connection;

    #[inline]
    fn deref(&self) -> &M::Connection {
        &self.pooled().connection
    }
}

impl<M: Manager> DerefMut for Lease<M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut M::Connection {
        &mut self.pooled.as_mut().expect(HELD).connection
    }
}

impl<M: Manager> Drop for Lease<M> {
    #[inline]
    fn drop(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            PoolInner::return_connection(pooled);
        }
    }
}

impl<M: Manager> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let created = self.pooled.as_ref().map(|pooled| pooled.created);
        f.debug_struct("Lease").field("created", &created).finish_non_exhaustive()
    }
}

/// A lease under check. The connection is closed on drop.
struct LeaseUnderCheck<M: Manager>(Option<Lease<M>>);

impl<M: Manager> Drop for LeaseUnderCheck<M> {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            lease.close(CloseReason::CheckFailed);
        }
    }
}
