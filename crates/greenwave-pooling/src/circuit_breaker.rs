//! Circuit breakers, which suspend calls after repeated failures.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::callback::after;
use crate::error::Error;

/// Thresholds of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CircuitBreakerOptions {
    /// Number of consecutive failures that opens the breaker; 0 counts as 1.
    pub failures_max: u32,
    /// Fraction of failures among the last `window` calls that opens the breaker. `None`, NaN and
    /// values above 1 disable this check. Values of 0 and below open it at the first failure after
    /// `window` calls.
    pub failure_rate_max: Option<f64>,
    /// Number of calls over which the failure rate is computed. The rate is not checked before that
    /// many calls have ended. Numbers outside `1..=64` count as the nearest bound.
    pub window: u32,
    /// Time for which the breaker stays open before it lets a probe through; at most a year.
    pub cooldown: Duration,
    /// Number of probes that must succeed, one after another, to close the breaker; 0 counts as 1.
    pub probes: u32,
}

impl Default for CircuitBreakerOptions {
    /// 5 consecutive failures or half of 20 calls, 10 s, one probe.
    fn default() -> Self {
        Self {
            failures_max: 5,
            failure_rate_max: Some(0.5),
            window: 20,
            cooldown: Duration::from_secs(10),
            probes: 1,
        }
    }
}

/// Suspends calls after several consecutive failures, or if too many recent calls failed. Clones
/// share the state.
///
/// ```
/// # use greenwave_pooling::{CircuitBreaker, CircuitBreakerOptions};
/// let options = CircuitBreakerOptions { failures_max: 1, ..CircuitBreakerOptions::default() };
/// let breaker = CircuitBreaker::new(options);
/// breaker.admit()?.failed();
/// assert!(breaker.admit().is_err());
/// # Ok::<(), greenwave_pooling::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CircuitBreaker {
    options: CircuitBreakerOptions,
    state: Arc<Mutex<BreakerState>>,
}

/// `Closed -> Open -> Probing -> Closed | Open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    /// Calls go through. `failures` counts consecutive failures. `recent` has one bit for each of
    /// the last `seen` calls, set if the call failed.
    Closed { failures: u32, recent: u64, seen: u32 },
    /// No calls go through before `until`. `passed` counts the probes that have succeeded since the
    /// breaker `opened`.
    Open { opened: Instant, until: Instant, passed: u32 },
    /// One probe is in flight since `since`. If it does not end within the cool-down, another one
    /// goes through. The result of either counts.
    Probing { opened: Instant, since: Instant, passed: u32 },
}

const CLOSED: BreakerState = BreakerState::Closed { failures: 0, recent: 0, seen: 0 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallEnd {
    Succeeded,
    Failed,
    /// The permit was dropped without a result.
    Abandoned,
}

impl CircuitBreaker {
    /// Creates a closed breaker.
    #[must_use]
    pub fn new(options: CircuitBreakerOptions) -> Self {
        Self { options, state: Arc::new(Mutex::new(CLOSED)) }
    }

    /// Admits a call. The caller reports the result through the returned permit.
    ///
    /// # Errors
    /// [`Error::CircuitOpen`] while calls are suspended.
    pub fn admit(&self) -> Result<CallPermit, Error> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let (until, probe) = match *state {
            BreakerState::Closed { .. } => (now, None),
            BreakerState::Open { opened, until, passed } => (until, Some((opened, passed))),
            BreakerState::Probing { opened, since, passed } => {
                (after(since, self.options.cooldown), Some((opened, passed)))
            }
        };
        if until > now {
            return Err(Error::CircuitOpen { retry_after: until - now });
        }
        if let Some((opened, passed)) = probe {
            *state = BreakerState::Probing { opened, since: now, passed };
        }
        Ok(CallPermit { breaker: self.clone(), probe: probe.map(|_| now), is_open: true })
    }

    /// Admits a call in any state. The call counts as a probe unless another probe is in flight.
    fn force(&self) -> CallPermit {
        let now = Instant::now();
        let mut state = self.state.lock();
        let probe = match *state {
            BreakerState::Open { opened, passed, .. } => {
                *state = BreakerState::Probing { opened, since: now, passed };
                Some(now)
            }
            BreakerState::Closed { .. } | BreakerState::Probing { .. } => None,
        };
        CallPermit { breaker: self.clone(), probe, is_open: true }
    }

    /// Returns true if calls go through without restriction.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.state.lock(), BreakerState::Closed { .. })
    }

    fn report(&self, probe: Option<Instant>, end: CallEnd) {
        let mut state = self.state.lock();
        *state = next(*state, probe, end, &self.options, Instant::now());
    }
}

