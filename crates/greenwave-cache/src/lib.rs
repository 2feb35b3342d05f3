//! A sharded cache in memory, and layered backends for results worth keeping longer: made for test results, good for any.
//!
//! Three parts that share little but the [`Key`]:
//! - [`Cache`] holds values of any type in memory, within limits, and computes a missing one once however many ask. What it lets go is
//!   up to a [`Policy`]: [`Adaptive`] unless another is named.
//! - [`KeyBuilder`] makes keys from everything a result depends on, and [`Record`] is a result as it is stored: with its age, its cost, and
//!   a checksum.
//! - A [`Backend`] keeps bytes under keys: [`MemoryBackend`], [`DiskBackend`], or one of your own. [`Tiered`] asks several in order, fills
//!   the fast from the slow, and never fails; with [`Leases`], no two processes compute the same result.
//!
//! ```
//! use std::time::Duration;
//! use greenwave_cache::{Cache, CacheOptions};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let options = CacheOptions { entries_max: 100, ttl: Some(Duration::from_secs(3600)), ..CacheOptions::default() };
//! let cache: Cache<String, usize> = Cache::new(options)?;
//!
//! let slow = async || Ok::<_, std::io::Error>("green".len());
//! assert_eq!(cache.get_or_compute("green".to_owned(), slow).await.unwrap(), 5);
//! assert_eq!(cache.get(&"green".to_owned()), Some(5)); // not computed again
//! assert_eq!(cache.stats().hit_rate(), 0.5);
//! # Ok::<(), greenwave_cache::Error>(())
//! # }).unwrap();
//! ```
//!
//! Results that outlive the process, shared with others on the same machine:
//!
//! ```
//! # #[cfg(feature = "disk")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::{sync::Arc, time::Duration};
//! use greenwave_cache::{DiskBackend, DiskOptions, KeyBuilder, MemoryBackend, Record, Tier, Tiered, TieredOptions};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path().join("results");
//! let memory = Tier::new("memory", Arc::new(MemoryBackend::new(1000, 8 << 20)?));
//! let disk = Tier::new("disk", Arc::new(DiskBackend::open(dir, DiskOptions::default())?));
//! let results = Tiered::new(vec![memory, disk], TieredOptions::new(1));
//!
//! let key = KeyBuilder::new("test results", 1).text("cargo test").finish();
//! let cost = Duration::from_secs(9);
//! results.put(&key, &Record { schema: 1, created_ms: 0, cost, tags: vec![], payload: "42 passed".into() }).await?;
//! assert_eq!(results.get(&key).await.unwrap().payload, "42 passed");
//! assert_eq!(results.stats().saved, cost);
//! # Ok::<(), greenwave_cache::Error>(())
//! # }).unwrap();
//! ```
//!
//! # What can be set
//!
//! | to | see |
//! | --- | --- |
//! | switch it off | no tiers in [`Tiered::new`]; [`CacheOptions::entries_max`] 0 |
//! | limit its size | [`CacheOptions::entries_max`] and [`CacheOptions::weight_max`], [`MemoryBackend::new`], `DiskOptions::disk_bytes_max` |
//! | limit the age of what it holds | [`CacheOptions::ttl`] and [`CacheOptions::tti`], [`TieredOptions::age_max`], [`Tier::ttl_max`] |
//! | hash keys otherwise | [`KeyBuilder::with_algorithm`] |
//! | write values otherwise | `PayloadFormat` |
//! | keep results through a restart | `DiskBackend`, `RedisBackend`; their heat with [`Tiered::save_heat`] and [`Tiered::warm`] |
//! | fetch what will be wanted | [`Cache::warm`], [`TieredOptions::predictor`] |
//! | forget what a change made worthless | [`Cache::invalidate_tag`], [`Cache::invalidate_all`], [`Tiered::clear`] |
//! | evict otherwise | a [`Policy`]: [`Adaptive`], [`CostAware`], [`S3Fifo`], [`Lru`] |
//!
//! # Features
//!
//! | feature | default | gives | costs |
//! | --- | --- | --- | --- |
//! | `disk` | yes | [`DiskBackend`] | compiles libzstd |
//! | `redis` | no | `RedisBackend`, `RedisLeases` | compiles the crate `redis` without its defaults |
//! | `memcached` | no | `MemcachedBackend` | compiles `async-memcached` and, with it, the crate `url` |
//! | `serde` | no | `PayloadFormat`: values as payloads, in JSON or MessagePack | compiles `serde_json` and `rmp-serde` |
//! | `sha256` | no | `HashAlgorithm::Sha256` for keys | compiles `sha2` |
//! | `simulation` | no | `DiskBackend::open_simulated`, for tests on the simulated machine of greenwave-segment | compiles `corosensei` |
//! | `conformance` | no | the module `conformance`: the tests that a backend, or a policy, has to pass | nothing else |
//!
//! # Errors
//!
//! A panic in a listener, a weigher or a clock is logged, and the call goes on; a backend or a lease that
//! panics has failed, with [`Error::Panicked`] as the cause. A [`Policy`] must not panic.
//!
//! Reads do not fail: what is not there, too old, damaged, or held by a backend that is down, is a miss. An [`Error`] is about making a cache
//! or opening a backend.

mod backend;
mod cache;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contained;
mod error;
#[cfg(feature = "serde")]
mod format;
mod hashing;
mod key;
mod lease;
mod load;
mod policy;
mod predict;
mod record;
mod shard;
mod stats;
mod sync;
mod tally;
mod tier;
mod tiered;

#[cfg(feature = "memcached")]
pub use backend::MemcachedBackend;
#[cfg(any(feature = "redis", feature = "memcached"))]
pub use backend::RemoteOptions;
pub use backend::{Backend, Capabilities, MemoryBackend};
#[cfg(feature = "disk")]
pub use backend::{DiskBackend, DiskOptions};
#[cfg(feature = "redis")]
pub use backend::{RedisBackend, RedisLeases};
pub use cache::{Cache, CacheOptions, EntryOptions, RemovalCause, RemovalListener, WarmEntry, Weigher};
pub use error::{BoxError, Error};
#[cfg(feature = "serde")]
pub use format::PayloadFormat;
pub use hashing::{IdentityHasher, KeyHasher, SeededHasher};
pub use key::{HashAlgorithm, Key, KeyBuilder, ParseKeyError};
pub use lease::{FileLeases, Lease, Leases};
pub use policy::{Adaptive, Candidate, CostAware, Lru, Policy, S3Fifo};
pub use predict::{Predictor, Trail};
pub use record::{Record, RecordError, Secret};
pub use stats::{CacheStats, TagStats};
pub use tier::{AccessMode, OnFailure, Tier, TierStats, WriteMode};
pub use tiered::{Persist, QuarantinedRecord, Tiered, TieredOptions, TieredStats};
