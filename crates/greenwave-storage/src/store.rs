//! The store: names and contents, in memory or in the cold tier, wherever they are at the moment.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use crate::cold::{Cold, ColdEntry};
use crate::memory::{Batch, Like, Memory};
use crate::reclaim::reclaim;
use crate::{BlobId, Error, Options, Stats};

/// Longest name in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 4096;
/// About this much goes to the cold tier at once.
const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Contents up to this size are copied on the way in; a slice could otherwise keep a much larger buffer alive, uncounted.
const COPIED_BYTES_MAX: usize = 1 << 20;
/// Contents from this size on are hashed off the async threads: at some 3 GB/s this takes 0.1 ms.
const HASHED_APART_BYTES_MIN: usize = 256 << 10;

/// Contents by hash and by name. Clones share the same store.
///
/// What was put is readable from the moment `put` returns, durable from the moment a later [`flush`](Self::flush) returns, and lost
/// when the last clone is dropped before that. Every call may be cancelled by dropping its future.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    memory: Mutex<Memory>,
    cold: Arc<dyn Cold>,
    /// One task moves contents out at a time. The others wait, which is what keeps memory bounded.
    spill: Turn<()>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    hot_hits: AtomicU64,
    cold_hits: AtomicU64,
    misses: AtomicU64,
    bad_blobs: AtomicU64,
}

/// The two kinds of keys in the cold tier.
const BLOB: u8 = b'b';
const NAME: u8 = b'n';

impl Store {
    /// Opens a store above a cold tier, which holds what earlier stores put there.
    ///
    /// # Errors
    ///
    /// [`Error::Option`].
    pub fn open(options: Options, cold: Arc<dyn Cold>) -> Result<Self, Error> {
        options.check()?;
        let memory = Mutex::new(Memory::new(&options));
        let inner = Inner { options, memory, cold, spill: Turn::new(()), counters: Counters::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Puts contents under a name, in place of what the name led to before.
    ///
    /// # Errors
    ///
    /// [`Error::Name`]. [`Error::Cold`] when memory is full and the cold tier does not take the overflow: the contents are readable
    /// all the same.
    pub async fn put(&self, name: &str, contents: Bytes) -> Result<BlobId, Error> {
        self.put_named(name, contents, None).await
    }

    /// Like [`put`](Self::put), for contents that probably resemble those of `like`: the cold tier may store the difference. Contents
    /// that take the place of others under the same name are taken for similar to these without being told.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put).
    pub async fn put_like(&self, name: &str, contents: Bytes, like: &BlobId) -> Result<BlobId, Error> {
        self.put_named(name, contents, Some(*like)).await
    }

    async fn put_named(&self, name: &str, contents: Bytes, like: Option<BlobId>) -> Result<BlobId, Error> {
        check_name(name)?;
        let (id, contents) = identify(contents).await?;
        {
            let mut memory = self.inner.memory.lock();
            let like = like.map_or_else(|| memory.like_name(name, &id), Like::Blob);
            memory.put_blob(id, contents, like);
            memory.put_name(name, Some(id), true);
        }
        self.make_room().await?;
        Ok(id)
    }

    /// Puts contents without a name. They stay until [`sweep`](Self::sweep) finds them unwanted.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`], as for [`put`](Self::put).
    pub async fn put_blob(&self, contents: Bytes) -> Result<BlobId, Error> {
        self.put_unnamed(contents, Like::Nothing).await
    }

    /// Like [`put_blob`](Self::put_blob), for contents that probably resemble those of `like`: the cold tier may store the difference.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`], as for [`put`](Self::put).
    pub async fn put_blob_like(&self, contents: Bytes, like: &BlobId) -> Result<BlobId, Error> {
        self.put_unnamed(contents, Like::Blob(*like)).await
    }

    async fn put_unnamed(&self, contents: Bytes, like: Like) -> Result<BlobId, Error> {
        let (id, contents) = identify(contents).await?;
        self.inner.memory.lock().put_blob(id, contents, like);
        self.make_room().await?;
        Ok(id)
    }

    /// Leads a name to contents that were put before. They are not looked for.
    ///
    /// # Errors
    ///
    /// [`Error::Name`], or [`Error::Cold`] as for [`put`](Self::put).
    pub async fn link(&self, name: &str, id: BlobId) -> Result<(), Error> {
        check_name(name)?;
        self.inner.memory.lock().put_name(name, Some(id), true);
        self.make_room().await
    }

    /// The contents under a name. `None` also when they were damaged, which is counted.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`].
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        match self.resolve(name).await? {
            Some(id) => self.get_blob(&id).await,
            None => {
                count(&self.inner.counters.misses);
                Ok(None)
            }
        }
    }

    /// The id of the contents under a name.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`].
    pub async fn resolve(&self, name: &str) -> Result<Option<BlobId>, Error> {
        if let Some(known) = self.inner.memory.lock().name(name) {
            return Ok(known);
        }
        let key = name_key(name);
        let value = self.inner.cold.get(&key).await.map_err(Error::cold(format!("read name {name:?}")))?;
        let Some(id) = value.and_then(|value| Some(BlobId::from_bytes(value.as_ref().try_into().ok()?)))
        else {
            return Ok(None);
        };
        {
            // Whoever named it in the meantime knows better than the cold tier.
            let mut memory = self.inner.memory.lock();
            if let Some(known) = memory.name(name) {
                return Ok(known);
            }
            memory.put_name(name, Some(id), false);
        }
        self.make_room_or_warn().await;
        Ok(Some(id))
    }

    /// The contents with this id. `None` also when they were damaged, which is counted.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`].
    pub async fn get_blob(&self, id: &BlobId) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = self.hot(id) {
            return Ok(Some(bytes));
        }
        let found =
            self.inner.cold.get(&blob_key(id)).await.map_err(Error::cold(format!("read blob {id}")))?;
        let checked = self.checked(id, found).await?;
        self.make_room_or_warn().await;
        Ok(checked)
    }

