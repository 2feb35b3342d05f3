//! Who waits, first come, first served. Knows nothing of what is waited for.

use std::collections::VecDeque;

use tokio::sync::oneshot;

/// Waiters in the order of their tickets. What is granted must give itself back when it is dropped unread: a waiter may go away between
/// the grant and its waking up.
#[derive(Debug)]
pub(crate) struct Queue<G> {
    next_ticket: u64,
    waiting: VecDeque<(u64, oneshot::Sender<G>)>,
}

impl<G> Queue<G> {
    pub(crate) fn new() -> Self {
        Self { next_ticket: 0, waiting: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A place in the order, to be kept for as long as the caller is not served.
    pub(crate) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Waits at the place that `ticket` gives.
    pub(crate) fn enter(&mut self, ticket: u64) -> oneshot::Receiver<G> {
        let (sender, receiver) = oneshot::channel();
        let at = self.waiting.partition_point(|(other, _)| *other < ticket);
        self.waiting.insert(at, (ticket, sender));
        receiver
    }

    /// Takes the one who has waited longest. Granting is done outside the lock that the queue is under.
    pub(crate) fn pop(&mut self) -> Option<oneshot::Sender<G>> {
        self.waiting.pop_front().map(|(_, sender)| sender)
    }

    /// The holder of `ticket` waits no longer.
    pub(crate) fn leave(&mut self, ticket: u64) {
        if let Ok(at) = self.waiting.binary_search_by_key(&ticket, |(other, _)| *other) {
            self.waiting.remove(at);
        }
    }
}
