//! The default cold tier, on the segment log: compressed, checksummed, crash-safe, shared between processes.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_segment::{Batch, Compression, Log, Nowait, WhenFull};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{ColdEntry, ColdTier, SharedColdTier, SharedWrite};
use crate::sketch::{Sketch, Sketches};
use crate::{BoxError, ColdTierStats, Error};

/// Compaction begins when this share of the disk bytes is garbage: each byte given back then costs at most one written.
const GARBAGE_PERCENT_MIN: u64 = 50;
/// And not for less than this.
const GARBAGE_BYTES_MIN: u64 = 16 << 20;
/// Contents that similar ones are looked for among: the last ones put. At some 400 bytes each.
const SKETCHES_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Largest contents.
const VALUE_BYTES_MAX: u32 = 1 << 30;
/// Contents that a write takes together with what is about them, in bytes. More are written before, one by one, and flushed: a
/// batch is held in memory three times while it is written.
const TOGETHER_BYTES_MAX: usize = 64 << 10;
/// How a [`SegmentColdTier`] keeps contents.
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
    pub delta_chain_max: u8,
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
            delta_chain_max: 16,
            find_similar: true,
            blocking_max: 8,
        }
    }
}

/// Keeps contents in a directory, on [`greenwave_segment`]. Several stores may use the directory at once, in one process or in several.
#[derive(Debug, Clone)]
pub struct SegmentColdTier {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    codec: String,
    /// `None` where differences are not wanted.
    sketches: Option<Mutex<Sketches>>,
    blocking: Blocking,
    compacting: AtomicBool,
    /// What numbers of stores are made of.
    seed: u64,
    numbers: AtomicU64,
}

/// Where work is done that may wait for the disk.
#[derive(Debug)]
enum Blocking {
    /// On tokio's blocking pool, so many calls at once.
    Pool(Arc<Semaphore>),
    /// In place: a simulated process is a coroutine, and has one thread.
    #[cfg(feature = "simulation")]
    InPlace,
}

impl SegmentColdTier {
    /// Opens the directory, or creates it with mode 0700. Blocks for as long as the recovery of what a crash left takes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`]; [`Error::ColdTier`], with the [`greenwave_segment::Error`] as its source.
    pub fn open(dir: impl AsRef<Path>, options: SegmentOptions) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let log = Log::open(dir, options.of_the_log()?);
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        let blocking =
            Blocking::Pool(Arc::new(Semaphore::new(options.blocking_max.min(Semaphore::MAX_PERMITS))));
        Self::on(log, dir, options, blocking, seed)
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
        options: SegmentOptions,
    ) -> Result<Self, Error> {
        use greenwave_segment::simulation::clock;
        let dir = dir.as_ref();
        let log_options = greenwave_segment::Options { clock, ..options.of_the_log()? };
        let log = Log::open_simulated(process, dir, log_options);
        // Numbers that are the same in each run of one seed.
        let hash = blake3::hash(format!("{process:?} {}", clock()).as_bytes());
        let seed = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
        Self::on(log, dir, options, Blocking::InPlace, seed)
    }

    fn on(
        log: Result<Log, greenwave_segment::Error>,
        dir: &Path,
        options: SegmentOptions,
        blocking: Blocking,
        seed: u64,
    ) -> Result<Self, Error> {
        let log = log.map_err(|e| Error::cold(format!("open {}", dir.display()))(e.into()))?;
        let codec = match options.compression {
            Compression::None => "none".to_owned(),
            Compression::Zstd { level } => format!("zstd {level}"),
        };
        let differences = options.delta_chain_max > 0 && options.compression != Compression::None;
        let find_similar = differences && options.find_similar;
        let inner = Inner {
            log,
            codec,
            sketches: find_similar.then(|| Mutex::new(Sketches::new(SKETCHES_MAX))),
            blocking,
            compacting: AtomicBool::new(false),
            seed,
            numbers: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Trains a dictionary of about 64 KiB on what is stored, for what will be: worth it for many small contents that are alike. Returns
    /// whether there was enough to learn from. Takes seconds.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`], with the [`greenwave_segment::Error`] as its source.
    pub async fn train_dictionary(&self) -> Result<bool, Error> {
        let trained = self.blocking(|inner| inner.log.train_dictionary(64 << 10)).await;
        trained.map_err(Error::cold("train a dictionary"))
    }

    /// Gives back what is dead on the disk, in segments that are full and at least half dead. Happens by itself, in the background, when half of
    /// the disk bytes and 16 MiB are dead.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`], with the [`greenwave_segment::Error`] as its source.
    pub async fn compact(&self) -> Result<(), Error> {
        let compacted = self.blocking(|inner| inner.log.compact().map(drop)).await;
        compacted.map_err(Error::cold("compact"))
    }

    /// Runs what may wait for the disk where waiting is allowed, when it is its turn.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, greenwave_segment::Error> + Send + 'static,
    ) -> Result<T, BoxError> {
        let semaphore = match &self.inner.blocking {
            Blocking::Pool(semaphore) => semaphore.clone(),
            #[cfg(feature = "simulation")]
            Blocking::InPlace => return Ok(work(&self.inner)?),
        };
        let turn = semaphore.acquire_owned().await?;
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
        match &self.inner.blocking {
            Blocking::Pool(_) => {
                let inner = self.inner.clone();
                tokio::task::spawn_blocking(move || inner.compact());
            }
            #[cfg(feature = "simulation")]
            Blocking::InPlace => self.inner.compact(),
        }
    }
}

