//! How stores agree that share a cold tier: what one of them sweeps, no other is about to rely on.
//!
//! Four kinds of keys in the cold tier serve for that, besides contents and names:
//!
//! - `o`, *open*, is there as long as no sweep has begun. Whoever writes names does so on the condition that it has the value which it
//!   had before the writer looked which contents are there. Its values never come again.
//! - `e`, *epoch*, gets the same value as `o` whenever that is put.
//! - `p`, a store's number and a counter is a *pin*: contents to stay as long as that store is open, though no name leads to them. Its
//!   value is their ids.
//!
//! A sweep removes `o`, then takes in what others wrote: every name written before. It makes that durable, since what it is about to
//! remove may be superfluous only by it. Then it removes contents on the condition that `o` is absent and `e` as before. A writer that
//! finds `o` absent or changed puts both anew, which ends the sweep, looks again which contents are there, writes those that are not,
//! and tries again. Nobody waits for anybody, and a store that dies in the middle leaves nothing to be cleaned up. A sweep only removes,
//! so a cold tier that is full does not keep it from making room.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::cold::{ColdEntry, SharedColdTier, SharedWrite};
use crate::memory::Batch;
use crate::store::{blob_key, changes, key_of};
use crate::{BlobId, Error, Store};

const OPEN: Bytes = Bytes::from_static(b"o");
const EPOCH: Bytes = Bytes::from_static(b"e");
const PIN: u8 = b'p';
/// How often sweeps of others may interrupt a write, and writes of others a sweep.
const TRIES_MAX: usize = 16;
/// Contents that a sweep removes at once.
const REMOVED_MAX: usize = 4096;

/// What a store remembers of its agreement with others.
#[derive(Default)]
pub(crate) struct Sharing {
    /// What others tell this store by; 0 where there are none.
    number: u64,
    /// Shows others that this store is open, once they have to know.
    hold: tokio::sync::OnceCell<Box<dyn Send + Sync>>,
    /// The value of `o` when it was last read or put.
    open: Mutex<Option<Bytes>>,
    /// Numbers of pins and of values of `o`.
    counter: AtomicU64,
    /// Pins of contents whose names are still to be written.
    temporary: Mutex<Vec<Bytes>>,
}

impl Sharing {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// What no store has put anywhere before.
    fn unique(&self) -> Bytes {
        // Only uniqueness counts; nothing is ordered by it.
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        [self.number.to_be_bytes(), counter.to_be_bytes()].concat().into()
    }
}

impl Store {
    pub(crate) async fn write_shared(&self, shared: &dyn SharedColdTier, batch: &Batch) -> Result<(), Error> {
        for _ in 0..TRIES_MAX {
            let open = match batch.only_removes() {
                // This harms no sweep, and must go where there is no room for `o`.
                true => shared.get(&OPEN).await.map_err(Error::cold("look for a sweep"))?,
                false => Some(self.opened(shared).await?),
            };
            let write = self.prepared(shared, batch, open).await?;
            let pins: Vec<Bytes> = write.removals.iter().filter(|key| key[0] == PIN).cloned().collect();
            let operation = format!("write {} blobs and {} names", write.contents.len(), batch.names.len());
            if shared.write(write).await.map_err(Error::cold(operation))? {
                self.sharing().temporary.lock().retain(|pin| !pins.contains(pin));
                return Ok(());
            }
            *self.sharing().open.lock() = None;
            shared.refresh().await.map_err(Error::cold("look for changes by others"))?;
        }
        Err(Error::cold("write between sweeps of other stores")("they do not end".into()))
    }

    /// The value of `o`, put anew if a sweep has removed it.
    async fn opened(&self, shared: &dyn SharedColdTier) -> Result<Bytes, Error> {
        let seen = self.sharing().open.lock().clone();
        if let Some(open) = seen {
            return Ok(open);
        }
        for _ in 0..TRIES_MAX {
            let read = shared.get(&OPEN).await.map_err(Error::cold("look for a sweep"))?;
            if let Some(open) = read {
                *self.sharing().open.lock() = Some(open.clone());
                return Ok(open);
            }
            let open = self.sharing().unique();
            let write = SharedWrite {
                conditions: vec![(OPEN, None)],
                puts: vec![(OPEN, open.clone()), (EPOCH, open.clone())],
                ..SharedWrite::default()
            };
            if shared.write(write).await.map_err(Error::cold("end a sweep"))? {
                *self.sharing().open.lock() = Some(open.clone());
                return Ok(open);
            }
        }
        Err(Error::cold("write between sweeps of other stores")("they do not end".into()))
    }

    /// What has to be written for a batch, on the condition that `o` has still the value `open`.
    async fn prepared(
        &self,
        shared: &dyn SharedColdTier,
        batch: &Batch,
        open: Option<Bytes>,
    ) -> Result<SharedWrite, Error> {
        let mut contents = self.contents_of(batch).await?;
        let relied_on: Vec<BlobId> = batch.relied_on().into_iter().collect();
        let keys = relied_on.iter().map(blob_key).collect();
        let there = shared.contains_many(keys).await.map_err(Error::cold("look for blobs"))?;
        for (id, _) in relied_on.iter().zip(&there).filter(|(_, there)| !**there) {
            // Swept by another store, and wanted again.
            if let Some(value) = self.memory().lock().peek(id) {
                contents.push(ColdEntry { key: blob_key(id), value, base: None });
            }
        }
        if contents.len() < batch.blobs.len() || there.contains(&true) {
            // What is there may not be durable yet, here or in another store.
            shared.flush_shared().await.map_err(Error::cold("flush"))?;
        }
        let (mut puts, mut removals) = changes(batch);
        if !batch.unnamed.is_empty() {
            let key = self.pin_key(shared).await?;
            puts.push((key, pin(&batch.unnamed)));
        }
        if batch.last {
            removals.extend(self.sharing().temporary.lock().iter().cloned());
        } else {
            let named: HashSet<BlobId> = batch.names.iter().filter_map(|change| change.blob).collect();
            let free = |id: &BlobId| !named.contains(id) && !batch.unnamed.contains(id);
            let unprotected: Vec<BlobId> = batch.blobs.iter().map(|(id, ..)| *id).filter(free).collect();
            if !unprotected.is_empty() {
                let key = self.pin_key(shared).await?;
                self.sharing().temporary.lock().push(key.clone());
                puts.push((key, pin(&unprotected)));
            }
        }
        Ok(SharedWrite { conditions: vec![(OPEN, open)], contents, puts, removals })
    }

