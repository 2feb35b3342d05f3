//! Metadata of workspaces that discovery has read, for the build that follows in the same run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use greenwave_inputs::{CLOCK_TICK, FileStamp, now_ns};
use parking_lot::Mutex;

use super::config::CargoConfig;
use super::metadata::Metadata;
use crate::Environment;
use crate::run::isolation::cargo_home;

/// Maximum age of metadata in nanoseconds. Stamps of files do not show that a member was added.
const AGE_NS_MAX: i64 = 30_000_000_000;

/// Metadata by the directory of its workspace, each with the time at which it was requested.
#[derive(Debug, Default)]
pub(super) struct KnownMetadata(Mutex<HashMap<PathBuf, (i64, Metadata)>>);

impl KnownMetadata {
    /// Adds the metadata of a workspace, which was requested at `began`, in nanoseconds since the
    /// Unix epoch.
    pub(super) fn put(&self, directory: PathBuf, began: i64, metadata: Metadata) {
        self.0.lock().insert(directory, (began, metadata));
    }

    /// Returns whether a directory is the root of a workspace with metadata from discovery.
    pub(super) fn is_root(&self, directory: &Path) -> bool {
        self.0.lock().get(directory).is_some_and(|(_, metadata)| metadata.workspace_root == directory)
    }

    /// Removes the metadata of a workspace. Returns it if no manifest and no setting has changed
    /// since it was requested.
    pub(super) fn take(&self, directory: &Path, environment: &Environment) -> Option<Metadata> {
        let (began, metadata) = self.0.lock().remove(directory)?;
        let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(0);
        let is_older = |path: &Path| match path.symlink_metadata() {
            Ok(found) => {
                let stamp = FileStamp::from_metadata(&found);
                !found.is_symlink() && stamp.modified.max(stamp.changed) < began.saturating_sub(tick)
            }
            Err(_) => false,
        };
        let manifests = metadata.packages.iter().map(|package| package.manifest_path.as_path());
        let root = metadata.workspace_root.join("Cargo.toml");
        let config = CargoConfig::read(directory, cargo_home(environment).as_deref());
        let mut all = manifests.chain([root.as_path()]).chain(config.paths());
        let is_young = now_ns().saturating_sub(began) < AGE_NS_MAX;
        let is_unchanged = is_young && all.all(is_older);
        drop(all);
        is_unchanged.then_some(metadata)
    }
}
