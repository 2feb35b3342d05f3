//! An unbounded queue into a run, from any thread. Every item is received or dropped at the end of
//! the run; sending after that fails.
//!
//! Under `--cfg greenwave_loom` the lock and the waker are loom's, which tries every interleaving.

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

struct Inbox<T> {
    /// `None` after the end of the run.
    items: Mutex<Option<VecDeque<T>>>,
    waker: AtomicWaker,
}

impl<T> Inbox<T> {
    fn with_items<R>(&self, change: impl FnOnce(&mut Option<VecDeque<T>>) -> R) -> R {
        change(&mut self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The sending end.
pub(crate) struct Sender<T>(Arc<Inbox<T>>);

/// The receiving end. Its drop closes the queue.
pub(crate) struct Receiver<T>(Arc<Inbox<T>>);

/// Creates a queue.
pub(crate) fn inbox<T>() -> (Sender<T>, Receiver<T>) {
    let inbox = Arc::new(Inbox { items: Mutex::new(Some(VecDeque::new())), waker: AtomicWaker::new() });
    (Sender(inbox.clone()), Receiver(inbox))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Sends an item. Returns it if the receiver is gone.
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
    /// Receives the next item in order.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<T> {
        let next = || self.0.with_items(|items| items.as_mut().and_then(VecDeque::pop_front));
        if let Some(item) = next() {
            return Poll::Ready(item);
        }
        #[cfg(not(greenwave_loom))]
        self.0.waker.register(context.waker());
        #[cfg(greenwave_loom)]
        self.0.waker.register_by_ref(context.waker());
        // An item sent before the waker was registered has woken no task.
        next().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let unread = self.0.with_items(Option::take);
        // Dropped outside the lock: a drop may send again.
        drop(unread);
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
