//! A connection that is lent. Knows how to give itself back, and nothing of when.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::Entry;
use super::{FAR, Shared};
use crate::manager::Manager;

/// A connection of a [`Pool`](super::Pool), given back on drop, at once and without waiting.
pub struct Lease<M: Manager> {
    shared: Arc<Shared<M>>,
    /// Gone only while the lease is being taken apart.
    entry: Option<Entry<M::Connection>>,
}

impl<M: Manager> Lease<M> {
    pub(super) fn new(shared: Arc<Shared<M>>, entry: Entry<M::Connection>) -> Self {
        Self { shared, entry: Some(entry) }
    }

    /// Closes the connection instead of giving it back: it is in a state that nobody should meet.
    pub fn discard(mut self) {
        if let Some(entry) = self.entry.take() {
            self.shared.discard(entry);
        }
    }

    /// How long ago it was connected.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.entry().created.elapsed()
    }

    /// How often it was lent before.
    #[must_use]
    pub fn uses(&self) -> u64 {
        self.entry().uses.saturating_sub(1)
    }

    pub(super) fn needs_check(&self) -> bool {
        match (self.shared.config.check_after, self.entry().idle_since) {
            (Some(after), Some(since)) => since.elapsed() > after,
            // It was handed over by the one who used it, or is new.
            _ => false,
        }
    }

    /// Checks it. One that fails, takes too long, or whose check is cancelled, is closed.
    pub(super) async fn check(self) -> Option<Self> {
        let mut suspect = Suspect(Some(self));
        let lease = suspect.0.as_mut().expect("a suspect is taken only below");
        let entry = lease.entry.as_mut().expect("a lease holds its entry until it is taken apart");
        let limit = lease.shared.config.connect_timeout.unwrap_or(FAR);
        let checked = tokio::time::timeout(limit, lease.shared.manager.check(&mut entry.connection)).await;
        if !matches!(checked, Ok(Ok(()))) {
            return None;
        }
        entry.idle_since = None;
        suspect.0.take()
    }

    pub(super) fn into_entry(mut self) -> Entry<M::Connection> {
        self.entry.take().expect("a lease holds its entry until it is taken apart")
    }

    fn entry(&self) -> &Entry<M::Connection> {
        self.entry.as_ref().expect("a lease holds its entry until it is taken apart")
    }
}

impl<M: Manager> Deref for Lease<M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        &self.entry().connection
    }
}

impl<M: Manager> DerefMut for Lease<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        &mut self.entry.as_mut().expect("a lease holds its entry until it is taken apart").connection
    }
}

impl<M: Manager> Drop for Lease<M> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.shared.clone().give_back(entry);
        }
    }
}

impl<M: Manager> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let created: Option<Instant> = self.entry.as_ref().map(|entry| entry.created);
        f.debug_struct("Lease").field("created", &created).finish_non_exhaustive()
    }
}

/// A lease whose connection may not work: closed on drop.
struct Suspect<M: Manager>(Option<Lease<M>>);

impl<M: Manager> Drop for Suspect<M> {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            lease.discard();
        }
    }
}
