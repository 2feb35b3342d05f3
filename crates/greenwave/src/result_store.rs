//! The store of test results: a directory that all worktrees of a user share, and optionally a
//! server that a team shares.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_cache::{
    BoxError, DiskBackend, DiskOptions, FileLeases, Key, Leases, Tier, Tiered, TieredOptions,
};
use greenwave_dir::Dir;
use greenwave_testing::SCHEMA;

use crate::boxed::boxed;
use crate::result_keys::ResultKeys;
use crate::settings::TestingSettings;

#[cfg_attr(not(feature = "remote"), path = "result_store/no_remote.rs")]
mod remote;

/// Name of the directory in which ports are locked.
const PORTS: &str = "ports";
/// Name of the directory in which results that are being computed are locked.
const LEASES: &str = "leases";

/// A store of test results, on disk and optionally on a server.
#[derive(Debug)]
pub struct ResultStore {
    directory: PathBuf,
    /// `None` if the directory holds no results and none may be put there.
    disk: Option<DiskBackend>,
    cache: Tiered,
    remote_problem: Option<ResultStoreError>,
}

/// Error of a [`ResultStore`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultStoreError {
    /// The directory of the store cannot be opened.
    #[error("cannot open the test results in {}", path.display())]
    Open {
        /// Directory of the store.
        path: PathBuf,
        /// The cause.
        source: BoxError,
    },
    /// The server's address cannot be used. The address itself may hold a password.
    #[error("cannot use the {scheme} server for test results")]
    Remote {
        /// Scheme of the server's address, such as `redis`.
        scheme: String,
        /// The cause.
        source: BoxError,
    },
    /// The settings name a server, and the feature for it is disabled.
    #[error("cannot use the {scheme} server for test results: the feature `{feature}` is disabled")]
    NoRemote {
        /// Scheme of the server's address, such as `redis`.
        scheme: String,
        /// The feature: `remote`, `remote-objects` or `remote-reapi`.
        feature: &'static str,
    },
    /// The entries of the store cannot be listed or removed.
    #[error("cannot {operation} the test results in {}", path.display())]
    Entries {
        /// The operation, as a verb.
        operation: &'static str,
        /// Directory of the store.
        path: PathBuf,
        /// The cause.
        source: BoxError,
    },
}

/// Size of a store of test results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResultStoreStats {
    /// Number of entries: results, and the lists of dependencies that lead to them.
    pub entries: usize,
    /// Whether the number of entries is exact. Otherwise it is an upper bound: an entry that was
    /// replaced or removed may count again, because not all keys were read.
    pub is_exact: bool,
    /// Number of damaged entries.
    pub damaged: usize,
    /// Size on disk, in bytes.
    pub disk_bytes: u64,
}

impl ResultStore {
    /// Opens the store in a directory, and the server that the settings name.
    ///
    /// Creates a missing directory with mode 0700. A server that is down is not an error: lookups
    /// on it miss. Neither is an address that cannot be used: [`take_remote_problem`] returns it,
    /// and the store has the directory only.
    ///
    /// # Errors
    /// [`ResultStoreError::Open`].
    ///
    /// [`take_remote_problem`]: Self::take_remote_problem
    pub fn open(
        directory: &Path,
        settings: &TestingSettings,
        keys: &ResultKeys,
    ) -> Result<Self, ResultStoreError> {
        let failed = |source: BoxError| ResultStoreError::Open { path: directory.to_owned(), source };
        let disk_bytes_max = Some(settings.disk_limit);
        let options = DiskOptions { disk_bytes_max, ..DiskOptions::default() };
        // Files in it are opened by their paths.
        let checked = Dir::create(directory, 0o700).and_then(|directory| directory.check_entries());
        checked.map_err(|error| failed(error.into()))?;
        let disk = DiskBackend::open(directory, options).map_err(|error| failed(error.into()))?;
        Self::create_lock_directories(directory).map_err(|error| failed(error.into()))?;
        let leases = FileLeases::open(Self::leases_path(directory)).map_err(|error| failed(error.into()))?;
        Ok(Self::with(directory, Some((disk, leases)), settings, keys))
    }

    fn with(
        directory: &Path,
        disk: Option<(DiskBackend, FileLeases)>,
        settings: &TestingSettings,
        keys: &ResultKeys,
    ) -> Self {
        let (disk, leases) = disk.unzip();
        let tier = |disk: &DiskBackend| Tier::new("disk", Arc::new(disk.clone()));
        let tier = disk.as_ref().map(tier);
        let mut tiers: Vec<Tier> =
            tier.into_iter().map(|tier| Tier { secrets: keys.directory_secrets(), ..tier }).collect();
        let remote_problem = match remote::tiers(settings, keys) {
            Ok(remote) => {
                tiers.extend(remote);
                None
            }
            Err(problem) => Some(problem),
        };
        let options = TieredOptions {
            age_max: Some(settings.ttl),
            leases: leases.map(|leases| Arc::new(leases) as Arc<dyn Leases>),
            ..TieredOptions::new(SCHEMA)
        };
        let cache = Tiered::new(tiers, options);
        Self { directory: directory.to_owned(), disk, cache, remote_problem }
    }

