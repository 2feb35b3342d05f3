//! The store: reads and writes names and contents in memory and in the cold tier.

mod sharing;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use self::sharing::Sharing;
use crate::cold::{ColdEntry, ColdTier, SharedColdTier};
use crate::memory::{Batch, BatchBlob, DeltaBase, MemoryTier, RequiredBlobs, Skipped};
use crate::reclaim::reclaim;
use crate::{BlobId, Error, StoreOptions, StoreStats};

#[cfg(feature = "conformance")]
pub(crate) use self::sharing::check_pin;

/// Maximum length of a name in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 4096;
/// Approximate size of a batch of writes to the cold tier.
const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Contents up to this size are copied by a put. A slice could otherwise keep a much larger buffer
/// alive without being charged for it.
const COPIED_BYTES_MAX: usize = 1 << 20;
/// Contents from this size on are hashed on the blocking pool. At about 3 GB/s this takes 0.1 ms.
const HASH_BLOCKING_BYTES_MIN: usize = 256 << 10;

/// Number of consecutive failures, with entries tried one by one, after which the whole cold tier
/// is considered to have failed. A put gives up sooner than a flush, because the next put tries
/// again.
const FLUSH_FAILURES_MAX: usize = 32;
const PUT_FAILURES_MAX: usize = 4;
/// Number of times to resolve a name again if its contents are swept meanwhile.
const TRIES_MAX: usize = 4;
/// Number of names whose values are read at once.
const NAMES_READ_MAX: usize = 1024;

/// A store of contents by hash and by name. Clones share the same store.
///
/// Contents are readable once `put` returns, and durable once a later [`flush`](Self::flush)
/// returns. If the last clone is dropped before that, they may be lost. Every call may be cancelled
/// by dropping its future.
///
/// # Several stores on one directory
///
/// If the cold tier implements [`SharedColdTier`](crate::SharedColdTier), as
/// [`SegmentColdTier`](crate::SegmentColdTier) does, several stores can use its location at once,
/// in one process or in several.
///
/// - A change by one store becomes visible to the next call of every other store once it has been
///   written, at the latest when [`flush`](Self::flush) returns. A store may write earlier, to stay
///   within its memory budget.
/// - If several stores change one name, the last write wins, and each store writes only its last
///   change. A change that began after another store's flush returned takes precedence over the
///   changes in that flush.
/// - A durable name refers to durable contents, even after a power failure, unless
///   [`link`](Self::link) pointed it at contents that did not exist.
/// - A [`sweep`](Self::sweep) removes neither contents that a name refers to, nor contents that
///   another open store of a living process has put without a name. All other contents may be
///   removed at any time.
///
/// Otherwise, only one store at a time may use the location.
#[derive(Clone)]
pub struct Store {
    state: Arc<StoreState>,
}

struct StoreState {
    options: StoreOptions,
    memory: Mutex<MemoryTier>,
    cold: Arc<dyn ColdTier>,
    /// Held by the task that spills or sweeps. Other writers wait for it, which bounds memory.
    spill_lock: AsyncMutex<()>,
    sharing: Sharing,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    hot_hits: AtomicU64,
    cold_hits: AtomicU64,
    misses: AtomicU64,
    corrupt_blobs: AtomicU64,
}

/// First byte of the keys in the cold tier. `sharing.rs` defines further ones.
pub(crate) const BLOB: u8 = b'b';
const NAME: u8 = b'n';

impl Store {
    /// Opens a store on a cold tier, with the contents that earlier stores put there.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if an option is out of range.
    pub fn open(options: StoreOptions, cold: Arc<dyn ColdTier>) -> Result<Self, Error> {
        options.check()?;
        let memory = Mutex::new(MemoryTier::new(&options, cold.shared().is_some()));
        let sharing = Sharing::new(cold.shared().map_or(0, SharedColdTier::new_store_id));
        let state = StoreState {
            options,
            memory,
            cold,
            spill_lock: AsyncMutex::new(()),
            sharing,
            counters: Counters::default(),
        };
        Ok(Self { state: Arc::new(state) })
    }

