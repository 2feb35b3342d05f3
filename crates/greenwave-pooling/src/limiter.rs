//! A limit on concurrent calls, fixed or adapted to signals of overload.

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::callback::after;
use crate::queue::WaitQueue;
use crate::token_bucket::PAUSE_MAX;

/// Factor applied to an adaptive limit at a signal of overload, as in TCP.
const DECREASE: f64 = 0.5;

/// Maximum number of permits that are in use at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A constant number; 0 counts as 1.
    Fixed(usize),
    /// A number that adapts to the server: it grows by one after each round of successes at the
    /// limit, and is halved at a signal of overload.
    Adaptive {
        /// Lower bound; 0 counts as 1, and numbers above `max` count as `max`.
        min: usize,
        /// Upper bound; 0 counts as 1.
        max: usize,
        /// Initial limit.
        initial: usize,
    },
}

/// Bounds the number of concurrent calls. Permits are granted in the order of requests. Clones
/// share the limit.
///
/// An adaptive limit reacts to signals of overload (status 429, 503 or 529, a full queue) and not
/// to latency, because the latency of long responses depends on their length rather than on the
/// load. Several overloaded calls that started before a decrease cause only one decrease.
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<LimiterShared>,
}

/// Counters of a limiter. The first four describe the current state, the others count since
/// creation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct LimiterStats {
    /// Maximum number of permits in use.
    pub limit: usize,
    /// Permits in use.
    pub in_flight: usize,
    /// Callers that wait for a permit.
    pub waiting: usize,
    /// Remaining pause that the server asked for.
    pub paused: Duration,
    /// Permits granted.
    pub admitted: u64,
    /// Signals of overload.
    pub overloads: u64,
}

struct LimiterShared {
    state: Mutex<LimiterState>,
}

struct LimiterState {
    limit: f64,
    limit_min: f64,
    limit_max: f64,
    in_flight: usize,
    queue: WaitQueue<LimiterPermit>,
    paused_until: Option<Instant>,
    pause_max: Duration,
    /// Number of decreases.
    epoch: u64,
    admitted: u64,
    overloads: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallOutcome {
    Succeeded,
    Overloaded,
    Unreported,
}

impl Limiter {
    /// Creates a limiter. Bounds below 1 count as 1, and an initial limit out of bounds counts as
    /// the nearest bound.
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        let (min, max, initial) = match limit {
            Limit::Fixed(limit) => (limit, limit, limit),
            Limit::Adaptive { min, max, initial } => (min, max, initial),
        };
        let limit_max = max.max(1) as f64;
        let limit_min = (min.max(1) as f64).min(limit_max);
        let state = LimiterState {
            limit: (initial as f64).clamp(limit_min, limit_max),
            limit_min,
            limit_max,
            in_flight: 0,
            queue: WaitQueue::new(),
            paused_until: None,
            pause_max: PAUSE_MAX,
            epoch: 0,
            admitted: 0,
            overloads: 0,
        };
        Self { shared: Arc::new(LimiterShared { state: Mutex::new(state) }) }
    }

    /// Waits for a permit. Cancel safe.
    pub async fn acquire(&self) -> LimiterPermit {
        if let Some(permit) = self.try_acquire() {
            return permit;
        }
        let mut wait = AcquireWait { shared: &self.shared, slot: None };
        std::future::poll_fn(|cx| wait.poll(cx.waker())).await
    }

    /// Replaces the upper limit of pauses, 10 minutes by default and at most a year, for all
    /// clones.
    #[must_use]
    pub fn with_pause_max(self, pause_max: Duration) -> Self {
        self.shared.state.lock().pause_max = pause_max;
        self
    }

    /// Returns a permit if one is free and no other caller waits.
    #[must_use]
    pub fn try_acquire(&self) -> Option<LimiterPermit> {
        let mut state = self.shared.state.lock();
        let may = state.queue.is_empty() && state.has_room(Instant::now());
        may.then(|| state.admit(&self.shared))
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> LimiterStats {
        let state = self.shared.state.lock();
        let now = Instant::now();
        LimiterStats {
            limit: state.limit as usize,
            in_flight: state.in_flight,
            waiting: state.queue.len(),
            paused: state.paused_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)),
            admitted: state.admitted,
            overloads: state.overloads,
        }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("stats", &self.stats()).finish()
    }
}

impl LimiterShared {
    /// Grants permits to the callers that have waited longest, as far as the limit allows.
    fn dispatch(self: &Arc<Self>) {
        while let Some(waker) = self.next() {
            waker.wake();
        }
    }

