//! Options of a client.

use std::time::Duration;

use crate::Error;
use crate::token::Credentials;

/// Configuration of a [`Client`](crate::Client).
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Maximum duration of a call, including connecting, and of a pause of a stream. More than
    /// zero. Default: 5 s.
    pub timeout: Duration,
    /// Maximum duration of a transfer of blobs. At least `timeout`. Default: 60 s.
    pub transfer_timeout: Duration,
    /// Maximum number of calls at the same time; others wait. More than zero. Default: 128.
    pub calls_max: usize,
    /// Upper limit of the delay after the first failure, during which calls are skipped. It doubles
    /// with each further failure. The delay is random, between zero and the limit. More than zero,
    /// at most `backoff_max`. Default: 100 ms.
    pub backoff_min: Duration,
    /// Upper limit of all delays. Default: 30 s.
    pub backoff_max: Duration,
    /// Seed of the random delays, to make them repeatable. Default: `None`, a different seed for
    /// each client.
    pub seed: Option<u64>,
    /// A header that identifies the user. It is only sent over TLS, or to the loopback. Default:
    /// `None`.
    pub credentials: Option<Credentials>,
    /// Certificates in PEM that are trusted, besides those of the system. Default: none.
    pub authorities_pem: Vec<u8>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            transfer_timeout: Duration::from_secs(60),
            calls_max: 128,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            seed: None,
            credentials: None,
            authorities_pem: Vec::new(),
        }
    }
}

impl ClientOptions {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |option, value: String, expected| Err(Error::InvalidOption { option, value, expected });
        if self.timeout.is_zero() {
            return refuse("timeout", "0".to_owned(), "more than 0");
        }
        if self.transfer_timeout < self.timeout {
            let value = format!("{:?}", self.transfer_timeout);
            return refuse("transfer_timeout", value, "at least timeout");
        }
        if self.calls_max == 0 || self.calls_max > tokio::sync::Semaphore::MAX_PERMITS {
            return refuse("calls_max", self.calls_max.to_string(), "more than 0");
        }
        if self.backoff_min.is_zero() || self.backoff_min > self.backoff_max {
            let value = format!("{:?}", self.backoff_min);
            return refuse("backoff_min", value, "more than 0, at most backoff_max");
        }
        self.credentials.as_ref().map_or(Ok(()), Credentials::check)
    }
}
