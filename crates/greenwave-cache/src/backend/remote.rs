//! What stands between callers and a server: keys as the server sees them, a time limit for every call, and after a failure a pause in which
//! the server is left alone. Knows no protocol.

use std::fmt;
use std::time::Duration;

use greenwave_retry::{Delays, Retry};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{BoxError, Error, Key};

/// Longest prefix of keys: memcached takes 250 bytes, of which the key itself needs 64.
const PREFIX_BYTES_MAX: usize = 128;

/// A pause that nobody sees the end of.
const FOR_GOOD: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// How a server is used.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Stands before every key, so that several users share a server: at most 128 printable ASCII characters, no space. Default `greenwave:`.
    pub prefix: String,
    /// How long an entry lives that is put without a time of its own. Default 30 days. `None` is for as long as the server likes.
    pub ttl: Option<Duration>,
    /// How long a call may take, connecting included. Default 250 ms.
    pub timeout: Duration,
    /// The upper bound of the pause in which the server is not asked after its first failure; twice as
    /// much after each further one. The pause is uniform between zero and the bound, so that processes
    /// that lost the server at the same time do not come back at the same time. More than 0, at most
    /// `backoff_max`. Default 100 ms.
    pub backoff_min: Duration,
    /// The upper bound of all pauses. Default 30 s.
    pub backoff_max: Duration,
    /// Makes the pauses repeatable. Default: none, and the pauses of two backends differ.
    pub seed: Option<u64>,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            prefix: "greenwave:".to_owned(),
            ttl: Some(Duration::from_secs(30 * 24 * 3600)),
            timeout: Duration::from_millis(250),
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
        if self.backoff_min.is_zero() || self.backoff_min > self.backoff_max {
            return refuse(
                "backoff_min",
                format!("{:?}", self.backoff_min),
                "more than 0, at most backoff_max",
            );
        }
        Ok(())
    }

    pub(super) fn key(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// Why a call did not give an answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server answered, but not with what was wanted. It is well, and may be asked again.
    Refused(BoxError),
    /// It cannot be talked to, or makes no sense.
    Lost(BoxError),
}

/// A server's health, and what follows from it for the next call.
pub(super) struct Guard {
    server: String,
    timeout: Duration,
    pauses: Retry,
    health: Mutex<Health>,
}

#[derive(Debug)]
enum Health {
    /// Calls go through.
    Up,
    /// It failed. Until then no call goes through; after that one does, to see.
    Down { until: Instant, is_probed: bool, pauses: Delays },
}

impl Guard {
    pub(super) fn new(server: String, options: &RemoteOptions) -> Self {
        let pauses = Retry {
            attempts_max: usize::MAX,
            delay_min: options.backoff_min,
            delay_max: options.backoff_max,
            seed: options.seed,
            ..Retry::default()
        };
        Self { server, timeout: options.timeout, pauses, health: Mutex::new(Health::Up) }
    }

    /// Does the work within the time limit, if the server is not being left alone.
    pub(super) async fn call<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, BoxError> {
        let probe = self.admit(Instant::now())?;
        let result = tokio::time::timeout(self.timeout, work).await;
        drop(probe);
        let error = match result {
            Ok(Ok(answer)) => {
                self.recover();
                return Ok(answer);
            }
            Ok(Err(Failure::Refused(error))) => {
                self.recover();
                error
            }
            Ok(Err(Failure::Lost(error))) => {
                self.suffer(Instant::now());
                error
            }
            Err(elapsed) => {
                self.suffer(Instant::now());
                elapsed.into()
            }
        };
        Err(Error::backend(format!("{operation} at {}", self.server))(error).into())
    }

    /// Lets a call through, or says how long the server is left alone.
    fn admit(&self, now: Instant) -> Result<Option<Probe<'_>>, Error> {
        match &mut *self.health.lock() {
            Health::Up => Ok(None),
            Health::Down { until, is_probed: is_probed @ false, .. } if now >= *until => {
                *is_probed = true;
                Ok(Some(Probe(self)))
            }
            Health::Down { until, .. } => {
                let pause = until.saturating_duration_since(now);
                Err(Error::Unavailable { server: self.server.clone(), pause })
            }
        }
    }

    fn recover(&self) {
        *self.health.lock() = Health::Up;
    }

    fn suffer(&self, now: Instant) {
        let mut health = self.health.lock();
        let mut pauses = match std::mem::replace(&mut *health, Health::Up) {
            Health::Up => self.pauses.delays(),
            // Others that were under way when it went down fail too: that is still the same failure.
            Health::Down { until, is_probed, pauses } if now < until => {
                *health = Health::Down { until, is_probed, pauses };
                return;
            }
            Health::Down { pauses, .. } => pauses,
        };
        // After usize::MAX failures there is no further delay.
        let pause = pauses.next().unwrap_or(self.pauses.delay_max);
        // A clock cannot tell times that are too far ahead: for good is 30 years, like for tokio.
        let until = now.checked_add(pause).unwrap_or_else(|| now + FOR_GOOD);
        *health = Health::Down { until, is_probed: false, pauses };
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("server", &self.server).field("health", &*self.health.lock()).finish()
    }
}

