//! A first-come, first-served queue of waiting tasks.
//!
//! The owner guards the queue with a lock. The queue therefore never wakes or drops a waker itself:
//! both may run foreign code that takes the same lock.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

/// Waiters in the order of their tickets, and grants that their waiters have not yet collected.
#[derive(Debug)]
pub(crate) struct WaitQueue<G> {
    next_ticket: u64,
    /// Tickets and slots of the waiters without a grant, in order.
    order: VecDeque<(u64, usize)>,
    slots: Vec<Slot<G>>,
    free: Vec<usize>,
}

#[derive(Debug)]
enum Slot<G> {
    /// Not in use.
    Free,
    /// A task waits here.
    Waiting(Waker),
    /// A grant waits for its task to collect it.
    Granted(G),
}

impl<G> WaitQueue<G> {
    pub(crate) fn new() -> Self {
        Self { next_ticket: 0, order: VecDeque::new(), slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Issues a ticket, which fixes the caller's position in the queue until it is served.
    pub(crate) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Enters the queue at the position of `ticket`. Returns the slot, which [`poll`](Self::poll)
    /// or [`leave`](Self::leave) frees.
    pub(crate) fn enter(&mut self, ticket: u64, waker: Waker) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            self.slots.len() - 1
        });
        self.slots[slot] = Slot::Waiting(waker);
        match self.order.back() {
            Some((last, _)) if *last > ticket => {
                let at = self.order.partition_point(|(other, _)| *other < ticket);
                self.order.insert(at, (ticket, slot));
            }
            _ => self.order.push_back((ticket, slot)),
        }
        slot
    }

    /// Returns the grant if there is one. Also returns the replaced waker, which the caller must
    /// drop outside the lock.
    pub(crate) fn poll(&mut self, slot: usize, waker: &Waker) -> (Poll<G>, Option<Waker>) {
        match &mut self.slots[slot] {
            Slot::Waiting(current) if current.will_wake(waker) => (Poll::Pending, None),
            Slot::Waiting(current) => (Poll::Pending, Some(std::mem::replace(current, waker.clone()))),
            Slot::Granted(_) | Slot::Free => match self.clear(slot) {
                Slot::Granted(grant) => (Poll::Ready(grant), None),
                _ => unreachable!("a slot belongs to its waiter until the waiter frees it"),
            },
        }
    }

    /// Grants to the waiter at the front and returns its waker. Returns the grant if no task waits.
    pub(crate) fn grant(&mut self, grant: G) -> Result<Waker, G> {
        let Some((_, slot)) = self.order.pop_front() else { return Err(grant) };
        match std::mem::replace(&mut self.slots[slot], Slot::Granted(grant)) {
            Slot::Waiting(waker) => Ok(waker),
            _ => unreachable!("slots in the order are waiting"),
        }
    }

    /// Removes a waiter. Returns its grant and waker, which the caller must drop outside the lock.
    pub(crate) fn leave(&mut self, ticket: u64, slot: usize) -> (Option<G>, Option<Waker>) {
        match self.clear(slot) {
            Slot::Granted(grant) => (Some(grant), None),
            Slot::Waiting(waker) => {
                if let Ok(at) = self.order.binary_search_by_key(&ticket, |(other, _)| *other) {
                    self.order.remove(at);
                }
                (None, Some(waker))
            }
            Slot::Free => (None, None),
        }
    }

    fn clear(&mut self, slot: usize) -> Slot<G> {
        self.free.push(slot);
        std::mem::replace(&mut self.slots[slot], Slot::Free)
    }
}
