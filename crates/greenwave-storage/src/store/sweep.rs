//! Sweeps: the removal of contents that no name refers to.

use std::collections::HashSet;

use crate::cold::catch_async;
use crate::store::keys::{BLOB, NAME, blob_key, id_of};
use crate::{BlobId, Error, Store};

/// Number of names whose values are read at once.
const NAMES_READ_MAX: usize = 1024;

impl Store {
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
    /// Returns the errors of [`sweep`](Self::sweep) and of `keep`, and [`Error::Panicked`] if
    /// `keep` panics.
    pub async fn sweep_with<F>(&self, keep: impl Fn() -> F + Send + Sync) -> Result<u64, Error>
    where
        F: Future<Output = Result<HashSet<BlobId>, Error>> + Send,
    {
        let keep = || async { catch_async("`keep`", async { keep().await }).await? };
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
}