    fn next(self: &Arc<Self>) -> Option<Waker> {
        let mut state = self.state.lock();
        if state.queue.is_empty() || !state.has_room(Instant::now()) {
            return None;
        }
        let permit = state.admit(self);
        state.queue.grant(permit).ok()
    }

    fn release(self: &Arc<Self>, epoch: u64, outcome: CallOutcome) {
        self.state.lock().release(epoch, outcome);
        self.dispatch();
    }

    fn pause(self: &Arc<Self>, pause: Duration) {
        // Without a runtime no task could end the pause, and no caller can be waiting either.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = self.state.lock();
        let until = after(Instant::now(), pause.min(state.pause_max));
        if state.paused_until.is_none_or(|other| other < until) {
            state.paused_until = Some(until);
            runtime.spawn(resume(Arc::downgrade(self), until));
        }
    }
}

async fn resume(shared: Weak<LimiterShared>, until: Instant) {
    tokio::time::sleep_until(until).await;
    if let Some(shared) = shared.upgrade() {
        shared.dispatch();
    }
}

impl LimiterState {
    fn has_room(&mut self, now: Instant) -> bool {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.paused_until.is_none() && self.in_flight < self.limit as usize
    }

    fn admit(&mut self, shared: &Arc<LimiterShared>) -> LimiterPermit {
        self.in_flight += 1;
        self.admitted += 1;
        LimiterPermit { shared: shared.clone(), epoch: self.epoch, is_held: true }
    }

    fn release(&mut self, epoch: u64, outcome: CallOutcome) {
        assert!(self.in_flight > 0, "only granted permits are returned");
        // Successes below the limit are no evidence that the limit could be higher.
        let was_at_limit = self.in_flight >= self.limit as usize;
        self.in_flight -= 1;
        match outcome {
            CallOutcome::Succeeded if was_at_limit => {
                self.limit = (self.limit + 1.0 / self.limit).min(self.limit_max);
            }
            CallOutcome::Overloaded => {
                self.overloads += 1;
                if epoch == self.epoch {
                    self.epoch += 1;
                    self.limit = (self.limit * DECREASE).max(self.limit_min);
                }
            }
            CallOutcome::Succeeded | CallOutcome::Unreported => {}
        }
    }
}

/// Permission to make one call. Returned on drop.
#[must_use = "the permit is returned when dropped"]
pub struct LimiterPermit {
    shared: Arc<LimiterShared>,
    epoch: u64,
    is_held: bool,
}

impl LimiterPermit {
    /// Reports that the server could handle the call.
    pub fn succeeded(mut self) {
        self.end(CallOutcome::Succeeded);
    }

    /// Reports that the server is overloaded. With `retry_after`, no permits are granted for that
    /// time, at most for the maximum set by [`Limiter::with_pause_max`].
    pub fn overloaded(mut self, retry_after: Option<Duration>) {
        if let Some(pause) = retry_after {
            self.shared.pause(pause);
        }
        self.end(CallOutcome::Overloaded);
    }

    fn end(&mut self, outcome: CallOutcome) {
        if std::mem::replace(&mut self.is_held, false) {
            self.shared.release(self.epoch, outcome);
        }
    }
}

impl Drop for LimiterPermit {
    fn drop(&mut self) {
        self.end(CallOutcome::Unreported);
    }
}

impl fmt::Debug for LimiterPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimiterPermit").finish_non_exhaustive()
    }
}

/// A caller that waits for a permit. On drop, it leaves the queue and returns a permit that was
/// granted in the meantime.
struct AcquireWait<'a> {
    shared: &'a Arc<LimiterShared>,
    /// Ticket and slot in the queue.
    slot: Option<(u64, usize)>,
}

impl AcquireWait<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<LimiterPermit> {
        let Some((_, slot)) = self.slot else {
            {
                let mut state = self.shared.state.lock();
                let ticket = state.queue.ticket();
                self.slot = Some((ticket, state.queue.enter(ticket, waker.clone())));
            }
            // A permit may have been returned between the failed attempt and the entry into the
            // queue.
            self.shared.dispatch();
            return Poll::Pending;
        };
        let (polled, _stale) = self.shared.state.lock().queue.poll(slot, waker);
        if polled.is_ready() {
            self.slot = None;
        }
        polled
    }
}

impl Drop for AcquireWait<'_> {
    fn drop(&mut self) {
        let Some((ticket, slot)) = self.slot else { return };
        // Bound to a variable, so that the lock is released before a granted permit is dropped: the
        // drop takes the lock.
        let grant = self.shared.state.lock().queue.leave(ticket, slot);
        drop(grant);
    }
}
