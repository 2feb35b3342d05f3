//! Tests of the public API.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

mod adapters;
mod batch;
mod callbacks;
mod circuit_breaker;
mod fake;
mod hedge;
#[cfg(feature = "http")]
mod http;
mod keyed_buckets;
#[cfg(feature = "tower")]
mod layers;
mod lazy;
mod limiter;
mod model;
mod multiplexed;
mod object_pool;
mod option_ranges;
mod pool;
#[cfg(unix)]
mod process;
mod resize;
mod servers;
mod soak;
mod tcp;
mod token_bucket;
#[cfg(unix)]
mod unix;
