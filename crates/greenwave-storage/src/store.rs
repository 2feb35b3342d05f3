//! The store: names and contents, in memory or in the cold tier, wherever they are at the moment.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use crate::cold::{ColdEntry, ColdTier, SharedColdTier};
use crate::memory::{Batch, DeltaBase, Memory, Needs, Skipped};
use crate::reclaim::reclaim;
use crate::sharing::Sharing;
use crate::{BlobId, Error, StoreOptions, StoreStats};

/// Longest name in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 4096;
/// About this much goes to the cold tier at once.
const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Contents up to this size are copied on the way in; a slice could otherwise keep a much larger buffer alive, uncounted.
const COPIED_BYTES_MAX: usize = 1 << 20;
/// Contents from this size on are hashed off the async threads: at some 3 GB/s this takes 0.1 ms.
const HASHED_APART_BYTES_MIN: usize = 256 << 10;

/// When so many entries in a row fail that were tried one by one, the cold tier as a whole is taken to fail: by a flush, and by a put,
/// which tries again with the next one.
const FLUSH_FAILURES_MAX: usize = 32;
const PUT_FAILURES_MAX: usize = 4;
/// How often a name is looked up again when its contents go at the same moment.
const TRIES_MAX: usize = 4;
/// Names whose values are read at once.
const NAMES_READ_MAX: usize = 1024;

/// Contents by hash and by name. Clones share the same store.
///
/// What was put is readable from the moment `put` returns, durable from the moment a later [`flush`](Self::flush) returns, and lost
/// when the last clone is dropped before that. Every call may be cancelled by dropping its future.
///
/// # Several stores on one directory
///
/// Where the cold tier is [`SharedColdTier`](crate::SharedColdTier), as [`SegmentColdTier`](crate::SegmentColdTier) is, several stores may use its place at once,
/// in one process or in several.
///
/// - What a store put, linked or removed shows in the others once it was written, at the latest when its [`flush`](Self::flush)
///   returned: their next call sees it. A store may write at any time before, to stay within its memory.
/// - Of changes of one name by several stores, the one that was written last counts, and a store writes each name's last change only.
///   A change that began after another store's flush returned counts over what that flush wrote.
/// - A name that is durable leads to contents that are durable, after a power cut too, except where [`link`](Self::link) led it to
///   contents that were not there.
/// - A [`sweep`](Self::sweep) removes nothing that a name leads to, nor what another store has put without a name, as long as that store
///   is open and its process lives. Other contents that no name leads to may go at any moment.
///
/// Where it is not shared, one store at a time uses the place.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    options: StoreOptions,
    memory: Mutex<Memory>,
    cold: Arc<dyn ColdTier>,
    /// One task moves contents out at a time. The others wait, which is what keeps memory bounded.
    spill: Turn<()>,
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

/// The kinds of keys in the cold tier, besides those of `sharing.rs`.
pub(crate) const BLOB: u8 = b'b';
const NAME: u8 = b'n';

