//! Options and the circuit breaker shared by all backends on a server.

use std::fmt;
use std::time::Duration;

#[cfg(any(feature = "redis", feature = "memcached"))]
use bytes::Bytes;
use greenwave_retry::{Delays, Retry};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{BoxError, Error, Key};

/// Maximum length of the key prefix. memcached allows 250 bytes, and the key needs 64 of them.
const PREFIX_BYTES_MAX: usize = 128;

/// Maximum number of keys per request.
#[cfg(any(feature = "redis", feature = "memcached"))]
pub(super) const KEYS_MAX: usize = 256;

/// Number of answers of maximum size that a call may read.
#[cfg(any(feature = "redis", feature = "memcached"))]
const ANSWERS_MAX: u64 = 4;

/// Replaces delays that would overflow the clock.
const DELAY_CLAMP: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Configuration of a backend on a server.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Prefix of every key, so that several applications can share a server. At most 128 printable
    /// ASCII characters, without spaces. Default: `greenwave:`.
    pub prefix: String,
    /// Time to live of entries that are put without one. `None` means that the server decides.
    /// Default: 30 days.
    pub ttl: Option<Duration>,
    /// Maximum duration of a call, including connecting. Default: 250 ms.
    pub timeout: Duration,
    /// Maximum size of an answer of Redis or memcached, in bytes: of the values of up to 256 keys
    /// together, and therefore also of a value. A longer one closes the connection, even before it
    /// has arrived. A call for more keys reads at most four times as much; further keys count as
    /// missing. Default: 64 MiB.
    pub answer_bytes_max: u64,
    /// Upper limit of the delay after the first failure, during which calls are skipped. It doubles
    /// with each further failure. The delay is random, between zero and the limit, so that clients
    /// that lost the server together do not reconnect together. More than zero, at most
    /// `backoff_max`. Default: 100 ms.
    pub backoff_min: Duration,
    /// Upper limit of all delays. Default: 30 s.
    pub backoff_max: Duration,
    /// Seed of the random delays, to make them repeatable. Default: `None`, a different seed for
    /// each backend.
    pub seed: Option<u64>,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            prefix: "greenwave:".to_owned(),
            ttl: Some(Duration::from_secs(30 * 24 * 3600)),
            timeout: Duration::from_millis(250),
            answer_bytes_max: 64 << 20,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            seed: None,
        }
    }
}

impl RemoteOptions {
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |option, value: String, expected| Err(Error::InvalidOption { option, value, expected });
        if self.prefix.len() > PREFIX_BYTES_MAX || !self.prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            let expected = "at most 128 printable ASCII characters, no space";
            return refuse("prefix", format!("{:?}", self.prefix), expected);
        }
        if self.timeout.is_zero() {
            return refuse("timeout", "0".to_owned(), "more than 0");
        }
        if self.answer_bytes_max == 0 {
            return refuse("answer_bytes_max", "0".to_owned(), "more than 0");
        }
        if self.backoff_min.is_zero() || self.backoff_min > self.backoff_max {
            return refuse(
                "backoff_min",
                humantime::format_duration(self.backoff_min).to_string(),
                "more than 0, at most backoff_max",
            );
        }
        Ok(())
    }

    pub(super) fn key(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// The number of bytes that a call may still read from a server.
#[cfg(any(feature = "redis", feature = "memcached"))]
#[derive(Debug)]
pub(super) struct ReadBudget(u64);

#[cfg(any(feature = "redis", feature = "memcached"))]
impl ReadBudget {
    pub(super) fn new(options: &RemoteOptions) -> Self {
        Self(options.answer_bytes_max.saturating_mul(ANSWERS_MAX))
    }

    pub(super) fn spend<'a>(&mut self, values: impl Iterator<Item = &'a Bytes>) {
        let bytes = values.map(|value| value.len() as u64).sum();
        self.0 = self.0.saturating_sub(bytes);
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.0 == 0
    }
}

/// Reason why a call failed.
#[derive(Debug)]
pub(super) enum CallFailure {
    /// The server responded with an error. The connection works and can be used again.
    Rejected(BoxError),
    /// The connection failed, or the response made no sense.
    Disconnected(BoxError),
}

/// Skips calls to a server that has failed recently.
pub(super) struct CircuitBreaker {
    server: String,
    timeout: Duration,
    delays: Retry,
    state: Mutex<BreakerState>,
}

