//! `get_or_compute` and its variants: compute a missing value once, however many callers ask for
//! it.
//!
//! Callers that ask for a missing key share a [`Computation`](crate::computation::Computation): a
//! lock and a slot for the outcome. The caller that holds the lock computes. On success it leaves
//! the value for the waiters; on failure it leaves the error for waiters that share errors and
//! joined before the failure, and the message of a panic likewise. If it is dropped, the lock
//! passes to the next waiter, which computes instead. If the key is inserted, removed or
//! invalidated in the meantime, the computation is cancelled: its value still goes to the waiters,
//! but not into the cache.

use std::borrow::{Borrow, Cow};
use std::panic::resume_unwind;

use tokio::time::Instant;

use crate::cache::Cache;
use crate::catch_panic::{catch_unwind_async, message_of};
use crate::computation::{ErrorSharing, SharedFailure};
use crate::error::ComputeError;
use crate::hashing::KeyHasher;
use crate::options::EntryOptions;
use crate::policy::Policy;
use crate::sync::time_since;
use crate::waiter::Waiter;

impl<K: Eq + Clone, V: Clone, P: Policy, S: KeyHasher<K>> Cache<K, V, P, S> {
    /// Returns the cached value of `key`, or computes and caches it. One task computes at a time;
    /// others that ask for the key meanwhile wait, and share its value or its error.
    ///
    /// Errors are not cached: a task that asks after the failure computes again. If `compute`
    /// panics, so does the task that called it, and the tasks that wait get
    /// [`ComputeError::Panicked`]. If the future is dropped while computing, the next waiting task
    /// computes instead. Waiting tasks with a different error type than the failed computation also
    /// compute themselves, one after another. `compute` must not ask for the same key, which would
    /// deadlock.
    ///
    /// The computing task counts as a miss, and so does every task that gets an error. Tasks that
    /// wait and get the value count as hits that saved no time. A task whose future is dropped
    /// while waiting is not counted.
    ///
    /// # Errors
    ///
    /// Returns [`ComputeError::Failed`] with the error of `compute`, or of the computation that the
    /// task waited for, and [`ComputeError::Panicked`] if the latter panicked.
    pub async fn get_or_compute<E, F, Fut>(&self, key: K, compute: F) -> Result<V, ComputeError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.compute_once(Cow::<K>::Owned(key), &EntryOptions::default(), &ErrorSharing::SHARED, compute)
            .await
    }

    /// Like [`get_or_compute`](Self::get_or_compute), with options for the new entry. The access
    /// also counts for the tags in `options`.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`get_or_compute`](Self::get_or_compute).
    pub async fn get_or_compute_with<E, F, Fut>(
        &self,
        key: K,
        options: &EntryOptions<'_>,
        compute: F,
    ) -> Result<V, ComputeError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.compute_once(Cow::<K>::Owned(key), options, &ErrorSharing::SHARED, compute).await
    }

    /// Like [`get_or_compute_with`](Self::get_or_compute_with), for a borrowed key such as `&str`,
    /// which becomes an owned one only if the value is missing.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`get_or_compute`](Self::get_or_compute).
    pub async fn get_or_compute_by_ref<Q, E, F, Fut>(
        &self,
        key: &Q,
        options: &EntryOptions<'_>,
        compute: F,
    ) -> Result<V, ComputeError<E>>
    where
        Q: Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
        S: KeyHasher<Q>,
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.compute_once(Cow::Borrowed(key), options, &ErrorSharing::SHARED, compute).await
    }

    /// Like [`get_or_compute_with`](Self::get_or_compute_with), but returns an error only to the
    /// caller whose own computation failed. Waiting callers compute in turn until one succeeds,
    /// also after a panic.
    ///
    /// Use it for computations that can fail for one caller and succeed for the next. If each
    /// attempt fails after a timeout, the n-th caller waits for n timeouts.
    ///
    /// # Errors
    ///
    /// Returns the error of `compute`.
    pub async fn get_or_compute_retrying<E, F, Fut>(
        &self,
        key: K,
        options: &EntryOptions<'_>,
        compute: F,
    ) -> Result<V, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.compute_once(Cow::<K>::Owned(key), options, &ErrorSharing::RETRIED, compute).await
    }

    /// Like [`get_or_compute_with`](Self::get_or_compute_with), for synchronous callers.
    ///
    /// Blocks the thread while another caller computes the same key. That computation must be able
    /// to make progress without this thread, so call this from `spawn_blocking`, not from a task.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`get_or_compute`](Self::get_or_compute).
    pub fn get_or_compute_blocking<E: Send + Sync + 'static>(
        &self,
        key: K,
        options: &EntryOptions<'_>,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, ComputeError<E>> {
        block_on(self.get_or_compute_with(key, options, async || compute()))
    }

    pub(crate) async fn compute_once<Q, E, Out, F, Fut>(
        &self,
        key: Cow<'_, Q>,
        options: &EntryOptions<'_>,
        errors: &ErrorSharing<E, Out>,
        compute: F,
    ) -> Result<V, Out>
    where
        Q: Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
        S: KeyHasher<Q>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        if let Some(value) = self.get_counting_hits::<Q>(&key, options.tags) {
            return Ok(value);
        }
        let waiter = Waiter::join::<Q>(self.shard_for(self.hashing.hash_key(&*key)), &key);
        // Declared after the waiter, so that the lock passes on before the waiter leaves.
        let mut outcome = waiter.lock().await;
        if let Some(value) = &outcome.value {
            self.count_access::<Q>(&key, options.tags, Some(0));
            return Ok(value.clone());
        }
        // The previous computation may have finished between the lookup and the join.
        if let Some(value) = self.get_counting_hits::<Q>(&key, options.tags) {
            return Ok(value);
        }
        self.count_access::<Q>(&key, options.tags, None);
        let failure = outcome.failure.as_ref().filter(|_| waiter.saw_failure());
        if let Some(error) = failure.and_then(errors.receive) {
            return Err(error);
        }
        let started = Instant::now();
        let value = match catch_unwind_async(compute).await {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => {
                let (own, shared) = (errors.split)(error);
                if let Some(shared) = shared {
                    outcome.failure = Some(SharedFailure::Error(shared));
                    waiter.record_failure();
                }
                return Err(own);
            }
            Err(panic) => {
                if errors.shares_panics {
                    outcome.failure = Some(SharedFailure::Panic(message_of(&*panic).into()));
                    waiter.record_failure();
                }
                // Its guards pass the lock on.
                resume_unwind(panic)
            }
        };
        let cost = options.cost.or_else(|| Some(time_since(started)));
        outcome.value = Some(value.clone());
        self.publish(key.into_owned(), value.clone(), &EntryOptions { cost, ..options.clone() }, &waiter);
        Ok(value)
    }

    pub(crate) fn publish(&self, key: K, value: V, options: &EntryOptions<'_>, waiter: &Waiter<'_, K, V, P>) {
        let entry = self.new_entry(key, value, options);
        let shard_index = self.shard_index(entry.hash);
        // Under the lock of the pending computations: an invalidation comes either before, and
        // cancels the computation, or after, and finds the entry.
        if let Some(mut displaced) = waiter.complete(|| self.insert_entry(entry)) {
            self.evict_over_budget(shard_index, &mut displaced);
            self.notify_displaced(&displaced);
        }
    }
}

/// Polls the future on this thread until it is ready. The lock that it waits for needs no runtime.
#[cfg(not(greenwave_loom))]
fn block_on<F: Future>(future: F) -> F::Output {
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread::{self, Thread};

    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    // On a task's thread, tokio's cooperative budget would make the lock return `Pending` now and
    // then to let other tasks run, which they cannot while this thread is blocked.
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(greenwave_loom)]
use loom::future::block_on;
