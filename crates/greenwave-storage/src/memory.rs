//! The memory tier: what is in memory, what it weighs, what is to move out. Decides only; writing is the store's.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;

use crate::{BlobId, StoreOptions};

/// What a blob occupies besides its contents: the list's node (128), its slot in a hash table that just doubled (39), the shared count of
/// [`Bytes`] (24), and three allocations' headers and rounding (49).
const BLOB_OVERHEAD_BYTES: u64 = 240;
/// Likewise for a name: node (72), slot (39), the name's reference counts (16), two allocations (33).
const NAME_OVERHEAD_BYTES: u64 = 160;
/// Names may take one part in this many.
const NAMES_SHARE: u64 = 4;
/// ColdTier contents whose reads are counted.
const COUNTED_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// What contents are probably similar to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeltaBase {
    /// Nothing known.
    Nothing,
    /// These contents.
    Blob(BlobId),
    /// Whatever the cold tier has under this name.
    Name(Arc<str>),
}

/// Contents in memory.
#[derive(Debug)]
struct Resident {
    bytes: Bytes,
    base: DeltaBase,
    /// Not in the cold tier yet.
    dirty: bool,
    /// The cold tier failed to take it by itself.
    refused: bool,
}

/// What a name leads to.
#[derive(Debug, Clone)]
struct Named {
    /// `None` when removed.
    blob: Option<BlobId>,
    /// Other contents that the cold tier has to have first, as long as it has not been told of the name.
    needs: Needs,
    /// The cold tier has not been told.
    dirty: bool,
}

/// Contents that are worth nothing without others: those others.
pub(crate) type Needs = Option<Arc<[BlobId]>>;

/// A name and what it is to lead to, or nothing when it is to be removed.
#[derive(Debug, Clone)]
pub(crate) struct NameChange {
    pub(crate) name: Arc<str>,
    pub(crate) blob: Option<BlobId>,
    pub(crate) needs: Needs,
}

/// Names that go to the cold tier at once.
const BATCH_NAMES_MAX: usize = 4096;

/// What the cold tier has to be told at once: contents, and what is about these or about others that it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) blobs: Vec<(BlobId, Bytes, DeltaBase)>,
    pub(crate) names: Vec<NameChange>,
    /// Contents that were put without a name.
    pub(crate) unnamed: Vec<BlobId>,
    /// Whether nothing is left to be told after this.
    pub(crate) last: bool,
}

/// What failed to be written, and is left out until the next call.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    pub(crate) blobs: HashSet<BlobId>,
    pub(crate) names: HashSet<Arc<str>>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.names.is_empty() && self.unnamed.is_empty()
    }

    /// Whether it has nothing but names to be removed.
    pub(crate) fn only_removes(&self) -> bool {
        self.blobs.is_empty()
            && self.unnamed.is_empty()
            && self.names.iter().all(|change| change.blob.is_none())
    }

    /// The contents that this is about without having them.
    pub(crate) fn relied_on(&self) -> BTreeSet<BlobId> {
        let named = self.names.iter().filter_map(|change| change.blob);
        let needed =
            self.names.iter().filter_map(|change| change.needs.as_ref()).flat_map(|needs| needs.iter());
        let mut ids: BTreeSet<BlobId> =
            named.chain(needed.copied()).chain(self.unnamed.iter().copied()).collect();
        let blobs: HashSet<&BlobId> = self.blobs.iter().map(|(id, ..)| id).collect();
        ids.retain(|id| !blobs.contains(id));
        ids
    }

    /// The same as several: what frees room first, then each part by itself, contents before what is about them.
    pub(crate) fn split(self) -> Vec<Self> {
        let (removed, named): (Vec<_>, Vec<_>) =
            self.names.into_iter().partition(|change| change.blob.is_none());
        let mut unnamed: BTreeSet<BlobId> = self.unnamed.into_iter().collect();
        let mut parts = vec![Self { names: removed, ..Self::default() }];
        for blob in self.blobs {
            let unnamed = unnamed.take(&blob.0).into_iter().collect();
            parts.push(Self { blobs: vec![blob], unnamed, ..Self::default() });
        }
        parts.push(Self { unnamed: unnamed.into_iter().collect(), ..Self::default() });
        parts.extend(named.into_iter().map(|name| Self { names: vec![name], ..Self::default() }));
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// The blobs' places, with what others are similar to before these.
    pub(crate) fn in_order(&self) -> Vec<usize> {
        let places: HashMap<BlobId, usize> = self.blobs.iter().map(|(id, ..)| *id).zip(0..).collect();
        let mut done = vec![false; self.blobs.len()];
        let mut order = Vec::with_capacity(self.blobs.len());
        for start in 0..self.blobs.len() {
            let mut path = Vec::new();
            let mut next = Some(start);
            while let Some(at) = next.filter(|at| !std::mem::replace(&mut done[*at], true)) {
                path.push(at);
                next = match &self.blobs[at].2 {
                    DeltaBase::Blob(id) => places.get(id).copied(),
                    DeltaBase::Nothing | DeltaBase::Name(_) => None,
                };
            }
            order.extend(path.into_iter().rev());
        }
        order
    }
}

