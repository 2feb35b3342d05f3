//! One computation per missing key, however many ask.
//!
//! Those who ask for a missing key share a *flight*: a lock with a place for the outcome. Whoever
//! holds the lock computes. If it succeeds, it leaves the value for the others; if it fails, the
//! error, for those who share errors and boarded before. If it panics or is dropped, the lock passes
//! to the next, who computes in its place. A flight that is no longer listed when it lands, because
//! its key was put, removed or invalidated meanwhile, hands its value to those who asked and keeps it
//! out of the cache.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use crate::cache::{Cache, EntryOptions, Part};
use crate::hashing::KeyHasher;
use crate::policy::Policy;
use crate::sync::{AtomicUsize, time_since};

/// A computation under way.
#[derive(Debug)]
pub(crate) struct Flight<V> {
    outcome: Turn<Outcome<V>>,
    /// How many computations have left an error. Changes under the lock of the flights only, which is
    /// what orders it: whoever boards later sees it.
    failures: AtomicUsize,
}

/// What a flight has for those on board.
#[derive(Debug)]
struct Outcome<V> {
    value: Option<V>,
    /// The last error that was left to be shared.
    error: Option<SharedError>,
}

/// An `Arc<E>` of some error type. Two callers of one key may have different ones.
type SharedError = Box<dyn Any + Send + Sync>;

/// A flight that those who ask for its key may still board.
#[derive(Debug)]
pub(crate) struct Listed<K, V> {
    pub(crate) key: K,
    flight: Arc<Flight<V>>,
    /// How many are on board.
    seats: usize,
}

/// Whether an error goes to those who wait for the computation as well. Functions and not a trait: the
/// bounds of an implementation would be part of the futures, which then could not be spawned.
pub(crate) struct Errors<E, Out> {
    /// What the caller whose computation failed gets, and what it leaves for the others.
    leave: fn(E) -> (Out, Option<SharedError>),
    /// What a caller who waited gets of an error that was left; nothing if it computes itself.
    take: fn(&SharedError) -> Option<Out>,
}

impl<E: Send + Sync + 'static> Errors<E, Arc<E>> {
    /// Everybody who waits gets the error.
    pub(crate) const SHARED: Self = Self {
        leave: |error| {
            let error = Arc::new(error);
            (error.clone(), Some(Box::new(error)))
        },
        take: |error| error.downcast_ref().cloned(),
    };
}

impl<E> Errors<E, E> {
    /// Everybody who waits computes in turn, until one succeeds.
    pub(crate) const RETRIED: Self = Self { leave: |error| (error, None), take: |_| None };
}

