//! Holds back requests to an agent whose provider limits requests or is overloaded.

use std::sync::Arc;
use std::time::Duration;

use greenwave_pooling::{
    Attempts, CallPermit, CircuitBreaker, CircuitBreakerOptions, Error as PoolingError, Limit, Limiter,
    LimiterPermit, Retry, Retryability,
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Upper bound of the first delay without a hint.
const DELAY_MIN: Duration = Duration::from_secs(2);
/// Upper bound of delays without a hint.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// Upper bound of delays that a provider asks for.
const ASKED_MAX: Duration = Duration::from_secs(15 * 60);
/// Minimum delay after an overload, and the time after which a probe that has not ended lets
/// another request through.
const COOLDOWN: Duration = Duration::from_secs(1);

/// Admits requests to one agent. Clones share the state.
///
/// After an overload no request is admitted for a while, which grows exponentially or is what the
/// provider asked for. Then one request tries first; the others follow once it has succeeded. The
/// number of concurrent requests is halved at each overload and grows with successes.
#[derive(Debug, Clone)]
pub struct Gate {
    limiter: Limiter,
    breaker: CircuitBreaker,
    backoff: Arc<Mutex<Backoff>>,
}

#[derive(Debug)]
struct Backoff {
    retry: Retry,
    attempts: Attempts,
    /// Number of overloads that have lengthened the delay.
    epoch: u64,
    until: Instant,
}

/// Permission for one request. Dropping it reports nothing.
#[derive(Debug)]
#[must_use = "report the result of the request through it"]
pub struct Admission {
    gate: Gate,
    permit: LimiterPermit,
    call: CallPermit,
    epoch: u64,
}

impl Gate {
    /// Creates a gate that admits up to `requests_max` requests at once.
    #[must_use]
    pub fn new(requests_max: usize) -> Self {
        let max = requests_max.max(1);
        let retry = Retry {
            attempts_max: usize::MAX,
            delay_min: DELAY_MIN,
            delay_max: DELAY_MAX,
            asked_max: ASKED_MAX,
            ..Retry::default()
        };
        let options = CircuitBreakerOptions {
            failures_max: 1,
            failure_rate_max: None,
            cooldown: COOLDOWN,
            ..CircuitBreakerOptions::default()
        };
        let attempts = retry.attempts();
        Self {
            limiter: Limiter::new(Limit::Adaptive { min: 1, max, initial: max }).with_pause_max(ASKED_MAX),
            breaker: CircuitBreaker::new(options),
            backoff: Arc::new(Mutex::new(Backoff { retry, attempts, epoch: 0, until: Instant::now() })),
        }
    }

    /// Waits until a request may be sent. Cancel safe.
    pub async fn enter(&self) -> Admission {
        loop {
            let permit = self.limiter.acquire().await;
            match self.breaker.admit() {
                Ok(call) => return self.admission(permit, call),
                Err(error) => {
                    drop(permit);
                    tokio::time::sleep(retry_after(&error)).await;
                }
            }
        }
    }

    /// Returns an admission if a request may be sent now and no other waits.
    #[must_use]
    pub fn try_enter(&self) -> Option<Admission> {
        let permit = self.limiter.try_acquire()?;
        let call = self.breaker.admit().ok()?;
        Some(self.admission(permit, call))
    }

    /// Returns the remaining time for which no request is admitted.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.backoff.lock().until.saturating_duration_since(Instant::now())
    }

    fn admission(&self, permit: LimiterPermit, call: CallPermit) -> Admission {
        Admission { gate: self.clone(), permit, call, epoch: self.backoff.lock().epoch }
    }
}

impl Admission {
    /// Reports that the provider has served the request.
    pub fn succeeded(self) {
        {
            let mut backoff = self.gate.backoff.lock();
            backoff.attempts = backoff.retry.attempts();
        }
        self.permit.succeeded();
        self.call.succeeded();
    }

    /// Reports an overload. Returns the time for which no request is admitted.
    ///
    /// Requests that were sent together lengthen the delay only once.
    pub fn overloaded(self, retry_after: Option<Duration>) -> Duration {
        let now = Instant::now();
        let delay = {
            let mut backoff = self.gate.backoff.lock();
            let asked = retry_after.map(|delay| delay.min(ASKED_MAX));
            let is_first = backoff.epoch == self.epoch;
            let delay = match (is_first, asked) {
                (true, asked) => {
                    backoff.epoch += 1;
                    let retryability = asked.map_or(Retryability::Transient, Retryability::After);
                    backoff.attempts.next_delay(retryability, Duration::ZERO).unwrap_or(DELAY_MAX)
                }
                (false, asked) => asked.unwrap_or_default(),
            };
            backoff.until = backoff.until.max(now + delay.max(COOLDOWN));
            backoff.until - now
        };
        self.permit.overloaded(Some(delay));
        self.call.failed();
        delay
    }
}

fn retry_after(error: &PoolingError) -> Duration {
    match error {
        PoolingError::CircuitOpen { retry_after } => *retry_after,
        _ => COOLDOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a request at once or after waiting, and returns the time of its admission.
    async fn enter(gate: &Gate, started: Instant) -> (Admission, Duration) {
        let admission = gate.enter().await;
        (admission, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_tries_first_after_an_overload() {
        let (gate, started) = (Gate::new(4), Instant::now());
        let together: Vec<_> = (0..3).map(|_| gate.try_enter().expect("the gate is open")).collect();
        for admission in together {
            assert_eq!(admission.overloaded(Some(Duration::from_secs(6))), Duration::from_secs(6));
        }
        assert!(gate.try_enter().is_none(), "held back");
        let (probe, at) = enter(&gate, started).await;
        assert_eq!(at.as_secs(), 6);
        assert!(gate.try_enter().is_none(), "the probe has not ended");
        probe.succeeded();
        assert!(gate.try_enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn delays_grow_and_are_reset_by_a_success() {
        let gate = Gate::new(1);
        let mut bound = DELAY_MIN;
        for _ in 0..12 {
            let delay = gate.enter().await.overloaded(None);
            assert!(delay >= COOLDOWN && delay <= bound.max(COOLDOWN), "{delay:?} of {bound:?}");
            bound = (bound * 2).min(DELAY_MAX);
        }
        gate.enter().await.succeeded();
        assert!(gate.enter().await.overloaded(None) <= DELAY_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_delay_is_shortened() {
        let gate = Gate::new(1);
        let year = Duration::from_secs(365 * 24 * 3600);
        assert_eq!(gate.enter().await.overloaded(Some(year)), ASKED_MAX);
    }

    /// Most answers take longer than the time after which a second request may try.
    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_opens_the_gate_for_all() {
        let (gate, started) = (Gate::new(100), Instant::now());
        gate.enter().await.overloaded(Some(Duration::from_secs(1)));
        let calls = (0..40).map(|_| {
            let gate = gate.clone();
            tokio::spawn(async move {
                let admission = gate.enter().await;
                tokio::time::sleep(Duration::from_secs(10)).await;
                admission.succeeded();
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        // The first answer, and then all others together, except those that have begun meanwhile.
        assert!(started.elapsed() <= Duration::from_secs(23), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_probe_lets_the_next_request_through() {
        let (gate, started) = (Gate::new(2), Instant::now());
        gate.enter().await.overloaded(Some(Duration::from_secs(6)));
        drop(gate.enter().await);
        let (probe, at) = enter(&gate, started).await;
        assert!(at < Duration::from_secs(8), "{at:?}");
        probe.succeeded();
    }
}
