//! Values that are loaded once, on first use.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// A value that is loaded on first use. Concurrent callers wait for one load. If it fails or is
/// cancelled, the next caller loads; errors are not cached.
pub struct Lazy<T, F> {
    cell: OnceCell<T>,
    load: F,
}

impl<T, F> Lazy<T, F> {
    /// Creates an empty cell without loading.
    #[must_use]
    pub const fn new(load: F) -> Self {
        Self { cell: OnceCell::const_new(), load }
    }

    /// Returns the value, loading it on first use.
    ///
    /// # Errors
    /// The error of a load that this call made.
    pub async fn get<E, Fut>(&self) -> Result<&T, E>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.cell.get_or_try_init(&self.load).await
    }

    /// Returns the value if it is loaded.
    pub fn loaded(&self) -> Option<&T> {
        self.cell.get()
    }
}

impl<T: fmt::Debug, F> fmt::Debug for Lazy<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lazy").field(&self.cell.get()).finish()
    }
}

/// A map of values that are loaded on first use. Values stay until [`remove`](Self::remove), so the
/// map is unbounded: use a cache if that is a problem.
pub struct LazyMap<K, V> {
    cells: Mutex<HashMap<K, Arc<OnceCell<V>>>>,
}

impl<K: Hash + Eq + Clone, V: Clone> LazyMap<K, V> {
    /// Creates an empty map.
    #[must_use]
    pub fn new() -> Self {
        Self { cells: Mutex::new(HashMap::new()) }
    }

    /// Returns the value of `key`, loading it on first use. Loads of other keys are not affected.
    ///
    /// # Errors
    /// The error of a load that this call made. Errors are not cached.
    pub async fn get_or_load<E, Fut>(&self, key: &K, load: impl FnOnce() -> Fut) -> Result<V, E>
    where
        Fut: Future<Output = Result<V, E>>,
    {
        let cell = self.cells.lock().entry(key.clone()).or_default().clone();
        let loading = Loading { map: self, key, cell };
        loading.cell.get_or_try_init(load).await.cloned()
    }

    /// Returns the value of `key` if it is loaded.
    pub fn loaded(&self, key: &K) -> Option<V> {
        self.cells.lock().get(key)?.get().cloned()
    }

    /// Removes the value of `key`.
    pub fn remove(&self, key: &K) {
        let removed = self.cells.lock().remove(key);
        drop(removed);
    }

    /// Returns the number of values that are loaded or being loaded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.lock().len()
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
        f.debug_struct("LazyMap").field("len", &self.cells.lock().len()).finish()
    }
}

/// A load in flight. If it fails or is cancelled and no other caller uses the cell, the cell is
/// removed.
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
        let is_same = cells.get(self.key).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell));
        // One reference is held by the map and one by `self`. Clones are made under the lock only.
        if is_same && Arc::strong_count(&self.cell) == 2 {
            cells.remove(self.key);
        }
    }
}
