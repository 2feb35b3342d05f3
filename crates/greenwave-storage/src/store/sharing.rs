//! The protocol by which stores share a cold tier: a sweep by one store never removes contents that
//! another one is about to refer to.
//!
//! Besides contents and names, the protocol uses these keys in the cold tier:
//!
//! - `o`, *open*, exists while no sweep is in progress. A store writes names on the condition that
//!   `o` still has the value that it had before the store checked which contents exist. Values of
//!   `o` are never reused.
//! - `e`, *epoch*, is set to the same value as `o` whenever `o` is put.
//! - `p`, a store's id and a counter form a *pin*, which protects contents without a name as long
//!   as that store is open. Its value is the ids of the contents.
//!
//! A sweep removes `o`, and then picks up the changes of other stores: every name written before.
//! It makes these durable, because contents may be unreferenced only as a result of them. Then it
//! removes contents on the condition that `o` is absent and `e` unchanged. A writer that finds `o`
//! absent or changed puts both again, which ends the sweep, checks again which contents exist,
//! writes the missing ones, and retries. No store waits for another, and a store that dies in the
//! middle leaves nothing to clean up. A sweep only removes, so it can free space in a full cold
//! tier.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::cold::{ColdEntry, SharedColdTier, SharedWrite};
use crate::memory::Batch;
use crate::store::keys::{blob_key, id_of, key_of};
use crate::store::write_back::name_changes;
use crate::{BlobId, Error, Store};

const OPEN: Bytes = Bytes::from_static(b"o");
const EPOCH: Bytes = Bytes::from_static(b"e");
const PIN: u8 = b'p';
/// Number of times that sweeps may interrupt a write, and writes a sweep.
const TRIES_MAX: usize = 16;
/// Number of contents that a sweep removes at once.
const REMOVED_MAX: usize = 4096;

/// State of a store in the sharing protocol.
#[derive(Default)]
pub(crate) struct Sharing {
    /// Id of this store on the cold tier; 0 if the tier is not shared.
    store_id: u64,
    /// Marks this store as open for other stores. Created with the first pin.
    open_marker: tokio::sync::OnceCell<Box<dyn Send + Sync>>,
    /// Value of `o` when it was last read or put.
    open_value: Mutex<Option<Bytes>>,
    /// Counter for the keys of pins and the values of `o`.
    counter: AtomicU64,
    /// Pins of contents whose names have not been written yet.
    temporary_pins: Mutex<Vec<Bytes>>,
}

impl Sharing {
    pub(crate) fn new(store_id: u64) -> Self {
        Self { store_id, ..Self::default() }
    }

    /// Returns bytes that no store has used before.
    fn unique(&self) -> Bytes {
        // Relaxed: only uniqueness matters.
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        [self.store_id.to_be_bytes(), counter.to_be_bytes()].concat().into()
    }
}

impl Store {
    pub(crate) async fn write_shared(&self, shared: &dyn SharedColdTier, batch: &Batch) -> Result<(), Error> {
        for _ in 0..TRIES_MAX {
            let open = if batch.only_removes() {
                // Removals cannot harm a sweep, and must succeed even if `o` does not fit.
                shared.get(&OPEN).await.map_err(Error::cold("check for a sweep"))?
            } else {
                Some(self.ensure_open(shared).await?)
            };
            let write = self.prepare_write(shared, batch, open).await?;
            let pins: Vec<Bytes> = write.removals.iter().filter(|key| key[0] == PIN).cloned().collect();
            let operation = format!("write {} blobs and {} names", write.contents.len(), batch.names.len());
            if shared.write(write).await.map_err(Error::cold(operation))? {
                self.sharing().temporary_pins.lock().retain(|pin| !pins.contains(pin));
                return Ok(());
            }
            *self.sharing().open_value.lock() = None;
            shared.refresh().await.map_err(Error::cold("read the changes of other stores"))?;
        }
        Err(Error::cold("write between sweeps of other stores")("too many concurrent sweeps".into()))
    }

