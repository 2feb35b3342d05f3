//! Whether to call at all. Knows nothing of what is called.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Error;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it; at least 1.
    pub failures_max: u32,
    /// How long it stays open before one call is tried.
    pub cooldown: Duration,
}

impl Default for BreakerConfig {
    /// 5 failures in a row, 10 s.
    fn default() -> Self {
        Self { failures_max: 5, cooldown: Duration::from_secs(10) }
    }
}

/// Suspends calls after several failures in a row. Cloning shares it.
///
/// ```
/// # use greenwave_pooling::{Breaker, BreakerConfig};
/// let breaker = Breaker::new(BreakerConfig { failures_max: 1, ..BreakerConfig::default() });
/// breaker.admit()?.failed();
/// assert!(breaker.admit().is_err());
/// # Ok::<(), greenwave_pooling::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    state: Arc<Mutex<State>>,
}

/// `Closed -> Open -> Probing -> Closed | Open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Calls are made; so many have failed in a row.
    Closed { failures: u32 },
    /// No call is made until then.
    Open { until: Instant },
    /// One call is being tried; its end decides. A trial that never ends counts as lost after the cool-down.
    Probing { since: Instant },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Succeeded,
    Failed,
    /// The call ended without a verdict.
    Abandoned,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, state: Arc::new(Mutex::new(State::Closed { failures: 0 })) }
    }

    /// Admits a call, whose end is to be reported.
    ///
    /// # Errors
    /// [`Error::Open`] while calls are suspended.
    pub fn admit(&self) -> Result<Trial, Error> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let (until, is_probe) = match *state {
            State::Closed { .. } => (now, false),
            State::Open { until } => (until, true),
            State::Probing { since } => (since + self.config.cooldown, true),
        };
        if until > now {
            return Err(Error::Open { retry_after: until - now });
        }
        if is_probe {
            *state = State::Probing { since: now };
        }
        Ok(Trial { breaker: self.clone(), probe: is_probe.then_some(now), is_open: true })
    }

    /// Whether calls are made freely.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.state.lock(), State::Closed { .. })
    }

    fn report(&self, probe: Option<Instant>, event: Event) {
        let mut state = self.state.lock();
        *state = next(*state, probe, event, &self.config, Instant::now());
    }
}

/// The only way from one state to another but for the start of a probe.
fn next(state: State, probe: Option<Instant>, event: Event, config: &BreakerConfig, now: Instant) -> State {
    let open = State::Open { until: now + config.cooldown };
    match (state, event) {
        (State::Closed { failures }, Event::Failed) => match failures + 1 {
            failures if failures >= config.failures_max.max(1) => open,
            failures => State::Closed { failures },
        },
        (State::Closed { .. }, Event::Succeeded) => State::Closed { failures: 0 },
        (State::Probing { since }, event) if probe == Some(since) => match event {
            Event::Succeeded => State::Closed { failures: 0 },
            Event::Failed => open,
            // Nothing was learnt: the next one may try at once.
            Event::Abandoned => State::Open { until: now },
        },
        // A call from before: it says nothing of now.
        (state, _) => state,
    }
}

/// A call that was admitted. Dropped without a verdict, it counts neither way.
#[derive(Debug)]
#[must_use = "the end of the call is to be reported"]
pub struct Trial {
    breaker: Breaker,
    probe: Option<Instant>,
    is_open: bool,
}

impl Trial {
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

impl Drop for Trial {
    fn drop(&mut self) {
        self.end(Event::Abandoned);
    }
}
