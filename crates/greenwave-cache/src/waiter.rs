//! A caller's participation in a computation.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{MutexGuard, OwnedMutexGuard};

use crate::computation::{Computation, ComputationOutcome, PendingComputation};
use crate::locked_shard::LockedShard;

/// A caller that computes or waits. The last waiter to leave an unfinished computation
/// removes it from the list.
pub(crate) struct Waiter<'a, K, V, P> {
    locked: &'a LockedShard<K, V, P>,
    computation: Arc<Computation<V>>,
    /// Failures before this caller joined. It does not get their errors.
    failures_seen: usize,
}

impl<'a, K, V, P> Waiter<'a, K, V, P> {
    /// Joins the pending computation of `key`, or adds one.
    pub(crate) fn join<Q>(locked: &'a LockedShard<K, V, P>, key: &Q) -> Self
    where
        Q: Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let (computation, failures_seen) = locked.with_pending(|pending| {
            let index = pending.iter().position(|entry| entry.key.borrow() == key).unwrap_or_else(|| {
                let computation = Arc::new(Computation::new());
                pending.push(PendingComputation { key: key.to_owned(), computation, waiters: 0 });
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

    /// Like [`lock`](Self::lock), with a guard that can be stored beside this value.
    pub(crate) async fn lock_owned(&self) -> OwnedMutexGuard<ComputationOutcome<V>> {
        Arc::clone(&self.computation.outcome).lock_owned().await
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
