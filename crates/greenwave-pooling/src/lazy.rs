//! Values that are loaded once, on first use.

mod slot;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use self::slot::{ErrorSharing, Slot};
use crate::error::LoadError;

/// A value that is loaded on first use. Concurrent callers wait for one load, and share its value
/// or its error. Errors are not cached: a caller that asks after the failure loads again.
///
/// If the future of the loading caller is dropped, the next waiting caller loads. The load must not
/// ask for the value itself, which would deadlock.
pub struct Lazy<T, F> {
    slot: Slot<T>,
    load: F,
}

impl<T, F> Lazy<T, F> {
    /// Creates an empty cell without loading.
    #[must_use]
    pub const fn new(load: F) -> Self {
        Self { slot: Slot::new(), load }
    }

    /// Returns the value, loading it on first use.
    ///
    /// If the load panics, so does the call that made it, and the calls that wait get
    /// [`LoadError::Panicked`].
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the error of the load that this call made or waited for, and
    /// [`LoadError::Panicked`] if the load that it waited for panicked.
    pub async fn get<E, Fut>(&self) -> Result<&T, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.slot.get_or_load(&ErrorSharing::SHARED, &self.load).await
    }

    /// Like [`get`](Self::get), but returns an error only to the caller whose own load failed.
    /// Waiting callers load in turn until one succeeds, also after a panic.
    ///
    /// Use it for loads that can fail for one caller and succeed for the next. If each load fails
    /// after a timeout, the n-th caller waits for n timeouts.
    ///
    /// # Errors
    /// The error of the load that this call made.
    pub async fn get_retrying<E, Fut>(&self) -> Result<&T, E>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.slot.get_or_load(&ErrorSharing::RETRIED, &self.load).await
    }

    /// Returns the value if it is loaded.
    pub fn loaded(&self) -> Option<&T> {
        self.slot.get()
    }
}

impl<T: fmt::Debug, F> fmt::Debug for Lazy<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lazy").field(&self.slot.get()).finish()
    }
}

/// A map of values that are loaded on first use. Values stay until [`remove`](Self::remove), so the
/// map is unbounded: use a cache if that is a problem.
pub struct LazyMap<K, V> {
    slots: Mutex<HashMap<K, Arc<Slot<V>>>>,
}

impl<K: Hash + Eq + Clone, V: Clone> LazyMap<K, V> {
    /// Creates an empty map.
    #[must_use]
    pub fn new() -> Self {
        Self { slots: Mutex::new(HashMap::new()) }
    }

    /// Returns the value of `key`, loading it on first use. Concurrent callers of a key share one
    /// load, its value and its error, as those of [`Lazy::get`] do. Loads of other keys are not
    /// affected.
    ///
    /// Waiting callers with a different error type than the failed load also load themselves, one
    /// after another.
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the error of the load that this call made or waited for, and
    /// [`LoadError::Panicked`] if the load that it waited for panicked. Errors are not cached.
    pub async fn get_or_load<E, Fut>(&self, key: &K, load: impl FnOnce() -> Fut) -> Result<V, LoadError<E>>
    where
        E: Send + Sync + 'static,
        Fut: Future<Output = Result<V, E>>,
    {
        let loading = self.join(key);
        loading.slot.get_or_load(&ErrorSharing::SHARED, load).await.cloned()
    }

    /// Like [`get_or_load`](Self::get_or_load), but returns an error only to the caller whose own
    /// load failed. Waiting callers load in turn, as those of [`Lazy::get_retrying`] do.
    ///
    /// # Errors
    /// The error of the load that this call made. Errors are not cached.
    pub async fn get_or_load_retrying<E, Fut>(&self, key: &K, load: impl FnOnce() -> Fut) -> Result<V, E>
    where
        Fut: Future<Output = Result<V, E>>,
    {
        let loading = self.join(key);
        loading.slot.get_or_load(&ErrorSharing::RETRIED, load).await.cloned()
    }

    fn join<'a>(&'a self, key: &'a K) -> Loading<'a, K, V> {
        let slot = self.slots.lock().entry(key.clone()).or_default().clone();
        Loading { map: self, key, slot }
    }

    /// Returns the value of `key` if it is loaded.
    pub fn loaded(&self, key: &K) -> Option<V> {
        self.slots.lock().get(key)?.get().cloned()
    }

    /// Removes the value of `key`.
    pub fn remove(&self, key: &K) {
        let removed = self.slots.lock().remove(key);
        drop(removed);
    }

    /// Returns the number of values that are loaded or being loaded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.lock().len()
    }

    /// Returns true if the map is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Default for LazyMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> fmt::Debug for LazyMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyMap").field("len", &self.slots.lock().len()).finish()
    }
}

/// A load in flight. If it fails or is cancelled and no other caller uses the slot, the slot is
/// removed.
struct Loading<'a, K: Hash + Eq, V> {
    map: &'a LazyMap<K, V>,
    key: &'a K,
    slot: Arc<Slot<V>>,
}

impl<K: Hash + Eq, V> Drop for Loading<'_, K, V> {
    fn drop(&mut self) {
        if self.slot.get().is_some() {
            return;
        }
        let mut slots = self.map.slots.lock();
        let is_same = slots.get(self.key).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot));
        // One reference is held by the map and one by `self`. Clones are made under the lock only.
        if is_same && Arc::strong_count(&self.slot) == 2 {
            slots.remove(self.key);
        }
    }
}
