//! Removed entries, handed to a task.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::options::{RemovalCause, RemovalListener};

/// An entry that left a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal<K, V> {
    /// Key of the entry.
    pub key: K,
    /// Value of the entry.
    pub value: V,
    /// Why it left the cache.
    pub cause: RemovalCause,
}

/// Receives the entries that left a cache, in the order in which they left it.
pub struct Removals<K, V> {
    receiver: UnboundedReceiver<Removal<K, V>>,
}

/// Creates a listener that clones every entry that leaves the cache, and the receiver of the
/// clones. A task that awaits them may wait, which a listener must not.
///
/// Entries queue up without a limit until the receiver takes them. They are discarded once it is
/// dropped.
///
/// ```
/// use greenwave_cache::{Cache, CacheOptions, removal_channel};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (listener, mut removals) = removal_channel();
/// let options = CacheOptions { entries_max: 1, listener: Some(listener), ..CacheOptions::default() };
/// let cache: Cache<&str, u32> = Cache::new(options)?;
/// let task = tokio::spawn(async move {
///     let mut evicted = Vec::new();
///     while let Some(removal) = removals.next().await {
///         evicted.push(removal.key); // for example, after a request to a server
///     }
///     evicted
/// });
/// cache.insert("first", 1);
/// cache.insert("second", 2);
/// drop(cache);
/// assert_eq!(task.await.unwrap(), ["first"]);
/// # Ok::<(), greenwave_cache::Error>(())
/// # }).unwrap();
/// ```
pub fn removal_channel<K, V>() -> (RemovalListener<K, V>, Removals<K, V>)
where
    K: Clone + Send + 'static,
    V: Clone + Send + 'static,
{
    let (sender, receiver) = unbounded_channel();
    let listener = move |key: &K, value: &V, cause| {
        if !sender.is_closed() {
            // Fails if the receiver was dropped just now.
            let _ = sender.send(Removal { key: key.clone(), value: value.clone(), cause });
        }
    };
    (Arc::new(listener), Removals { receiver })
}

impl<K, V> Removals<K, V> {
    /// Waits for the next entry. Returns `None` after the last one, when all handles of the cache
    /// are dropped. Cancel-safe.
    pub async fn next(&mut self) -> Option<Removal<K, V>> {
        self.receiver.recv().await
    }

    /// Returns the next entry, or `None` if the queue is empty.
    pub fn try_next(&mut self) -> Option<Removal<K, V>> {
        self.receiver.try_recv().ok()
    }
}

impl<K, V> fmt::Debug for Removals<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Removals").field("queued", &self.receiver.len()).finish_non_exhaustive()
    }
}