impl SegmentOptions {
    fn of_the_log(&self) -> Result<greenwave_segment::Options, Error> {
        if self.blocking_max == 0 {
            let (option, value) = ("blocking_max", "0".to_owned());
            return Err(Error::InvalidOption { option, value, expected: "1 or more" });
        }
        Ok(greenwave_segment::Options {
            compression: self.compression,
            disk_bytes_max: self.disk_bytes_max,
            segment_bytes_max: self.segment_bytes_max,
            value_bytes_max: VALUE_BYTES_MAX,
            when_full: WhenFull::Refuse,
            chain_depth_max: self.delta_chain_max,
            ..Default::default()
        })
    }
}

impl Inner {
    fn put(&self, entry: &ColdEntry) -> Result<(), greenwave_segment::Error> {
        let ColdEntry { key, value, .. } = entry;
        let similar = self.similar(entry);
        self.log.put_delta(key, value, similar.as_deref().unwrap_or_default())?;
        self.remember(entry);
        Ok(())
    }

    /// A key that is there, and whose value probably is similar.
    fn similar(&self, entry: &ColdEntry) -> Option<Bytes> {
        let told = entry.base.as_ref().filter(|base| self.log.contains(base));
        let found = || self.sketches.as_ref()?.lock().find(&Sketch::of(&entry.value)?);
        told.cloned().or_else(found)
    }

    /// Lets later contents be compared with these, if nobody said what these are like.
    fn remember(&self, entry: &ColdEntry) {
        let Some(sketches) = &self.sketches else { return };
        if entry.base.as_ref().is_none_or(|base| !self.log.contains(base))
            && let Some(sketch) = Sketch::of(&entry.value)
        {
            sketches.lock().insert(&sketch, &entry.key);
        }
    }

