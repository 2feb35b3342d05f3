//! Everything through the public API.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

mod batch;
mod breaker;
mod bucket;
mod callbacks;
mod fake;
mod hedge;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "tower")]
mod layers;
mod lazy;
mod limiter;
mod model;
mod multiplexed;
mod numbers;
mod objects;
mod pool;
#[cfg(unix)]
mod process;
mod servers;
mod soak;
mod tcp;
#[cfg(unix)]
mod unix;
