//! The place of a value that is loaded once, and the load that its callers share.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::callback::message_of;
use crate::error::LoadError;

/// A value that is absent, being loaded, or loaded.
///
/// Callers that find it absent join an [`Attempt`]. The caller that holds its lock loads. If that
/// caller is dropped, the lock passes to the next one, which loads instead. If its load fails, it
/// leaves the failure in the attempt and removes the attempt from the slot, so that later callers
/// start a new one. Therefore at most one attempt loads at any time.
#[derive(Debug)]
pub(super) struct Slot<T> {
    value: OnceLock<T>,
    attempt: Mutex<Option<Arc<Attempt>>>,
}

/// A load for the callers that joined before it failed. It holds the failure once it has failed.
type Attempt = AsyncMutex<Option<Failure>>;

#[derive(Debug)]
pub(super) enum Failure {
    /// An `Arc` of the error. Two callers of a key may use different error types.
    Error(Box<dyn Any + Send + Sync>),
    /// Message of the panic.
    Panic(Arc<str>),
}

impl<T> Slot<T> {
    pub(super) const fn new() -> Self {
        Self { value: OnceLock::new(), attempt: Mutex::new(None) }
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Returns the value, loading it unless another caller does.
    pub(super) async fn get_or_load<E, Out, Fut>(
        &self,
        errors: &ErrorSharing<E, Out>,
        load: impl FnOnce() -> Fut,
    ) -> Result<&T, Out>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        loop {
            if let Some(value) = self.value.get() {
                return Ok(value);
            }
            let attempt = self.attempt.lock().get_or_insert_default().clone();
            let mut failure = attempt.lock().await;
            if let Some(failure) = &*failure {
                match (errors.receive)(failure) {
                    Some(error) => return Err(error),
                    None => continue,
                }
            }
            // The attempt may have begun after another one loaded the value.
            if let Some(value) = self.value.get() {
                return Ok(value);
            }
            let failed = match catch(load).await {
                Ok(Ok(value)) => {
                    self.finish(&attempt);
                    return Ok(self.value.get_or_init(|| value));
                }
                Ok(Err(error)) => (errors.split)(error),
                Err(panic) => {
                    if errors.shares_panics {
                        *failure = Some(Failure::Panic(message_of(&*panic).into()));
                        self.finish(&attempt);
                    }
                    drop(failure);
                    resume_unwind(panic)
                }
            };
            if let Some(shared) = failed.1 {
                *failure = Some(shared);
                self.finish(&attempt);
            }
            return Err(failed.0);
        }
    }

    /// Removes the attempt, so that later callers do not join it.
    fn finish(&self, attempt: &Arc<Attempt>) {
        self.attempt.lock().take_if(|current| Arc::ptr_eq(current, attempt));
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Determines whether a failure is passed to the callers that wait for the load.
pub(super) struct ErrorSharing<E, Out> {
    /// Splits an error into the caller's own result and the part shared with waiters.
    split: fn(E) -> (Out, Option<Failure>),
    /// Converts a shared failure for a waiter. With `None` the waiter loads itself.
    receive: fn(&Failure) -> Option<Out>,
    shares_panics: bool,
}

impl<E: Send + Sync + 'static> ErrorSharing<E, LoadError<E>> {
    /// Every waiter gets the error, or learns of the panic.
    pub(super) const SHARED: Self = Self {
        split: |error| {
            let error = Arc::new(error);
            (LoadError::Failed(error.clone()), Some(Failure::Error(Box::new(error))))
        },
        receive: |failure| match failure {
            Failure::Error(error) => error.downcast_ref().cloned().map(LoadError::Failed),
            Failure::Panic(message) => Some(LoadError::Panicked { message: message.clone() }),
        },
        shares_panics: true,
    };
}

impl<E> ErrorSharing<E, E> {
    /// Waiters load in turn until one succeeds.
    pub(super) const RETRIED: Self =
        Self { split: |error| (error, None), receive: |_| None, shares_panics: false };
}

/// Creates a future and awaits it. Returns the payload of a panic, which the caller resumes.
async fn catch<Fut: Future>(create: impl FnOnce() -> Fut) -> Result<Fut::Output, Box<dyn Any + Send>> {
    let mut future = pin!(catch_unwind(AssertUnwindSafe(create))?);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}