#[derive(Debug)]
enum BreakerState {
    /// Calls are let through.
    Closed,
    /// The server failed. Calls are rejected until the time `until`, after which a single probe is
    /// let through.
    Open { until: Instant, is_probed: bool, delays: Delays },
}

impl CircuitBreaker {
    pub(super) fn new(server: String, options: &RemoteOptions) -> Self {
        let delays = Retry {
            attempts_max: usize::MAX,
            delay_min: options.backoff_min,
            delay_max: options.backoff_max,
            seed: options.seed,
            ..Retry::default()
        };
        Self { server, timeout: options.timeout, delays, state: Mutex::new(BreakerState::Closed) }
    }

    /// Runs `work` within the timeout, unless the breaker is open.
    pub(super) async fn call<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, CallFailure>>,
    ) -> Result<T, BoxError> {
        let probe = self.admit(Instant::now())?;
        let result = tokio::time::timeout(self.timeout, work).await;
        drop(probe);
        let error = match result {
            Ok(Ok(answer)) => {
                self.on_success();
                return Ok(answer);
            }
            Ok(Err(CallFailure::Rejected(error))) => {
                self.on_success();
                error
            }
            Ok(Err(CallFailure::Disconnected(error))) => {
                self.on_failure(Instant::now());
                error
            }
            Err(elapsed) => {
                self.on_failure(Instant::now());
                elapsed.into()
            }
        };
        Err(Error::backend(format!("{operation} at {}", self.server))(error).into())
    }

    /// Lets a call through, or returns an error with the time until the next attempt.
    fn admit(&self, now: Instant) -> Result<Option<Probe<'_>>, Error> {
        match &mut *self.state.lock() {
            BreakerState::Closed => Ok(None),
            BreakerState::Open { until, is_probed: is_probed @ false, .. } if now >= *until => {
                *is_probed = true;
                Ok(Some(Probe(self)))
            }
            BreakerState::Open { until, .. } => {
                let retry_in = until.saturating_duration_since(now);
                Err(Error::Unavailable { server: self.server.clone(), retry_in })
            }
        }
    }

    fn on_success(&self) {
        *self.state.lock() = BreakerState::Closed;
    }

    fn on_failure(&self, now: Instant) {
        let mut state = self.state.lock();
        let mut delays = match std::mem::replace(&mut *state, BreakerState::Closed) {
            BreakerState::Closed => self.delays.delays(),
            // Calls that were in flight when the server failed belong to the same failure.
            BreakerState::Open { until, is_probed, delays } if now < until => {
                *state = BreakerState::Open { until, is_probed, delays };
                return;
            }
            BreakerState::Open { delays, .. } => delays,
        };
        // The iterator ends only after `usize::MAX` failures.
        let retry_in = delays.next().unwrap_or(self.delays.delay_max);
        // The clock cannot represent times that are too far ahead. 30 years is the limit that tokio
        // uses.
        let until = now.checked_add(retry_in).unwrap_or_else(|| now + DELAY_CLAMP);
        *state = BreakerState::Open { until, is_probed: false, delays };
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("server", &self.server)
            .field("state", &*self.state.lock())
            .finish()
    }
}

/// The single call that tests whether the server has recovered. If it is dropped before it
/// completes, the next call becomes the probe.
struct Probe<'a>(&'a CircuitBreaker);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let BreakerState::Open { is_probed, .. } = &mut *self.0.state.lock() {
            *is_probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn breaker() -> CircuitBreaker {
        let second = Duration::from_secs(1);
        let seed = Some(7);
        let options =
            RemoteOptions { backoff_min: second, backoff_max: 60 * second, seed, ..RemoteOptions::default() };
        CircuitBreaker::new("nowhere".to_owned(), &options)
    }

    /// Returns the delays after consecutive failures.
    async fn delays(breaker: &CircuitBreaker, failures: usize) -> Vec<Duration> {
        let mut delays = Vec::new();
        for _ in 0..failures {
            let lost =
                breaker.call("get", ready(Err::<(), _>(CallFailure::Disconnected("gone".into())))).await;
            assert!(!is_unavailable(lost));
            let Err(Error::Unavailable { retry_in, .. }) = breaker.admit(Instant::now()).map(drop) else {
                panic!("the breaker is open")
            };
            delays.push(retry_in);
            tokio::time::advance(retry_in).await;
        }
        delays
    }