impl Store {
    /// Opens a store above a cold tier, which holds what earlier stores put there.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`].
    pub fn open(options: StoreOptions, cold: Arc<dyn ColdTier>) -> Result<Self, Error> {
        options.check()?;
        let memory = Mutex::new(Memory::new(&options));
        let sharing = Sharing::new(cold.shared().map_or(0, SharedColdTier::new_store_id));
        let inner =
            Inner { options, memory, cold, spill: Turn::new(()), sharing, counters: Counters::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Puts contents under a name, in place of what the name led to before.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`]. [`Error::TooLarge`], and nothing has changed. [`Error::ColdTier`] when memory is full and the cold tier does not take
    /// these contents: they are readable all the same, and the next flush tries again.
    pub async fn put(&self, name: &str, contents: Bytes) -> Result<BlobId, Error> {
        self.put_named(name, contents, None, None).await
    }

    /// Like [`put`](Self::put), for contents that probably resemble those of `like`: the cold tier may store the difference. Contents
    /// that take the place of others under the same name are taken for similar to these without being told.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put).
    pub async fn put_with_base(&self, name: &str, contents: Bytes, base: &BlobId) -> Result<BlobId, Error> {
        self.put_named(name, contents, Some(*base), None).await
    }

    /// Puts contents that are worth nothing without others: the name is written when those are.
    pub(crate) async fn put_named(
        &self,
        name: &str,
        contents: Bytes,
        base: Option<BlobId>,
        needs: Needs,
    ) -> Result<BlobId, Error> {
        check_name(name)?;
        self.check_size(&contents)?;
        let (id, contents) = identify(contents).await?;
        {
            let mut memory = self.inner.memory.lock();
            let base = base.map_or_else(|| memory.base_of_name(name, &id), DeltaBase::Blob);
            memory.put_blob(id, contents, base);
            memory.put_needing(name, Some(id), needs, true);
        }
        self.make_room_for(&id).await?;
        Ok(id)
    }

    /// Puts contents without a name. They stay until a [`sweep`](Self::sweep) finds them unwanted: one of this store, or of another
    /// store on the same place after this one was closed or dropped.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] or [`Error::ColdTier`], as for [`put`](Self::put).
    pub async fn put_blob(&self, contents: Bytes) -> Result<BlobId, Error> {
        self.put_unnamed(contents, DeltaBase::Nothing).await
    }

    /// Like [`put_blob`](Self::put_blob), for contents that probably resemble those of `like`: the cold tier may store the difference.
    ///
    /// # Errors
    ///
    /// Those of [`put_blob`](Self::put_blob).
    pub async fn put_blob_with_base(&self, contents: Bytes, base: &BlobId) -> Result<BlobId, Error> {
        self.put_unnamed(contents, DeltaBase::Blob(*base)).await
    }

    async fn put_unnamed(&self, contents: Bytes, base: DeltaBase) -> Result<BlobId, Error> {
        self.check_size(&contents)?;
        let (id, contents) = identify(contents).await?;
        {
            let mut memory = self.inner.memory.lock();
            memory.put_blob(id, contents, base);
            if self.inner.cold.shared().is_some() {
                memory.put_unnamed(id);
            }
        }
        self.make_room_for(&id).await?;
        Ok(id)
    }

    /// Leads a name to contents that were put before. They are not looked for: what no name leads to, another store may have swept.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], or [`Error::ColdTier`] as for [`put`](Self::put).
    pub async fn link(&self, name: &str, id: BlobId) -> Result<(), Error> {
        check_name(name)?;
        self.inner.memory.lock().put_name(name, Some(id), true);
        self.make_room().await
    }

    /// The contents under a name. `None` also when they were damaged, which is counted.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`].
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let mut resolved = self.resolve(name).await?;
        for _ in 0..TRIES_MAX {
            let Some(id) = resolved else {
                count(&self.inner.counters.misses);
                return Ok(None);
            };
            if let Some(contents) = self.get_blob(&id).await? {
                return Ok(Some(contents));
            }
            // Another store may have led the name elsewhere, and swept.
            resolved = self.resolve(name).await?;
            if resolved == Some(id) {
                break;
            }
        }
        Ok(None)
    }

    /// The id of the contents under a name.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`].
    pub async fn resolve(&self, name: &str) -> Result<Option<BlobId>, Error> {
        if let Some(told) = self.inner.memory.lock().dirty_name(name) {
            return Ok(told);
        }
        let generation = self.refresh().await?;
        if let Some(told) = self.inner.memory.lock().name(name) {
            return Ok(told);
        }
        let key = name_key(name);
        let value = self.inner.cold.get(&key).await.map_err(Error::cold(format!("read name {name:?}")))?;
        let Some(id) = value.as_ref().and_then(id_of) else {
            return Ok(None);
        };
        {
            // Whoever named it in the meantime knows better than the cold tier.
            let mut memory = self.inner.memory.lock();
            if let Some(told) = memory.name(name) {
                return Ok(told);
            }
            memory.read_name(name, id, generation);
        }
        self.make_room_or_warn().await;
        Ok(Some(id))
    }

