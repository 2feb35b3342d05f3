//! A connection that is lent. Knows how to give itself back, and nothing of when.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::core::Slot;
use super::event::CloseReason;
use crate::callback::{FAR, finish};
use crate::manager::Manager;

type Held<M> = Box<Slot<Arc<Shared<M>>, <M as Manager>::Connection>>;

const HELD: &str = "a lease holds its connection until it is taken apart";

/// A connection of a [`Pool`](super::Pool), given back on drop, at once and without waiting.
pub struct Lease<M: Manager> {
    /// Gone only while the lease is being taken apart. The way back is in it, so that a check-out counts no references.
    slot: Option<Held<M>>,
}

impl<M: Manager> Lease<M> {
    #[inline]
    pub(super) fn new(slot: Held<M>) -> Self {
        Self { slot: Some(slot) }
    }

    /// Closes the connection instead of giving it back: it is in a state that nobody should meet.
    pub fn discard(self) {
        self.close(CloseReason::Discarded);
    }

    /// How long ago it was connected.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.slot().created.elapsed()
    }

    /// How often it was lent before.
    #[must_use]
    pub fn uses(&self) -> u64 {
        self.slot().uses.saturating_sub(1)
    }

    /// Checks it. One that fails, takes too long, or whose check is cancelled, is closed.
    pub(super) async fn check(self) -> Option<Self> {
        let mut suspect = Suspect(Some(self));
        let slot = suspect.0.as_mut().and_then(|lease| lease.slot.as_mut()).expect(HELD);
        let limit = slot.home.options.connect_timeout.unwrap_or(FAR);
        let checked = tokio::time::timeout(
            limit.min(FAR),
            finish("check", slot.home.manager.check(&mut slot.connection)),
        );
        if !matches!(checked.await, Ok(Ok(Ok(())))) {
            return None;
        }
        slot.idle_since = None;
        suspect.0.take()
    }

    pub(super) fn slot(&self) -> &Slot<Arc<Shared<M>>, M::Connection> {
        self.slot.as_ref().expect(HELD)
    }

    pub(super) fn into_slot(mut self) -> Held<M> {
        self.slot.take().expect(HELD)
    }

    fn close(mut self, reason: CloseReason) {
        if let Some(slot) = self.slot.take() {
            Shared::discard(slot, reason);
        }
    }
}

impl<M: Manager> Deref for Lease<M> {
    type Target = M::Connection;

    #[inline]
    fn deref(&self) -> &M::Connection {
        &self.slot().connection
    }
}

impl<M: Manager> DerefMut for Lease<M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut M::Connection {
        &mut self.slot.as_mut().expect(HELD).connection
    }
}

impl<M: Manager> Drop for Lease<M> {
    #[inline]
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            Shared::give_back(slot);
        }
    }
}

impl<M: Manager> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let created = self.slot.as_ref().map(|slot| slot.created);
        f.debug_struct("Lease").field("created", &created).finish_non_exhaustive()
    }
}

/// A lease whose connection may not work: closed on drop.
struct Suspect<M: Manager>(Option<Lease<M>>);

impl<M: Manager> Drop for Suspect<M> {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            lease.close(CloseReason::CheckFailed);
        }
    }
}
