//! The state of a project's files: which files there are, what they contain, and whether any of them
//! has changed.
//!
//! A [`Manifest`] lists input files with a hash of each. Hashes are cached in a [`StatCache`] by size,
//! inode and timestamps, and a [`DirCache`] avoids listing directories that have not changed. A
//! [`Selection`] decides which files the patterns of an [`InputSpec`] match. [`ProjectFiles`] takes a
//! [`Snapshot`] of a project as often as needed, and [`PathStates`] reads the state of single paths, such
//! as those that a trace of system calls has discovered.

pub mod codec;
mod dir_cache;
mod error;
mod manifest;
mod observed;
mod selection;
mod snapshot;
mod stamp;
mod stat_cache;
pub mod text;
mod walk;

pub use dir_cache::{DirCache, DurableDirectories};
pub use error::Error;
pub use manifest::{Entry, EntryKind, Manifest, ManifestLine, hash_file};
pub use observed::{AccessKind, DiscoveredDeps, ObjectExists, ObservedStates, PathState, PathStates};
pub use selection::{InputSpec, Selection, check_pattern};
pub use snapshot::{InputSnapshot, ProjectFiles, Snapshot};
pub use stamp::{CLOCK_TICK, FileStamp, now_ms, now_ns};
pub use stat_cache::StatCache;
pub use walk::{ALWAYS_EXCLUDED, FoundFile, is_cache_directory, list_files};
