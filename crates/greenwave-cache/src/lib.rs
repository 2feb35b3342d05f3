//! A sharded in-memory cache, and layered backends for results that outlive the process.
//!
//! The crate was built to cache test results, and works for any computed value. Its three parts
//! share little more than the [`Key`]:
//!
//! - [`Cache`] holds values of any type in memory, within limits, and computes each missing value
//!   only once, even when many callers ask for it. A [`Policy`] decides what is evicted; the
//!   default is [`Adaptive`].
//! - [`KeyBuilder`] hashes all inputs of a result into a [`Key`], and [`Record`] is a result as it
//!   is stored: with its age, its cost and a checksum.
//! - A [`Backend`] stores bytes under keys: [`MemoryBackend`], [`DiskBackend`], or an
//!   implementation of yours. [`Tiered`] reads several backends in order, fills the fast ones from
//!   the slow ones, and never fails a read. With [`Leases`], two processes do not compute the same
//!   result.
//!
//! ```
//! use std::time::Duration;
//! use greenwave_cache::{Cache, CacheOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ttl = Some(Duration::from_secs(3600));
//! let options = CacheOptions { entries_max: 100, ttl, ..CacheOptions::default() };
//! let cache: Cache<String, usize> = Cache::new(options)?;
//!
//! let slow = async || Ok::<_, std::io::Error>("green".len());
//! assert_eq!(cache.get_or_compute("green".to_owned(), slow).await.unwrap(), 5);
//! assert_eq!(cache.get("green"), Some(5)); // not computed again
//! assert_eq!(cache.stats().hit_rate(), 0.5);
//! # Ok(())
//! # }
//! ```
//!
//! Results that outlive the process and are shared by all processes of a machine:
//!
//! ```
//! # #[cfg(feature = "disk")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::{sync::Arc, time::Duration};
//! use greenwave_cache::{DiskBackend, DiskOptions, KeyBuilder, MemoryBackend, Record};
//! use greenwave_cache::{Tier, Tiered, TieredOptions};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path().join("results");
//! let memory = Tier::new("memory", Arc::new(MemoryBackend::new(1000, 8 << 20)?));
//! let disk = Tier::new("disk", Arc::new(DiskBackend::open(dir, DiskOptions::default())?));
//! let results = Tiered::new(vec![memory, disk], TieredOptions::new(1));
//!
//! let key = KeyBuilder::new("test results", 1).text("cargo test").finish();
//! let cost = Duration::from_secs(9);
//! let payload = "42 passed".into();
//! results.put(&key, &Record { schema: 1, created_ms: 0, cost, tags: vec![], payload }).await?;
//! assert_eq!(results.get(&key).await.unwrap().payload, "42 passed");
//! assert_eq!(results.stats().saved, cost);
//! # Ok::<(), greenwave_cache::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Common settings
//!
//! | to | use |
//! | --- | --- |
//! | disable the cache | no tiers in [`Tiered::new`]; [`CacheOptions::entries_max`] 0 |
//! | limit its size | [`CacheOptions::entries_max`] and [`CacheOptions::weight_max`], [`MemoryBackend::new`], `DiskOptions::disk_bytes_max` |
//! | change the limits later | [`Cache::set_entries_max`], [`Cache::set_weight_max`] |
//! | change an entry depending on its value | [`Cache::entry`] |
//! | limit the age of entries | [`CacheOptions::ttl`] and [`CacheOptions::tti`], or an [`Expiry`], [`TieredOptions::age_max`], [`Tier::ttl_max`] |
//! | choose the hash of keys | [`KeyBuilder::with_algorithm`] |
//! | choose the format of values | `PayloadFormat` |
//! | preserve results across restarts | `DiskBackend`, `RedisBackend`; access counts with [`Tiered::save_heat`] and [`Tiered::warm`] |
//! | prefetch entries | [`Cache::warm`], [`TieredOptions::predictor`] |
//! | invalidate entries | [`Cache::invalidate_tag`], [`Cache::invalidate_if`], [`Cache::invalidate_all`], [`Tiered::clear`] |
//! | choose the eviction policy | a [`Policy`]: [`Adaptive`], [`S3Fifo`], [`Lru`] |
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `disk` | yes | [`DiskBackend`] | compiles libzstd |
//! | `redis` | no | `RedisBackend`, `RedisLeases` | compiles the crate `redis` without its default features |
//! | `redis-tls` | no | `rediss://` addresses in `RedisBackend` | compiles `rustls` and `tokio-rustls` |
//! | `memcached` | no | `MemcachedBackend` | no further crate |
//! | `object` | no | `ObjectBackend` in a directory that machines share | compiles `object_store` |
//! | `object-s3`, `object-gcs`, `object-azure` | no | `ObjectBackend` on S3, Google Cloud Storage or Azure | compiles an HTTP client |
//! | `object-https` | no | the client of these services | enabled by them; rustls with ring |
//! | `serde` | no | `PayloadFormat`: values as payloads, in JSON or MessagePack | compiles `serde_json` and `rmp-serde` |
//! | `signatures` | no | `SigningKey`, and signatures verify | compiles `ring` |
//! | `sha256` | no | `HashAlgorithm::Sha256` for keys | compiles `sha2` |
//! | `simulation` | no | `DiskBackend::open_simulated`, for tests on the simulated machine of greenwave-segment | compiles `corosensei` |
//! | `conformance` | no | the module `conformance`: tests that every backend and every policy must pass | none |
//!
//! Coming from another cache: [`coming_from_moka`].
//!
//! # Errors
//!
//! Reads do not fail. An entry that is missing, too old, corrupt, or in a backend that is down
//! counts as a miss. An [`Error`] reports that a cache could not be created, that a backend could
//! not be opened, or that a write failed in a tier that [reports failures](OnFailure::Report).
//!
//! A panic in a listener, a weigher or a clock is logged, and the call continues. A backend or
//! lease provider that panics is treated as failed, with [`Error::Panicked`] as the cause. A
//! [`Policy`] must not panic.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod cache;
mod catch_panic;
#[cfg(doc)]
pub mod coming_from_moka;
mod computation;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contents;
mod deadline;
mod entry;
mod error;
mod expiry;
#[cfg(feature = "serde")]
mod format;
mod hashing;
mod hit_counters;
mod key;
mod lease;
mod lifetimes;
mod load;
mod locked_shard;
mod options;
#[cfg(feature = "serde")]
mod payload;
mod policy;
mod predict;
mod reading;
mod record;
mod removals;
mod reservation;
mod resize;
mod scope;
mod shard;
mod shard_policy;
mod signature;
mod stats;
mod sync;
mod tier;
mod tiered;
mod waiter;
mod weight_budget;
mod write_queue;