/// Everything in memory, least recently used last.
#[derive(Debug)]
pub(crate) struct Memory {
    blobs: LruCache<BlobId, Resident>,
    names: LruCache<Arc<str>, Named>,
    /// How often cold contents were read lately.
    reads: LruCache<BlobId, u32>,
    /// Contents that the cold tier does not have.
    dirty_blobs: u64,
    /// Contents put without a name, which the cold tier has not been told.
    unnamed: BTreeSet<BlobId>,
    /// What the cold tier called its state when the clean names were read.
    generation: u64,
    pub(crate) used_bytes: u64,
    /// Of these, names.
    names_bytes: u64,
    pub(crate) peak_bytes: u64,
    pub(crate) spilling: bool,
    pub(crate) spilled: u64,
    pub(crate) promoted: u64,
    high_bytes: u64,
    low_bytes: u64,
    promote_after: u32,
}

impl Memory {
    pub(crate) fn new(options: &StoreOptions) -> Self {
        Self {
            blobs: LruCache::unbounded(),
            names: LruCache::unbounded(),
            reads: LruCache::sparse(COUNTED_MAX),
            dirty_blobs: 0,
            unnamed: BTreeSet::new(),
            generation: 0,
            used_bytes: 0,
            names_bytes: 0,
            peak_bytes: 0,
            spilling: false,
            spilled: 0,
            promoted: 0,
            high_bytes: options.high_bytes(),
            low_bytes: options.low_bytes(),
            promote_after: options.promote_after,
        }
    }

    /// Takes contents that the cold tier may not have.
    pub(crate) fn put_blob(&mut self, id: BlobId, bytes: Bytes, base: DeltaBase) {
        self.hold(id, bytes, Some(base));
    }

    /// Takes note that contents are to stay though no name leads to them.
    pub(crate) fn put_unnamed(&mut self, id: BlobId) {
        self.unnamed.insert(id);
    }

    /// Forgets of the contents put without a name those that need not stay.
    pub(crate) fn retain_unnamed(&mut self, kept: &HashSet<BlobId>) {
        self.unnamed.retain(|id| kept.contains(id));
    }

    /// Whether the cold tier lacks these contents, as far as this store can tell.
    pub(crate) fn is_dirty(&self, id: &BlobId) -> bool {
        self.blobs.peek(id).is_some_and(|resident| resident.dirty)
    }

    /// The contents, if they are here. They are no more recent for it.
    pub(crate) fn peek(&self, id: &BlobId) -> Option<Bytes> {
        self.blobs.peek(id).map(|resident| resident.bytes.clone())
    }

    /// Drops contents that the cold tier does not have and nobody wants.
    pub(crate) fn drop_dirty(&mut self, wanted: &HashSet<BlobId>) -> Vec<BlobId> {
        let dirty = self.blobs.iter().filter(|(_, resident)| resident.dirty);
        let unwanted: Vec<BlobId> = dirty.map(|(id, _)| *id).filter(|id| !wanted.contains(id)).collect();
        unwanted.iter().for_each(|id| self.remove_blob(id));
        unwanted
    }

    /// Forgets names as the cold tier had them, if its state is another one by now.
    pub(crate) fn see_generation(&mut self, generation: u64) {
        if std::mem::replace(&mut self.generation, generation) == generation {
            return;
        }
        let clean: Vec<Arc<str>> =
            self.names.iter().filter(|(_, named)| !named.dirty).map(|(name, _)| name.clone()).collect();
        for name in clean {
            self.names.pop(&name);
            self.names_bytes -= name_cost(&name);
            self.release(name_cost(&name));
        }
    }

    /// Takes a name as the cold tier had it in that state.
    pub(crate) fn read_name(&mut self, name: &str, blob: BlobId, generation: u64) {
        if self.generation == generation {
            self.put_name(name, Some(blob), false);
        }
    }

    /// What a name leads to that the cold tier has not been told.
    pub(crate) fn dirty_name(&mut self, name: &str) -> Option<Option<BlobId>> {
        self.names.get(name).filter(|named| named.dirty).map(|named| named.blob)
    }

    /// What new contents of a name are probably similar to: its old ones.
    pub(crate) fn base_of_name(&mut self, name: &str, new: &BlobId) -> DeltaBase {
        match self.name(name) {
            Some(Some(old)) if old != *new => DeltaBase::Blob(old),
            Some(_) => DeltaBase::Nothing,
            None => DeltaBase::Name(name.into()),
        }
    }