/// The one call that looks whether a server is well again. If it is dropped before it knows, the next one looks.
struct Probe<'a>(&'a Guard);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Health::Down { is_probed, .. } = &mut *self.0.health.lock() {
            *is_probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn guard() -> Guard {
        let second = Duration::from_secs(1);
        let seed = Some(7);
        let options =
            RemoteOptions { backoff_min: second, backoff_max: 60 * second, seed, ..RemoteOptions::default() };
        Guard::new("nowhere".to_owned(), &options)
    }

    /// The pauses after so many failures in a row.
    async fn pauses(guard: &Guard, failures: usize) -> Vec<Duration> {
        let mut pauses = Vec::new();
        for _ in 0..failures {
            let lost = guard.call("get", ready(Err::<(), _>(Failure::Lost("gone".into())))).await;
            assert!(!is_left_alone(lost));
            let Err(Error::Unavailable { pause, .. }) = guard.admit(Instant::now()).map(drop) else {
                panic!("it is left alone")
            };
            pauses.push(pause);
            tokio::time::advance(pause).await;
        }
        pauses
    }

    #[tokio::test(start_paused = true)]
    async fn two_backends_do_not_come_back_together() {
        let of = async |seed| {
            let options = RemoteOptions { seed, ..RemoteOptions::default() };
            pauses(&Guard::new("nowhere".to_owned(), &options), 20).await
        };
        assert_ne!(of(None).await, of(None).await);
        assert_ne!(of(Some(1)).await, of(Some(2)).await);
        assert_eq!(of(Some(1)).await, of(Some(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_any_length_has_an_end_that_can_be_told() {
        let (backoff_min, backoff_max) = (Duration::MAX, Duration::MAX);
        let options = RemoteOptions { backoff_min, backoff_max, seed: Some(7), ..RemoteOptions::default() };
        assert!(options.check().is_ok());
        let guard = Guard::new("nowhere".to_owned(), &options);
        let lost = guard.call("get", ready(Err::<(), _>(Failure::Lost("gone".into())))).await;
        assert!(!is_left_alone(lost) && is_left_alone(guard.call("get", ready(Ok(()))).await));
    }

    fn is_left_alone<T: fmt::Debug>(result: Result<T, BoxError>) -> bool {
        matches!(result.unwrap_err().downcast_ref(), Some(Error::Unavailable { .. }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_costs_one_time_limit() {
        let (guard, begun) = (guard(), Instant::now());
        let hanging = || guard.call("get", pending::<Result<(), Failure>>());
        assert!(!is_left_alone(hanging().await));
        assert_eq!(begun.elapsed(), guard.timeout);
        for _ in 0..1000 {
            assert!(is_left_alone(hanging().await));
        }
        assert_eq!(begun.elapsed(), guard.timeout, "and then nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_the_server_is_well() {
        let guard = guard();
        let lost = || guard.call("get", ready(Err::<(), _>(Failure::Lost("gone".into()))));
        let well = || guard.call("get", ready(Ok(())));
        let pauses = pauses(&guard, 20).await;
        for (exponent, pause) in (0..).zip(&pauses) {
            assert!(*pause <= Duration::from_secs(60.min(1 << exponent)), "{pauses:?}");
        }
        assert!(pauses.iter().max() > Some(&Duration::from_secs(30)), "{pauses:?}");
        assert!(well().await.is_ok() && well().await.is_ok());
        assert!(!is_left_alone(lost().await));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(well().await.is_ok(), "pauses begin anew");
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_looks_and_the_rest_do_without() {
        let guard = guard();
        let _ = guard.call("get", ready(Err::<(), _>(Failure::Lost("gone".into())))).await;
        tokio::time::advance(Duration::from_secs(5)).await;
        {
            let mut looking = Box::pin(guard.call("get", pending::<Result<(), Failure>>()));
            assert!(futures_poll_once(looking.as_mut()).await);
            assert!(is_left_alone(guard.call("get", ready(Ok(()))).await));
        }
        assert!(guard.call("get", ready(Ok(()))).await.is_ok(), "the look was dropped: another may look");
    }

    /// Whether the future is not done yet.
    async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending()))
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_an_answer() {
        let guard = guard();
        let refused = || guard.call("put", ready(Err::<(), _>(Failure::Refused("too large".into()))));
        assert!(!is_left_alone(refused().await));
        assert!(!is_left_alone(refused().await));
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        let refused = |options: RemoteOptions| match options.check() {
            Err(Error::InvalidOption { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        let usual = RemoteOptions::default;
        assert!(usual().check().is_ok());
        assert_eq!(refused(RemoteOptions { prefix: "a b".to_owned(), ..usual() }), "prefix");
        assert_eq!(refused(RemoteOptions { prefix: "x".repeat(129), ..usual() }), "prefix");
        assert_eq!(refused(RemoteOptions { timeout: Duration::ZERO, ..usual() }), "timeout");
        assert_eq!(refused(RemoteOptions { backoff_min: Duration::from_secs(31), ..usual() }), "backoff_min");
    }
}
