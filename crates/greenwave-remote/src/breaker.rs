//! Skips calls to a server that has failed recently, so that a dead or a hung one costs time once.

use std::time::Duration;

use greenwave_retry::{Delays, Retry};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Replaces delays that would overflow the clock.
const DELAY_CLAMP: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

#[derive(Debug)]
pub(crate) struct Breaker {
    delays: Retry,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Calls are let through.
    Closed,
    /// The server failed. Calls are skipped until `until`, after which one is let through.
    Open { until: Instant, is_probed: bool, delays: Delays },
}

/// Permission for a call. Dropped without an outcome, as by a cancelled call, it lets the next call
/// test the server.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
}

impl Breaker {
    pub(crate) fn new(delay_min: Duration, delay_max: Duration, seed: Option<u64>) -> Self {
        let delays = Retry { attempts_max: usize::MAX, delay_min, delay_max, seed, ..Retry::default() };
        Self { delays, state: Mutex::new(State::Closed) }
    }

    /// Lets a call through, or returns the time until the next attempt.
    pub(crate) fn admit(&self) -> Result<Admission<'_>, Duration> {
        let now = Instant::now();
        match &mut *self.state.lock() {
            State::Closed => Ok(Admission { breaker: self, is_probe: false }),
            State::Open { until, is_probed: is_probed @ false, .. } if now >= *until => {
                *is_probed = true;
                Ok(Admission { breaker: self, is_probe: true })
            }
            State::Open { until, .. } => Err(until.saturating_duration_since(now)),
        }
    }
}

impl Admission<'_> {
    pub(crate) fn succeed(self) {
        let mut state = self.breaker.state.lock();
        *state = State::Closed;
        drop(state);
    }

    /// Records a failure. Calls that were under way when the first of them failed count once.
    pub(crate) fn fail(self) {
        let now = Instant::now();
        let mut state = self.breaker.state.lock();
        let mut delays = match std::mem::replace(&mut *state, State::Closed) {
            State::Open { until, is_probed, delays } if !self.is_probe => {
                *state = State::Open { until, is_probed, delays };
                return;
            }
            State::Open { delays, .. } => delays,
            State::Closed => self.breaker.delays.delays(),
        };
        let delay = delays.next().unwrap_or(DELAY_CLAMP).min(DELAY_CLAMP);
        *state = State::Open { until: now + delay, is_probed: false, delays };
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.is_probe
            && let State::Open { is_probed, .. } = &mut *self.breaker.state.lock()
        {
            *is_probed = false;
        }
    }
}