impl<K: Eq + Clone, V: Clone, P: Policy, S: KeyHasher<K>> Cache<K, V, P, S> {
    /// The value of `key`, computed if it is missing, by one task at a time. Tasks that ask meanwhile
    /// wait for it, and get its value or its error.
    ///
    /// An error is not cached: a task that asks after the failure computes again. If the future is
    /// dropped while it computes, or `compute` panics, the next of those who wait computes instead.
    /// Tasks that wait with another error type than the failed computation's also compute themselves,
    /// one after another. `compute` must not ask for the same key, or it waits for itself.
    ///
    /// The task that computes counts as a miss, like every task that gets an error; those that wait
    /// and get its value count as hits that save no time. A task whose future is dropped while it
    /// waits counts as neither.
    ///
    /// # Errors
    ///
    /// That of `compute`, or of the computation that the task waited for.
    pub async fn get_or_compute<E, F, Fut>(&self, key: K, compute: F) -> Result<V, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.fly(key, &EntryOptions::default(), &Errors::SHARED, compute).await
    }

    /// Like [`get_or_compute`](Self::get_or_compute), for an entry with a life, tags and cost of its
    /// own. The read counts for the tags.
    ///
    /// # Errors
    ///
    /// As for [`get_or_compute`](Self::get_or_compute).
    pub async fn get_or_compute_with<E, F, Fut>(
        &self,
        key: K,
        options: &EntryOptions<'_>,
        compute: F,
    ) -> Result<V, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.fly(key, options, &Errors::SHARED, compute).await
    }

    /// Like [`get_or_compute_with`](Self::get_or_compute_with), but an error goes only to the caller
    /// whose computation failed: those who wait compute in turn, one after another, until one
    /// succeeds. For computations that may fail for one caller and succeed for the next. If each
    /// fails after a time limit, the n-th caller waits n of them.
    ///
    /// # Errors
    ///
    /// Those of `compute`.
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
        self.fly(key, options, &Errors::RETRIED, compute).await
    }

    /// Like [`get_or_compute_with`](Self::get_or_compute_with), for callers that are not async. Blocks the thread while another computes
    /// the same key, which therefore must not depend on this very thread to go on: not from a task, but from `spawn_blocking`.
    ///
    /// # Errors
    ///
    /// As for [`get_or_compute`](Self::get_or_compute).
    pub fn get_or_compute_blocking<E: Send + Sync + 'static>(
        &self,
        key: K,
        options: &EntryOptions<'_>,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, Arc<E>> {
        block_on(self.get_or_compute_with(key, options, async || compute()))
    }

    /// Like [`get_or_compute_retrying`](Self::get_or_compute_retrying), for callers that are not async.
    /// Blocks the thread as [`get_or_compute_blocking`](Self::get_or_compute_blocking) does.
    ///
    /// # Errors
    ///
    /// Those of `compute`.
    pub fn get_or_compute_retrying_blocking<E>(
        &self,
        key: K,
        options: &EntryOptions<'_>,
        compute: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        block_on(self.get_or_compute_retrying(key, options, async || compute()))
    }

    pub(crate) async fn fly<E, Out, F, Fut>(
        &self,
        key: K,
        options: &EntryOptions<'_>,
        errors: &Errors<E, Out>,
        compute: F,
    ) -> Result<V, Out>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        if let Some(value) = self.read_counted(&key, options.tags) {
            return Ok(value);
        }
        let seat = self.board(&key);
        // Declared after the seat, so that the lock passes on before the seat is given up.
        let mut turn = seat.flight.outcome.lock().await;
        if let Some(value) = &turn.value {
            self.count(&key, options.tags, Some(0));
            return Ok(value.clone());
        }
        // The last flight may have landed between our look and our boarding.
        if let Some(value) = self.read_counted(&key, options.tags) {
            return Ok(value);
        }
        self.count(&key, options.tags, None);
        if let Some(error) = turn.error.as_ref().filter(|_| seat.waited_for_a_failure()).and_then(errors.take)
        {
            return Err(error);
        }
        let begun = Instant::now();
        let value = match compute().await {
            Ok(value) => value,
            Err(error) => {
                let (own, left) = (errors.leave)(error);
                if let Some(left) = left {
                    turn.error = Some(left);
                    seat.fail();
                }
                return Err(own);
            }
        };
        let cost = options.cost.or_else(|| Some(time_since(begun)));
        turn.value = Some(value.clone());
        self.land(key, value.clone(), &EntryOptions { cost, ..options.clone() }, &seat);
        Ok(value)
    }

    fn board(&self, key: &K) -> Seat<'_, K, V, P> {
        let part = self.part(self.hashing.hash_key(key));
        let (flight, failures_seen) = part.with_flights(|flights| {
            let listed = flights.iter().position(|listed| listed.key == *key).unwrap_or_else(|| {
                let outcome = Turn::new(Outcome { value: None, error: None });
                let flight = Arc::new(Flight { outcome, failures: AtomicUsize::new(0) });
                flights.push(Listed { key: key.clone(), flight, seats: 0 });
                flights.len() - 1
            });
            flights[listed].seats += 1;
            let flight = flights[listed].flight.clone();
            let failures = flight.failures.load(Ordering::Relaxed);
            (flight, failures)
        });
        Seat { part, flight, failures_seen }
    }

    fn land(&self, key: K, value: V, options: &EntryOptions<'_>, seat: &Seat<'_, K, V, P>) {
        let entry = self.entry(key, value, options);
        // Under the lock of the flights: an invalidation comes either before, and finds the flight, or after, and finds the entry.
        let part_number = self.part_number(entry.hash);
        let displaced = seat.part.with_flights(|flights| {
            flights.swap_remove(seat.position(flights)?);
            Some(self.enter(entry))
        });
        if let Some(mut displaced) = displaced {
            self.trim(part_number, &mut displaced);
            self.let_go(&displaced);
        }
    }
}

/// A place on a flight. The last to leave one that did not land takes it off the list.
struct Seat<'a, K, V, P> {
    part: &'a Part<K, V, P>,
    flight: Arc<Flight<V>>,
    /// The failures before it was taken: their errors are not for whoever sits here.
    failures_seen: usize,
}

impl<K, V, P> Seat<'_, K, V, P> {
    fn waited_for_a_failure(&self) -> bool {
        self.flight.failures.load(Ordering::Relaxed) > self.failures_seen
    }

    /// Counts a failure: those who board from now on do not get its error.
    fn fail(&self) {
        self.part.with_flights(|_| self.flight.failures.fetch_add(1, Ordering::Relaxed));
    }

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
