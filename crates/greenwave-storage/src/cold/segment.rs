//! The default cold tier, on the segment log: compressed, checksummed, crash-safe, and shared
//! between processes.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_segment::{Compression, Log, Nowait, WhenFull, WriteBatch};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{ColdEntry, ColdTier, SharedColdTier, SharedWrite};
use crate::sketch::{Sketch, SketchIndex};
use crate::{BoxError, ColdTierStats, Error};

/// Compaction starts when this percentage of the disk bytes is garbage. Each byte freed then costs
/// at most one byte written.
const GARBAGE_PERCENT_MIN: u64 = 50;
/// Minimum amount of garbage for a compaction.
const GARBAGE_BYTES_MIN: u64 = 16 << 20;
/// Number of recently put contents that are considered as delta bases, at about 400 bytes each.
const SKETCHES_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Maximum size of a value.
const VALUE_BYTES_MAX: u32 = 1 << 30;
/// Maximum total size of contents that are written in one batch with the names that refer to them,
/// with one sync for all. Larger contents are written one by one and flushed beforehand, because a
/// batch is encoded in memory before it is written.
const TOGETHER_BYTES_MAX: usize = 2 << 20;
/// Sizes of contents that are written without a copy. A batch, which takes that, is limited to a
/// gibibyte together with its keys.
const SHARED_BYTES: Range<usize> = (1 << 20)..(512 << 20);

/// Configuration of a [`SegmentColdTier`].
#[derive(Debug, Clone, Copy)]
pub struct SegmentOptions {
    /// Compression of values. A value is stored raw if compression saves less than 10 %. Default:
    /// zstd level 1.
    pub compression: Compression,
    /// Maximum disk usage in bytes, at least 16 KiB, beyond which writes fail. Default: `None`, no
    /// limit.
    pub disk_bytes_max: Option<u64>,
    /// Size of a segment file in bytes, at least 4 KiB. Default: 32 MiB.
    pub segment_bytes_max: u64,
    /// Maximum length of a chain of deltas, 0 to 200; 0 disables deltas. Contents that resemble
    /// others are stored as deltas, if compression is enabled. Each delta in a chain adds about the
    /// time to decompress the contents, 10 us for 16 KiB, to a read. Default: 16.
    pub delta_chain_max: u8,
    /// Whether to look for a delta base among the last 4096 contents if the store has no hint.
    /// Costs 1 ns per byte put, and up to 2 MiB of memory. Default: true.
    pub find_similar: bool,
    /// Maximum number of concurrent blocking calls on tokio's blocking pool, 1 or more. Further
    /// calls wait. Default: 8.
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

/// A cold tier in a directory, on [`greenwave_segment`]. Several stores can use the directory at
/// once, in one process or in several.
#[derive(Debug, Clone)]
pub struct SegmentColdTier {
    state: Arc<SegmentTierState>,
}

#[derive(Debug)]
struct SegmentTierState {
    log: Log,
    codec: String,
    /// `None` if no delta bases are searched.
    sketches: Option<Mutex<SketchIndex>>,
    blocking: BlockingMode,
    compacting: AtomicBool,
    /// Seed of the store ids.
    seed: u64,
    id_counter: AtomicU64,
}

/// The place where work that may wait for the disk runs.
#[derive(Debug)]
enum BlockingMode {
    /// On tokio's blocking pool, limited by the semaphore.
    Pool(Arc<Semaphore>),
    /// On the calling thread. A simulated process is a coroutine with a single thread.
    #[cfg(feature = "simulation")]
    InPlace,
}

impl SegmentColdTier {
    /// Opens a directory, or creates it with mode 0700. Blocks while it recovers from a crash.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if an option is out of range, and [`Error::ColdTier`] with
    /// the [`greenwave_segment::Error`] as its source.
    pub fn open(dir: impl AsRef<Path>, options: SegmentOptions) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let log = Log::open(dir, options.log_options()?);
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        let blocking =
            BlockingMode::Pool(Arc::new(Semaphore::new(options.blocking_max.min(Semaphore::MAX_PERMITS))));
        Self::from_log(log, dir, options, blocking, seed)
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
        options: SegmentOptions,
    ) -> Result<Self, Error> {
        use greenwave_segment::simulation::clock;
        let dir = dir.as_ref();
        let log_options = greenwave_segment::Options { clock, ..options.log_options()? };
        let log = Log::open_simulated(process, dir, log_options);
        // Derived from the simulation, so that ids are the same in every run with one seed.
        let hash = blake3::hash(format!("{process:?} {}", clock()).as_bytes());
        let seed = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
        Self::from_log(log, dir, options, BlockingMode::InPlace, seed)
    }

