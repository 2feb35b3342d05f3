//! The state of a project's files: which files there are, what they contain, and whether any of them
//! has changed.
//!
//! A [`Manifest`] lists input files with a hash of each. Hashes are cached in a [`StatCache`] by size,
//! inode and timestamps, and a [`DirCache`] avoids listing directories that have not changed. A
//! [`Selection`] decides which files the patterns of an [`InputSpec`] match. [`ProjectFiles`] takes a
//! [`Snapshot`] of a project as often as needed, and [`PathStates`] reads the state of single paths, such
//! as those that a trace of system calls has discovered.

mod codec;
mod dir_cache;
mod error;
mod manifest;
mod observed;
mod selection;
mod snapshot;
mod stamp;
mod stat_cache;
mod walk;

pub use codec::{Reader, bytes, replace, short, shortened};
pub use dir_cache::DirCache;
pub use error::Error;
pub use manifest::{Entry, EntryKind, Manifest, ManifestLine, hash_file};
pub use observed::{AccessKind, DiscoveredDeps, ObjectExists, ObservedStates, PathState, PathStates};
pub use selection::{InputSpec, Selection, check_pattern, is_on_the_way};
pub use snapshot::{InputSnapshot, ProjectFiles, Snapshot};
pub use stamp::{RACY, Stamp, TICK, now, now_ms};
pub use stat_cache::StatCache;
pub use walk::{FoundFile, Listing, NEVER, WalkRoots, is_tagged_cache, list, list_below};
