//! The calls of cacache and object_store, and their counterparts in this crate.
//!
//! ```
//! use std::sync::Arc;
//! use greenwave_storage::{SegmentColdTier, SegmentOptions, Store, StoreOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let cold = SegmentColdTier::open(dir.path().join("cache"), SegmentOptions::default())?;
//! let store = Store::open(StoreOptions::default(), Arc::new(cold))?;
//!
//! // cacache: let integrity = cacache::write(&dir, "report", text).await?;
//! let id = store.put("report", "all green".into()).await?;
//! // cacache: let text = cacache::read(&dir, "report").await?;
//! assert_eq!(store.get("report").await?.as_deref(), Some(&b"all green"[..]));
//! // cacache: let text = cacache::read_hash(&dir, &integrity).await?;
//! assert!(store.get_blob(&id).await?.is_some());
//! store.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | cacache | object_store | here |
//! | --- | --- | --- |
//! | `write`, `read` | `put`, `get` | [`Store::put`], [`Store::get`] |
//! | `write_hash`, `read_hash` | none | [`Store::put_blob`], [`Store::get_blob`]; the hash is BLAKE3 |
//! | `Integrity` | `ETag` | [`BlobId`] |
//! | `metadata` | `head` | [`Store::resolve`] returns the id of a name; there is no other metadata |
//! | `list_sync` | `list` | [`Store::list`], by prefix |
//! | `remove`, `remove_hash` | `delete` | [`Store::remove`]; [`Store::sweep`] removes contents that no name has |
//! | files in a directory | S3, GCS, Azure, local, memory | a [`ColdTier`]: [`SegmentColdTier`], `ObjectColdTier` (feature `object`) with the same services, [`MemoryColdTier`], or yours |
//! | none | a copy of a version's `ETag` | [`Store::put_with_base`] stores a version as its difference from another one; [`Attempts`] and [`Snapshot`] are versions of sets of files |
//! | no sync | those of the service | [`Store::flush`]; [`Store::close`] at the end |
//!
//! Losses: contents are read and written whole, so each must fit in memory; there are no
//! conditional puts, no metadata of your own and no links to files outside of the store. In return,
//! contents that are read often stay in memory within a budget, equal contents are stored once, and
//! similar ones as differences.
//!
//! [`Store::put`]: crate::Store::put
//! [`Store::put_with_base`]: crate::Store::put_with_base
//! [`Store::put_blob`]: crate::Store::put_blob
//! [`Store::get`]: crate::Store::get
//! [`Store::get_blob`]: crate::Store::get_blob
//! [`Store::resolve`]: crate::Store::resolve
//! [`Store::list`]: crate::Store::list
//! [`Store::remove`]: crate::Store::remove
//! [`Store::sweep`]: crate::Store::sweep
//! [`Store::flush`]: crate::Store::flush
//! [`Store::close`]: crate::Store::close
//! [`BlobId`]: crate::BlobId
//! [`ColdTier`]: crate::ColdTier
//! [`MemoryColdTier`]: crate::MemoryColdTier
//! [`SegmentColdTier`]: crate::SegmentColdTier
//! [`Attempts`]: crate::Attempts
//! [`Snapshot`]: crate::Snapshot