    #[tokio::test(start_paused = true)]
    async fn backends_with_different_seeds_have_different_delays() {
        let of = async |seed| {
            let options = RemoteOptions { seed, ..RemoteOptions::default() };
            delays(&CircuitBreaker::new("nowhere".to_owned(), &options), 20).await
        };
        assert_ne!(of(None).await, of(None).await);
        assert_ne!(of(Some(1)).await, of(Some(2)).await);
        assert_eq!(of(Some(1)).await, of(Some(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn delays_beyond_the_clock_are_clamped() {
        let (backoff_min, backoff_max) = (Duration::MAX, Duration::MAX);
        let options = RemoteOptions { backoff_min, backoff_max, seed: Some(7), ..RemoteOptions::default() };
        assert!(options.check().is_ok());
        let breaker = CircuitBreaker::new("nowhere".to_owned(), &options);
        let lost = breaker.call("get", ready(Err::<(), _>(CallFailure::Disconnected("gone".into())))).await;
        assert!(!is_unavailable(lost) && is_unavailable(breaker.call("get", ready(Ok(()))).await));
    }

    fn is_unavailable<T: fmt::Debug>(result: Result<T, BoxError>) -> bool {
        matches!(result.unwrap_err().downcast_ref(), Some(Error::Unavailable { .. }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_server_costs_one_timeout() {
        let (breaker, started) = (breaker(), Instant::now());
        let hanging = || breaker.call("get", pending::<Result<(), CallFailure>>());
        assert!(!is_unavailable(hanging().await));
        assert_eq!(started.elapsed(), breaker.timeout);
        for _ in 0..1000 {
            assert!(is_unavailable(hanging().await));
        }
        assert_eq!(started.elapsed(), breaker.timeout, "later calls take no time");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_the_server_is_well() {
        let breaker = breaker();
        let lost = || breaker.call("get", ready(Err::<(), _>(CallFailure::Disconnected("gone".into()))));
        let well = || breaker.call("get", ready(Ok(())));
        let delays = delays(&breaker, 20).await;
        for (exponent, retry_in) in (0..).zip(&delays) {
            assert!(*retry_in <= Duration::from_secs(60.min(1 << exponent)), "{delays:?}");
        }
        assert!(delays.iter().max() > Some(&Duration::from_secs(30)), "{delays:?}");
        assert!(well().await.is_ok() && well().await.is_ok());
        assert!(!is_unavailable(lost().await));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(well().await.is_ok(), "delays start over");
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_is_let_through_at_a_time() {
        let breaker = breaker();
        let _ = breaker.call("get", ready(Err::<(), _>(CallFailure::Disconnected("gone".into())))).await;
        tokio::time::advance(Duration::from_secs(5)).await;
        {
            let mut probing = Box::pin(breaker.call("get", pending::<Result<(), CallFailure>>()));
            assert!(is_pending_after_poll(probing.as_mut()).await);
            assert!(is_unavailable(breaker.call("get", ready(Ok(()))).await));
        }
        assert!(breaker.call("get", ready(Ok(()))).await.is_ok(), "the dropped probe is replaced");
    }

    /// Polls the future once and returns whether it is pending.
    async fn is_pending_after_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending()))
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_call_does_not_open_the_breaker() {
        let breaker = breaker();
        let refused = || breaker.call("put", ready(Err::<(), _>(CallFailure::Rejected("too large".into()))));
        assert!(!is_unavailable(refused().await));
        assert!(!is_unavailable(refused().await));
    }

    #[test]
    fn invalid_options_are_rejected() {
        let refused = |options: RemoteOptions| match options.check() {
            Err(Error::InvalidOption { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        let usual = RemoteOptions::default;
        assert!(usual().check().is_ok());
        assert_eq!(refused(RemoteOptions { prefix: "a b".to_owned(), ..usual() }), "prefix");
        assert_eq!(refused(RemoteOptions { prefix: "x".repeat(129), ..usual() }), "prefix");
        assert_eq!(refused(RemoteOptions { timeout: Duration::ZERO, ..usual() }), "timeout");
        assert_eq!(refused(RemoteOptions { answer_bytes_max: 0, ..usual() }), "answer_bytes_max");
        assert_eq!(refused(RemoteOptions { backoff_min: Duration::from_secs(31), ..usual() }), "backoff_min");
    }
}
