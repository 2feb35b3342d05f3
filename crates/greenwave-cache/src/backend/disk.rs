//! Results in a directory, on the segment log: checksummed, crash-safe, bounded, shared between processes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_segment::{Compression, Log, Nowait, WhenFull};

use super::{Backend, Capabilities};
use crate::{BoxError, Error, Key};

/// Largest result that is kept.
const VALUE_BYTES_MAX: u32 = 64 << 20;

/// How a [`DiskBackend`] keeps results.
#[derive(Debug, Clone, Copy)]
pub struct DiskOptions {
    /// Most bytes on disk, those of all processes together; the oldest results go first. `None` is no limit. Default 1 GiB.
    pub disk_bytes_max: Option<u64>,
    /// Whether results are compressed (zstd level 1). Default on.
    pub compress: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { disk_bytes_max: Some(1 << 30), compress: true }
    }
}

/// Keeps results in a directory, on [`greenwave_segment`]. Every read looks for what other processes put and removed meanwhile, which
/// takes a microsecond or two where there is nothing.
#[derive(Debug, Clone)]
pub struct DiskBackend {
    log: Arc<Log>,
    /// Whether work that may wait for the disk is done in place: a simulated process has one thread.
    in_place: bool,
}

impl DiskBackend {
    /// Opens the directory, or creates it with mode 0700. Blocks for as long as the recovery of what a crash left takes.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`], with the [`greenwave_segment::Error`] as its source.
    pub fn open(dir: impl AsRef<Path>, options: DiskOptions) -> Result<Self, Error> {
        Self::on(Log::open(&dir, options.of_the_log()), dir.as_ref(), false)
    }

    /// Like [`open`](Self::open), for a process of a simulated machine. Everything is done in place, without a runtime.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    #[cfg(feature = "simulation")]
    pub fn open_simulated(
        process: &greenwave_segment::simulation::Process,
        dir: impl AsRef<Path>,
        options: DiskOptions,
    ) -> Result<Self, Error> {
        use greenwave_segment::simulation::clock;
        let options = greenwave_segment::Options { clock, segment_bytes_max: 4096, ..options.of_the_log() };
        Self::on(Log::open_simulated(process, &dir, options), dir.as_ref(), true)
    }

    fn on(log: Result<Log, greenwave_segment::Error>, dir: &Path, in_place: bool) -> Result<Self, Error> {
        let log = log.map_err(|e| Error::backend(format!("open {}", dir.display()))(e.into()))?;
        Ok(Self { log: Arc::new(log), in_place })
    }

    /// A hash of what the directory holds, without opening it: the same for as long as no process puts or removes anything. If it is the same
    /// before a backend is opened and after it was read, and later still, then reading it later gives the same.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`], with the [`greenwave_segment::Error`] as its source.
    pub fn fingerprint(dir: impl AsRef<Path>) -> Result<[u8; 32], Error> {
        let dir = dir.as_ref();
        let standing =
            Log::standing(dir).map_err(|e| Error::backend(format!("look at {}", dir.display()))(e.into()))?;
        Ok(*blake3::hash(&standing).as_bytes())
    }

    /// What the log below holds and has done.
    pub fn stats(&self) -> greenwave_segment::Stats {
        self.log.stats()
    }

    /// Runs what may wait for the disk where waiting is allowed.
    async fn blocking<T: Send + 'static>(
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
    fn of_the_log(&self) -> greenwave_segment::Options {
        greenwave_segment::Options {
            compression: if self.compress { Compression::Zstd { level: 1 } } else { Compression::None },
            disk_bytes_max: self.disk_bytes_max,
            when_full: WhenFull::DropOldest,
            segment_bytes_max: 16 << 20,
            value_bytes_max: VALUE_BYTES_MAX,
            ..Default::default()
        }
    }
}

#[async_trait]
impl Backend for DiskBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        // What the page cache holds comes back in a microsecond; a trip to the blocking pool alone costs ten.
        if self.log.is_fresh()
            && let Nowait::Ready(value) = self.log.get_nowait(key.as_bytes())
        {
            return Ok(value);
        }
        let key = *key;
        self.blocking(move |log| log.refresh_if_stale().and_then(|_| log.get(key.as_bytes()))).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        let keys = keys.to_vec();
        let work = move |log: &Log| {
            log.refresh_if_stale()?;
            keys.iter().map(|key| log.get(key.as_bytes())).collect()
        };
        self.blocking(work).await
    }

    async fn put(&self, key: &Key, value: Bytes, _ttl: Option<Duration>) -> Result<(), BoxError> {
        let key = *key;
        let work = move |log: &Log| {
            // So that this counts over what others have put, even where their clocks are ahead.
            log.refresh_if_stale()?;
            log.put(key.as_bytes(), &value)
        };
        self.blocking(work).await
    }

    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        let key = *key;
        let work = move |log: &Log| {
            // Another process may have put what we do not know of.
            log.refresh_if_stale()?;
            log.remove(key.as_bytes()).map(drop)
        };
        self.blocking(work).await
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        let keys = self.blocking(|log| log.refresh().map(|()| log.keys_with_prefix(b""))).await?;
        Ok(keys.into_iter().filter_map(|key| Some(Key::from_bytes(key.try_into().ok()?))).collect())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        self.blocking(Log::flush).await
    }

    async fn close(&self) -> Result<(), BoxError> {
        self.blocking(|log| log.compact().and_then(|_| log.flush())).await
    }

    fn capabilities(&self) -> Capabilities {
        let value_bytes_max = Some(u64::from(VALUE_BYTES_MAX));
        Capabilities { list: true, ttl: false, shared: true, durable: true, value_bytes_max }
    }
}
