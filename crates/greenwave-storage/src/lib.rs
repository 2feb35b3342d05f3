//! A hybrid blob store: contents addressed by hash and by name, in memory while hot and compressed
//! on disk when cold.
//!
//! A [`Store`] stores contents under their [`BlobId`], deduplicated, and maps names to them. It
//! stays within a memory budget by moving contents to a [`ColdTier`]: [`SegmentColdTier`] (a
//! crash-safe log in a directory), an object store, or an implementation of yours. On top of it,
//! [`Attempts`] records every attempt at a feature, and [`Snapshot`] saves the state of a set of
//! files.
//!
//! ```
//! use std::sync::Arc;
//! use greenwave_storage::{SegmentColdTier, SegmentOptions, Store, StoreOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let cold = SegmentColdTier::open(dir.path().join("store"), SegmentOptions::default())?;
//! let options = StoreOptions { memory_bytes_max: 10 << 20, ..StoreOptions::default() };
//! let store = Store::open(options, Arc::new(cold))?;
//!
//! let id = store.put("src/lib.rs", "pub fn wave() {}".into()).await?;
//! store.put("src/copy.rs", "pub fn wave() {}".into()).await?; // stored once
//! assert_eq!(store.get("src/copy.rs").await?, store.get_blob(&id).await?);
//!
//! store.flush().await?; // durable from here on
//! assert_eq!(store.list("src/").await?, ["src/copy.rs", "src/lib.rs"]);
//! # Ok(())
//! # }
//! ```
//!
//! Calls require a tokio runtime, because disk accesses and the hashing of large contents run on
//! its blocking pool.
//!
//! Coming from another store: the page `coming_from_cacache`.
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `segment` | yes | [`SegmentColdTier`] | compiles libzstd |
//! | `object` | no | `ObjectColdTier`: one object per key, in a local directory or in memory | the crate `object_store`, and libzstd |
//! | `object-s3`, `object-gcs`, `object-azure` | no | `ObjectColdTier` on these services | an HTTP client with TLS: a minute of compiling |
//! | `object-https` | no | the client of these services | enabled by them; rustls with ring |
//! | `simulation` | no | `SegmentColdTier::open_simulated`, for tests on the simulated machine of greenwave-segment | the crate `corosensei` |
//! | `conformance` | no | the module `conformance`: tests that every cold tier must pass | none |
//!
//! # Errors
//!
//! An [`Error`] names the operation that failed. A put rejects contents that exceed the size limit
//! of the cold tier. If the cold tier fails, nothing is lost: contents that it rejects stay
//! readable in memory, the others are written, and the next call tries again. Memory may exceed its
//! budget meanwhile. When a disk budget is used up, removals and a [`Store::sweep`] can still free
//! space. Corrupt contents are never returned; they count as missing and in
//! [`StoreStats::corrupt_blobs`].

#![cfg_attr(docsrs, feature(doc_cfg))]

mod attempts;
mod blob;
mod cold;
#[cfg(all(doc, feature = "segment"))]
pub mod coming_from_cacache;
#[cfg(feature = "conformance")]
pub mod conformance;
mod diff;
mod error;
mod memory;
mod options;
mod reclaim;
mod record_codec;
#[cfg(feature = "segment")]
mod sketch;
mod snapshot;
mod stats;
mod store;

pub use attempts::{
    Attempt, AttemptFigures, AttemptOutcome, AttemptSummary, Attempts, NewAttempt, Transcript,
};
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
