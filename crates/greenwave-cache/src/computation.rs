//! Computations in progress: one per missing key, shared by all callers that wait for the key.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use crate::locked_shard::LockedShard;
use crate::sync::AtomicUsize;

/// A computation in progress. The caller that holds the lock computes, the others wait for it.
#[derive(Debug)]
pub(crate) struct Computation<V> {
    outcome: AsyncMutex<ComputationOutcome<V>>,
    /// Number of failed computations that left an error for the waiters. Only changed while the list
    /// of pending computations is locked, which orders it for callers that join later.
    failures: AtomicUsize,
}

/// Result that a finished computation leaves for its waiters.
#[derive(Debug)]
pub(crate) struct ComputationOutcome<V> {
    pub(crate) value: Option<V>,
    /// Error of the last failed computation, if it is shared.
    pub(crate) error: Option<SharedError>,
}

/// An `Arc<E>` of some error type. Two callers of one key may use different error types.
pub(crate) type SharedError = Box<dyn Any + Send + Sync>;

/// Entry in a shard's list of computations, which callers of the same key join.
#[derive(Debug)]
pub(crate) struct PendingComputation<K, V> {
    pub(crate) key: K,
    computation: Arc<Computation<V>>,
    /// Number of callers that compute or wait.
    waiters: usize,
}

/// Determines whether the error of a failed computation is passed to the callers that wait for it.
///
/// A pair of functions rather than a trait: the bounds of an implementation would become part of the
/// returned futures, which could then not be spawned.
pub(crate) struct ErrorSharing<E, Out> {
    /// Splits an error into the caller's own result and the part shared with waiters.
    pub(crate) split: fn(E) -> (Out, Option<SharedError>),
    /// Converts a shared error for a waiter. With `None` the waiter computes itself.
    pub(crate) receive: fn(&SharedError) -> Option<Out>,
}

impl<E: Send + Sync + 'static> ErrorSharing<E, Arc<E>> {
    /// Every waiter gets the error.
    pub(crate) const SHARED: Self = Self {
        split: |error| {
            let error = Arc::new(error);
            (error.clone(), Some(Box::new(error)))
        },
        receive: |error| error.downcast_ref().cloned(),
    };
}

impl<E> ErrorSharing<E, E> {
    /// Waiters compute in turn until one succeeds.
    pub(crate) const RETRIED: Self = Self { split: |error| (error, None), receive: |_| None };
}

/// A caller's participation in a computation. The last waiter to leave an unfinished computation
/// removes it from the list.
pub(crate) struct Waiter<'a, K, V, P> {
    locked: &'a LockedShard<K, V, P>,
    computation: Arc<Computation<V>>,
    /// Failures before this caller joined. It does not get their errors.
    failures_seen: usize,
}

impl<'a, K: Eq + Clone, V, P> Waiter<'a, K, V, P> {
    /// Joins the pending computation of `key`, or adds one.
    pub(crate) fn join(locked: &'a LockedShard<K, V, P>, key: &K) -> Self {
        let (computation, failures_seen) = locked.with_pending(|pending| {
            let index = pending.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
                let outcome = AsyncMutex::new(ComputationOutcome { value: None, error: None });
                let computation = Arc::new(Computation { outcome, failures: AtomicUsize::new(0) });
                pending.push(PendingComputation { key: key.clone(), computation, waiters: 0 });
                pending.len() - 1
            });
            pending[index].waiters += 1;
            let computation = pending[index].computation.clone();
            let failures = computation.failures.load(Ordering::Relaxed);
            (computation, failures)
        });
        Self { locked, computation, failures_seen }
    }
}

impl<K, V, P> Waiter<'_, K, V, P> {
    /// Waits for the right to compute, or for the outcome of the caller that has it.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, ComputationOutcome<V>> {
        self.computation.outcome.lock().await
    }

    /// Whether a shared computation failed after this caller joined.
    pub(crate) fn saw_failure(&self) -> bool {
        self.computation.failures.load(Ordering::Relaxed) > self.failures_seen
    }

    /// Counts a failure. Callers that join from now on do not get its error.
    pub(crate) fn record_failure(&self) {
        self.locked.with_pending(|_| self.computation.failures.fetch_add(1, Ordering::Relaxed));
    }

    /// Removes the computation from the list and runs `publish`, in one step. Returns `None` if an
    /// insertion, removal or invalidation of the key has already cancelled the computation.
    pub(crate) fn complete<R>(&self, publish: impl FnOnce() -> R) -> Option<R> {
        self.locked.with_pending(|pending| {
            pending.swap_remove(self.position(pending)?);
            Some(publish())
        })
    }

    fn position(&self, pending: &[PendingComputation<K, V>]) -> Option<usize> {
        pending.iter().position(|entry| Arc::ptr_eq(&entry.computation, &self.computation))
    }
}

impl<K, V, P> Drop for Waiter<'_, K, V, P> {
    fn drop(&mut self) {
        self.locked.with_pending(|pending| {
            let Some(index) = self.position(pending) else { return };
            pending[index].waiters -= 1;
            if pending[index].waiters == 0 {
                pending.swap_remove(index);
            }
        });
    }
}