    /// The contents, if they are here; they are recent from now on.
    pub(crate) fn blob(&mut self, id: &BlobId) -> Option<Bytes> {
        self.blobs.get(id).map(|resident| resident.bytes.clone())
    }

    /// Counts a read of cold contents, and takes them in once it is the `promote_after`th.
    pub(crate) fn read_cold(&mut self, id: BlobId, bytes: &Bytes) {
        let reads = self.reads.get_or_insert_mut(id, || 0);
        *reads += 1;
        if *reads >= self.promote_after && blob_cost(bytes) <= self.low_bytes {
            self.reads.pop(&id);
            self.hold(id, bytes.clone(), None);
            self.promoted += 1;
        }
    }

    /// Forgets contents, dirty or not.
    pub(crate) fn remove_blob(&mut self, id: &BlobId) {
        self.reads.pop(id);
        if let Some(resident) = self.blobs.pop(id) {
            self.dirty_blobs -= u64::from(resident.dirty);
            self.release(blob_cost(&resident.bytes));
        }
    }

    /// Leads a name to contents, or with `None` to nothing. `dirty` unless the cold tier said so itself.
    pub(crate) fn put_name(&mut self, name: &str, blob: Option<BlobId>, dirty: bool) {
        self.put_needing(name, blob, None, dirty);
    }

    /// Likewise, for contents that are worth nothing without others.
    pub(crate) fn put_needing(&mut self, name: &str, blob: Option<BlobId>, needs: Needs, dirty: bool) {
        if let Some(named) = self.names.get_mut(name) {
            *named = Named { blob, needs, dirty };
        } else {
            self.names.put(name.into(), Named { blob, needs, dirty });
            self.names_bytes += name_cost(name);
            self.take(name_cost(name));
        }
    }

    /// What a name leads to: `None` if only the cold tier knows.
    pub(crate) fn name(&mut self, name: &str) -> Option<Option<BlobId>> {
        self.names.get(name).map(|named| named.blob)
    }

    /// The names here that the cold tier has not heard of: present ones and removed ones.
    pub(crate) fn dirty_names(&self, prefix: &str) -> Vec<(Arc<str>, bool)> {
        let dirty = self.names.iter().filter(|(name, named)| named.dirty && name.starts_with(prefix));
        dirty.map(|(name, named)| (name.clone(), named.blob.is_some())).collect()
    }

    /// The blobs that names lead to by what the cold tier has not been told.
    pub(crate) fn named_blobs(&self) -> impl Iterator<Item = BlobId> {
        self.names.iter().filter(|(_, named)| named.dirty).filter_map(|(_, named)| named.blob)
    }

    /// Whether contents have to move out.
    pub(crate) fn is_over(&self) -> bool {
        self.used_bytes > self.high_bytes
    }

    /// Drops what the cold tier has, oldest first, down to the low mark. Returns what must be written first if that is not enough.
    pub(crate) fn make_room(&mut self, batch_bytes_max: u64, skipped: &Skipped) -> Batch {
        self.spilling = true;
        // Names may take a share only: there can be so many that no contents would be left.
        let share = self.low_bytes / NAMES_SHARE;
        self.drop_clean_names(|memory| memory.names_bytes > share);
        if self.names_bytes > share {
            let batch = self.dirty(batch_bytes_max, skipped);
            if !batch.is_empty() {
                return batch;
            }
        }
        let mut passed_over = 0;
        while self.used_bytes > self.low_bytes
            && let Some((id, resident)) = self.blobs.peek_lru()
        {
            let id = *id;
            if !resident.dirty {
                self.remove_blob(&id);
                self.spilled += 1;
            } else if skipped.blobs.contains(&id) && passed_over < skipped.blobs.len() {
                self.blobs.promote(&id);
                passed_over += 1;
            } else {
                break;
            }
        }
        if self.blobs.is_empty() {
            self.drop_clean_names(|memory| memory.used_bytes > memory.low_bytes);
        }
        if self.used_bytes <= self.low_bytes {
            Batch::default()
        } else {
            self.dirty(batch_bytes_max, skipped)
        }
    }

    fn drop_clean_names(&mut self, needed: impl Fn(&Self) -> bool) {
        while needed(self) && self.names.peek_lru().is_some_and(|(_, named)| !named.dirty) {
            let (name, _) = self.names.pop_lru().expect("just seen");
            self.names_bytes -= name_cost(&name);
            self.release(name_cost(&name));
        }
    }

