//! A backend in a directory, on the segment log: checksummed, crash-safe, bounded, and shared
//! between processes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_segment::{Compression, LoadIndex, Log, Nowait, WhenFull};

use super::{Backend, Capabilities};
use crate::{BoxError, Error, Key};

/// Maximum size of a value.
const VALUE_BYTES_MAX: u32 = 64 << 20;

/// Configuration of a [`DiskBackend`].
#[derive(Debug, Clone, Copy)]
pub struct DiskOptions {
    /// Maximum disk usage in bytes, over all processes, at least 16 KiB. The oldest results are
    /// removed first. `None` means no limit. Default: 1 GiB.
    pub disk_bytes_max: Option<u64>,
    /// Whether results are compressed (zstd level 1). Default: true.
    pub compress: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { disk_bytes_max: Some(1 << 30), compress: true }
    }
}

/// Stores results in a directory, on [`greenwave_segment`]. Every read first picks up the changes
/// of other processes, which takes one or two microseconds without any.
#[derive(Debug, Clone)]
pub struct DiskBackend {
    log: Arc<Log>,
    /// Whether a removal found nothing to remove, because another process, or this one before it
    /// opened the directory again, may have removed the key without making that durable.
    relies_on_others: Arc<AtomicBool>,
    /// Whether blocking work runs on the calling thread, because a simulated process has only one.
    in_place: bool,
}

impl DiskBackend {
    /// Opens a directory, or creates it with mode 0700. Blocks while it recovers from a crash.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if an option is out of range, and [`Error::Backend`] with
    /// the [`greenwave_segment::Error`] as its source.
    pub fn open(dir: impl AsRef<Path>, options: DiskOptions) -> Result<Self, Error> {
        Self::from_log(Log::open(&dir, options.log_options()), dir.as_ref(), false)
    }

    /// Like [`open`](Self::open), for a process of a simulated machine. Needs no runtime, because
    /// all work runs on the calling thread.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`open`](Self::open).
    #[cfg(feature = "simulation")]
    pub fn open_simulated(
        process: &greenwave_segment::simulation::Process,
        dir: impl AsRef<Path>,
        options: DiskOptions,
    ) -> Result<Self, Error> {
        use greenwave_segment::simulation::clock;
        let options = greenwave_segment::Options { clock, segment_bytes_max: 4096, ..options.log_options() };
        Self::from_log(Log::open_simulated(process, &dir, options), dir.as_ref(), true)
    }

    fn from_log(
        log: Result<Log, greenwave_segment::Error>,
        dir: &Path,
        in_place: bool,
    ) -> Result<Self, Error> {
        let log = log.map_err(|error| match error {
            greenwave_segment::Error::Option { option, value, accepted: expected } => {
                Error::InvalidOption { option, value, expected }
            }
            error => Error::backend(format!("open {}", dir.display()))(error.into()),
        })?;
        Ok(Self { log: Arc::new(log), relies_on_others: Arc::default(), in_place })
    }

    /// Returns a hash of the directory's state, without opening it. The hash stays the same as long
    /// as no process writes.
    ///
    /// If it was the same before a backend was opened, after an entry was read, and again later,
    /// then a later read returns the same entry.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Backend`] with the [`greenwave_segment::Error`] as its source.
    pub fn fingerprint(dir: impl AsRef<Path>) -> Result<[u8; 32], Error> {
        let dir = dir.as_ref();
        let fingerprint = Log::fingerprint(dir)
            .map_err(|e| Error::backend(format!("fingerprint {}", dir.display()))(e.into()))?;
        Ok(*blake3::hash(&fingerprint).as_bytes())
    }

    /// Returns whether a directory holds results, without opening or changing it.
    pub fn exists(dir: impl AsRef<Path>) -> bool {
        Log::exists(dir)
    }

    /// Returns the statistics of the segment log. The number of entries is an upper bound if
    /// `unread_segments` is not 0.
    pub fn stats(&self) -> greenwave_segment::Stats {
        self.log.stats()
    }

    /// Runs work that may wait for the disk on the blocking pool.
    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Log) -> Result<T, greenwave_segment::Error> + Send + 'static,
    ) -> Result<T, BoxError> {
        if self.in_place {
            return Ok(work(&self.log)?);
        }
        let log = self.log.clone();
        let result = tokio::task::spawn_blocking(move || work(&log)).await;
        Ok(result.map_err(|_| Error::Shutdown)??)
    }
}

impl DiskOptions {
    fn log_options(&self) -> greenwave_segment::Options {
        greenwave_segment::Options {
            compression: if self.compress { Compression::Zstd { level: 1 } } else { Compression::None },
            disk_bytes_max: self.disk_bytes_max,
            when_full: WhenFull::DropOldest,
            segment_bytes_max: 16 << 20,
            value_bytes_max: VALUE_BYTES_MAX,
            // Most processes read a few results of many.
            load_index: LoadIndex::OnDemand,
            ..Default::default()
        }
    }
}

#[async_trait]
impl Backend for DiskBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        // A value in the page cache is returned within a microsecond. A round trip to the blocking
        // pool alone costs ten.
        if self.log.is_up_to_date()
            && let Nowait::Ready(value) = self.log.get_nowait(key.as_bytes())
        {
            return Ok(value);
        }
        let key = *key;
        self.run_blocking(move |log| log.refresh_if_stale().and_then(|_| log.get(key.as_bytes()))).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        let keys = keys.to_vec();
        let work = move |log: &Log| {
            log.refresh_if_stale()?;
            keys.iter().map(|key| log.get(key.as_bytes())).collect()
        };
        self.run_blocking(work).await
    }

    async fn put(&self, key: &Key, value: Bytes, _ttl: Option<Duration>) -> Result<(), BoxError> {
        let key = *key;
        let work = move |log: &Log| {
            // Refreshes first, so that this write supersedes those of other processes even if their
            // clocks are ahead.
            log.refresh_if_stale()?;
            log.put(key.as_bytes(), &value)
        };
        self.run_blocking(work).await
    }

    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        let key = *key;
        let relies_on_others = self.relies_on_others.clone();
        let work = move |log: &Log| {
            // Refreshes first, because another process may have written the key.
            log.refresh_if_stale()?;
            if !log.remove(key.as_bytes())? {
                relies_on_others.store(true, Ordering::Release);
            }
            Ok(())
        };
        self.run_blocking(work).await
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        let work = |log: &Log| {
            log.load_index()?;
            log.refresh()?;
            Ok(log.keys_with_prefix(b""))
        };
        let keys = self.run_blocking(work).await?;
        Ok(keys.into_iter().filter_map(|key| Some(Key::from_bytes(key.try_into().ok()?))).collect())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        let relies_on_others = self.relies_on_others.clone();
        let work = move |log: &Log| {
            if !relies_on_others.swap(false, Ordering::AcqRel) {
                return log.flush();
            }
            // After a failure, the next flush must do the same.
            log.flush_shared().inspect_err(|_| relies_on_others.store(true, Ordering::Release))
        };
        self.run_blocking(work).await
    }

    async fn close(&self) -> Result<(), BoxError> {
        self.run_blocking(|log| log.compact_if_due().map(drop)).await?;
        self.flush().await
    }

    fn capabilities(&self) -> Capabilities {
        let value_bytes_max = Some(u64::from(VALUE_BYTES_MAX));
        Capabilities { list: true, ttl: false, shared: true, durable: true, value_bytes_max }
    }
}