    fn from_log(
        log: Result<Log, greenwave_segment::Error>,
        dir: &Path,
        options: SegmentOptions,
        blocking: BlockingMode,
        seed: u64,
    ) -> Result<Self, Error> {
        let log = log.map_err(|error| match error {
            greenwave_segment::Error::Option { option, value, accepted: expected } => {
                let option = if option == "chain_depth_max" { "delta_chain_max" } else { option };
                Error::InvalidOption { option, value, expected }
            }
            error => Error::cold(format!("open {}", dir.display()))(error.into()),
        })?;
        let codec = match options.compression {
            Compression::None => "none".to_owned(),
            Compression::Zstd { level } => format!("zstd {level}"),
        };
        let deltas = options.delta_chain_max > 0 && options.compression != Compression::None;
        let find_similar = deltas && options.find_similar;
        let state = SegmentTierState {
            log,
            codec,
            sketches: find_similar.then(|| Mutex::new(SketchIndex::new(SKETCHES_MAX))),
            blocking,
            compacting: AtomicBool::new(false),
            seed,
            id_counter: AtomicU64::new(0),
        };
        Ok(Self { state: Arc::new(state) })
    }

    /// Trains a dictionary of about 64 KiB on the stored contents, for use with later ones. Useful
    /// for many small contents that resemble each other. Returns whether there was enough data.
    /// Takes seconds.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] with the [`greenwave_segment::Error`] as its source.
    pub async fn train_dictionary(&self) -> Result<bool, Error> {
        let trained = self.run_blocking(|state| state.log.train_dictionary(64 << 10)).await;
        trained.map_err(Error::cold("train a dictionary"))
    }

    /// Compacts full segments that are at least half garbage. Runs automatically, in the
    /// background, once half of the disk bytes and at least 16 MiB are garbage.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] with the [`greenwave_segment::Error`] as its source.
    pub async fn compact(&self) -> Result<(), Error> {
        let compacted = self.run_blocking(|state| state.log.compact().map(drop)).await;
        compacted.map_err(Error::cold("compact"))
    }

    /// Runs work that may wait for the disk, within the limit of concurrent calls.
    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SegmentTierState) -> Result<T, greenwave_segment::Error> + Send + 'static,
    ) -> Result<T, BoxError> {
        let semaphore = match &self.state.blocking {
            BlockingMode::Pool(semaphore) => semaphore.clone(),
            #[cfg(feature = "simulation")]
            BlockingMode::InPlace => return Ok(work(&self.state)?),
        };
        let permit = semaphore.acquire_owned().await?;
        let state = self.state.clone();
        let result = tokio::task::spawn_blocking(move || {
            // Held by the work itself, because the caller may be cancelled.
            let _permit = permit;
            work(&state)
        });
        Ok(result.await.map_err(|_| Error::Shutdown)??)
    }

    /// Starts a compaction in the background, unless it is unnecessary or already running.
    fn compact_if_needed(&self) {
        if !self.state.mostly_garbage() || self.state.compacting.swap(true, Ordering::AcqRel) {
            return;
        }
        match &self.state.blocking {
            BlockingMode::Pool(_) => {
                let state = self.state.clone();
                tokio::task::spawn_blocking(move || state.compact());
            }
            #[cfg(feature = "simulation")]
            BlockingMode::InPlace => self.state.compact(),
        }
    }
}