    /// The contents with these ids, in their order; the cold ones in one request.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`].
    pub async fn get_many(&self, ids: &[BlobId]) -> Result<Vec<Option<Bytes>>, Error> {
        let mut contents: Vec<_> = ids.iter().map(|id| self.hot(id)).collect();
        let cold: Vec<usize> = (0..ids.len()).filter(|&i| contents[i].is_none()).collect();
        if cold.is_empty() {
            return Ok(contents);
        }
        let keys = cold.iter().map(|&i| blob_key(&ids[i])).collect();
        let operation = format!("read {} blobs", cold.len());
        let found = self.inner.cold.get_many(keys).await.map_err(Error::cold(operation))?;
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
    /// [`Error::Cold`].
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
    /// [`Error::Cold`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
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

    /// Removes all contents that no name leads to and that are not in `keep`; returns how many. Nothing may be put meanwhile.
    ///
    /// [`Attempts::blobs`](crate::Attempts::blobs) and [`Snapshot::blobs`](crate::Snapshot::blobs) say what these need.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`].
    pub async fn sweep(&self, keep: &HashSet<BlobId>) -> Result<u64, Error> {
        let mut wanted: HashSet<BlobId> = self.inner.memory.lock().named_blobs().collect();
        for name in self.list("").await? {
            wanted.extend(self.resolve(&name).await?);
        }
        self.flush().await?;
        let keys = self.inner.cold.list(&[BLOB]).await.map_err(Error::cold("list blobs"))?;
        let id = |key: &Bytes| Some(BlobId::from_bytes(key.get(1..)?.try_into().ok()?));
        let unwanted: Vec<(BlobId, Bytes)> = keys
            .into_iter()
            .filter_map(|key| Some((id(&key)?, key)))
            .filter(|(id, _)| !wanted.contains(id) && !keep.contains(id))
            .collect();
        unwanted.iter().for_each(|(id, _)| self.inner.memory.lock().remove_blob(id));
        let count = unwanted.len() as u64;
        let keys = unwanted.into_iter().map(|(_, key)| key).collect();
        self.inner.cold.remove_many(keys).await.map_err(Error::cold(format!("remove {count} blobs")))?;
        Ok(count)
    }

    /// Returns when everything put, linked and removed before is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`].
    pub async fn flush(&self) -> Result<(), Error> {
        let turn = self.inner.spill.lock().await;
        loop {
            let batch = self.inner.memory.lock().dirty(BATCH_BYTES_MAX);
            if batch.is_empty() {
                break;
            }
            self.write(batch).await?;
        }
        drop(turn);
        self.inner.cold.flush().await.map_err(Error::cold("flush"))
    }

    /// Flushes, and closes the cold tier. No other call follows, from any clone.
    ///
    /// # Errors
    ///
    /// [`Error::Cold`].
    pub async fn close(&self) -> Result<(), Error> {
        self.flush().await?;
        self.inner.cold.close().await.map_err(Error::cold("close"))
    }

    /// What the store holds and has done. Looks at every blob in memory.
    pub fn stats(&self) -> Stats {
        let Inner { memory, counters, options, cold, .. } = &*self.inner;
        let memory = memory.lock();
        let (hot_blobs, hot_names, dirty_blobs) = memory.counts();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
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
            bad_blobs: read(&counters.bad_blobs),
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
            count(&self.inner.counters.bad_blobs);
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

    /// Moves contents out while memory is over its threshold.
    async fn make_room(&self) -> Result<(), Error> {
        if !self.inner.memory.lock().is_over() {
            return Ok(());
        }
        let _turn = self.inner.spill.lock().await;
        if !self.inner.memory.lock().is_over() {
            return Ok(());
        }
        loop {
            let batch = self.inner.memory.lock().make_room(BATCH_BYTES_MAX);
            if batch.is_empty() {
                break;
            }
            self.write(batch).await?;
        }
        if self.inner.options.reclaim {
            // Takes milliseconds, and its result is waited for: the next put could otherwise outrun it.
            tokio::task::spawn_blocking(reclaim).await.map_err(|_| Error::Shutdown)?;
        }
        Ok(())
    }

    /// For reads, which have their answer already.
    async fn make_room_or_warn(&self) {
        if let Err(error) = self.make_room().await {
            tracing::warn!(%error, "memory stays over its threshold");
        }
    }

    async fn write(&self, batch: Batch) -> Result<(), Error> {
        let cold = &self.inner.cold;
        // The same contents may have been put, spilled and put again.
        let keys = batch.blobs.iter().map(|(id, ..)| blob_key(id)).collect();
        let known = cold.contains_many(keys).await.map_err(Error::cold("look for blobs"))?;
        let mut entries = Vec::new();
        for at in batch.in_order().into_iter().filter(|at| !known[*at]) {
            let (id, bytes, like) = &batch.blobs[at];
            let like = self.like_key(like).await?;
            entries.push(ColdEntry { key: blob_key(id), value: bytes.clone(), like });
        }
        let name = |(name, id): &(Arc<str>, Option<BlobId>)| {
            id.map(|id| (name_key(name), Bytes::copy_from_slice(id.as_bytes())).into())
        };
        entries.extend(batch.names.iter().filter_map(name));
        let removed: Vec<_> =
            batch.names.iter().filter(|(_, id)| id.is_none()).map(|(n, _)| name_key(n)).collect();
        if !entries.is_empty() {
            let operation = format!("write {} blobs and names", entries.len());
            cold.put_many(entries).await.map_err(Error::cold(operation))?;
        }
        if !removed.is_empty() {
            let operation = format!("remove {} names", removed.len());
            cold.remove_many(removed).await.map_err(Error::cold(operation))?;
        }
        self.inner.memory.lock().written(&batch);
        Ok(())
    }

    /// The key of contents in the cold tier that others are probably similar to.
    async fn like_key(&self, like: &Like) -> Result<Option<Bytes>, Error> {
        match like {
            Like::Nothing => Ok(None),
            Like::Blob(id) => Ok(Some(blob_key(id))),
            Like::Name(name) => {
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
        len => Err(Error::Name { len, max: NAME_BYTES_MAX }),
    }
}

fn blob_key(id: &BlobId) -> Bytes {
    key_of(BLOB, id.as_bytes())
}

fn name_key(name: &str) -> Bytes {
    key_of(NAME, name.as_bytes())
}

fn key_of(kind: u8, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + rest.len());
    key.put_u8(kind);
    key.put_slice(rest);
    key.freeze()
}

fn count(counter: &AtomicU64) {
    // A figure for people; nothing is ordered by it.
    counter.fetch_add(1, Ordering::Relaxed);
}