    /// Stores contents under a name, replacing its previous contents.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidName`] or [`Error::TooLarge`], without any effect. Returns
    /// [`Error::ColdTier`] if memory is full and the cold tier rejects these contents. They stay
    /// readable, and the next flush tries again.
    pub async fn put(&self, name: &str, contents: Bytes) -> Result<BlobId, Error> {
        self.put_named(name, contents, None, None).await
    }

    /// Like [`put`](Self::put), for contents that resemble those of `base`: the cold tier may store
    /// them as a delta. The previous contents of the same name are used as the base automatically.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`put`](Self::put).
    pub async fn put_with_base(&self, name: &str, contents: Bytes, base: &BlobId) -> Result<BlobId, Error> {
        self.put_named(name, contents, Some(*base), None).await
    }

    /// Stores contents under a name that is written only once the contents in `requires` are.
    pub(crate) async fn put_named(
        &self,
        name: &str,
        contents: Bytes,
        base: Option<BlobId>,
        requires: RequiredBlobs,
    ) -> Result<BlobId, Error> {
        check_name(name)?;
        self.check_size(&contents)?;
        let (id, contents) = identify(contents).await?;
        {
            let mut memory = self.state.memory.lock();
            let base = base.map_or_else(|| memory.base_of_name(name, &id), DeltaBase::Blob);
            memory.put_blob(id, contents, base);
            memory.put_name_requiring(name, Some(id), requires, true);
        }
        self.spill_for(&id).await?;
        Ok(id)
    }

    /// Stores contents without a name. They stay until a [`sweep`](Self::sweep) finds them
    /// unreferenced: a sweep of this store, or of another store on the same location after this
    /// store was closed or dropped.
    ///
    /// # Errors
    ///
    /// Returns [`Error::TooLarge`] or [`Error::ColdTier`], as [`put`](Self::put) does.
    pub async fn put_blob(&self, contents: Bytes) -> Result<BlobId, Error> {
        self.put_unnamed(contents, DeltaBase::None).await
    }

    /// Like [`put_blob`](Self::put_blob), for contents that resemble those of `base`: the cold tier
    /// may store them as a delta.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`put_blob`](Self::put_blob).
    pub async fn put_blob_with_base(&self, contents: Bytes, base: &BlobId) -> Result<BlobId, Error> {
        self.put_unnamed(contents, DeltaBase::Blob(*base)).await
    }

    async fn put_unnamed(&self, contents: Bytes, base: DeltaBase) -> Result<BlobId, Error> {
        self.check_size(&contents)?;
        let (id, contents) = identify(contents).await?;
        {
            let mut memory = self.state.memory.lock();
            memory.put_blob(id, contents, base);
            if self.state.cold.shared().is_some() {
                memory.put_unnamed(id);
            }
        }
        self.spill_for(&id).await?;
        Ok(id)
    }

    /// Points a name at contents that were stored earlier. Does not check that they exist: contents
    /// without a name may have been swept by another store.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidName`], or [`Error::ColdTier`] as [`put`](Self::put) does.
    pub async fn link(&self, name: &str, id: BlobId) -> Result<(), Error> {
        check_name(name)?;
        self.state.memory.lock().put_name(name, Some(id), true);
        self.spill().await
    }

