//! Whether to call at all. Knows nothing of what is called.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::callback::after;
use crate::error::Error;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CircuitBreakerOptions {
    /// Failures in a row that open it; 0 counts as 1.
    pub failures_max: u32,
    /// The share of failures among the last calls that opens it: never, if `None`, NaN or above 1; at the
    /// first failure after `window` calls, if 0 or less.
    pub failure_rate_max: Option<f64>,
    /// How many calls the share is of; none is reckoned before there were as many. Numbers
    /// outside of `1..=64` count as the nearest within.
    pub window: u32,
    /// How long it stays open before calls are tried; at most a year.
    pub cooldown: Duration,
    /// Calls that have to succeed, one after another, before it closes; 0 counts as 1.
    pub probes: u32,
}

impl Default for CircuitBreakerOptions {
    /// 5 failures in a row or half of 20 calls, 10 s, one probe.
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

/// Suspends calls after several failures in a row, or when too many of the last ones failed. Cloning shares it.
///
/// ```
/// # use greenwave_pooling::{CircuitBreaker, CircuitBreakerOptions};
/// let breaker = CircuitBreaker::new(CircuitBreakerOptions { failures_max: 1, ..CircuitBreakerOptions::default() });
/// breaker.admit()?.failed();
/// assert!(breaker.admit().is_err());
/// # Ok::<(), greenwave_pooling::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CircuitBreaker {
    options: CircuitBreakerOptions,
    state: Arc<Mutex<State>>,
}

/// `Closed -> Open -> Probing -> Closed | Open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Calls are made; so many have failed in a row. A bit for each of the last calls, set if it failed.
    Closed { failures: u32, recent: u64, seen: u32 },
    /// No call is made until then; so many probes have succeeded since it opened.
    Open { until: Instant, passed: u32 },
    /// One call is being tried; its end decides. A trial that never ends counts as lost after the cool-down.
    Probing { since: Instant, passed: u32 },
}

const CLOSED: State = State::Closed { failures: 0, recent: 0, seen: 0 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Succeeded,
    Failed,
    /// The call ended without a verdict.
    Abandoned,
}

impl CircuitBreaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(options: CircuitBreakerOptions) -> Self {
        Self { options, state: Arc::new(Mutex::new(CLOSED)) }
    }

    /// Admits a call, whose end is to be reported.
    ///
    /// # Errors
    /// [`Error::CircuitOpen`] while calls are suspended.
    pub fn admit(&self) -> Result<CallPermit, Error> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let (until, probe) = match *state {
            State::Closed { .. } => (now, None),
            State::Open { until, passed } => (until, Some(passed)),
            State::Probing { since, passed } => (after(since, self.options.cooldown), Some(passed)),
        };
        if until > now {
            return Err(Error::CircuitOpen { retry_after: until - now });
        }
        if let Some(passed) = probe {
            *state = State::Probing { since: now, passed };
        }
        Ok(CallPermit { breaker: self.clone(), probe: probe.map(|_| now), is_open: true })
    }

    /// Admits a call whatever the state. It counts as a probe, unless one is under way.
    fn force(&self) -> CallPermit {
        let now = Instant::now();
        let mut state = self.state.lock();
        let probe = match *state {
            State::Open { passed, .. } => {
                *state = State::Probing { since: now, passed };
                Some(now)
            }
            State::Closed { .. } | State::Probing { .. } => None,
        };
        CallPermit { breaker: self.clone(), probe, is_open: true }
    }

    /// Whether calls are made freely.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.state.lock(), State::Closed { .. })
    }

    fn report(&self, probe: Option<Instant>, event: Event) {
        let mut state = self.state.lock();
        *state = next(*state, probe, event, &self.options, Instant::now());
    }
}

/// The only way from one state to another but for the start of a probe.
fn next(
    state: State,
    probe: Option<Instant>,
    event: Event,
    options: &CircuitBreakerOptions,
    now: Instant,
) -> State {
    let open = State::Open { until: after(now, options.cooldown), passed: 0 };
    match (state, event) {
        (State::Closed { failures, recent, seen }, Event::Failed | Event::Succeeded) => {
            let has_failed = event == Event::Failed;
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
            State::Closed { failures, recent, seen }
        }
        (State::Probing { since, passed }, event) if probe == Some(since) => match event {
            Event::Succeeded if passed.saturating_add(1) >= options.probes.max(1) => CLOSED,
            // The next one may try at once.
            Event::Succeeded => State::Open { until: now, passed: passed.saturating_add(1) },
            Event::Failed => open,
            // Nothing was learnt.
            Event::Abandoned => State::Open { until: now, passed },
        },
        // A call from before: it says nothing of now.
        (state, _) => state,
    }
}

/// Breakers of several endpoints that stand for one another. The last one is never ejected: when all are open, the one that may be tried
/// soonest is called all the same, since no answer is worse than a late one.
#[derive(Debug, Clone)]
pub struct Endpoints {
    breakers: Arc<[CircuitBreaker]>,
}

impl Endpoints {
    /// As many breakers, all closed; at least 1, at most 65,536.
    #[must_use]
    pub fn new(count: usize, options: CircuitBreakerOptions) -> Self {
        Self { breakers: (0..count.clamp(1, 1 << 16)).map(|_| CircuitBreaker::new(options)).collect() }
    }

    /// An endpoint that may be called, the first from `preferred` on, and the trial to report to.
    pub fn admit(&self, preferred: usize) -> (usize, CallPermit) {
        let count = self.breakers.len();
        let mut soonest: Option<(Duration, usize)> = None;
        for at in (0..count).map(|offset| (preferred % count + offset) % count) {
            match self.breakers[at].admit() {
                Ok(trial) => return (at, trial),
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

    /// How many are called freely.
    #[must_use]
    pub fn closed_count(&self) -> usize {
        self.breakers.iter().filter(|breaker| breaker.is_closed()).count()
    }
}

/// A call that was admitted. Dropped without a verdict, it counts neither way.
#[derive(Debug)]
#[must_use = "the end of the call is to be reported"]
pub struct CallPermit {
    breaker: CircuitBreaker,
    probe: Option<Instant>,
    is_open: bool,
}

impl CallPermit {
    /// The call did what it should.
    pub fn succeeded(mut self) {
        self.end(Event::Succeeded);
    }

    /// The call failed in a way that speaks against the next one.
    pub fn failed(mut self) {
        self.end(Event::Failed);
    }

    fn end(&mut self, event: Event) {
        if std::mem::replace(&mut self.is_open, false) {
            self.breaker.report(self.probe, event);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.end(Event::Abandoned);
    }
}