    /// Returns the value of `o`, which is put again if a sweep has removed it.
    async fn ensure_open(&self, shared: &dyn SharedColdTier) -> Result<Bytes, Error> {
        let seen = self.sharing().open_value.lock().clone();
        if let Some(open) = seen {
            return Ok(open);
        }
        for _ in 0..TRIES_MAX {
            let read = shared.get(&OPEN).await.map_err(Error::cold("check for a sweep"))?;
            if let Some(open) = read {
                *self.sharing().open_value.lock() = Some(open.clone());
                return Ok(open);
            }
            let open = self.sharing().unique();
            let write = SharedWrite {
                conditions: vec![(OPEN, None)],
                puts: vec![(OPEN, open.clone()), (EPOCH, open.clone())],
                ..SharedWrite::default()
            };
            if shared.write(write).await.map_err(Error::cold("end a sweep"))? {
                *self.sharing().open_value.lock() = Some(open.clone());
                return Ok(open);
            }
        }
        Err(Error::cold("write between sweeps of other stores")("too many concurrent sweeps".into()))
    }

    /// Prepares the write of a batch, on the condition that `o` still has the value `open`.
    async fn prepare_write(
        &self,
        shared: &dyn SharedColdTier,
        batch: &Batch,
        open: Option<Bytes>,
    ) -> Result<SharedWrite, Error> {
        let mut contents = self.missing_contents(batch).await?;
        let external_references: Vec<BlobId> = batch.external_references().into_iter().collect();
        let keys = external_references.iter().map(blob_key).collect();
        let present = shared.contains_many(keys).await.map_err(Error::cold("check for existing blobs"))?;
        for (id, _) in external_references.iter().zip(&present).filter(|(_, present)| !**present) {
            // Another store has swept the contents, and they are needed again.
            if let Some(value) = self.memory().lock().peek(id) {
                contents.push(ColdEntry { key: blob_key(id), value, base: None });
            }
        }
        if contents.len() < batch.blobs.len() || present.contains(&true) {
            // Existing contents may not be durable yet, in this store or in another.
            shared.flush_shared().await.map_err(Error::cold("flush"))?;
        }
        let (mut puts, mut removals) = name_changes(batch);
        if !batch.unnamed.is_empty() {
            let key = self.pin_key(shared).await?;
            puts.push((key, encode_pin(&batch.unnamed)));
        }
        if batch.last {
            removals.extend(self.sharing().temporary_pins.lock().iter().cloned());
        } else {
            let named: HashSet<BlobId> = batch.names.iter().filter_map(|change| change.blob).collect();
            let free = |id: &BlobId| !named.contains(id) && !batch.unnamed.contains(id);
            let unprotected: Vec<BlobId> = batch.blobs.iter().map(|blob| blob.id).filter(free).collect();
            if !unprotected.is_empty() {
                let key = self.pin_key(shared).await?;
                self.sharing().temporary_pins.lock().push(key.clone());
                puts.push((key, encode_pin(&unprotected)));
            }
        }
        Ok(SharedWrite { conditions: vec![(OPEN, open)], contents, puts, removals })
    }

    /// Returns the key of a new pin. Marks the store as open first, so that the pin is valid once
    /// written.
    async fn pin_key(&self, shared: &dyn SharedColdTier) -> Result<Bytes, Error> {
        let Sharing { open_marker, store_id, .. } = self.sharing();
        let held = open_marker.get_or_try_init(|| shared.mark_open(*store_id)).await;
        held.map_err(Error::cold("mark this store as open"))?;
        Ok(key_of(PIN, &self.sharing().unique()))
    }

    /// Removes unreferenced contents and returns their ids. Stops early if other stores keep
    /// writing.
    pub(crate) async fn sweep_shared<F>(
        &self,
        shared: &dyn SharedColdTier,
        keep: &(impl Fn() -> F + Send + Sync),
    ) -> Result<HashSet<BlobId>, Error>
    where
        F: Future<Output = Result<HashSet<BlobId>, Error>> + Send,
    {
        let mut removed = HashSet::new();
        for _ in 0..TRIES_MAX {
            let Some(epoch) = self.announce_sweep(shared).await? else { continue };
            let (referenced, expired_pins) = self.read_pins(shared, keep().await?).await?;
            shared.flush_shared().await.map_err(Error::cold("flush"))?;
            let unreferenced = self.unreferenced(&referenced).await?;
            let conditions = vec![(OPEN, None), (EPOCH, epoch)];
            let mut interrupted = false;
            let keys: Vec<Bytes> =
                expired_pins.into_iter().chain(unreferenced.iter().map(blob_key)).collect();
            for chunk in keys.chunks(REMOVED_MAX) {
                let write = SharedWrite {
                    conditions: conditions.clone(),
                    removals: chunk.to_vec(),
                    ..SharedWrite::default()
                };
                let operation = format!("remove {} blobs", chunk.len());
                interrupted = !shared.write(write).await.map_err(Error::cold(operation))?;
                if interrupted {
                    break;
                }
                let ids = chunk.iter().filter_map(|key| id_of(&key.slice(1..)));
                for id in ids {
                    self.memory().lock().remove_blob(&id);
                    removed.insert(id);
                }
            }
            if !interrupted {
                break;
            }
        }
        Ok(removed)
    }

