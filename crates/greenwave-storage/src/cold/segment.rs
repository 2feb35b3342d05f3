//! The default cold tier, on the segment log: compressed, checksummed, crash-safe, shared between processes.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_segment::{Compression, Log, Nowait, WhenFull};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Cold, ColdEntry};
use crate::sketch::{Sketch, Sketches};
use crate::{BoxError, ColdStats, Error};

/// Compaction begins when this share of the disk bytes is garbage: each byte given back then costs at most one written.
const GARBAGE_PERCENT_MIN: u64 = 50;
/// And not for less than this.
const GARBAGE_BYTES_MIN: u64 = 16 << 20;
/// Contents that similar ones are looked for among: the last ones put. At some 400 bytes each.
const SKETCHES_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// How a [`SegmentCold`] keeps contents.
#[derive(Debug, Clone, Copy)]
pub struct SegmentOptions {
    /// What is tried on each value; stored raw when that gains under 10 %. Default: zstd level 1.
    pub compression: Compression,
    /// Most bytes on disk; writes beyond fail. `None`, the default, is no limit.
    pub disk_bytes_max: Option<u64>,
    /// Size of a segment file, 4 KiB or more. Default 32 MiB.
    pub segment_bytes_max: u64,
    /// Contents that resemble others are stored as differences, if they are compressed at all. At most this many have to be undone to read
    /// one: 0, for no differences, to 200; default 16. Each costs about as much time as decompressing the contents, 10 us for 16 KiB.
    pub differences_max: u8,
    /// Look for contents that resemble new ones, where the store knows of none, among the last 4096 put. Costs 1 ns per byte put and up to
    /// 2 MiB of memory. Default on.
    pub find_similar: bool,
    /// Calls that wait for the disk at once, each on a thread of tokio's blocking pool; 1 or more, default 8. Others wait for their turn.
    pub blocking_max: usize,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Zstd { level: 1 },
            disk_bytes_max: None,
            segment_bytes_max: 32 << 20,
            differences_max: 16,
            find_similar: true,
            blocking_max: 8,
        }
    }
}

/// Keeps contents in a directory, on [`greenwave_segment`].
#[derive(Debug, Clone)]
pub struct SegmentCold {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    codec: String,
    /// `None` where differences are not wanted.
    sketches: Option<Mutex<Sketches>>,
    blocking: Arc<Semaphore>,
    compacting: AtomicBool,
}

impl SegmentCold {
    /// Opens the directory, or creates it with mode 0700. Blocks for as long as the recovery of what a crash left takes.
    ///
    /// # Errors
    ///
    /// [`Error::Option`]; [`Error::Cold`], with the [`greenwave_segment::Error`] as its source.
    pub fn open(dir: impl AsRef<Path>, options: SegmentOptions) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let SegmentOptions { compression, disk_bytes_max, segment_bytes_max, .. } = options;
        if options.blocking_max == 0 {
            let (option, value) = ("blocking_max", "0".to_owned());
            return Err(Error::Option { option, value, accepted: "1 or more" });
        }
        let codec = match compression {
            Compression::None => "none".to_owned(),
            Compression::Zstd { level } => format!("zstd {level}"),
        };
        let differences = options.differences_max > 0 && compression != Compression::None;
        let find_similar = differences && options.find_similar;
        let log_options = greenwave_segment::Options {
            compression,
            disk_bytes_max,
            segment_bytes_max,
            when_full: WhenFull::Refuse,
            chain_depth_max: options.differences_max,
            ..Default::default()
        };
        let log = Log::open(dir, log_options)
            .map_err(|e| Error::cold(format!("open {}", dir.display()))(e.into()))?;
        let inner = Inner {
            log,
            codec,
            sketches: find_similar.then(|| Mutex::new(Sketches::new(SKETCHES_MAX))),
            blocking: Arc::new(Semaphore::new(options.blocking_max.min(Semaphore::MAX_PERMITS))),
            compacting: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Trains a dictionary of about 64 KiB on what is stored, for what will be: worth it for many small contents that are alike. Returns
    /// whether there was enough to learn from. Takes seconds.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`], with the [`greenwave_segment::Error`] as its source.
    pub async fn train_dictionary(&self) -> Result<bool, Error> {
        let trained = self.blocking(|inner| inner.log.train_dictionary(64 << 10)).await;
        trained.map_err(Error::cold("train a dictionary"))
    }

    /// Gives back what is dead on the disk, in segments that are full and at least half dead. Happens by itself, in the background, when half of
    /// the disk bytes and 16 MiB are dead.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`], with the [`greenwave_segment::Error`] as its source.
    pub async fn compact(&self) -> Result<(), Error> {
        let compacted = self.blocking(|inner| inner.log.compact().map(drop)).await;
        compacted.map_err(Error::cold("compact"))
    }

    /// Runs what may wait for the disk where waiting is allowed, when it is its turn.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, greenwave_segment::Error> + Send + 'static,
    ) -> Result<T, BoxError> {
        let turn = self.inner.blocking.clone().acquire_owned().await?;
        let inner = self.inner.clone();
        let result = tokio::task::spawn_blocking(move || {
            // Held by the work and not by whoever waits for it, who may give up.
            let _turn = turn;
            work(&inner)
        });
        Ok(result.await.map_err(|_| Error::Shutdown)??)
    }