    /// Takes in what other stores wrote, if there can be any.
    async fn refresh(&self) -> Result<u64, Error> {
        let Some(shared) = self.inner.cold.shared() else { return Ok(0) };
        let generation = shared.refresh().await.map_err(Error::cold("look for changes by others"))?;
        self.inner.memory.lock().see_generation(generation);
        Ok(generation)
    }

    /// The contents with this id. `None` also when they were damaged, which is counted.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`].
    pub async fn get_blob(&self, id: &BlobId) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = self.hot(id) {
            return Ok(Some(bytes));
        }
        let read = || async {
            self.inner.cold.get(&blob_key(id)).await.map_err(Error::cold(format!("read blob {id}")))
        };
        let mut found = read().await?;
        if found.is_none() && self.inner.cold.shared().is_some() {
            self.refresh().await?;
            found = read().await?;
        }
        let checked = self.checked(id, found).await?;
        self.make_room_or_warn().await;
        Ok(checked)
    }

    /// The contents with these ids, in their order; the cold ones in one request.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`].
    pub async fn get_many(&self, ids: &[BlobId]) -> Result<Vec<Option<Bytes>>, Error> {
        let mut contents: Vec<_> = ids.iter().map(|id| self.hot(id)).collect();
        let cold: Vec<usize> = (0..ids.len()).filter(|&i| contents[i].is_none()).collect();
        if cold.is_empty() {
            return Ok(contents);
        }
        let keys: Vec<Bytes> = cold.iter().map(|&i| blob_key(&ids[i])).collect();
        let read = |keys: Vec<Bytes>| async {
            let operation = format!("read {} blobs", cold.len());
            self.inner.cold.get_many(keys).await.map_err(Error::cold(operation))
        };
        let mut found = read(keys.clone()).await?;
        if found.contains(&None) && self.inner.cold.shared().is_some() {
            self.refresh().await?;
            found = read(keys).await?;
        }
        for (i, found) in cold.into_iter().zip(found) {
            contents[i] = self.checked(&ids[i], found).await?;
        }
        self.make_room_or_warn().await;
        Ok(contents)
    }

    /// Forgets a name; says whether it led anywhere. Its contents stay until [`sweep`](Self::sweep), since others may lead to them.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`].
    pub async fn remove(&self, name: &str) -> Result<bool, Error> {
        let existed = self.resolve(name).await?.is_some();
        if existed {
            self.inner.memory.lock().put_name(name, None, true);
        }
        Ok(existed)
    }

    /// The names that begin with `prefix`, sorted.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.refresh().await?;
        // Memory first: a name that is written out meanwhile is then seen at least once.
        let dirty = self.inner.memory.lock().dirty_names(prefix);
        let operation = format!("list names beginning {prefix:?}");
        let keys = self.inner.cold.list(&name_key(prefix)).await.map_err(Error::cold(operation))?;
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

    /// Removes all contents that no name leads to and that are not in `keep`; returns how many. Nothing may be put through this store
    /// meanwhile. What other stores do meanwhile is safe from it; they may keep it from removing everything.
    ///
    /// A full cold tier does not keep it from making room: what cannot be written before is written after. Where other stores record
    /// what needs contents without a name, as [`Attempts`](crate::Attempts) do, `keep` is out of date as soon as it is made: see
    /// [`sweep_with`](Self::sweep_with).
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`]. When it says that something cannot be written, what is unwanted has been removed all the same.
    pub async fn sweep(&self, keep: &HashSet<BlobId>) -> Result<u64, Error> {
        self.sweep_with(|| std::future::ready(Ok(keep.clone()))).await
    }

    /// Like [`sweep`](Self::sweep), with what to keep as it is once the sweep has begun. `keep` may read from this store, is called
    /// several times when other stores write meanwhile, and its last answer counts.
    ///
    /// [`Attempts::blobs`](crate::Attempts::blobs) and [`Snapshot::blobs`](crate::Snapshot::blobs) say what these need.
    ///
    /// # Errors
    ///
    /// Those of [`sweep`](Self::sweep) and of `keep`.
    pub async fn sweep_with<F>(&self, keep: impl Fn() -> F + Send + Sync) -> Result<u64, Error>
    where
        F: Future<Output = Result<HashSet<BlobId>, Error>> + Send,
    {
        let _turn = self.inner.spill.lock().await;
        self.refresh().await?;
        let kept = keep().await?;
        let mut dropped = Vec::new();
        self.inner.memory.lock().retain_unnamed(&kept);
        if self.inner.memory.lock().counts().2 > 0 {
            // Not written, only to be removed.
            let wanted = self.wanted(&kept).await?;
            dropped = self.inner.memory.lock().drop_dirty(&wanted);
        }
        let written = self.write_dirty().await;
        let removed = match self.inner.cold.shared() {
            Some(shared) => self.sweep_shared(shared, &keep).await?,
            None => self.sweep_alone(&keep().await?).await?,
        };
        if written.is_err() {
            self.write_dirty().await?;
        }
        let only_here = dropped.iter().filter(|id| !removed.contains(*id)).count();
        Ok((removed.len() + only_here) as u64)
    }

    async fn sweep_alone(&self, keep: &HashSet<BlobId>) -> Result<HashSet<BlobId>, Error> {
        // A power cut must not take contents and leave the name that led to them.
        self.inner.cold.flush().await.map_err(Error::cold("flush"))?;
        let unwanted = self.unwanted(keep).await?;
        unwanted.iter().for_each(|id| self.inner.memory.lock().remove_blob(id));
        let keys = unwanted.iter().map(blob_key).collect();
        let operation = format!("remove {} blobs", unwanted.len());
        self.inner.cold.remove_many(keys).await.map_err(Error::cold(operation))?;
        Ok(unwanted.into_iter().collect())
    }

    /// What the cold tier has and nobody wants.
    pub(crate) async fn unwanted(&self, keep: &HashSet<BlobId>) -> Result<Vec<BlobId>, Error> {
        let wanted = self.wanted(keep).await?;
        let keys = self.inner.cold.list(&[BLOB]).await.map_err(Error::cold("list blobs"))?;
        let ids = keys.iter().filter_map(|key| id_of(&key.slice(1..)));
        Ok(ids.filter(|id| !wanted.contains(id)).collect())
    }

    /// What names lead to, here and in the cold tier, and what is to stay without a name.
    async fn wanted(&self, keep: &HashSet<BlobId>) -> Result<HashSet<BlobId>, Error> {
        let mut wanted: HashSet<BlobId> = self.inner.memory.lock().named_blobs().collect();
        wanted.extend(keep);
        let names = self.inner.cold.list(&[NAME]).await.map_err(Error::cold("list names"))?;
        for keys in names.chunks(NAMES_READ_MAX) {
            let read = self.inner.cold.get_many(keys.to_vec()).await;
            let values = read.map_err(Error::cold(format!("read {} names", keys.len())))?;
            wanted.extend(values.iter().flatten().filter_map(id_of));
        }
        Ok(wanted)
    }

    /// Returns when everything put, linked and removed before is durable. What the cold tier refuses is left out and stays in memory:
    /// the rest is durable even so, and the error is about the first that was refused.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`].
    pub async fn flush(&self) -> Result<(), Error> {
        let turn = self.inner.spill.lock().await;
        let written = self.write_dirty().await;
        drop(turn);
        self.inner.cold.flush().await.map_err(Error::cold("flush"))?;
        written
    }

    /// Flushes, and closes the cold tier. No other call follows, from any clone.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`].
    pub async fn close(&self) -> Result<(), Error> {
        let flushed = self.flush().await;
        if let Some(shared) = self.inner.cold.shared() {
            self.leave(shared).await?;
        }
        self.inner.cold.close().await.map_err(Error::cold("close"))?;
        flushed
    }

    /// What the store holds and has done. Looks at every blob in memory.
    pub fn stats(&self) -> StoreStats {
        let Inner { memory, counters, options, cold, .. } = &*self.inner;
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

    fn hot(&self, id: &BlobId) -> Option<Bytes> {
        let bytes = self.inner.memory.lock().blob(id)?;
        count(&self.inner.counters.hot_hits);
        Some(bytes)
    }

    /// Contents from the cold tier, if they are what their id says.
    async fn checked(&self, id: &BlobId, found: Option<Bytes>) -> Result<Option<Bytes>, Error> {
        let Some(bytes) = found else {
            count(&self.inner.counters.misses);
            return Ok(None);
        };
        if hash(&bytes).await? != *id {
            count(&self.inner.counters.corrupt_blobs);
            tracing::warn!(blob = %id, "contents from the cold tier do not match their hash: taken as missing");
            // So that putting them again writes them again.
            let removed = self.inner.cold.remove_many(vec![blob_key(id)]).await;
            removed.map_err(Error::cold(format!("remove damaged blob {id}")))?;
            return Ok(None);
        }
        count(&self.inner.counters.cold_hits);
        self.inner.memory.lock().read_cold(*id, &bytes);
        Ok(Some(bytes))
    }

    /// Refuses at once what the cold tier would refuse later.
    fn check_size(&self, contents: &Bytes) -> Result<(), Error> {
        let len = contents.len() as u64;
        match self.inner.cold.value_bytes_max() {
            Some(max) if len > max => Err(Error::TooLarge { len, max }),
            _ => Ok(()),
        }
    }

    /// Moves contents out while memory is over its threshold. That others do not go is no failure for these.
    async fn make_room_for(&self, id: &BlobId) -> Result<(), Error> {
        match self.make_room().await {
            Err(error) if self.inner.memory.lock().is_dirty(id) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "memory stays over its threshold");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Moves contents out while memory is over its threshold.
    async fn make_room(&self) -> Result<(), Error> {
        if !self.inner.memory.lock().is_over() {
            return Ok(());
        }
        let _turn = self.inner.spill.lock().await;
        if !self.inner.memory.lock().is_over() {
            return Ok(());
        }
        self.write_while(PUT_FAILURES_MAX, |memory, skipped| memory.make_room(BATCH_BYTES_MAX, skipped))
            .await?;
        if self.inner.options.reclaim {
            // Takes milliseconds, and its result is waited for: the next put could otherwise outrun it.
            tokio::task::spawn_blocking(reclaim).await.map_err(|_| Error::Shutdown)?;
        }
        Ok(())
    }

    /// Writes all that the cold tier has not been told.
    async fn write_dirty(&self) -> Result<(), Error> {
        self.write_while(FLUSH_FAILURES_MAX, |memory, skipped| memory.dirty(BATCH_BYTES_MAX, skipped)).await
    }

    /// Writes one batch after another while there is one. What fails alone is left out; the first failure is returned at the end.
    async fn write_while(
        &self,
        failures_max: usize,
        next: impl Fn(&mut Memory, &Skipped) -> Batch,
    ) -> Result<(), Error> {
        let mut skipped = Skipped::default();
        let mut failure = None;
        loop {
            let batch = next(&mut self.inner.memory.lock(), &skipped);
            if batch.is_empty() {
                break;
            }
            let Err(error) = self.write(&batch).await else { continue };
            failure.get_or_insert(error);
            if !self.write_each(failures_max, batch, &mut skipped).await {
                break;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Writes what is in a batch by itself, each. `false` if nothing goes any more.
    async fn write_each(&self, failures_max: usize, batch: Batch, skipped: &mut Skipped) -> bool {
        let mut in_row = 0;
        for part in batch.split() {
            let lacks = |id: &BlobId| skipped.blobs.contains(id);
            if part.relied_on().iter().any(lacks) {
                continue;
            }
            match self.write(&part).await {
                Ok(()) => in_row = 0,
                Err(error) => {
                    tracing::debug!(%error, "left out");
                    in_row += 1;
                    self.inner.memory.lock().refused(&part);
                    skipped.blobs.extend(part.blobs.iter().map(|(id, ..)| *id));
                    skipped.blobs.extend(part.unnamed.iter().copied());
                    skipped.names.extend(part.names.into_iter().map(|change| change.name));
                }
            }
            if in_row >= failures_max {
                return false;
            }
        }
        true
    }

    /// For reads, which have their answer already. Whoever has the turn makes room, or sweeps and reads.
    async fn make_room_or_warn(&self) {
        if self.inner.spill.try_lock().is_ok()
            && let Err(error) = self.make_room().await
        {
            tracing::warn!(%error, "memory stays over its threshold");
        }
    }

    async fn write(&self, batch: &Batch) -> Result<(), Error> {
        match self.inner.cold.shared() {
            Some(shared) => self.write_shared(shared, batch).await?,
            None => self.write_alone(batch).await?,
        }
        self.inner.memory.lock().written(batch);
        Ok(())
    }

    async fn write_alone(&self, batch: &Batch) -> Result<(), Error> {
        let cold = &self.inner.cold;
        let contents = self.contents_of(batch).await?;
        if !contents.is_empty() {
            let operation = format!("write {} blobs", contents.len());
            cold.put_many(contents).await.map_err(Error::cold(operation))?;
        }
        let (names, removed) = changes(batch);
        if !names.is_empty() {
            // A power cut must not keep a name and lose what it leads to.
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

    /// The contents of a batch that the cold tier lacks: the same may have been put, spilled and put again.
    pub(crate) async fn contents_of(&self, batch: &Batch) -> Result<Vec<ColdEntry>, Error> {
        if batch.blobs.is_empty() {
            return Ok(Vec::new());
        }
        let keys = batch.blobs.iter().map(|(id, ..)| blob_key(id)).collect();
        let there = self.inner.cold.contains_many(keys).await.map_err(Error::cold("look for blobs"))?;
        let mut entries = Vec::new();
        for at in batch.in_order().into_iter().filter(|at| !there[*at]) {
            let (id, bytes, base) = &batch.blobs[at];
            let base = self.base_key(base).await?;
            entries.push(ColdEntry { key: blob_key(id), value: bytes.clone(), base });
        }
        Ok(entries)
    }

    pub(crate) fn memory(&self) -> &Mutex<Memory> {
        &self.inner.memory
    }

    pub(crate) fn sharing(&self) -> &Sharing {
        &self.inner.sharing
    }

    /// The key of contents in the cold tier that others are probably similar to.
    async fn base_key(&self, base: &DeltaBase) -> Result<Option<Bytes>, Error> {
        match base {
            DeltaBase::Nothing => Ok(None),
            DeltaBase::Blob(id) => Ok(Some(blob_key(id))),
            DeltaBase::Name(name) => {
                let key = name_key(name);
                let read = self.inner.cold.get(&key).await;
                let old = read.map_err(Error::cold(format!("read name {name:?}")))?;
                Ok(old.filter(|id| id.len() == 32).map(|id| key_of(BLOB, &id)))
            }
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("cold", &self.inner.cold).finish_non_exhaustive()
    }
}

/// Contents as they are held, and their id.
async fn identify(contents: Bytes) -> Result<(BlobId, Bytes), Error> {
    let copied = contents.len() <= COPIED_BYTES_MAX;
    let contents = if copied { Bytes::copy_from_slice(&contents) } else { contents };
    Ok((hash(&contents).await?, contents))
}

async fn hash(contents: &Bytes) -> Result<BlobId, Error> {
    if contents.len() < HASHED_APART_BYTES_MIN {
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

/// Names of a batch with what they are to lead to, and those to be removed.
pub(crate) fn changes(batch: &Batch) -> (Vec<(Bytes, Bytes)>, Vec<Bytes>) {
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

/// The id in a value of the cold tier, or in a key behind its kind.
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
    // A figure for people; nothing is ordered by it.
    counter.fetch_add(1, Ordering::Relaxed);
}