    /// Announces a sweep, and picks up the changes of other stores. Returns the epoch, or `None` if
    /// another sweep or write intervened.
    async fn announce_sweep(&self, shared: &dyn SharedColdTier) -> Result<Option<Option<Bytes>>, Error> {
        let refreshed =
            || async { shared.refresh().await.map_err(Error::cold("read the changes of other stores")) };
        refreshed().await?;
        *self.sharing().open_value.lock() = None;
        let open = shared.get(&OPEN).await.map_err(Error::cold("check for a sweep"))?;
        let epoch = shared.get(&EPOCH).await.map_err(Error::cold("check for a sweep"))?;
        // Written even if `o` is already absent: both values must be confirmed at a single moment
        // before the names of other stores are picked up.
        let write = SharedWrite {
            removals: open.is_some().then_some(OPEN).into_iter().collect(),
            conditions: vec![(OPEN, open), (EPOCH, epoch.clone())],
            ..SharedWrite::default()
        };
        if !shared.write(write).await.map_err(Error::cold("start a sweep"))? {
            return Ok(None);
        }
        refreshed().await?;
        Ok(Some(epoch))
    }

    /// Adds the contents pinned by open stores to the referenced ones. Also returns the keys of
    /// pins that are no longer valid.
    async fn read_pins(
        &self,
        shared: &dyn SharedColdTier,
        mut referenced: HashSet<BlobId>,
    ) -> Result<(HashSet<BlobId>, Vec<Bytes>), Error> {
        let mut expired_pins = Vec::new();
        let keys = shared.list(&[PIN]).await.map_err(Error::cold("list pins"))?;
        let temporary_pins = self.sharing().temporary_pins.lock().clone();
        let values = shared.get_many(keys.clone()).await.map_err(Error::cold("read pins"))?;
        let mut open_stores: HashMap<u64, bool> = HashMap::new();
        for (key, value) in keys.into_iter().zip(values) {
            let (Some(store_id), Some(ids)) = (store_id_of(&key), value.as_ref().and_then(decode_pin)) else {
                continue;
            };
            let counts = match open_stores.get(&store_id) {
                _ if store_id == self.sharing().store_id => temporary_pins.contains(&key),
                Some(open_stores) => *open_stores,
                None => {
                    let open = shared
                        .is_open(store_id)
                        .await
                        .map_err(Error::cold("check whether another store is open"))?;
                    open_stores.insert(store_id, open);
                    open
                }
            };
            if counts {
                referenced.extend(ids);
            } else {
                expired_pins.push(key);
            }
        }
        Ok((referenced, expired_pins))
    }

    /// Removes all pins of this store.
    pub(crate) async fn remove_pins(&self, shared: &dyn SharedColdTier) -> Result<(), Error> {
        let own = key_of(PIN, &self.sharing().store_id.to_be_bytes());
        let pins = shared.list(&own).await.map_err(Error::cold("list pins"))?;
        if pins.is_empty() {
            return Ok(());
        }
        shared.remove_many(pins).await.map_err(Error::cold("remove pins"))
    }
}

/// Encodes the value of a pin.
fn encode_pin(ids: &[BlobId]) -> Bytes {
    ids.iter().flat_map(|id| *id.as_bytes()).collect()
}

fn decode_pin(value: &Bytes) -> Option<Vec<BlobId>> {
    let (ids, rest) = value.as_chunks();
    rest.is_empty().then(|| ids.iter().map(|id| BlobId::from_bytes(*id)).collect())
}

/// Decodes the store id in the key of a pin.
fn store_id_of(key: &Bytes) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(1..)?.first_chunk()?))
}

/// Decodes arbitrary bytes as a pin, and checks that encoding the result yields the same bytes.
#[cfg(feature = "conformance")]
pub(crate) fn check_pin(value: &[u8]) {
    let value = Bytes::copy_from_slice(value);
    if let Some(ids) = decode_pin(&value) {
        assert_eq!(encode_pin(&ids), value);
    }
    let _ = store_id_of(&value);
}