    /// Compacts in the background, if that is worth it and not being done.
    fn compact_if_due(&self) {
        if !self.inner.mostly_garbage() || self.inner.compacting.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = inner.log.compact() {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot compact");
            }
            inner.compacting.store(false, Ordering::Release);
        });
    }
}

impl Inner {
    fn put(&self, entry: &ColdEntry) -> Result<(), greenwave_segment::Error> {
        let ColdEntry { key, value, like } = entry;
        let known = like.as_ref().filter(|like| self.log.contains(like));
        let (Some(sketches), None) = (&self.sketches, known) else {
            return self.log.put_like(key, value, known.map_or(&[], |like| like));
        };
        let Some(sketch) = Sketch::of(value) else { return self.log.put(key, value) };
        let similar = sketches.lock().find(&sketch);
        self.log.put_like(key, value, similar.as_deref().unwrap_or_default())?;
        sketches.lock().insert(&sketch, key);
        Ok(())
    }

    fn mostly_garbage(&self) -> bool {
        let stats = self.log.stats();
        let garbage = stats.disk_bytes.saturating_sub(stats.index_bytes + stats.live_bytes);
        garbage > GARBAGE_BYTES_MIN && garbage * 100 > stats.disk_bytes * GARBAGE_PERCENT_MIN
    }
}

#[async_trait]
impl Cold for SegmentCold {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        // What the page cache holds comes back in a microsecond; a trip to the blocking pool alone costs ten.
        if let Nowait::Ready(value) = self.inner.log.get_nowait(key) {
            return Ok(value);
        }
        let key = key.to_vec();
        self.blocking(move |inner| inner.log.get(&key)).await
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        // Even out of the page cache, many take longer than a task may.
        self.blocking(move |inner| keys.iter().map(|key| inner.log.get(key)).collect()).await
    }

    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        Ok(keys.iter().map(|key| self.inner.log.contains(key)).collect())
    }

    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        self.blocking(move |inner| entries.iter().try_for_each(|entry| inner.put(entry))).await?;
        self.compact_if_due();
        Ok(())
    }

    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        self.blocking(move |inner| {
            let keys: Vec<&[u8]> = keys.iter().map(Bytes::as_ref).collect();
            inner.log.remove_many(&keys).map(drop)
        })
        .await?;
        self.compact_if_due();
        Ok(())
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        let prefix = prefix.to_vec();
        let keys = self.blocking(move |inner| Ok(inner.log.keys_with_prefix(&prefix))).await?;
        Ok(keys.into_iter().map(Bytes::from).collect())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        self.blocking(|inner| inner.log.flush()).await
    }

    async fn close(&self) -> Result<(), BoxError> {
        self.blocking(|inner| if inner.mostly_garbage() { inner.log.compact().map(drop) } else { Ok(()) })
            .await?;
        self.flush().await
    }

    fn stats(&self) -> ColdStats {
        let stats = self.inner.log.stats();
        ColdStats {
            entries: Some(stats.entries),
            stored_bytes: Some(stats.stored_bytes),
            raw_bytes: Some(stats.raw_bytes),
            disk_bytes: Some(stats.disk_bytes),
            codec: self.inner.codec.clone(),
        }
    }
}
