//! The state of a project's files: which files there are, their contents, and whether one has
//! changed.
//!
//! A [`Manifest`] lists the files that an [`InputSpec`] selects, with a content hash of each. Its
//! digest is a cache key of everything that the files determine.
//!
//! ```
//! use std::path::Path;
//!
//! use greenwave_inputs::{InputSpec, Manifest};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let project = directory.path();
//! std::fs::write(project.join("main.c"), "int main(void) { return 0; }")?;
//! std::fs::write(project.join("notes.txt"), "draft")?;
//! let spec = InputSpec { inputs: vec!["*.c".into()], ..InputSpec::default() };
//! let before = Manifest::read(project, &spec)?;
//!
//! std::fs::write(project.join("notes.txt"), "final")?;
//! assert_eq!(before.digest(), Manifest::read(project, &spec)?.digest());
//!
//! std::fs::write(project.join("main.c"), "int main(void) { return 1; }")?;
//! let after = Manifest::read(project, &spec)?;
//! assert_ne!(before.digest(), after.digest());
//! assert_eq!(before.first_touched(&after), Some(Path::new("main.c")));
//! # Ok(())
//! # }
//! ```
//!
//! # Repeated manifests
//!
//! [`ProjectFiles`] takes a [`Snapshot`] of a project as often as needed and avoids repeated work.
//! A [`StatCache`] holds content hashes by size, inode and timestamps ([`FileStamp`]), so that
//! unchanged files are not read. A [`DirCache`] holds the listing, so that unchanged directories
//! are not listed. Both ignore racy timestamps, in the sense of git.
//!
//! [`PathStates`] reads the states of single paths inside and outside the project, such as the
//! [`DiscoveredDeps`] that a trace of system calls has found.
//!
//! # State in a project
//!
//! The caches of a project are stored in its directory, which may be a clone of somebody else's
//! repository. Their files are sealed with a [`UserKey`]; a file without a valid [`StateSeal`]
//! counts as missing.
//!
//! # Errors
//!
//! [`Error`] names the pattern, file or directory. Damaged cache files are not errors: they count
//! as empty.
//!
//! # Platforms
//!
//! Unix only.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod codec;
mod content_hashes;
mod creation;
mod dir_cache;
mod discovered_deps;
mod error;
mod git_index;
mod loaded_program;
mod maintained;
mod manifest;
mod memory_devices;
mod path_states;
mod project_files;
mod project_tree;
mod seal;
mod selection;
mod snapshot;
mod stamp;
mod stat_cache;
pub mod text;
mod walk;

pub use content_hashes::{ContentHashes, SharedHashes};
pub use dir_cache::{DirCache, DurableDirectories, list_files_durably};
pub use discovered_deps::{AccessKind, DiscoveredDeps};
pub use error::Error;
pub use maintained::MaintainedFiles;
pub use manifest::{EntryKind, Manifest, ManifestEntry, ManifestLine, hash_file};
pub use path_states::{ObjectExists, ObservedStates, PathState, PathStates};
pub use project_files::ProjectFiles;
pub use project_tree::{ProjectTree, tree_path};
pub use seal::{SealedContent, StateSeal, UserKey};
pub use selection::{InputSpec, Selection, check_pattern};
pub use snapshot::{InputSnapshot, Snapshot};
pub use stamp::{CLOCK_TICK, FileStamp, now_ms, now_ns};
pub use stat_cache::StatCache;
pub use walk::{ALWAYS_EXCLUDED, FoundFile, is_cache_directory, list_files};
