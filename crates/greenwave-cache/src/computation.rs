//! Computations in progress: one per missing key, shared by all callers that wait for the key.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::Mutex as AsyncMutex;

use crate::sync::AtomicUsize;

/// A computation in progress. The caller that holds the lock computes, the others wait for it.
#[derive(Debug)]
pub(crate) struct Computation<V> {
    pub(crate) outcome: AsyncMutex<ComputationOutcome<V>>,
    /// Number of failed computations that left an error for the waiters. Only changed while the
    /// list of pending computations is locked, which orders it for callers that join later.
    pub(crate) failures: AtomicUsize,
}

impl<V> Computation<V> {
    pub(crate) fn new() -> Self {
        let outcome = AsyncMutex::new(ComputationOutcome { value: None, error: None });
        Self { outcome, failures: AtomicUsize::new(0) }
    }
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
    pub(crate) computation: Arc<Computation<V>>,
    /// Number of callers that compute or wait.
    pub(crate) waiters: usize,
}

/// Determines whether the error of a failed computation is passed to the callers that wait for it.
///
/// A pair of functions rather than a trait: the bounds of an implementation would become part of
/// the returned futures, which could then not be spawned.
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
