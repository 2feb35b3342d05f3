//! Decides whether and when to retry a failed call.
//!
//! [`Retry`] is the policy: the number of attempts, the delays between them, and the deadline.
//! [`Attempts`] applies it to one call. After each failure it takes the error's [`Retryability`]
//! and the time since the first attempt, and returns the delay before the next attempt or a
//! [`StopReason`]. A [`RetryBudget`] limits the retries of all calls together. These types never
//! read a clock, sleep or make a call; with the feature `tokio`, `Retry::run` does all three.
//!
//! ```
//! use std::time::Duration;
//! use greenwave_retry::{Retry, Retryability, StopReason};
//!
//! # fn main() -> Result<(), StopReason> {
//! let retry = Retry { attempts_max: 3, delay_min: Duration::from_secs(1), ..Retry::default() };
//! let mut attempts = retry.attempts();
//! let first = attempts.next_delay(Retryability::Transient, Duration::ZERO)?;
//! assert!(first <= Duration::from_secs(1));
//! let second = attempts.next_delay(Retryability::After(Duration::from_secs(30)), first)?;
//! assert_eq!(second, Duration::from_secs(30));
//! let end = attempts.next_delay(Retryability::Transient, first + second);
//! assert_eq!(end, Err(StopReason::Attempts));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `http` | no | `Retryability::retry_after`: parses the header `Retry-After` | httpdate |
//! | `tokio` | no | `Retry::run`: makes attempts and sleeps between them | tokio (timer), tracing |
//!
//! # Errors
//!
//! The crate has no error type: every value of every option is valid, as documented.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod budget;
mod retry;
mod retryability;
#[cfg(feature = "tokio")]
mod run;

pub use budget::RetryBudget;
pub use retry::{Attempts, Delays, Retry};
pub use retryability::{RetryError, Retryability, StopReason};
