//! A shard of a cache with its lock, its pending computations and its counters.

use std::sync::atomic::Ordering;

use crate::computation::PendingComputation;
use crate::reading::Reading;
use crate::shard::Shard;
use crate::stats::{Counter, TagCounters};
use crate::sync::{AtomicUsize, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A shard behind a lock, aligned so that two shards never share a cache line.
#[repr(align(128))]
pub(crate) struct LockedShard<K, V, P> {
    shard: RwLock<Shard<K, V, P>>,
    pending: Mutex<Vec<PendingComputation<K, V>>>,
    /// Length of `pending`. An insertion does not lock the list while it is empty.
    pending_count: AtomicUsize,
    pub(crate) tags: Mutex<TagCounters>,
    pub(crate) expirations: Counter,
    pub(crate) removals: Counter,
}

impl<K, V, P> LockedShard<K, V, P> {
    pub(crate) fn new(shard: Shard<K, V, P>) -> Self {
        Self {
            shard: RwLock::new(shard),
            pending: Mutex::default(),
            pending_count: AtomicUsize::new(0),
            tags: Mutex::default(),
            expirations: Counter::default(),
            removals: Counter::default(),
        }
    }

    /// Locks the shard for reading.
    #[inline]
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Shard<K, V, P>> {
        self.shard.try_read().unwrap_or_else(|| {
            // A writer may wait for this thread, and this thread must not wait for the writer.
            if Reading::is_active(self) { self.shard.read_recursive() } else { self.shard.read() }
        })
    }

    /// Locks the shard for writing.
    ///
    /// # Panics
    /// Panics if this thread has locked it for a reader of [`reading`](Self::reading).
    #[inline]
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Shard<K, V, P>> {
        self.shard.try_write().unwrap_or_else(|| {
            assert!(!Reading::is_active(self), "the reader of `Cache::get_with` changed the cache");
            self.shard.write()
        })
    }

    /// Marks the shard, whose read lock the caller holds, as locked for a reader of the user.
    pub(crate) fn reading(&self) -> Reading {
        Reading::begin(self)
    }

    /// Runs `change` on the list of pending computations, under its lock.
    pub(crate) fn with_pending<R>(&self, change: impl FnOnce(&mut Vec<PendingComputation<K, V>>) -> R) -> R {
        let mut pending = self.pending.lock();
        let result = change(&mut pending);
        // Relaxed: see `has_pending`.
        self.pending_count.store(pending.len(), Ordering::Relaxed);
        result
    }

    /// Whether a computation is in progress. The caller must hold the shard's write lock.
    ///
    /// If so, a caller that changes a key must first remove the key's computation from the list,
    /// and hold the list's lock until the key is changed. A computation that starts in between
    /// would read the old state, and overwrite the change when it finishes.
    ///
    /// Relaxed is enough because the shard's lock orders the accesses: a computing caller joins the
    /// list before it reads the shard. If that read comes before our write lock, we see its count.
    /// If it comes after, the caller sees our change and computes from it.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending_count.load(Ordering::Relaxed) > 0
    }
}
