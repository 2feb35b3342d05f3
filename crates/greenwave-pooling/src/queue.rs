//! Who waits, first come, first served. Knows nothing of what is waited for.
//!
//! It stands under a lock of its owner, and neither wakes nor drops a waker itself: both may run code of others, which may want that lock.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

/// Waiters in the order of their tickets, and what was granted to those who have not yet come for it.
#[derive(Debug)]
pub(crate) struct Queue<G> {
    next_ticket: u64,
    /// Tickets and places of those who were granted nothing yet, in order.
    order: VecDeque<(u64, usize)>,
    places: Vec<Place<G>>,
    free: Vec<usize>,
}

#[derive(Debug)]
enum Place<G> {
    /// Nobody's.
    Free,
    /// Someone waits here, to be woken so.
    Waits(Waker),
    /// Something lies here for the one whose place it is.
    Granted(G),
}

impl<G> Queue<G> {
    pub(crate) fn new() -> Self {
        Self { next_ticket: 0, order: VecDeque::new(), places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// A position in the order, to be kept for as long as the caller is not served.
    pub(crate) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Waits at the position that `ticket` gives. Returns the place, which [`poll`](Self::poll) or [`leave`](Self::leave) frees.
    pub(crate) fn enter(&mut self, ticket: u64, waker: Waker) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::Free);
            self.places.len() - 1
        });
        self.places[place] = Place::Waits(waker);
        match self.order.back() {
            Some((last, _)) if *last > ticket => {
                let at = self.order.partition_point(|(other, _)| *other < ticket);
                self.order.insert(at, (ticket, place));
            }
            _ => self.order.push_back((ticket, place)),
        }
        place
    }

    /// What was granted, or the waker that stood there before: for the caller to drop without the lock.
    pub(crate) fn poll(&mut self, place: usize, waker: &Waker) -> (Poll<G>, Option<Waker>) {
        match &mut self.places[place] {
            Place::Waits(known) if known.will_wake(waker) => (Poll::Pending, None),
            Place::Waits(known) => (Poll::Pending, Some(std::mem::replace(known, waker.clone()))),
            Place::Granted(_) | Place::Free => match self.clear(place) {
                Place::Granted(grant) => (Poll::Ready(grant), None),
                _ => unreachable!("a place is its holder's until the holder frees it"),
            },
        }
    }

    /// Grants to the one who has waited longest, and returns whom to wake; gives it back if nobody waits.
    pub(crate) fn grant(&mut self, grant: G) -> Result<Waker, G> {
        let Some((_, place)) = self.order.pop_front() else { return Err(grant) };
        match std::mem::replace(&mut self.places[place], Place::Granted(grant)) {
            Place::Waits(waker) => Ok(waker),
            _ => unreachable!("who is in the order waits"),
        }
    }

    /// The holder of a place goes away: what was granted to it meanwhile, and its waker, to be dropped without the lock.
    pub(crate) fn leave(&mut self, ticket: u64, place: usize) -> (Option<G>, Option<Waker>) {
        match self.clear(place) {
            Place::Granted(grant) => (Some(grant), None),
            Place::Waits(waker) => {
                if let Ok(at) = self.order.binary_search_by_key(&ticket, |(other, _)| *other) {
                    self.order.remove(at);
                }
                (None, Some(waker))
            }
            Place::Free => (None, None),
        }
    }

    fn clear(&mut self, place: usize) -> Place<G> {
        self.free.push(place);
        std::mem::replace(&mut self.places[place], Place::Free)
    }
}