impl SegmentOptions {
    fn log_options(&self) -> Result<greenwave_segment::Options, Error> {
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

impl SegmentTierState {
    fn put(&self, entry: &ColdEntry) -> Result<(), greenwave_segment::Error> {
        self.put_sketched(entry, || self.sketch(entry))
    }

    /// Puts a value, if possible as a delta against the hint of the store or against similar
    /// contents. Calls `sketch` if there is no hint.
    fn put_sketched(
        &self,
        entry: &ColdEntry,
        sketch: impl FnOnce() -> Option<Sketch>,
    ) -> Result<(), greenwave_segment::Error> {
        let ColdEntry { key, value, base } = entry;
        if let Some(base) = base.as_ref().filter(|base| self.log.contains(base)) {
            return self.log.put_delta(key, value, base);
        }
        let sketch = sketch();
        let similar = sketch.and_then(|sketch| self.find_similar(&sketch));
        match similar {
            Some(similar) => self.log.put_delta(key, value, &similar)?,
            // A batch shares the value, and a put copies it if it is not compressed.
            None if SHARED_BYTES.contains(&value.len()) => {
                let batch = WriteBatch::new().put_bytes(key.clone(), value.clone());
                self.log.write(&batch)?;
            }
            None => self.log.put(key, value)?,
        }
        self.record_sketch(key, sketch);
        Ok(())
    }

    /// Returns the sketch of contents, if delta bases are searched.
    fn sketch(&self, entry: &ColdEntry) -> Option<Sketch> {
        self.sketches.as_ref().and_then(|_| Sketch::of(&entry.value))
    }

    /// Returns the key of contents that resemble those with this sketch.
    fn find_similar(&self, sketch: &Sketch) -> Option<Bytes> {
        self.sketches.as_ref()?.lock().find(sketch)
    }

    /// Adds contents as a candidate for delta bases.
    fn record_sketch(&self, key: &Bytes, sketch: Option<Sketch>) {
        if let (Some(sketches), Some(sketch)) = (&self.sketches, sketch) {
            sketches.lock().insert(&sketch, key);
        }
    }

    /// Performs the changes as one batch. Contents that might become deltas, or that are large, are
    /// written and flushed beforehand.
    fn write(&self, write: &SharedWrite) -> Result<bool, greenwave_segment::Error> {
        let sketches: Vec<OnceCell<Option<Sketch>>> =
            write.contents.iter().map(|_| OnceCell::new()).collect();
        let contents = || write.contents.iter().zip(&sketches);
        let sketch = |entry, cell: &OnceCell<_>| *cell.get_or_init(|| self.sketch(entry));
        let fit_together = self.fit_together(&write.contents)
            && !self.any_similar(contents().filter_map(|(entry, cell)| sketch(entry, cell)));
        let together: &[ColdEntry] = if fit_together { &write.contents } else { &[] };
        if together.is_empty() && !write.contents.is_empty() {
            contents().try_for_each(|(entry, cell)| self.put_sketched(entry, || sketch(entry, cell)))?;
            self.log.flush()?;
        }
        let mut batch = WriteBatch::new();
        for (key, value) in &write.conditions {
            batch = batch.expect(key, value.as_deref());
        }
        for entry in together {
            batch = batch.put_bytes(entry.key.clone(), entry.value.clone());
        }
        for (key, value) in &write.puts {
            batch = batch.put(key, value);
        }
        if !write.removals.is_empty() {
            self.log.refresh_if_stale()?;
        }
        // A key that does not exist needs no tombstone.
        let (present, absent): (Vec<_>, Vec<_>) =
            write.removals.iter().partition(|key| self.log.contains(key));
        for key in present {
            batch = batch.remove(key);
        }
        if !absent.is_empty() {
            // Another process may have removed the key without making that durable.
            self.log.flush_shared()?;
        }
        let written = self.log.write(&batch)?;
        if written {
            let sketched = together.iter().zip(&sketches);
            sketched.for_each(|(entry, cell)| self.record_sketch(&entry.key, sketch(entry, cell)));
        }
        Ok(written)
    }

    /// Returns whether contents can be part of a batch as far as their size and hints say: they are
    /// small, and none of them has a delta base.
    fn fit_together(&self, contents: &[ColdEntry]) -> bool {
        let bytes: usize = contents.iter().map(|entry| entry.value.len()).sum();
        let keys: HashSet<&Bytes> = contents.iter().map(|entry| &entry.key).collect();
        let has_base = |entry: &ColdEntry| {
            entry.base.as_ref().is_some_and(|base| keys.contains(base) || self.log.contains(base))
        };
        bytes <= TOGETHER_BYTES_MAX && !contents.iter().any(has_base)
    }

    /// Returns whether some contents resemble others of these, or stored ones.
    fn any_similar(&self, sketches: impl IntoIterator<Item = Sketch>) -> bool {
        let mut seen = HashSet::new();
        sketches.into_iter().any(|sketch| {
            let is_similar = self.find_similar(&sketch).is_some();
            is_similar || sketch.super_features().any(|feature| !seen.insert(feature))
        })
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
        // A value in the page cache is returned within a microsecond. A round trip to the blocking
        // pool alone costs ten.
        if let Nowait::Ready(value) = self.state.log.get_nowait(key) {
            return Ok(value);
        }
        let key = key.to_vec();
        self.run_blocking(move |state| state.log.get(&key)).await
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        // Even from the page cache, many reads would block the task for too long.
        self.run_blocking(move |state| keys.iter().map(|key| state.log.get(key)).collect()).await
    }

    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        Ok(keys.iter().map(|key| self.state.log.contains(key)).collect())
    }

    fn value_bytes_max(&self) -> Option<u64> {
        Some(VALUE_BYTES_MAX.into())
    }

    fn shared(&self) -> Option<&dyn SharedColdTier> {
        Some(self)
    }

    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        self.run_blocking(move |state| entries.iter().try_for_each(|entry| state.put(entry))).await?;
        self.compact_if_needed();
        Ok(())
    }

    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        self.run_blocking(move |state| {
            let keys: Vec<&[u8]> = keys.iter().map(Bytes::as_ref).collect();
            state.log.remove_many(&keys).map(drop)
        })
        .await?;
        self.compact_if_needed();
        Ok(())
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        let prefix = prefix.to_vec();
        let keys = self.run_blocking(move |state| Ok(state.log.keys_with_prefix(&prefix))).await?;
        Ok(keys.into_iter().map(Bytes::from).collect())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        self.run_blocking(|state| state.log.flush()).await
    }

    async fn close(&self) -> Result<(), BoxError> {
        self.run_blocking(
            |state| if state.mostly_garbage() { state.log.compact().map(drop) } else { Ok(()) },
        )
        .await?;
        self.flush().await
    }

    fn stats(&self) -> ColdTierStats {
        let stats = self.state.log.stats();
        ColdTierStats {
            entries: Some(stats.entries),
            stored_bytes: Some(stats.stored_bytes),
            raw_bytes: Some(stats.raw_bytes),
            disk_bytes: Some(stats.disk_bytes),
            codec: self.state.codec.clone(),
        }
    }
}