    /// Opens the store like [`open`](Self::open), but creates nothing. If the directory does not
    /// exist or holds no results, the store has the server only.
    ///
    /// A command that only shows something uses it: the settings of a project that somebody has
    /// cloned may name any directory.
    ///
    /// # Errors
    /// [`ResultStoreError::Open`].
    pub fn open_existing(
        directory: &Path,
        settings: &TestingSettings,
        keys: &ResultKeys,
    ) -> Result<Self, ResultStoreError> {
        // Anything else in its place is an error.
        let is_in_the_way = match std::fs::symlink_metadata(directory) {
            Ok(metadata) => !metadata.is_dir(),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        if is_in_the_way || DiskBackend::exists(directory) {
            Self::open(directory, settings, keys)
        } else {
            Ok(Self::with(directory, None, settings, keys))
        }
    }

    /// Returns why the server that the settings name is not used, and leaves `None` behind.
    pub fn take_remote_problem(&mut self) -> Option<ResultStoreError> {
        self.remote_problem.take()
    }

    /// Creates the directories of a store in which runs inside tests lock files. A guard permits
    /// writing only to directories that exist when it is prepared.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create_lock_directories(directory: &Path) -> std::io::Result<()> {
        let directory = Dir::create(directory, 0o700)?;
        for name in [PORTS, LEASES] {
            directory.create_subdirectory(name, 0o700)?;
        }
        Ok(())
    }

    /// Returns a hash of the store's content, which changes with every insertion and removal.
    ///
    /// Does not open the store. Returns `None` if the directory does not exist.
    pub fn fingerprint(directory: &Path) -> Option<[u8; 32]> {
        DiskBackend::fingerprint(directory).ok()
    }

    /// Returns the file that records the ports assigned to tests. Does not open the store.
    pub fn ports_path(directory: &Path) -> PathBuf {
        directory.join(PORTS)
    }

    /// Returns the directory of the locks of results that are being computed.
    pub fn leases_path(directory: &Path) -> PathBuf {
        directory.join(LEASES)
    }

    /// Returns the file in which projects share the hashes of files outside of all projects. `None`
    /// if the store has no directory.
    pub fn files_path(&self) -> Option<PathBuf> {
        self.disk.is_some().then(|| self.directory.join("files"))
    }

    /// Returns the cache, for a test runner.
    pub fn into_cache(self) -> Tiered {
        self.cache
    }

    /// Reads and verifies every entry on disk. Removes damaged entries.
    ///
    /// # Errors
    /// [`ResultStoreError::Entries`] if the entries cannot be listed.
    pub fn verify(&self) -> impl Future<Output = Result<ResultStoreStats, ResultStoreError>> + Send {
        boxed(self.verify_all())
    }

    async fn verify_all(&self) -> Result<ResultStoreStats, ResultStoreError> {
        let keys = self.keys("list").await?;
        let mut entries = 0;
        // In chunks, so that not all entries are in memory at once.
        for keys in keys.chunks(64) {
            entries += self.cache.get_many(keys).await.into_iter().flatten().count();
        }
        let damaged = self.cache.quarantined().len();
        let disk_bytes = self.disk_bytes();
        Ok(ResultStoreStats { entries, is_exact: true, damaged, disk_bytes })
    }

    /// Returns the size of the store when it was opened. Does not read or verify entries.
    pub fn stats(&self) -> ResultStoreStats {
        let Some(disk) = self.disk.as_ref().map(DiskBackend::stats) else {
            return ResultStoreStats { is_exact: true, ..ResultStoreStats::default() };
        };
        ResultStoreStats {
            entries: usize::try_from(disk.entries).unwrap_or(usize::MAX),
            is_exact: disk.unread_segments == 0,
            damaged: 0,
            disk_bytes: disk.disk_bytes,
        }
    }

    /// Removes all entries on disk, and returns their number. Entries on the server expire there.
    ///
    /// # Errors
    /// [`ResultStoreError::Entries`] if the entries cannot be listed or removed.
    pub fn clear(&self) -> impl Future<Output = Result<usize, ResultStoreError>> + Send {
        boxed(self.remove_all())
    }

    async fn remove_all(&self) -> Result<usize, ResultStoreError> {
        use greenwave_cache::Backend;
        let Some(disk) = &self.disk else { return Ok(0) };
        let keys = self.keys("list").await?;
        for key in &keys {
            disk.remove(key).await.map_err(self.failed("clear"))?;
        }
        disk.close().await.map_err(self.failed("clear"))?;
        Ok(keys.len())
    }

    async fn keys(&self, operation: &'static str) -> Result<Vec<Key>, ResultStoreError> {
        use greenwave_cache::Backend;
        let Some(disk) = &self.disk else { return Ok(Vec::new()) };
        disk.list().await.map_err(self.failed(operation))
    }

    fn disk_bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.stats().disk_bytes)
    }

    fn failed(&self, operation: &'static str) -> impl Fn(BoxError) -> ResultStoreError + use<> {
        let path = self.directory.clone();
        move |source| ResultStoreError::Entries { operation, path: path.clone(), source }
    }
}

/// Returns the scheme of a server's address, which unlike the address holds no password.
fn scheme(address: &str) -> String {
    address.split("://").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
