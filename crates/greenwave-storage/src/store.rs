//! The store: reads and writes names and contents in memory and in the cold tier.

mod keys;
mod sharing;
mod sweep;
mod write_back;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use self::keys::{blob_key, id_of, name_key};
use self::sharing::Sharing;
use crate::cold::{ColdTier, GuardedColdTier};
use crate::memory::{DeltaBase, MemoryTier, RequiredBlobs};
use crate::{BlobId, Error, StoreOptions, StoreStats};

#[cfg(feature = "conformance")]
pub(crate) use self::sharing::check_pin;

/// Maximum length of a name in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 4096;
/// Contents up to this size are copied by a put. A slice could otherwise keep a much larger buffer
/// alive without being charged for it.
const COPIED_BYTES_MAX: usize = 1 << 20;
/// Contents from this size on are hashed on the blocking pool. At about 3 GB/s this takes 0.1 ms.
const HASH_BLOCKING_BYTES_MIN: usize = 256 << 10;

/// Number of times to resolve a name again if its contents are swept meanwhile.
const TRIES_MAX: usize = 4;
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
    /// The tier that was given, behind a [`GuardedColdTier`].
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

impl Store {
    /// Opens a store on a cold tier, with the contents that earlier stores put there.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if an option is out of range, and [`Error::Panicked`] if
    /// the cold tier panics.
    pub fn open(options: StoreOptions, cold: Arc<dyn ColdTier>) -> Result<Self, Error> {
        options.check()?;
        let cold = GuardedColdTier::new(cold)?;
        let memory = Mutex::new(MemoryTier::new(&options, cold.shared().is_some()));
        let sharing = Sharing::new(cold.store_id()?);
        let state = StoreState {
            options,
            memory,
            cold: Arc::new(cold),
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
        self.make_room(contents.len()).await;
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
        self.make_room(contents.len()).await;
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
            removed.map_err(Error::cold(format!("remove damaged blob {id}")))?;
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

    pub(crate) fn memory(&self) -> &Mutex<MemoryTier> {
        &self.state.memory
    }

    pub(crate) fn sharing(&self) -> &Sharing {
        &self.state.sharing
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

fn count(counter: &AtomicU64) {
    // Relaxed: statistics order nothing.
    counter.fetch_add(1, Ordering::Relaxed);
}
