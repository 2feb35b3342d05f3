//! A queue into a run: from any thread, until the run ends. What was taken in is handed over or dropped, and what comes later is refused; nothing
//! is forgotten in between. Knows nothing of what is handed over.
//!
//! Its lock and its waker are loom's under `--cfg greenwave_loom`, where every interleaving is tried.

use std::collections::VecDeque;
use std::fmt;
use std::sync::PoisonError;
use std::task::{Context, Poll};

#[cfg(not(greenwave_loom))]
use std::sync::{Arc, Mutex};

#[cfg(not(greenwave_loom))]
use futures_util::task::AtomicWaker;
#[cfg(greenwave_loom)]
use loom::{
    future::AtomicWaker,
    sync::{Arc, Mutex},
};

struct Shared<T> {
    /// `None` once the run has ended.
    items: Mutex<Option<VecDeque<T>>>,
    waker: AtomicWaker,
}

impl<T> Shared<T> {
    fn with_items<R>(&self, change: impl FnOnce(&mut Option<VecDeque<T>>) -> R) -> R {
        change(&mut self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Puts things in.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// Takes them out. Dropping it ends the queue.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// Both ends of a new queue.
pub(crate) fn inbox<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { items: Mutex::new(Some(VecDeque::new())), waker: AtomicWaker::new() });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Puts something in, unless the other end is gone: then it comes back.
    pub(crate) fn send(&self, item: T) -> Result<(), T> {
        self.0.with_items(|items| match items {
            Some(items) => {
                items.push_back(item);
                Ok(())
            }
            None => Err(item),
        })?;
        self.0.waker.wake();
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// The next, in the order in which they were put in.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<T> {
        let next = || self.0.with_items(|items| items.as_mut().and_then(VecDeque::pop_front));
        if let Some(item) = next() {
            return Poll::Ready(item);
        }
        #[cfg(not(greenwave_loom))]
        self.0.waker.register(context.waker());
        #[cfg(greenwave_loom)]
        self.0.waker.register_by_ref(context.waker());
        // What was put in before the waker was there has woken nobody.
        next().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = self.0.with_items(Option::take);
        // Outside the lock: whoever hears of it may send again.
        drop(left);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
