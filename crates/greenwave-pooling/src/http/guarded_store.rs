//! Calls the store of an HTTP cache, and continues without it when it panics.

use std::sync::Arc;

use super::store::{HttpStore, StoredResponse};
use crate::callback;
use crate::error::Error;

/// A store whose panics are logged. A call that panics finds nothing and stores nothing.
pub(super) struct GuardedStore(pub(super) Arc<dyn HttpStore>);

impl GuardedStore {
    /// Returns the variants of a key.
    pub(super) async fn get(&self, key: &str) -> Vec<StoredResponse> {
        let found = callback::finish("HttpStore::get", async { self.0.get(key).await }).await;
        found.unwrap_or_else(|error| {
            log(&error);
            Vec::new()
        })
    }

    /// Replaces the variants of a key.
    pub(super) async fn put(&self, key: &str, variants: Vec<StoredResponse>) {
        let put = callback::finish("HttpStore::put", async { self.0.put(key, variants).await }).await;
        put.unwrap_or_else(|error| log(&error));
    }

    /// Removes a key.
    pub(super) async fn remove(&self, key: &str) {
        let removed = callback::finish("HttpStore::remove", async { self.0.remove(key).await }).await;
        removed.unwrap_or_else(|error| log(&error));
    }
}

fn log(error: &Error) {
    tracing::error!(%error, "the store of an HTTP cache failed: continuing without it");
}
