//! One computation per missing key, however many ask.
//!
//! Those who ask for a missing key share a *flight*: a lock with a place for the value. Whoever holds the lock computes. If it succeeds, it
//! leaves the value for the others. If it fails, panics or is dropped, the lock passes to the next, who computes in its place. A flight that
//! is no longer listed when it lands, because its key was put, removed or invalidated meanwhile, hands its value to those who asked and
//! keeps it out of the cache.

use std::sync::Arc;

use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use crate::cache::{Cache, EntryOptions, Part};
use crate::hashing::Hashing;
use crate::policy::Policy;
use crate::sync::time_since;

/// A computation under way.
#[derive(Debug)]
pub(crate) struct Flight<V> {
    value: Turn<Option<V>>,
}

/// A flight that those who ask for its key may still board.
#[derive(Debug)]
pub(crate) struct Listed<K, V> {
    pub(crate) key: K,
    flight: Arc<Flight<V>>,
    /// How many are on board.
    seats: usize,
}

impl<K: Eq + Clone, V: Clone, P: Policy, S: Hashing<K>> Cache<K, V, P, S> {
    /// The value of `key`, computed if it is missing, by one task at a time.
    ///
    /// An error goes to the caller whose computation it is, and is not kept: the next of those who wait tries. Dropping the future, and a
    /// panic in it, do the same. `compute` must not ask for the same key, or it waits for itself.
    ///
    /// # Errors
    ///
    /// Those of `compute`.
    pub async fn get_or_compute<E, F, Fut>(&self, key: K, compute: F) -> Result<V, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.get_or_compute_with(key, &EntryOptions::default(), compute).await
    }

    /// Like [`get_or_compute`](Self::get_or_compute), for an entry with a life, tags and cost of its own. The read counts for the tags.
    ///
    /// # Errors
    ///
    /// Those of `compute`.
    pub async fn get_or_compute_with<E, F, Fut>(
        &self,
        key: K,
        options: &EntryOptions<'_>,
        compute: F,
    ) -> Result<V, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        if let Some(value) = self.get_tagged(&key, options.tags) {
            return Ok(value);
        }
        let seat = self.board(&key);
        // Declared after the seat, so that the lock passes on before the seat is given up.
        let mut turn = seat.flight.value.lock().await;
        if let Some(value) = &*turn {
            return Ok(value.clone());
        }
        // The last flight may have landed between our look and our boarding.
        if let Some(value) = self.peek(&key) {
            return Ok(value);
        }
        let begun = Instant::now();
        let value = compute().await?;
        let cost = options.cost.or_else(|| Some(time_since(begun)));
        *turn = Some(value.clone());
        self.land(key, value.clone(), &EntryOptions { cost, ..options.clone() }, &seat);
        Ok(value)
    }

    /// Like [`get_or_compute_with`](Self::get_or_compute_with), for callers that are not async. Blocks the thread while another computes
    /// the same key, which therefore must not depend on this very thread to go on: not from a task, but from `spawn_blocking`.
    ///
    /// # Errors
    ///
    /// Those of `compute`.
    pub fn get_or_compute_blocking<E>(
        &self,
        key: K,
        options: &EntryOptions<'_>,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        block_on(self.get_or_compute_with(key, options, async || compute()))
    }

    fn board(&self, key: &K) -> Seat<'_, K, V, P> {
        let part = self.part(self.hashing.bits(key));
        let flight = part.with_flights(|flights| {
            let listed = flights.iter().position(|listed| listed.key == *key).unwrap_or_else(|| {
                let flight = Arc::new(Flight { value: Turn::new(None) });
                flights.push(Listed { key: key.clone(), flight, seats: 0 });
                flights.len() - 1
            });
            flights[listed].seats += 1;
            flights[listed].flight.clone()
        });
        Seat { part, flight }
    }

    fn land(&self, key: K, value: V, options: &EntryOptions<'_>, seat: &Seat<'_, K, V, P>) {
        let entry = self.entry(key, value, options);
        // Under the lock of the flights: an invalidation comes either before, and finds the flight, or after, and finds the entry.
        let displaced = seat.part.with_flights(|flights| {
            flights.swap_remove(seat.position(flights)?);
            Some(self.enter(entry))
        });
        displaced.iter().for_each(|displaced| self.let_go(displaced));
    }
}

/// A place on a flight. The last to leave one that did not land takes it off the list.
struct Seat<'a, K, V, P> {
    part: &'a Part<K, V, P>,
    flight: Arc<Flight<V>>,
}

impl<K, V, P> Seat<'_, K, V, P> {
    fn position(&self, flights: &[Listed<K, V>]) -> Option<usize> {
        flights.iter().position(|listed| Arc::ptr_eq(&listed.flight, &self.flight))
    }
}

impl<K, V, P> Drop for Seat<'_, K, V, P> {
    fn drop(&mut self) {
        self.part.with_flights(|flights| {
            let Some(listed) = self.position(flights) else { return };
            flights[listed].seats -= 1;
            if flights[listed].seats == 0 {
                flights.swap_remove(listed);
            }
        });
    }
}

/// Polls on this thread until the future is done. The lock that is waited for needs no runtime.
#[cfg(not(greenwave_loom))]
fn block_on<F: Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread::{self, Thread};

    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    // Within a task's thread, tokio would have the lock say "not yet" now and then, to let other tasks run that cannot.
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
