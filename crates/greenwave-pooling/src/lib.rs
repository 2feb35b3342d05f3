//! Connections, processes, objects and requests, lent without waiting longer than needed, and never more of them than allowed.
//!
//! A [`Manager`] knows how to make and judge connections of one kind; a [`Pool`] keeps a bounded number of them and lends each as a
//! [`Lease`], strictly first come, first served. Around a call to something that may fail or be overloaded stand [`Limiter`] (how many
//! at once), [`Retry`] (whether again, and when) and [`CircuitBreaker`] (whether at all); [`Batcher`] makes one call of many.
//!
//! ```
//! use greenwave_pooling::{Manager, Pool, PoolOptions, async_trait};
//!
//! #[derive(Debug)]
//! struct Greeters;
//!
//! #[async_trait]
//! impl Manager for Greeters {
//!     type Connection = String;
//!     type Error = std::io::Error;
//!
//!     async fn connect(&self) -> Result<String, Self::Error> {
//!         Ok("hello".to_owned())
//!     }
//!     async fn check(&self, _: &mut String) -> Result<(), Self::Error> {
//!         Ok(())
//!     }
//!     fn is_broken(&self, greeter: &mut String) -> bool {
//!         greeter.is_empty()
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let pool = Pool::new(Greeters, PoolOptions { size_min: 0, size_max: 2, ..PoolOptions::default() });
//! let greeter = pool.get().await?;
//! assert_eq!(*greeter, "hello");
//! drop(greeter); // back in the pool, at once
//! assert_eq!((pool.stats().idle, pool.stats().created), (1, 1));
//! pool.close().await;
//! # Ok::<(), greenwave_pooling::Error>(()) }).unwrap();
//! ```
//!
//! # What is here
//!
//! | type | what it lends or decides |
//! | --- | --- |
//! | [`Pool`] | connections of a [`Manager`]: [`Tcp`], `Unix`, [`Process`], or your own |
//! | [`Multiplexed`], [`Balanced`] | places for requests on connections that carry many at once |
//! | [`ObjectPool`] | objects that are expensive to make, reused after a reset |
//! | [`Limiter`] | permits, as many as the other side was seen to bear |
//! | [`Retry`], [`RetryBudget`] | another attempt, later, as long as few calls need one |
//! | [`CircuitBreaker`] | no attempt at all for a while after several failures |
//! | [`Endpoints`] | the one of several that may be called; never none |
//! | [`TokenBuckets`], [`Cooldowns`] | so many requests and tokens a minute; nothing while a host wants to be left alone |
//! | [`Hedge`] | a second attempt beside one that is slow |
//! | [`Batcher`] | one call for many callers, each with its own answer |
//! | [`Lazy`], [`LazyMap`] | a value that is loaded once, on first use |
//!
//! # Features
//!
//! | feature | default | what it adds | cost |
//! | --- | --- | --- | --- |
//! | `conformance` | no | the test suite that every manager passes, for authors of managers | none |
//! | `http` | no | `HttpCache`: a cache of responses by RFC 9111 | bytes, http |
//! | `json-rpc` | no | `JsonRpcFraming` for [`Multiplexed`] | serde_json |
//! | `tower` | no | `RetryLayer`, `LimiterLayer` and `CircuitBreakerLayer` around a service | tower-layer, tower-service |
//!
//! # Errors
//!
//! [`Error`] says that a thing was not lent, and why: it could not be made ([`Error::Connect`]), not in time ([`Error::Timeout`]), not now
//! ([`Error::CircuitOpen`]) or not any more ([`Error::Closed`]). What callers do with what they were lent is theirs, errors included.

mod batch;
mod callback;
mod circuit_breaker;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod hedge;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "tower")]
mod layers;
mod lazy;
mod limiter;
mod manager;
mod multiplexed;
mod object_pool;
mod pool;
mod queue;
mod sync;
mod token_bucket;

#[cfg(feature = "http")]
pub use self::http::{HttpCache, HttpCacheOptions, HttpStore, MemoryHttpStore, StoredResponse};
pub use async_trait::async_trait;
pub use batch::{BatchOptions, BatchStats, Batcher};
pub use circuit_breaker::{CallPermit, CircuitBreaker, CircuitBreakerOptions, Endpoints};
pub use error::{BoxError, Error};
pub use greenwave_retry::{Retry, RetryBudget, RetryError, Retryability, StopReason};
pub use hedge::Hedge;
#[cfg(feature = "tower")]
pub use layers::{CircuitBreakerLayer, Classifier, Layered, LimiterLayer, RetryLayer};
pub use lazy::{Lazy, LazyMap};
pub use limiter::{Limit, Limiter, LimiterPermit, LimiterStats};
pub use manager::{Manager, Tcp};
#[cfg(unix)]
pub use manager::{Process, Unix};
#[cfg(feature = "json-rpc")]
pub use multiplexed::JsonRpcFraming;
pub use multiplexed::{
    Balanced, Frame, Framing, LengthFraming, LineFraming, Multiplexed, MultiplexedOptions,
};
pub use object_pool::{ObjectPool, ObjectPoolStats, PooledObject};
pub use pool::{CloseReason, Lease, Pool, PoolEvent, PoolOptions, PoolStats};
pub use token_bucket::{Cooldowns, Rate, TokenBuckets};