#[async_trait]
impl SharedColdTier for SegmentColdTier {
    async fn refresh(&self) -> Result<u64, BoxError> {
        // Checking for changes takes a few microseconds, less than a round trip to the blocking
        // pool.
        if !self.state.log.is_up_to_date() {
            self.run_blocking(|state| state.log.refresh_if_stale()).await?;
        }
        Ok(self.state.log.revision())
    }

    async fn flush_shared(&self) -> Result<(), BoxError> {
        self.run_blocking(|state| state.log.flush_shared()).await
    }

    async fn write(&self, write: SharedWrite) -> Result<bool, BoxError> {
        let written = self.run_blocking(move |state| state.write(&write)).await?;
        self.compact_if_needed();
        Ok(written)
    }

    fn new_store_id(&self) -> u64 {
        // Relaxed: only uniqueness matters.
        let count = self.state.id_counter.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::hash([self.state.seed.to_le_bytes(), count.to_le_bytes()].as_flattened());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }

    async fn mark_open(&self, store_id: u64) -> Result<Box<dyn Send + Sync>, BoxError> {
        Ok(Box::new(self.run_blocking(move |state| state.log.hold(store_id)).await?))
    }

    async fn is_open(&self, store_id: u64) -> Result<bool, BoxError> {
        self.run_blocking(move |state| state.log.is_held(store_id)).await
    }
}
