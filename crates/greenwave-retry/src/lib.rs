//! Decides whether a failed call is tried again, and after how long.
//!
//! [`Retry`] is the policy: how many attempts, how long between them, and until when. [`Attempts`]
//! applies it to one call: after each failure it is given a [`Retryability`] on the error and the time
//! since the first attempt, and returns the delay before the next attempt or a [`Reason`] to give up.
//! A [`RetryBudget`] limits the retries of all calls together. Nothing here reads a clock, sleeps or
//! makes a call; with the feature `tokio`, `Retry::run` does all three.
//!
//! ```
//! use std::time::Duration;
//! use greenwave_retry::{Reason, Retry, Retryability};
//!
//! let retry = Retry { attempts_max: 3, delay_min: Duration::from_secs(1), ..Retry::default() };
//! let mut attempts = retry.attempts();
//! let first = attempts.next_delay(Retryability::Transient, Duration::ZERO)?;
//! assert!(first <= Duration::from_secs(1));
//! let second = attempts.next_delay(Retryability::After(Duration::from_secs(30)), first)?;
//! assert_eq!(second, Duration::from_secs(30));
//! let end = attempts.next_delay(Retryability::Transient, first + second);
//! assert_eq!(end, Err(Reason::Attempts));
//! # Ok::<(), Reason>(())
//! ```
//!
//! | feature | adds | cost |
//! |---|---|---|
//! | `http` | `Retryability::retry_after`: reads the header `Retry-After` | httpdate |
//! | `tokio` | `Retry::run`: makes the attempts and sleeps between them | tokio with its timer, tracing |
//!
//! There are no errors of its own: every number has a meaning, which its documentation gives.

mod budget;
mod retry;
mod retryability;
#[cfg(feature = "tokio")]
mod run;

pub use budget::RetryBudget;
pub use retry::{Attempts, Delays, Retry};
pub use retryability::{Reason, RetryError, Retryability};