    /// The key of a pin, which counts from before it is written.
    async fn pin_key(&self, shared: &dyn SharedColdTier) -> Result<Bytes, Error> {
        let Sharing { hold, number, .. } = self.sharing();
        let held = hold.get_or_try_init(|| shared.mark_open(*number)).await;
        held.map_err(Error::cold("show other stores that this one is open"))?;
        Ok(key_of(PIN, &self.sharing().unique()))
    }

    /// Removes what nobody wants, and returns it. Ends early when others keep writing.
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
            let Some(epoch) = self.announced(shared).await? else { continue };
            let (wanted, superfluous) = self.pinned(shared, keep().await?).await?;
            shared.flush_shared().await.map_err(Error::cold("flush"))?;
            let unwanted = self.unwanted(&wanted).await?;
            let conditions = vec![(OPEN, None), (EPOCH, epoch)];
            let mut interrupted = false;
            let keys: Vec<Bytes> = superfluous.into_iter().chain(unwanted.iter().map(blob_key)).collect();
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
                let ids = chunk.iter().filter_map(|key| crate::store::id_of(&key.slice(1..)));
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

    /// Announces a sweep, and takes in what others wrote before. Returns the epoch; `None` if another sweep or write came between.
    async fn announced(&self, shared: &dyn SharedColdTier) -> Result<Option<Option<Bytes>>, Error> {
        let refreshed =
            || async { shared.refresh().await.map_err(Error::cold("look for changes by others")) };
        refreshed().await?;
        *self.sharing().open.lock() = None;
        let open = shared.get(&OPEN).await.map_err(Error::cold("look for a sweep"))?;
        let epoch = shared.get(&EPOCH).await.map_err(Error::cold("look for a sweep"))?;
        // Also where `o` is absent already: both have to be what they are at one moment, before others' names are taken in.
        let write = SharedWrite {
            removals: open.is_some().then_some(OPEN).into_iter().collect(),
            conditions: vec![(OPEN, open), (EPOCH, epoch.clone())],
            ..SharedWrite::default()
        };
        if !shared.write(write).await.map_err(Error::cold("begin a sweep"))? {
            return Ok(None);
        }
        refreshed().await?;
        Ok(Some(epoch))
    }

    /// What is to stay, with what others have pinned; and pins that count no more.
    async fn pinned(
        &self,
        shared: &dyn SharedColdTier,
        mut wanted: HashSet<BlobId>,
    ) -> Result<(HashSet<BlobId>, Vec<Bytes>), Error> {
        let mut superfluous = Vec::new();
        let keys = shared.list(&[PIN]).await.map_err(Error::cold("list pins"))?;
        let temporary = self.sharing().temporary.lock().clone();
        let values = shared.get_many(keys.clone()).await.map_err(Error::cold("read pins"))?;
        let mut lives: HashMap<u64, bool> = HashMap::new();
        for (key, value) in keys.into_iter().zip(values) {
            let (Some(number), Some(ids)) = (number_of(&key), value.as_ref().and_then(pinned)) else {
                continue;
            };
            let counts = match lives.get(&number) {
                _ if number == self.sharing().number => temporary.contains(&key),
                Some(lives) => *lives,
                None => {
                    let held = shared.is_open(number).await.map_err(Error::cold("look for other stores"))?;
                    lives.insert(number, held);
                    held
                }
            };
            if counts {
                wanted.extend(ids);
            } else {
                superfluous.push(key);
            }
        }
        Ok((wanted, superfluous))
    }

    /// Takes all pins back.
    pub(crate) async fn leave(&self, shared: &dyn SharedColdTier) -> Result<(), Error> {
        let own = key_of(PIN, &self.sharing().number.to_be_bytes());
        let pins = shared.list(&own).await.map_err(Error::cold("list pins"))?;
        if pins.is_empty() {
            return Ok(());
        }
        shared.remove_many(pins).await.map_err(Error::cold("remove pins"))
    }
}

/// The value of a pin.
fn pin(ids: &[BlobId]) -> Bytes {
    ids.iter().flat_map(|id| *id.as_bytes()).collect()
}

fn pinned(value: &Bytes) -> Option<Vec<BlobId>> {
    let (ids, rest) = value.as_chunks();
    rest.is_empty().then(|| ids.iter().map(|id| BlobId::from_bytes(*id)).collect())
}

/// The number in a pin's key.
fn number_of(key: &Bytes) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(1..)?.first_chunk()?))
}

/// Reads any bytes as a pin: what is read is written as the same bytes.
#[cfg(feature = "conformance")]
pub(crate) fn check_pin(value: &[u8]) {
    let value = Bytes::copy_from_slice(value);
    if let Some(ids) = pinned(&value) {
        assert_eq!(pin(&ids), value);
    }
    let _ = number_of(&value);
}