    /// Makes the changes of a batch. Contents that resemble none go into it; where there may be differences, or much to write, contents
    /// are on the disk before.
    fn write(&self, write: &SharedWrite) -> Result<bool, greenwave_segment::Error> {
        let together: &[ColdEntry] = if self.fit_together(&write.contents) { &write.contents } else { &[] };
        if together.is_empty() && !write.contents.is_empty() {
            write.contents.iter().try_for_each(|entry| self.put(entry))?;
            self.log.flush()?;
        }
        let mut batch = Batch::new();
        for (key, value) in &write.conditions {
            batch = batch.expect(key, value.as_deref());
        }
        for entry in together {
            batch = batch.put(&entry.key, &entry.value);
        }
        for (key, value) in &write.puts {
            batch = batch.put(key, value);
        }
        if !write.removals.is_empty() {
            self.log.refresh_if_stale()?;
        }
        // What is not there needs no record that it is gone.
        for key in write.removals.iter().filter(|key| self.log.contains(key)) {
            batch = batch.remove(key);
        }
        let written = self.log.write(&batch)?;
        if written {
            together.iter().for_each(|entry| self.remember(entry));
        }
        Ok(written)
    }

    /// Whether contents need not be compared with others, nor with each other.
    fn fit_together(&self, contents: &[ColdEntry]) -> bool {
        let bytes: usize = contents.iter().map(|entry| entry.value.len()).sum();
        let keys: HashSet<&Bytes> = contents.iter().map(|entry| &entry.key).collect();
        let among = |entry: &ColdEntry| entry.base.as_ref().is_some_and(|base| keys.contains(base));
        let sketched = || match &self.sketches {
            Some(_) => contents.iter().filter(|entry| Sketch::of(&entry.value).is_some()).count(),
            None => 0,
        };
        bytes <= TOGETHER_BYTES_MAX
            && !contents.iter().any(|entry| among(entry) || self.similar(entry).is_some())
            && sketched() <= 1
    }

    fn compact(&self) {
        if let Err(error) = self.log.compact() {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot compact");
        }
        self.compacting.store(false, Ordering::Release);
    }

    fn mostly_garbage(&self) -> bool {
        let stats = self.log.stats();
        let garbage = stats.disk_bytes.saturating_sub(stats.index_bytes + stats.live_bytes);
        garbage > GARBAGE_BYTES_MIN && garbage * 100 > stats.disk_bytes * GARBAGE_PERCENT_MIN
    }
}

#[async_trait]
impl ColdTier for SegmentColdTier {
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

    fn value_bytes_max(&self) -> Option<u64> {
        Some(VALUE_BYTES_MAX.into())
    }

    fn shared(&self) -> Option<&dyn SharedColdTier> {
        Some(self)
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

    fn stats(&self) -> ColdTierStats {
        let stats = self.inner.log.stats();
        ColdTierStats {
            entries: Some(stats.entries),
            stored_bytes: Some(stats.stored_bytes),
            raw_bytes: Some(stats.raw_bytes),
            disk_bytes: Some(stats.disk_bytes),
            codec: self.inner.codec.clone(),
        }
    }
}

#[async_trait]
impl SharedColdTier for SegmentColdTier {
    async fn refresh(&self) -> Result<u64, BoxError> {
        // Where nothing is new, that shows in some microseconds, less than the way to a thread that may wait.
        if !self.inner.log.is_up_to_date() {
            self.blocking(|inner| inner.log.refresh_if_stale()).await?;
        }
        Ok(self.inner.log.revision())
    }

    async fn flush_shared(&self) -> Result<(), BoxError> {
        self.blocking(|inner| inner.log.flush_shared()).await
    }

    async fn write(&self, write: SharedWrite) -> Result<bool, BoxError> {
        let written = self.blocking(move |inner| inner.write(&write)).await?;
        self.compact_if_due();
        Ok(written)
    }

    fn new_store_id(&self) -> u64 {
        // Only uniqueness counts; nothing is ordered by it.
        let count = self.inner.numbers.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::hash([self.inner.seed.to_le_bytes(), count.to_le_bytes()].as_flattened());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }

    async fn mark_open(&self, number: u64) -> Result<Box<dyn Send + Sync>, BoxError> {
        Ok(Box::new(self.blocking(move |inner| inner.log.hold(number)).await?))
    }

    async fn is_open(&self, number: u64) -> Result<bool, BoxError> {
        self.blocking(move |inner| inner.log.is_held(number)).await
    }
}