#[cfg(feature = "memcached")]
pub use backend::MemcachedBackend;
#[cfg(feature = "object")]
pub use backend::ObjectBackend;
#[cfg(any(feature = "redis", feature = "memcached", feature = "object"))]
pub use backend::RemoteOptions;
pub use backend::{Backend, Capabilities, MemoryBackend};
#[cfg(feature = "disk")]
pub use backend::{DiskBackend, DiskOptions};
#[cfg(feature = "redis")]
pub use backend::{RedisBackend, RedisLeases};
pub use cache::Cache;
pub use entry::{CacheEntry, Change};
pub use error::{BoxError, ComputeError, Error};
pub use expiry::Expiry;
#[cfg(feature = "serde")]
pub use format::PayloadFormat;
pub use hashing::{IdentityHasher, KeyHasher, SeededHasher};
pub use key::{HashAlgorithm, Key, KeyBuilder, ParseKeyError};
pub use lease::{FileLeases, Lease, Leases};
pub use options::{CacheOptions, EntryOptions, RemovalCause, RemovalListener, WarmEntry, Weigher};
pub use policy::{Adaptive, Candidate, Lru, Policy, S3Fifo};
pub use predict::{Predictor, Trail};
pub use record::{Record, RecordError, Secret};
pub use removals::{Removal, Removals, removal_channel};
pub use reservation::Reservation;
pub use scope::Scope;
pub use signature::{ParsePublicKeyError, PublicKey, SigningKey};
pub use stats::{CacheStats, TagStats};
pub use tier::{AccessMode, OnFailure, Tier, TierStats, WriteMode};
pub use tiered::{Persist, QuarantinedRecord, Tiered, TieredOptions, TieredStats};