    /// What the cold tier does not have, the oldest first, about as much as asked for: contents, and with the last of them what is
    /// about them. Contents that were refused come at the very end, so that no number of them keeps others from being written.
    pub(crate) fn dirty(&self, batch_bytes_max: u64, skipped: &Skipped) -> Batch {
        let mut batch = Batch::default();
        let (mut bytes, mut is_full) = (0, false);
        let mut refused = Vec::new();
        let mut left = self.dirty_blobs;
        for (id, resident) in self.blobs.iter().rev().filter(|(_, resident)| resident.dirty) {
            if left == 0 || is_full {
                break;
            }
            left -= 1;
            let blob = || (*id, resident.bytes.clone(), resident.base.clone());
            if skipped.blobs.contains(id) {
            } else if resident.refused {
                refused.push(blob());
            } else {
                batch.blobs.push(blob());
                bytes += blob_cost(&resident.bytes);
                is_full = bytes >= batch_bytes_max;
            }
        }
        let ids: HashSet<BlobId> = batch.blobs.iter().map(|(id, ..)| *id).collect();
        batch.unnamed = self.unnamed.iter().filter(|id| ids.contains(*id)).copied().collect();
        if left > 0 {
            return batch;
        }
        self.add_names(&mut batch, &ids, skipped);
        if batch.is_empty() {
            batch.blobs = refused;
        }
        batch
    }

    /// Adds to the last contents what is about these and others that the cold tier has.
    fn add_names(&self, batch: &mut Batch, ids: &HashSet<BlobId>, skipped: &Skipped) {
        let told = |id: &BlobId| ids.contains(id) || !self.is_dirty(id) && !skipped.blobs.contains(id);
        // First, since contents without a name may be what the contents of a name need.
        let mut unnamed = self.unnamed.iter().filter(|id| told(id) && !ids.contains(id)).copied();
        batch.unnamed.extend(unnamed.by_ref().take(BATCH_NAMES_MAX));
        if unnamed.next().is_some() {
            return;
        }
        let names = self.names.iter().rev().filter(|(_, named)| named.dirty);
        let mut names = names
            .filter(|(name, named)| {
                let needs_told = named.needs.as_ref().is_none_or(|needs| needs.iter().all(told));
                named.blob.is_none_or(|id| told(&id)) && needs_told && !skipped.names.contains(*name)
            })
            .map(|(name, named)| NameChange {
                name: name.clone(),
                blob: named.blob,
                needs: named.needs.clone(),
            });
        batch.names = names.by_ref().take(BATCH_NAMES_MAX).collect();
        batch.last = names.next().is_none();
    }

    /// The cold tier failed to take these by themselves.
    pub(crate) fn refused(&mut self, batch: &Batch) {
        for (id, ..) in &batch.blobs {
            if let Some(resident) = self.blobs.peek_mut(id) {
                resident.refused = true;
            }
        }
    }

    /// The cold tier has these now.
    pub(crate) fn written(&mut self, batch: &Batch) {
        for (id, ..) in &batch.blobs {
            if let Some(resident) = self.blobs.peek_mut(id) {
                self.dirty_blobs -= u64::from(std::mem::take(&mut resident.dirty));
                resident.base = DeltaBase::Nothing;
            }
        }
        for NameChange { name, blob, .. } in &batch.names {
            // A name may have moved on while it was written.
            if let Some(named) = self.names.peek_mut(name).filter(|named| named.blob == *blob) {
                (named.dirty, named.needs) = (false, None);
            }
        }
        for id in &batch.unnamed {
            self.unnamed.remove(id);
        }
    }

    /// Contents here, names here, and contents that only we have.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        (self.blobs.len() as u64, self.names.len() as u64, self.dirty_blobs)
    }

    /// With `like`, contents that the cold tier may not have.
    fn hold(&mut self, id: BlobId, bytes: Bytes, base: Option<DeltaBase>) {
        let cost = blob_cost(&bytes);
        if self.blobs.get(&id).is_none() {
            let dirty = base.is_some();
            self.blobs
                .put(id, Resident { bytes, base: base.unwrap_or(DeltaBase::Nothing), dirty, refused: false });
            self.dirty_blobs += u64::from(dirty);
            self.take(cost);
        }
    }

    fn take(&mut self, bytes: u64) {
        self.used_bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
    }

    fn release(&mut self, bytes: u64) {
        self.used_bytes = self.used_bytes.checked_sub(bytes).expect("what is released was taken");
        if self.used_bytes < self.high_bytes / 2 {
            self.spilling = false;
        }
    }
}

fn blob_cost(bytes: &Bytes) -> u64 {
    bytes.len() as u64 + BLOB_OVERHEAD_BYTES
}

fn name_cost(name: &str) -> u64 {
    name.len() as u64 + NAME_OVERHEAD_BYTES
}
