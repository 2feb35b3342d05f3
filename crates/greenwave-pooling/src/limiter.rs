//! How many calls at once: fixed, or learned from the other side's signals of overload. Knows nothing of what is called.

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::callback::after;
use crate::queue::Queue;
use crate::token_bucket::PAUSE_MAX;

/// What remains of a learned limit after a signal of overload, as in TCP.
const DECREASE: f64 = 0.5;

/// How many permits there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Always as many; 0 counts as 1.
    Fixed(usize),
    /// As many as were seen to be borne: one more after each round of successes at the limit, half after a signal of overload.
    Adaptive {
        /// Never fewer; 0 counts as 1, and more than `max` as `max`.
        min: usize,
        /// Never more; 0 counts as 1.
        max: usize,
        /// At first.
        initial: usize,
    },
}

/// Lends permits, first come, first served. Cloning shares it.
///
/// The learned limit moves on signals of overload (429, 503, 529, a full queue), not on latency, which for answers of any length says more
/// of the answer than of the load. Permits lent before a decrease do not cause another.
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

/// Counters of a limiter; the first four are of now, the others since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct LimiterStats {
    /// Permits that may be lent at once.
    pub limit: usize,
    /// Permits lent.
    pub in_flight: usize,
    /// Callers that wait.
    pub waiting: usize,
    /// How much longer nothing is lent, as the other side asked for.
    pub paused: Duration,
    /// Permits lent so far.
    pub admitted: u64,
    /// Signals of overload.
    pub overloads: u64,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    limit: f64,
    limit_min: f64,
    limit_max: f64,
    in_flight: usize,
    queue: Queue<LimiterPermit>,
    paused_until: Option<Instant>,
    pause_max: Duration,
    /// Counts decreases.
    epoch: u64,
    admitted: u64,
    overloads: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallOutcome {
    Succeeded,
    Overloaded,
    None,
}

impl Limiter {
    /// Bounds below 1 are taken as 1; an initial value outside its bounds as the nearest one.
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        let (min, max, initial) = match limit {
            Limit::Fixed(limit) => (limit, limit, limit),
            Limit::Adaptive { min, max, initial } => (min, max, initial),
        };
        let limit_max = max.max(1) as f64;
        let limit_min = (min.max(1) as f64).min(limit_max);
        let state = State {
            limit: (initial as f64).clamp(limit_min, limit_max),
            limit_min,
            limit_max,
            in_flight: 0,
            queue: Queue::new(),
            paused_until: None,
            pause_max: PAUSE_MAX,
            epoch: 0,
            admitted: 0,
            overloads: 0,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state) }) }
    }

    /// Waits for a permit. May be cancelled.
    pub async fn acquire(&self) -> LimiterPermit {
        if let Some(permit) = self.try_acquire() {
            return permit;
        }
        let mut turn = Turn { shared: &self.shared, place: None };
        std::future::poll_fn(|cx| turn.poll(cx.waker())).await
    }

    /// With another upper limit of pauses, of up to a year, in place of 10 minutes: whatever the other
    /// side asks for. Applies to all clones.
    #[must_use]
    pub fn with_pause_max(self, pause_max: Duration) -> Self {
        self.shared.state.lock().pause_max = pause_max;
        self
    }

    /// A permit, if one is free and nobody waits.
    #[must_use]
    pub fn try_acquire(&self) -> Option<LimiterPermit> {
        let mut state = self.shared.state.lock();
        let may = state.queue.is_empty() && state.has_room(Instant::now());
        may.then(|| state.admit(&self.shared))
    }

    /// What it has counted so far.
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

impl Shared {
    /// Lends to those who have waited longest, as many as there is room for.
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
        // Without a runtime nobody could end the pause, and nobody can be waiting in one either.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = self.state.lock();
        let until = after(Instant::now(), pause.min(state.pause_max));
        if state.paused_until.is_none_or(|other| other < until) {
            state.paused_until = Some(until);
            runtime.spawn(resume(Arc::downgrade(self), until));
        }
    }
}

async fn resume(shared: Weak<Shared>, until: Instant) {
    tokio::time::sleep_until(until).await;
    if let Some(shared) = shared.upgrade() {
        shared.dispatch();
    }
}

impl State {
    fn has_room(&mut self, now: Instant) -> bool {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.paused_until.is_none() && self.in_flight < self.limit as usize
    }

    fn admit(&mut self, shared: &Arc<Shared>) -> LimiterPermit {
        self.in_flight += 1;
        self.admitted += 1;
        LimiterPermit { shared: shared.clone(), epoch: self.epoch, is_held: true }
    }

    fn release(&mut self, epoch: u64, outcome: CallOutcome) {
        assert!(self.in_flight > 0, "what comes back was lent");
        // Below the limit, a success says nothing of the limit.
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
            CallOutcome::Succeeded | CallOutcome::None => {}
        }
    }
}

/// Leave to make one call, given back on drop.
#[must_use = "it is given back when dropped"]
pub struct LimiterPermit {
    shared: Arc<Shared>,
    epoch: u64,
    is_held: bool,
}

impl LimiterPermit {
    /// The call was borne.
    pub fn succeeded(mut self) {
        self.end(CallOutcome::Succeeded);
    }

    /// The other side said that it has too much to do, and perhaps for how long it wants to be left alone: nothing is lent for that
    /// long, but at most for [`Limiter::with_pause_max`].
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
        self.end(CallOutcome::None);
    }
}

impl fmt::Debug for LimiterPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimiterPermit").finish_non_exhaustive()
    }
}

/// The wait of one caller. Dropped, it leaves the queue, and gives back what was granted to it meanwhile.
struct Turn<'a> {
    shared: &'a Arc<Shared>,
    /// Ticket and place.
    place: Option<(u64, usize)>,
}

impl Turn<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<LimiterPermit> {
        let Some((_, place)) = self.place else {
            {
                let mut state = self.shared.state.lock();
                let ticket = state.queue.ticket();
                self.place = Some((ticket, state.queue.enter(ticket, waker.clone())));
            }
            // A permit may have come back since the caller looked.
            self.shared.dispatch();
            return Poll::Pending;
        };
        let (polled, _stale) = self.shared.state.lock().queue.poll(place, waker);
        if polled.is_ready() {
            self.place = None;
        }
        polled
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some((ticket, place)) = self.place else { return };
        // Bound first: a permit gives itself back under the lock.
        let left = self.shared.state.lock().queue.leave(ticket, place);
        drop(left);
    }
}
