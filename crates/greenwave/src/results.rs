//! Where the results of a project's own tests are kept: a folder that all work trees of a user share, and a server that a team shares. Knows nothing
//! of tests.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_cache::{
    Access, BoxError, DiskBackend, DiskOptions, FileLeases, Key, MemcachedBackend, RedisBackend,
    RemoteOptions, Tier, Tiered, TieredOptions, Writes,
};
use greenwave_testing::SCHEMA;

use crate::profile::TestingSettings;

/// The file of a folder's secret, 32 bytes.
const SECRET: &str = "secret";
/// Writes to a server that may wait.
const QUEUED_MAX: usize = 1024;

/// The results of tests.
#[derive(Debug)]
pub struct ResultStore {
    folder: PathBuf,
    disk: DiskBackend,
    cache: Tiered,
}

/// Why results cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultStoreError {
    /// The folder of results cannot be opened.
    #[error("cannot open the test results in {}", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: BoxError,
    },
    /// The server's address is none.
    #[error("cannot use {address} for test results")]
    Remote {
        /// The address.
        address: String,
        /// Why not.
        source: BoxError,
    },
    /// ResultStore cannot be looked through.
    #[error("cannot {operation} the test results in {}", path.display())]
    Access {
        /// What was attempted.
        operation: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: BoxError,
    },
}

/// What a folder of results holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResultStoreStats {
    /// Entries: results, and what has to be looked at to find one.
    pub entries: usize,
    /// Entries that do not verify.
    pub damaged: usize,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

impl ResultStore {
    /// Opens a folder, which is made with mode 0700 if it is missing, and a server if the settings name one. A server that is down is none.
    ///
    /// # Errors
    /// [`ResultStoreError`].
    pub fn open(folder: &Path, settings: &TestingSettings) -> Result<Self, ResultStoreError> {
        let failed = |source: BoxError| ResultStoreError::Open { path: folder.to_owned(), source };
        let options = DiskOptions { disk_bytes_max: Some(settings.disk_limit), ..DiskOptions::default() };
        let disk = DiskBackend::open(folder, options).map_err(|error| failed(error.into()))?;
        let leases = FileLeases::open(folder.join("leases")).map_err(|error| failed(error.into()))?;
        let mut tiers = vec![Tier::new("disk", Arc::new(disk.clone()))];
        if let Some(tier) = remote(settings)? {
            tiers.push(tier);
        }
        let options = TieredOptions {
            age_max: Some(settings.ttl),
            leases: Some(Arc::new(leases)),
            ..TieredOptions::new(SCHEMA)
        };
        Ok(Self { folder: folder.to_owned(), disk, cache: Tiered::new(tiers, options) })
    }

    /// A hash of what a folder holds, without opening it: another as soon as anything comes or goes. `None` if there is no such folder.
    pub fn fingerprint(folder: &Path) -> Option<[u8; 32]> {
        DiskBackend::standing(folder).ok()
    }

    /// A secret of a folder of results, which whoever may read these may know and nobody else: what it seals was made by somebody who could as well
    /// have put results there. `None` if there is none yet.
    pub fn secret(folder: &Path) -> Option<[u8; 32]> {
        std::fs::read(folder.join(SECRET)).ok()?.try_into().ok()
    }

    /// The same; it is made if there is none. `None` if that is not possible.
    pub fn secret_or_create(folder: &Path) -> Option<[u8; 32]> {
        if let Some(secret) = Self::secret(folder) {
            return Some(secret);
        }
        let mut secret = [0; 32];
        File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut secret)).ok()?;
        // Readable to its owner alone, and never seen in part. Of two that make one at once, the one that came first counts.
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).ok()?;
        file.write_all(&secret).ok()?;
        let _ = file.persist_noclobber(folder.join(SECRET));
        Self::secret(folder)
    }

    /// Where ports are noted that tests have been given, beside the results in a folder, whether these can be opened or not.
    pub fn ports_path(folder: &Path) -> PathBuf {
        folder.join("ports")
    }

    /// Where projects share what they know of files that belong to none of them.
    pub fn files_path(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// The cache, to be used by a runner.
    pub fn into_cache(self) -> Tiered {
        self.cache
    }

    /// Reads every entry of the folder and checks it. What does not verify is removed.
    ///
    /// # Errors
    /// [`ResultStoreError::Access`] if the entries cannot be listed.
    pub async fn verify(&self) -> Result<ResultStoreStats, ResultStoreError> {
        let keys = self.keys("list").await?;
        let mut found = 0;
        // In pieces, so that not all of them are in memory at once.
        for keys in keys.chunks(64) {
            found += self.cache.get_many(keys).await.into_iter().flatten().count();
        }
        let damaged = self.cache.quarantined().len();
        Ok(ResultStoreStats { entries: found, damaged, disk_bytes: self.disk.stats().disk_bytes })
    }

    /// How much there is.
    ///
    /// # Errors
    /// [`ResultStoreError::Access`] if the entries cannot be listed.
    pub async fn stats(&self) -> Result<ResultStoreStats, ResultStoreError> {
        let entries = self.keys("list").await?.len();
        Ok(ResultStoreStats { entries, damaged: 0, disk_bytes: self.disk.stats().disk_bytes })
    }

    /// Forgets everything in the folder; returns how many entries that were. A server forgets in time.
    ///
    /// # Errors
    /// [`ResultStoreError::Access`] if they cannot be removed.
    pub async fn clear(&self) -> Result<usize, ResultStoreError> {
        use greenwave_cache::Backend;
        let keys = self.keys("list").await?;
        for key in &keys {
            self.disk.remove(key).await.map_err(self.failed("clear"))?;
        }
        self.disk.close().await.map_err(self.failed("clear"))?;
        Ok(keys.len())
    }

    async fn keys(&self, operation: &'static str) -> Result<Vec<Key>, ResultStoreError> {
        use greenwave_cache::Backend;
        self.disk.list().await.map_err(self.failed(operation))
    }

    fn failed(&self, operation: &'static str) -> impl Fn(BoxError) -> ResultStoreError + use<> {
        let path = self.folder.clone();
        move |source| ResultStoreError::Access { operation, path: path.clone(), source }
    }
}

fn remote(settings: &TestingSettings) -> Result<Option<Tier>, ResultStoreError> {
    let address = settings.remote.as_str();
    if address.is_empty() {
        return Ok(None);
    }
    let failed = |error: greenwave_cache::Error| ResultStoreError::Remote {
        address: address.to_owned(),
        source: error.into(),
    };
    let options = RemoteOptions {
        prefix: "greenwave-tests:".to_owned(),
        ttl: Some(settings.ttl),
        ..RemoteOptions::default()
    };
    let tier = match address.strip_prefix("memcached://") {
        Some(server) => {
            let backend = MemcachedBackend::new(server.trim_end_matches('/'), options).map_err(failed)?;
            Tier::new("memcached", Arc::new(backend))
        }
        None => Tier::new("redis", Arc::new(RedisBackend::new(address, options).map_err(failed)?)),
    };
    let access = if settings.remote_write { Access::ReadWrite } else { Access::ReadOnly };
    Ok(Some(Tier { access, writes: Writes::Back { queued_max: QUEUED_MAX }, ..tier }))
}
