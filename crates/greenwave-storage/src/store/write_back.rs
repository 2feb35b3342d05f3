//! Writes contents and names from memory to the cold tier.

use bytes::Bytes;

use crate::cold::ColdEntry;
use crate::memory::{Batch, BatchBlob, DeltaBase, MemoryTier, Skipped};
use crate::reclaim::reclaim;
use crate::store::keys::{BLOB, blob_key, key_of, name_key};
use crate::{BlobId, Error, Store};

/// Approximate size of a batch of writes to the cold tier.
const BATCH_BYTES_MAX: u64 = 4 << 20;

/// Contents from this size on are put only after others were spilled, in bytes.
const ROOM_BYTES_MIN: usize = 1 << 20;

/// Number of consecutive failures, with entries tried one by one, after which the whole cold tier
/// is considered to have failed. A put gives up sooner than a flush, because the next put tries
/// again.
const FLUSH_FAILURES_MAX: usize = 32;
const PUT_FAILURES_MAX: usize = 4;

impl Store {
    /// Spills if memory use exceeds its threshold. Only fails if the contents `id` cannot be
    /// written; problems with other contents are logged.
    pub(super) async fn spill_for(&self, id: &BlobId) -> Result<(), Error> {
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
    pub(super) async fn spill(&self) -> Result<(), Error> {
        if !self.state.memory.lock().exceeds_threshold() {
            return Ok(());
        }
        let _guard = self.state.spill_lock.lock().await;
        if !self.state.memory.lock().exceeds_threshold() {
            return Ok(());
        }
        self.free_space_for(0).await
    }

    /// Moves contents to the cold tier until there is room for `incoming` bytes. The caller holds
    /// the spill lock.
    async fn free_space_for(&self, incoming: u64) -> Result<(), Error> {
        let next = |memory: &mut MemoryTier, skipped: &Skipped| {
            memory.free_space_for(incoming, BATCH_BYTES_MAX, skipped)
        };
        self.write_while(PUT_FAILURES_MAX, next).await?;
        if self.state.options.reclaim {
            // Takes milliseconds. Waiting for it keeps the next put from outrunning it.
            tokio::task::spawn_blocking(reclaim).await.map_err(|_| Error::Shutdown)?;
        }
        Ok(())
    }

    /// Moves other contents to the cold tier before large ones are put, so that both are not in
    /// memory at once. Small contents are put first, because a spill for each of them would write
    /// smaller batches.
    pub(super) async fn make_room(&self, bytes: usize) {
        let incoming = bytes as u64;
        if bytes < ROOM_BYTES_MIN || !self.state.memory.lock().exceeds_threshold_with(incoming) {
            return;
        }
        let _guard = self.state.spill_lock.lock().await;
        if let Err(error) = self.free_space_for(incoming).await {
            // The put reports it if its own contents cannot be written.
            tracing::debug!(%error, "cannot make room for large contents");
        }
    }

    /// Writes everything that the cold tier does not have yet.
    pub(super) async fn write_dirty(&self) -> Result<(), Error> {
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
    pub(super) async fn spill_or_warn(&self) {
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
