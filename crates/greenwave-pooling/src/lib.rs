//! Pools of connections, processes and objects, and limits, retries and circuit breakers for the
//! calls made on them.
//!
//! A [`Manager`] connects and checks connections of one kind. A [`Pool`] holds a bounded number of
//! them and hands each out as a [`Lease`], in the order of the requests. Three types guard a call
//! that may fail or be overloaded: a [`Limiter`] bounds how many run at once, a [`Retry`] policy
//! decides whether and when to try again, and a [`CircuitBreaker`] suspends calls after repeated
//! failures. A [`Batcher`] turns many calls into one.
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
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = PoolOptions { size_min: 0, size_max: 2, ..PoolOptions::default() };
//! let pool = Pool::new(Greeters, options);
//! let greeter = pool.get().await?;
//! assert_eq!(*greeter, "hello");
//! drop(greeter); // returned to the pool
//! assert_eq!((pool.stats().idle, pool.stats().created), (1, 1));
//! pool.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Types
//!
//! | type | purpose |
//! | --- | --- |
//! | [`Pool`] | connections made by a [`Manager`]: [`Tcp`], `Unix`, [`Process`], or your own |
//! | [`Multiplexed`], [`Balanced`] | connections that carry many requests at once |
//! | [`ObjectPool`] | objects that are expensive to create, reused after a reset |
//! | [`Limiter`] | concurrency limit, fixed or adapted to signals of overload |
//! | [`Retry`], [`RetryBudget`] | retries with jitter, limited to a fraction of the calls |
//! | [`CircuitBreaker`] | no calls for a while after repeated failures |
//! | [`Endpoints`] | a circuit breaker for each of several endpoints; one of them is always available |
//! | [`TokenBuckets`], [`KeyedTokenBuckets`] | rate limits, such as requests and tokens per minute, also for each of many keys |
//! | [`Cooldowns`] | pauses that hosts asked for |
//! | [`Hedge`] | a second attempt beside a slow one |
//! | [`Batcher`] | one call for many callers, each with its own response |
//! | [`Lazy`], [`LazyMap`] | values that are loaded once, on first use |
//!
//! Coming from another pool: [`coming_from_deadpool`].
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `bb8` | no | `Bb8Manager`: managers that were written for bb8 | bb8 |
//! | `conformance` | no | test suite for authors of managers | none |
//! | `deadpool` | no | `DeadpoolManager`: managers that were written for deadpool | deadpool |
//! | `http` | no | `HttpCache`: a cache of responses by RFC 9111 | bytes, http |
//! | `json-rpc` | no | `JsonRpcFraming` for [`Multiplexed`] | serde_json |
//! | `tower` | no | `RetryLayer`, `LimiterLayer` and `CircuitBreakerLayer` around a service | tower-layer, tower-service |
//!
//! # Errors
//!
//! [`Error`] gives the reason why a pool, batcher or guard could not serve a request: connecting
//! failed ([`Error::Connect`]), nothing became free in time ([`Error::Timeout`]), calls are
//! suspended ([`Error::CircuitOpen`]), or the pool is closed ([`Error::Closed`]). Errors from the
//! use of a connection go to the caller unchanged.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
mod callback;
mod circuit_breaker;
#[cfg(doc)]
pub mod coming_from_deadpool;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod hedge;
#[cfg(feature = "http")]
mod http;
mod keyed_buckets;
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
pub use error::{BoxError, Error, LoadError};
pub use greenwave_retry::{Attempts, Retry, RetryBudget, RetryError, Retryability, StopReason};
pub use hedge::Hedge;
pub use keyed_buckets::KeyedTokenBuckets;
#[cfg(feature = "tower")]
pub use layers::{CircuitBreakerLayer, Classifier, Layered, LimiterLayer, RetryLayer};
pub use lazy::{Lazy, LazyMap};
pub use limiter::{Limit, Limiter, LimiterPermit, LimiterStats};
#[cfg(feature = "bb8")]
pub use manager::Bb8Manager;
#[cfg(feature = "deadpool")]
pub use manager::{DeadpoolConnection, DeadpoolError, DeadpoolManager};
pub use manager::{Hook, HookError, HookedManager, Manager, Tcp};
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
