//! Holds back requests to an agent whose provider limits requests or is overloaded.

mod backoff;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use self::state::{GateState, Outcome, Permit};

/// Admits requests to one provider, and learns the number of requests that it serves at once.
/// Clones share the state, so agents with the same server and key can share a gate.
///
/// A provider that refuses a request while it serves others limits the number of requests at once:
/// the gate admits as many as it serves, the next one when one ends, and from time to time one
/// more. A provider that refuses every request, refuses several replacements in a row or cannot be
/// reached gets no request for the time that it asks for, or one that grows exponentially. Then one
/// request tries first, and others follow once it is accepted.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    state: GateState,
    /// Callers that wait, by their places.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// A place in the queue of a [`Gate`]. A request that was refused keeps its place, so that it goes
/// before requests that came later.
#[derive(Debug)]
pub struct Place(u64);

/// Permission for one request. Dropping it reports that the request has ended without a result.
#[derive(Debug)]
#[must_use = "report the result of the request through it"]
pub struct Admission {
    gate: Gate,
    permit: Permit,
    is_held: bool,
}

/// Reports that the provider has accepted a request. See [`Admission::acceptance`].
#[derive(Debug, Clone)]
pub struct Acceptance {
    gate: Gate,
    permit: Permit,
}

impl Gate {
    /// Creates a gate that admits up to `requests_max` requests at once.
    #[must_use]
    pub fn new(requests_max: usize) -> Self {
        let state = GateState::new(requests_max, Instant::now());
        Self(Arc::new(Mutex::new(Shared { state, waiting: BTreeMap::new() })))
    }

    /// Waits until a request may be sent. Cancel safe.
    pub async fn enter(&self, place: &mut Place) -> Admission {
        let waiter = Waiter::new(self, place);
        loop {
            // The caller that waits first is woken by every change, and others by its departure.
            let until = match self.admit(place) {
                Ok(admission) => return admission,
                Err(until) => until,
            };
            match until {
                Some(until) => {
                    let _ = timeout_at(until, waiter.changed.notified()).await;
                }
                None => waiter.changed.notified().await,
            }
        }
    }

    /// Returns an admission if a request may be sent now and no earlier one waits.
    #[must_use]
    pub fn try_enter(&self, place: &mut Place) -> Option<Admission> {
        self.admit(place).ok()
    }

    /// Returns the time until the next request may be sent, if none ends before.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let now = Instant::now();
        let next = self.0.lock().state.next(now);
        next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// Returns the time at which the provider has last accepted a request, or that of the creation.
    #[must_use]
    pub fn last_served(&self) -> Instant {
        self.0.lock().state.last_served()
    }

    /// Returns the number of requests that the provider is believed to serve at once.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.lock().state.limit()
    }

    /// Fails with the time at which the next request may be sent, if it has one.
    fn admit(&self, place: &Place) -> Result<Admission, Option<Instant>> {
        let mut shared = self.0.lock();
        if shared.waiting.first_key_value().is_some_and(|(first, _)| *first < place.0) {
            return Err(None);
        }
        let permit = shared.state.admit(Instant::now())?;
        Ok(Admission { gate: self.clone(), permit, is_held: true })
    }

    /// Changes the state, and has the first caller that waits look at it.
    fn change<T>(&self, change: impl FnOnce(&mut GateState, Instant) -> T) -> T {
        let mut shared = self.0.lock();
        let result = change(&mut shared.state, Instant::now());
        shared.wake_first();
        result
    }
}

impl Shared {
    fn wake_first(&self) {
        if let Some((_, changed)) = self.waiting.first_key_value() {
            changed.notify_one();
        }
    }
}

impl Place {
    /// Returns the place behind all others.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each place differs from all others")]
    pub fn new() -> Self {
        // Relaxed: only the number counts, and no other data depends on it.
        static PLACES: AtomicU64 = AtomicU64::new(0);
        Self(PLACES.fetch_add(1, Ordering::Relaxed))
    }
}

impl Admission {
    /// Returns a handle that reports that the provider has accepted the request, before it ends.
    #[must_use]
    pub fn acceptance(&self) -> Acceptance {
        Acceptance { gate: self.gate.clone(), permit: self.permit }
    }

    /// Reports that the provider has served the request, which ends it.
    pub fn succeeded(&mut self) {
        self.end(Outcome::Served);
    }

    /// Reports that the provider has refused the request, and when it may be repeated. Returns the
    /// time until the next request may be sent, if none ends before.
    ///
    /// Requests that were sent together lengthen the delay only once.
    pub fn overloaded(mut self, retry_after: Option<Duration>) -> Duration {
        self.end(Outcome::Refused { retry_after });
        self.gate.remaining()
    }

    /// Reports that the provider cannot be reached. Returns the time until the next request may be
    /// sent.
    pub fn unreachable(mut self) -> Duration {
        self.end(Outcome::Unreachable);
        self.gate.remaining()
    }

    fn end(&mut self, outcome: Outcome) {
        let is_held = std::mem::replace(&mut self.is_held, false);
        let permit = self.permit;
        self.gate.change(|state, now| {
            if is_held {
                state.end(permit, outcome, now);
            } else {
                state.learn(permit, outcome, now);
            }
        });
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.is_held {
            self.end(Outcome::Unknown);
        }
    }
}

impl Acceptance {
    /// Reports that the provider has accepted the request.
    pub fn report(&self) {
        self.gate.change(|state, now| state.accept(self.permit, now));
    }
}

/// A caller in the queue. On drop, it leaves the queue.
#[derive(Debug)]
struct Waiter<'a> {
    gate: &'a Gate,
    place: u64,
    changed: Arc<Notify>,
}

impl<'a> Waiter<'a> {
    fn new(gate: &'a Gate, place: &Place) -> Self {
        let changed = Arc::new(Notify::new());
        gate.0.lock().waiting.insert(place.0, Arc::clone(&changed));
        Self { gate, place: place.0, changed }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut shared = self.gate.0.lock();
        shared.waiting.remove(&self.place);
        shared.wake_first();
    }
}
