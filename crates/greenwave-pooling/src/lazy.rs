//! Values that are loaded once, on first use, on tokio's cells. Errors are not kept.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// A value that is loaded on first use. Callers that come meanwhile wait for it; if loading fails or is cancelled, the next one loads.
pub struct Lazy<T, F> {
    cell: OnceCell<T>,
    load: F,
}

impl<T, F> Lazy<T, F> {
    /// Loads nothing yet.
    #[must_use]
    pub const fn new(load: F) -> Self {
        Self { cell: OnceCell::const_new(), load }
    }

    /// The value, loaded now if need be.
    ///
    /// # Errors
    /// That of the load that this caller made.
    pub async fn get<E, Fut>(&self) -> Result<&T, E>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.cell.get_or_try_init(&self.load).await
    }

    /// The value, if it is loaded.
    pub fn loaded(&self) -> Option<&T> {
        self.cell.get()
    }
}

impl<T: fmt::Debug, F> fmt::Debug for Lazy<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lazy").field(&self.cell.get()).finish()
    }
}

/// Values by key, each loaded on first use. It keeps every value until [`remove`](Self::remove): for a bound, use a cache.
pub struct LazyMap<K, V> {
    cells: Mutex<HashMap<K, Arc<OnceCell<V>>>>,
}

impl<K: Hash + Eq + Clone, V: Clone> LazyMap<K, V> {
    /// Without values.
    #[must_use]
    pub fn new() -> Self {
        Self { cells: Mutex::new(HashMap::new()) }
    }

    /// The value of `key`, loaded now if need be. Other keys are not waited for.
    ///
    /// # Errors
    /// That of the load that this caller made. Nothing is kept of it.
    pub async fn get_or_load<E, Fut>(&self, key: &K, load: impl FnOnce() -> Fut) -> Result<V, E>
    where
        Fut: Future<Output = Result<V, E>>,
    {
        let cell = self.cells.lock().entry(key.clone()).or_default().clone();
        let loading = Loading { map: self, key, cell };
        loading.cell.get_or_try_init(load).await.cloned()
    }

    /// The value of `key`, if it is loaded.
    pub fn loaded(&self, key: &K) -> Option<V> {
        self.cells.lock().get(key)?.get().cloned()
    }

    /// Forgets the value of `key`.
    pub fn remove(&self, key: &K) {
        let removed = self.cells.lock().remove(key);
        drop(removed);
    }

    /// How many values are loaded or being loaded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.lock().len()
    }

    /// Whether there is none.
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
        f.debug_struct("LazyMap").field("len", &self.cells.lock().len()).finish()
    }
}

/// A load under way. If it fails or is cancelled, and nobody else is at it, the empty cell is removed.
struct Loading<'a, K: Hash + Eq, V> {
    map: &'a LazyMap<K, V>,
    key: &'a K,
    cell: Arc<OnceCell<V>>,
}

impl<K: Hash + Eq, V> Drop for Loading<'_, K, V> {
    fn drop(&mut self) {
        if self.cell.initialized() {
            return;
        }
        let mut cells = self.map.cells.lock();
        let is_ours = cells.get(self.key).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell));
        // The map's and this one: clones are made under the lock only.
        if is_ours && Arc::strong_count(&self.cell) == 2 {
            cells.remove(self.key);
        }
    }
}
