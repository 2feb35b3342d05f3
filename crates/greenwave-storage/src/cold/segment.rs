//! The default cold tier, on the segment log: compressed, checksummed, crash-safe, shared between processes.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_segment::{Compression, Log, Nowait, WhenFull};

use super::Cold;
use crate::{BoxError, ColdStats, Error};

/// Compaction is looked into when this share of the disk bytes is garbage.
const GARBAGE_PERCENT_MIN: u64 = 50;
/// And not for less than this.
const GARBAGE_BYTES_MIN: u64 = 16 << 20;

/// How a [`SegmentCold`] keeps contents.
#[derive(Debug, Clone, Copy)]
pub struct SegmentOptions {
    /// What is tried on each value; stored raw when that gains under 10 %. Default: zstd level 1.
    pub compression: Compression,
    /// Most bytes on disk; writes beyond fail. `None`, the default, is no limit.
    pub disk_bytes_max: Option<u64>,
    /// Size of a segment file, 4 KiB or more. Default 32 MiB.
    pub segment_bytes_max: u64,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Zstd { level: 1 },
            disk_bytes_max: None,
            segment_bytes_max: 32 << 20,
        }
    }
}

/// Keeps contents in a directory, on [`greenwave_segment`].
#[derive(Debug, Clone)]
pub struct SegmentCold {
    log: Arc<Log>,
    codec: String,
}

impl SegmentCold {
    /// Opens the directory, or creates it with mode 0700. Blocks for as long as the recovery of what a crash left takes.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`], with the [`greenwave_segment::Error`] as its source.
    pub fn open(dir: impl AsRef<Path>, options: SegmentOptions) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let SegmentOptions { compression, disk_bytes_max, segment_bytes_max } = options;
        let codec = match compression {
            Compression::None => "none".to_owned(),
            Compression::Zstd { level } => format!("zstd {level}"),
        };
        let options = greenwave_segment::Options {
            compression,
            disk_bytes_max,
            segment_bytes_max,
            when_full: WhenFull::Refuse,
            ..Default::default()
        };
        let log =
            Log::open(dir, options).map_err(|e| Error::cold(format!("open {}", dir.display()))(e.into()))?;
        Ok(Self { log: Arc::new(log), codec })
    }

    /// Runs what may wait for the disk where waiting is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Log) -> Result<T, greenwave_segment::Error> + Send + 'static,
    ) -> Result<T, BoxError> {
        let log = self.log.clone();
        let result = tokio::task::spawn_blocking(move || work(&log)).await;
        Ok(result.map_err(|_| Error::Shutdown)??)
    }

    fn mostly_garbage(&self) -> bool {
        let stats = self.log.stats();
        let garbage = stats.disk_bytes.saturating_sub(stats.live_bytes);
        garbage > GARBAGE_BYTES_MIN && garbage * 100 > stats.disk_bytes * GARBAGE_PERCENT_MIN
    }
}

#[async_trait]
impl Cold for SegmentCold {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        // What the page cache holds comes back in a microsecond; a trip to the blocking pool alone costs ten.
        if let Nowait::Ready(value) = self.log.get_nowait(key) {
            return Ok(value);
        }
        let key = key.to_vec();
        self.blocking(move |log| log.get(&key)).await
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        self.blocking(move |log| keys.iter().map(|key| log.get(key)).collect()).await
    }

    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        Ok(keys.iter().map(|key| self.log.contains(key)).collect())
    }

    async fn put_many(&self, entries: Vec<(Bytes, Bytes)>) -> Result<(), BoxError> {
        self.blocking(move |log| entries.iter().try_for_each(|(key, value)| log.put(key, value))).await
    }

    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        self.blocking(move |log| keys.iter().try_for_each(|key| log.remove(key).map(drop))).await
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        let prefix = prefix.to_vec();
        self.blocking(move |log| Ok(log.keys_with_prefix(&prefix).into_iter().map(Bytes::from).collect()))
            .await
    }

    async fn flush(&self) -> Result<(), BoxError> {
        self.blocking(Log::flush).await
    }

    async fn close(&self) -> Result<(), BoxError> {
        let compact = self.mostly_garbage();
        self.blocking(move |log| if compact { log.compact().map(drop) } else { Ok(()) }).await?;
        self.flush().await
    }

    fn stats(&self) -> ColdStats {
        let stats = self.log.stats();
        ColdStats {
            entries: Some(stats.entries),
            stored_bytes: Some(stats.stored_bytes),
            raw_bytes: Some(stats.raw_bytes),
            disk_bytes: Some(stats.disk_bytes),
            codec: self.codec.clone(),
        }
    }
}