/// Computes the state after the end of a call. Only the start of a probe changes the state
/// elsewhere.
fn next(
    state: BreakerState,
    probe: Option<Instant>,
    end: CallEnd,
    options: &CircuitBreakerOptions,
    now: Instant,
) -> BreakerState {
    let open = BreakerState::Open { opened: now, until: after(now, options.cooldown), passed: 0 };
    match (state, end) {
        (BreakerState::Closed { failures, recent, seen }, CallEnd::Failed | CallEnd::Succeeded) => {
            let has_failed = end == CallEnd::Failed;
            let failures = if has_failed { failures.saturating_add(1) } else { 0 };
            let window = options.window.clamp(1, 64);
            let recent = (recent << 1 | u64::from(has_failed)) & (u64::MAX >> (64 - window));
            let seen = (seen + 1).min(window);
            let share = f64::from(recent.count_ones()) / f64::from(window);
            let is_bad =
                has_failed && seen == window && options.failure_rate_max.is_some_and(|max| share >= max);
            if is_bad || failures >= options.failures_max.max(1) {
                return open;
            }
            BreakerState::Closed { failures, recent, seen }
        }
        (BreakerState::Open { opened, passed, .. } | BreakerState::Probing { opened, passed, .. }, end)
            if probe.is_some_and(|started| started >= opened) =>
        {
            let is_last = matches!(state, BreakerState::Probing { since, .. } if probe == Some(since));
            match end {
                CallEnd::Succeeded if passed.saturating_add(1) >= options.probes.max(1) => CLOSED,
                // The next probe may start at once.
                CallEnd::Succeeded => {
                    BreakerState::Open { opened, until: now, passed: passed.saturating_add(1) }
                }
                CallEnd::Failed => open,
                // The probe gave no result.
                CallEnd::Abandoned if is_last => BreakerState::Open { opened, until: now, passed },
                CallEnd::Abandoned => state,
            }
        }
        // The call started before the breaker opened, so its result is outdated.
        (state, _) => state,
    }
}

/// Circuit breakers for several interchangeable endpoints. One endpoint is always available: if all
/// breakers are open, the endpoint that may be probed soonest is called.
#[derive(Debug, Clone)]
pub struct Endpoints {
    breakers: Arc<[CircuitBreaker]>,
}

impl Endpoints {
    /// Creates closed breakers for `count` endpoints; at least 1, at most 65,536.
    #[must_use]
    pub fn new(count: usize, options: CircuitBreakerOptions) -> Self {
        Self { breakers: (0..count.clamp(1, 1 << 16)).map(|_| CircuitBreaker::new(options)).collect() }
    }

    /// Selects an available endpoint, starting the search at index `preferred`. Returns its index
    /// and the permit to report the result through.
    pub fn admit(&self, preferred: usize) -> (usize, CallPermit) {
        let count = self.breakers.len();
        let mut soonest: Option<(Duration, usize)> = None;
        for at in (0..count).map(|offset| (preferred % count + offset) % count) {
            match self.breakers[at].admit() {
                Ok(permit) => return (at, permit),
                Err(Error::CircuitOpen { retry_after })
                    if soonest.is_none_or(|(best, _)| retry_after < best) =>
                {
                    soonest = Some((retry_after, at));
                }
                Err(_) => {}
            }
        }
        let at = soonest.map_or(preferred % count, |(_, at)| at);
        (at, self.breakers[at].force())
    }

    /// Returns the number of endpoints whose breakers are closed.
    #[must_use]
    pub fn closed_count(&self) -> usize {
        self.breakers.iter().filter(|breaker| breaker.is_closed()).count()
    }
}

/// Permission to make one call. A permit that is dropped without a report counts neither way.
#[derive(Debug)]
#[must_use = "report the result of the call through it"]
pub struct CallPermit {
    breaker: CircuitBreaker,
    probe: Option<Instant>,
    is_open: bool,
}

impl CallPermit {
    /// Reports a success.
    pub fn succeeded(mut self) {
        self.end(CallEnd::Succeeded);
    }

    /// Reports a failure that makes failures of further calls more likely.
    pub fn failed(mut self) {
        self.end(CallEnd::Failed);
    }

    fn end(&mut self, end: CallEnd) {
        if std::mem::replace(&mut self.is_open, false) {
            self.breaker.report(self.probe, end);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.end(CallEnd::Abandoned);
    }
}
