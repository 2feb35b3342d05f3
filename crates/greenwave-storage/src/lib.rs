//! A hybrid store: contents by hash and by name, in memory while hot, compressed on disk when cold, and the caller need not know which.
//!
//! A [`Store`] holds contents under their [`BlobId`], equal contents once, and lets names lead to them. It keeps to a budget of memory and
//! moves what is over to a [`ColdTier`] tier: [`SegmentColdTier`], a crash-safe log in a directory, an object store, or one of your own. On top,
//! [`Attempts`] records every attempt at a feature, and [`Snapshot`] saves a whole state of files.
//!
//! ```
//! use std::sync::Arc;
//! use greenwave_storage::{StoreOptions, SegmentColdTier, SegmentOptions, Store};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let dir = tempfile::tempdir().unwrap();
//! let cold = SegmentColdTier::open(dir.path().join("store"), SegmentOptions::default())?;
//! let store = Store::open(StoreOptions { memory_bytes_max: 10 << 20, ..StoreOptions::default() }, Arc::new(cold))?;
//!
//! let id = store.put("src/lib.rs", "pub fn wave() {}".into()).await?;
//! store.put("src/copy.rs", "pub fn wave() {}".into()).await?; // held once
//! assert_eq!(store.get("src/copy.rs").await?, store.get_blob(&id).await?);
//!
//! store.flush().await?; // durable from here on
//! assert_eq!(store.list("src/").await?, ["src/copy.rs", "src/lib.rs"]);
//! # Ok::<(), greenwave_storage::Error>(())
//! # }).unwrap();
//! ```
//!
//! Calls want a tokio runtime: what may wait for a disk, and hashing of large contents, goes to its blocking pool.
//!
//! # Features
//!
//! | feature | default | gives | costs |
//! | --- | --- | --- | --- |
//! | `segment` | yes | [`SegmentColdTier`] | compiles libzstd |
//! | `object` | no | `ObjectColdTier`: one object a key, in a local folder or in memory | the crate `object_store`, and libzstd |
//! | `object-s3`, `object-gcs`, `object-azure` | no | the same in these services | an HTTP client with TLS: a minute of compiling |
//! | `simulation` | no | `SegmentColdTier::open_simulated`, for tests on the simulated machine of greenwave-segment | the crate `corosensei` |
//! | `conformance` | no | the module `conformance`: the tests that a cold tier has to pass | nothing else |
//!
//! # Errors
//!
//! An [`Error`] says what was attempted. What the cold tier would refuse for its size is refused by the put. When the cold tier fails, nothing
//! is lost: contents stay in memory, readable, the others are written, and the next call tries again; memory may then exceed its budget.
//! Where a disk budget is used up, removals and a [`Store::sweep`] always make room again. Damaged contents are absent, counted in [`StoreStats::corrupt_blobs`], and never returned.

mod attempts;
mod blob;
mod cold;
#[cfg(feature = "conformance")]
pub mod conformance;
mod diff;
mod error;
mod manifest;
mod memory;
mod options;
mod reclaim;
mod sharing;
#[cfg(feature = "segment")]
mod sketch;
mod snapshot;
mod stats;
mod store;

pub use attempts::{Attempt, AttemptOutcome, AttemptSummary, Attempts, NewAttempt};
pub use blob::{BlobId, ParseBlobIdError};
pub use cold::{ColdEntry, ColdTier, MemoryColdTier, SharedColdTier, SharedWrite};
#[cfg(feature = "object")]
pub use cold::{ObjectColdTier, ObjectOptions};
#[cfg(feature = "segment")]
pub use cold::{SegmentColdTier, SegmentOptions};
pub use diff::{ChangeKind, Diff, FileDiff};
pub use error::{BoxError, Error};
#[cfg(feature = "segment")]
pub use greenwave_segment::Compression;
pub use options::StoreOptions;
pub use snapshot::{Snapshot, SnapshotFile};
pub use stats::{ColdTierStats, StoreStats};
pub use store::{NAME_BYTES_MAX, Store};