    /// Returns the contents of a name. Returns `None` also for corrupt contents, which are counted.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] if the cold tier cannot be read.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let mut resolved = self.resolve(name).await?;
        for _ in 0..TRIES_MAX {
            let Some(id) = resolved else {
                count(&self.state.counters.misses);
                return Ok(None);
            };
            if let Some(contents) = self.get_blob(&id).await? {
                return Ok(Some(contents));
            }
            // Another store may have changed the name and swept the old contents.
            resolved = self.resolve(name).await?;
            if resolved == Some(id) {
                break;
            }
        }
        Ok(None)
    }

    /// Returns the id of a name's contents.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] if the cold tier cannot be read.
    pub async fn resolve(&self, name: &str) -> Result<Option<BlobId>, Error> {
        if let Some(blob) = self.state.memory.lock().dirty_name(name) {
            return Ok(blob);
        }
        let generation = self.refresh().await?;
        if let Some(blob) = self.state.memory.lock().name(name) {
            return Ok(blob);
        }
        let key = name_key(name);
        let value = self.state.cold.get(&key).await.map_err(Error::cold(format!("read name {name:?}")))?;
        let Some(id) = value.as_ref().and_then(id_of) else {
            return Ok(None);
        };
        {
            // A name in memory is newer than the value just read.
            let mut memory = self.state.memory.lock();
            if let Some(blob) = memory.name(name) {
                return Ok(blob);
            }
            memory.read_name(name, id, generation);
        }
        self.spill_or_warn().await;
        Ok(Some(id))
    }

    /// Picks up the changes of other stores, if the cold tier is shared.
    async fn refresh(&self) -> Result<u64, Error> {
        let Some(shared) = self.state.cold.shared() else { return Ok(0) };
        let generation = shared.refresh().await.map_err(Error::cold("read the changes of other stores"))?;
        self.state.memory.lock().set_generation(generation);
        Ok(generation)
    }

    /// Returns the contents with this id. Returns `None` also for corrupt contents, which are
    /// counted.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] if the cold tier cannot be read.
    pub async fn get_blob(&self, id: &BlobId) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = self.get_from_memory(id) {
            return Ok(Some(bytes));
        }
        let read = || async {
            self.state.cold.get(&blob_key(id)).await.map_err(Error::cold(format!("read blob {id}")))
        };
        let mut found = read().await?;
        if found.is_none() && self.state.cold.shared().is_some() {
            self.refresh().await?;
            found = read().await?;
        }
        let verified = self.verify(id, found).await?;
        self.spill_or_warn().await;
        Ok(verified)
    }

    /// Returns the contents with these ids, in the order of `ids`. Reads the cold ones in a single
    /// request.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] if the cold tier cannot be read.
    pub async fn get_many(&self, ids: &[BlobId]) -> Result<Vec<Option<Bytes>>, Error> {
        let mut contents: Vec<_> = ids.iter().map(|id| self.get_from_memory(id)).collect();
        let cold: Vec<usize> = (0..ids.len()).filter(|&i| contents[i].is_none()).collect();
        if cold.is_empty() {
            return Ok(contents);
        }
        let keys: Vec<Bytes> = cold.iter().map(|&i| blob_key(&ids[i])).collect();
        let read = |keys: Vec<Bytes>| async {
            let operation = format!("read {} blobs", cold.len());
            self.state.cold.get_many(keys).await.map_err(Error::cold(operation))
        };
        let mut found = read(keys.clone()).await?;
        if found.contains(&None) && self.state.cold.shared().is_some() {
            self.refresh().await?;
            found = read(keys).await?;
        }
        for (i, found) in cold.into_iter().zip(found) {
            contents[i] = self.verify(&ids[i], found).await?;
        }
        self.spill_or_warn().await;
        Ok(contents)
    }

    /// Removes a name and returns whether it existed. Its contents stay until a
    /// [`sweep`](Self::sweep), because other names may refer to them.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] if the cold tier cannot be read.
    pub async fn remove(&self, name: &str) -> Result<bool, Error> {
        let existed = self.resolve(name).await?.is_some();
        if existed {
            self.state.memory.lock().put_name(name, None, true);
        }
        Ok(existed)
    }

    /// Returns the names that begin with `prefix`, sorted.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] if the cold tier cannot be read.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.refresh().await?;
        // Memory first, so that a name that is written meanwhile is seen at least once.
        let dirty = self.state.memory.lock().dirty_names(prefix);
        let operation = format!("list names starting with {prefix:?}");
        let keys = self.state.cold.list(&name_key(prefix)).await.map_err(Error::cold(operation))?;
        let cold = keys.iter().filter_map(|key| String::from_utf8(key[1..].to_vec()).ok());
        let mut names: BTreeSet<String> = cold.collect();
        for (name, present) in dirty {
            if present {
                names.insert(name.to_string());
            } else {
                names.remove(&*name);
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Removes all contents that no name refers to and that are not in `keep`, and returns their
    /// number. Nothing may be put through this store meanwhile. Other stores may write, and their
    /// changes are safe, but they may prevent the sweep from removing everything.
    ///
    /// A full cold tier does not prevent the sweep from freeing space: writes that fail before it
    /// are repeated after it. If other stores record references to unnamed contents, as
    /// [`Attempts`](crate::Attempts) do, `keep` is outdated as soon as it is computed; use
    /// [`sweep_with`](Self::sweep_with).
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] if the cold tier fails. If only writes failed, the unreferenced
    /// contents have been removed anyway.
    pub async fn sweep(&self, keep: &HashSet<BlobId>) -> Result<u64, Error> {
        self.sweep_with(|| std::future::ready(Ok(keep.clone()))).await
    }

    /// Like [`sweep`](Self::sweep), but computes the contents to keep after the sweep has started.
    ///
    /// `keep` may read from this store. It is called again whenever other stores write during the
    /// sweep, and the last result counts. [`Attempts::blobs`](crate::Attempts::blobs) and
    /// [`Snapshot::blobs`](crate::Snapshot::blobs) return the contents that they refer to.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`sweep`](Self::sweep) and of `keep`.
    pub async fn sweep_with<F>(&self, keep: impl Fn() -> F + Send + Sync) -> Result<u64, Error>
    where
        F: Future<Output = Result<HashSet<BlobId>, Error>> + Send,
    {
        let _guard = self.state.spill_lock.lock().await;
        self.refresh().await?;
        let retained = keep().await?;
        let mut dropped = Vec::new();
        self.state.memory.lock().retain_unnamed(&retained);
        if self.state.memory.lock().counts().2 > 0 {
            // Dropped here, rather than written and then removed.
            let referenced = self.referenced(&retained).await?;
            dropped = self.state.memory.lock().drop_dirty(&referenced);
        }
        let written = self.write_dirty().await;
        let removed = match self.state.cold.shared() {
            Some(shared) => self.sweep_shared(shared, &keep).await?,
            None => self.sweep_exclusive(&keep().await?).await?,
        };
        if written.is_err() {
            self.write_dirty().await?;
        }
        let dropped_unwritten = dropped.iter().filter(|id| !removed.contains(*id)).count();
        Ok((removed.len() + dropped_unwritten) as u64)
    }

    async fn sweep_exclusive(&self, keep: &HashSet<BlobId>) -> Result<HashSet<BlobId>, Error> {
        // A power failure must not remove contents while the removal of their name is not yet
        // durable.
        self.state.cold.flush().await.map_err(Error::cold("flush"))?;
        let unreferenced = self.unreferenced(keep).await?;
        unreferenced.iter().for_each(|id| self.state.memory.lock().remove_blob(id));
        let keys = unreferenced.iter().map(blob_key).collect();
        let operation = format!("remove {} blobs", unreferenced.len());
        self.state.cold.remove_many(keys).await.map_err(Error::cold(operation))?;
        Ok(unreferenced.into_iter().collect())
    }

    /// Returns the contents in the cold tier that are not referenced.
    pub(crate) async fn unreferenced(&self, keep: &HashSet<BlobId>) -> Result<Vec<BlobId>, Error> {
        let referenced = self.referenced(keep).await?;
        let keys = self.state.cold.list(&[BLOB]).await.map_err(Error::cold("list blobs"))?;
        let ids = keys.iter().filter_map(|key| id_of(&key.slice(1..)));
        Ok(ids.filter(|id| !referenced.contains(id)).collect())
    }

    /// Returns the contents that names refer to, in memory and in the cold tier, and those in
    /// `keep`.
    async fn referenced(&self, keep: &HashSet<BlobId>) -> Result<HashSet<BlobId>, Error> {
        let mut referenced: HashSet<BlobId> = self.state.memory.lock().dirty_references().collect();
        referenced.extend(keep);
        let names = self.state.cold.list(&[NAME]).await.map_err(Error::cold("list names"))?;
        for keys in names.chunks(NAMES_READ_MAX) {
            let read = self.state.cold.get_many(keys.to_vec()).await;
            let values = read.map_err(Error::cold(format!("read {} names", keys.len())))?;
            referenced.extend(values.iter().flatten().filter_map(id_of));
        }
        Ok(referenced)
    }

    /// Makes everything put, linked and removed earlier durable. If the cold tier rejects an entry,
    /// the entry stays in memory, everything else becomes durable, and the first error is returned.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] if the cold tier fails or rejects an entry.
    pub async fn flush(&self) -> Result<(), Error> {
        let guard = self.state.spill_lock.lock().await;
        let written = self.write_dirty().await;
        drop(guard);
        self.state.cold.flush().await.map_err(Error::cold("flush"))?;
        written
    }

    /// Flushes, and closes the cold tier. No other call may follow, from any clone.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] if the cold tier fails.
    pub async fn close(&self) -> Result<(), Error> {
        let flushed = self.flush().await;
        if let Some(shared) = self.state.cold.shared() {
            self.remove_pins(shared).await?;
        }
        self.state.cold.close().await.map_err(Error::cold("close"))?;
        flushed
    }

    /// Returns a snapshot of the store's size and counters.
    pub fn stats(&self) -> StoreStats {
        let StoreState { memory, counters, options, cold, .. } = &*self.state;
        let memory = memory.lock();
        let (hot_blobs, hot_names, dirty_blobs) = memory.counts();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            memory_bytes_used: memory.used_bytes,
            memory_bytes_peak: memory.peak_bytes,
            memory_bytes_max: options.memory_bytes_max,
            spillover_active: memory.spilling,
            hot_blobs,
            hot_names,
            dirty_blobs,
            hot_hits: read(&counters.hot_hits),
            cold_hits: read(&counters.cold_hits),
            misses: read(&counters.misses),
            spilled_blobs: memory.spilled,
            promoted_blobs: memory.promoted,
            corrupt_blobs: read(&counters.corrupt_blobs),
            cold: cold.stats(),
        }
    }

    fn get_from_memory(&self, id: &BlobId) -> Option<Bytes> {
        let bytes = self.state.memory.lock().blob(id)?;
        count(&self.state.counters.hot_hits);
        Some(bytes)
    }

    /// Returns contents read from the cold tier if they match their id.
    async fn verify(&self, id: &BlobId, found: Option<Bytes>) -> Result<Option<Bytes>, Error> {
        let Some(bytes) = found else {
            count(&self.state.counters.misses);
            return Ok(None);
        };
        if hash(&bytes).await? != *id {
            count(&self.state.counters.corrupt_blobs);
            tracing::warn!(blob = %id, "contents do not match their hash: treated as missing");
            // Removed, so that putting the contents again writes them again.
            let removed = self.state.cold.remove_many(vec![blob_key(id)]).await;
            removed.map_err(Error::cold(format!("remove corrupt blob {id}")))?;
            return Ok(None);
        }
        count(&self.state.counters.cold_hits);
        self.state.memory.lock().read_cold(*id, &bytes);
        Ok(Some(bytes))
    }

    /// Rejects contents that the cold tier would reject later.
    fn check_size(&self, contents: &Bytes) -> Result<(), Error> {
        let len = contents.len() as u64;
        match self.state.cold.value_bytes_max() {
            Some(max) if len > max => Err(Error::TooLarge { len, max }),
            _ => Ok(()),
        }
    }

    /// Spills if memory use exceeds its threshold. Only fails if the contents `id` cannot be
    /// written; problems with other contents are logged.
    async fn spill_for(&self, id: &BlobId) -> Result<(), Error> {
        match self.spill().await {
            Err(error) if self.state.memory.lock().is_dirty(id) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "memory use stays over its threshold");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Moves contents to the cold tier while memory use exceeds its threshold.
    async fn spill(&self) -> Result<(), Error> {
        if !self.state.memory.lock().exceeds_threshold() {
            return Ok(());
        }
        let _guard = self.state.spill_lock.lock().await;
        if !self.state.memory.lock().exceeds_threshold() {
            return Ok(());
        }
        self.write_while(PUT_FAILURES_MAX, |memory, skipped| memory.free_space(BATCH_BYTES_MAX, skipped))
            .await?;
        if self.state.options.reclaim {
            // Takes milliseconds. Waiting for it keeps the next put from outrunning it.
            tokio::task::spawn_blocking(reclaim).await.map_err(|_| Error::Shutdown)?;
        }
        Ok(())
    }

    /// Writes everything that the cold tier does not have yet.
    async fn write_dirty(&self) -> Result<(), Error> {
        self.write_while(FLUSH_FAILURES_MAX, |memory, skipped| memory.dirty(BATCH_BYTES_MAX, skipped)).await
    }

    /// Writes batches until there are no more. Skips entries that fail on their own, and returns
    /// the first failure at the end.
    async fn write_while(
        &self,
        failures_max: usize,
        next: impl Fn(&mut MemoryTier, &Skipped) -> Batch,
    ) -> Result<(), Error> {
        let mut skipped = Skipped::default();
        let mut failure = None;
        loop {
            let batch = next(&mut self.state.memory.lock(), &skipped);
            if batch.is_empty() {
                break;
            }
            let Err(error) = self.write(&batch).await else { continue };
            failure.get_or_insert(error);
            if !self.write_separately(failures_max, batch, &mut skipped).await {
                break;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Writes the parts of a batch separately. Returns false if the cold tier seems to have failed
    /// as a whole.
    async fn write_separately(&self, failures_max: usize, batch: Batch, skipped: &mut Skipped) -> bool {
        let mut failures_in_row = 0;
        for part in batch.split() {
            let lacks = |id: &BlobId| skipped.blobs.contains(id);
            if part.external_references().iter().any(lacks) {
                continue;
            }
            match self.write(&part).await {
                Ok(()) => failures_in_row = 0,
                Err(error) => {
                    tracing::debug!(%error, "skipped an entry that the cold tier rejects");
                    failures_in_row += 1;
                    self.state.memory.lock().rejected(&part);
                    skipped.blobs.extend(part.blobs.iter().map(|blob| blob.id));
                    skipped.blobs.extend(part.unnamed.iter().copied());
                    skipped.names.extend(part.names.into_iter().map(|change| change.name));
                }
            }
            if failures_in_row >= failures_max {
                return false;
            }
        }
        true
    }

    /// Spills on behalf of a read, which already has its result. Does nothing if another task
    /// spills or sweeps.
    async fn spill_or_warn(&self) {
        if self.state.spill_lock.try_lock().is_ok()
            && let Err(error) = self.spill().await
        {
            tracing::warn!(%error, "memory use stays over its threshold");
        }
    }

    async fn write(&self, batch: &Batch) -> Result<(), Error> {
        match self.state.cold.shared() {
            Some(shared) => self.write_shared(shared, batch).await?,
            None => self.write_exclusive(batch).await?,
        }
        self.state.memory.lock().written(batch);
        Ok(())
    }

    async fn write_exclusive(&self, batch: &Batch) -> Result<(), Error> {
        let cold = &self.state.cold;
        let contents = self.missing_contents(batch).await?;
        if !contents.is_empty() {
            let operation = format!("write {} blobs", contents.len());
            cold.put_many(contents).await.map_err(Error::cold(operation))?;
        }
        let (names, removed) = name_changes(batch);
        if !names.is_empty() {
            // A power failure must not preserve a name and lose its contents.
            cold.flush().await.map_err(Error::cold("flush"))?;
            let operation = format!("write {} names", names.len());
            let names = names.into_iter().map(ColdEntry::from).collect();
            cold.put_many(names).await.map_err(Error::cold(operation))?;
        }
        if !removed.is_empty() {
            let operation = format!("remove {} names", removed.len());
            cold.remove_many(removed).await.map_err(Error::cold(operation))?;
        }
        Ok(())
    }

    /// Returns the contents of a batch that the cold tier lacks. It has contents that were put,
    /// spilled and put again.
    pub(crate) async fn missing_contents(&self, batch: &Batch) -> Result<Vec<ColdEntry>, Error> {
        if batch.blobs.is_empty() {
            return Ok(Vec::new());
        }
        let keys = batch.blobs.iter().map(|blob| blob_key(&blob.id)).collect();
        let present =
            self.state.cold.contains_many(keys).await.map_err(Error::cold("check for existing blobs"))?;
        let mut entries = Vec::new();
        for at in batch.base_first_order().into_iter().filter(|at| !present[*at]) {
            let BatchBlob { id, bytes, base, .. } = &batch.blobs[at];
            let base = self.base_key(base).await?;
            entries.push(ColdEntry { key: blob_key(id), value: bytes.clone(), base });
        }
        Ok(entries)
    }

    pub(crate) fn memory(&self) -> &Mutex<MemoryTier> {
        &self.state.memory
    }

    pub(crate) fn sharing(&self) -> &Sharing {
        &self.state.sharing
    }

    /// Returns the key of the probable delta base in the cold tier.
    async fn base_key(&self, base: &DeltaBase) -> Result<Option<Bytes>, Error> {
        match base {
            DeltaBase::None => Ok(None),
            DeltaBase::Blob(id) => Ok(Some(blob_key(id))),
            DeltaBase::Name(name) => {
                let key = name_key(name);
                let read = self.state.cold.get(&key).await;
                let old = read.map_err(Error::cold(format!("read name {name:?}")))?;
                Ok(old.filter(|id| id.len() == 32).map(|id| key_of(BLOB, &id)))
            }
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("cold", &self.state.cold).finish_non_exhaustive()
    }
}

/// Returns the id of the contents, and the contents as they will be stored in memory.
async fn identify(contents: Bytes) -> Result<(BlobId, Bytes), Error> {
    let copied = contents.len() <= COPIED_BYTES_MAX;
    let contents = if copied { Bytes::copy_from_slice(&contents) } else { contents };
    Ok((hash(&contents).await?, contents))
}

async fn hash(contents: &Bytes) -> Result<BlobId, Error> {
    if contents.len() < HASH_BLOCKING_BYTES_MIN {
        return Ok(BlobId::of(contents));
    }
    let contents = contents.clone();
    tokio::task::spawn_blocking(move || BlobId::of(&contents)).await.map_err(|_| Error::Shutdown)
}

fn check_name(name: &str) -> Result<(), Error> {
    match name.len() {
        1..=NAME_BYTES_MAX => Ok(()),
        len => Err(Error::InvalidName { len, max: NAME_BYTES_MAX }),
    }
}

/// Splits the name changes of a batch into keys with their new values, and keys to remove.
pub(crate) fn name_changes(batch: &Batch) -> (Vec<(Bytes, Bytes)>, Vec<Bytes>) {
    let (mut named, mut removed) = (Vec::new(), Vec::new());
    for change in &batch.names {
        let key = name_key(&change.name);
        match change.blob {
            Some(id) => named.push((key, Bytes::copy_from_slice(id.as_bytes()))),
            None => removed.push(key),
        }
    }
    (named, removed)
}

/// Decodes an id from a value in the cold tier, or from a key without its first byte.
pub(crate) fn id_of(value: &Bytes) -> Option<BlobId> {
    Some(BlobId::from_bytes(value.as_ref().try_into().ok()?))
}

pub(crate) fn blob_key(id: &BlobId) -> Bytes {
    key_of(BLOB, id.as_bytes())
}

fn name_key(name: &str) -> Bytes {
    key_of(NAME, name.as_bytes())
}

pub(crate) fn key_of(kind: u8, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + rest.len());
    key.put_u8(kind);
    key.put_slice(rest);
    key.freeze()
}

fn count(counter: &AtomicU64) {
    // Relaxed: statistics order nothing.
    counter.fetch_add(1, Ordering::Relaxed);
}
