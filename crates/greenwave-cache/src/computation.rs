//! Computations in progress: one per missing key, shared by all callers that wait for the key.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::Mutex as AsyncMutex;

use crate::error::ComputeError;
use crate::sync::AtomicUsize;

/// A computation in progress. The caller that holds the lock computes, the others wait for it.
#[derive(Debug)]
pub(crate) struct Computation<V> {
    pub(crate) outcome: Arc<AsyncMutex<ComputationOutcome<V>>>,
    /// Number of failed computations that left an error for the waiters. Only changed while the
    /// list of pending computations is locked, which orders it for callers that join later.
    pub(crate) failures: AtomicUsize,
}

impl<V> Computation<V> {
    pub(crate) fn new() -> Self {
        let outcome = AsyncMutex::new(ComputationOutcome { value: None, failure: None });
        Self { outcome: Arc::new(outcome), failures: AtomicUsize::new(0) }
    }
}

/// Result that a finished computation leaves for its waiters.
#[derive(Debug)]
pub(crate) struct ComputationOutcome<V> {
    pub(crate) value: Option<V>,
    /// Failure of the last computation, if it is shared.
    pub(crate) failure: Option<SharedFailure>,
}

/// Failure of a computation, for the callers that waited for it.
#[derive(Debug)]
pub(crate) enum SharedFailure {
    Error(SharedError),
    /// Message of the panic.
    Panic(Arc<str>),
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
    /// Converts a shared failure for a waiter. With `None` the waiter computes itself.
    pub(crate) receive: fn(&SharedFailure) -> Option<Out>,
    /// Whether a panic is passed to waiters.
    pub(crate) shares_panics: bool,
}

impl<E: Send + Sync + 'static> ErrorSharing<E, ComputeError<E>> {
    /// Every waiter gets the error, or learns of the panic.
    pub(crate) const SHARED: Self = Self {
        split: |error| {
            let error = Arc::new(error);
            (ComputeError::Failed(error.clone()), Some(Box::new(error)))
        },
        receive: |failure| match failure {
            SharedFailure::Error(error) => error.downcast_ref().cloned().map(ComputeError::Failed),
            SharedFailure::Panic(message) => Some(ComputeError::Panicked { message: message.clone() }),
        },
        shares_panics: true,
    };
}

impl<E> ErrorSharing<E, E> {
    /// Waiters compute in turn until one succeeds.
    pub(crate) const RETRIED: Self =
        Self { split: |error| (error, None), receive: |_| None, shares_panics: false };
}
