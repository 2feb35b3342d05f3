//! The memory tier: contents and names in memory, their cost, and the choice of what to spill. The
//! store does the writing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;

use crate::{BlobId, StoreOptions};

/// Memory of a blob in addition to its contents: the list node (128), its slot in a hash table that
/// has just doubled (39), the reference count of [`Bytes`] (24), and the headers and rounding of
/// three allocations (49).
const BLOB_OVERHEAD_BYTES: u64 = 240;
/// Memory of a name in addition to its text: node (72), slot (39), reference counts (16), two
/// allocations (33).
const NAME_OVERHEAD_BYTES: u64 = 160;
/// Names may use one part in this many of the budget.
const NAMES_SHARE: u64 = 4;
/// Number of cold blobs whose reads are counted.
const COUNTED_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Contents that new contents probably resemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeltaBase {
    /// No candidate.
    None,
    /// The contents with this id.
    Blob(BlobId),
    /// The contents that the cold tier has under this name.
    Name(Arc<str>),
}

/// Contents in memory.
#[derive(Debug)]
struct CachedBlob {
    bytes: Bytes,
    base: DeltaBase,
    /// Whether the cold tier may lack the contents: another store may have swept them before this
    /// store needed them again.
    dirty: bool,
    /// Number of puts of these contents.
    puts: u64,
    /// Whether the cold tier failed to store the contents on their own.
    rejected: bool,
}

/// The contents that a name refers to.
#[derive(Debug, Clone)]
struct NameEntry {
    /// `None` if the name was removed.
    blob: Option<BlobId>,
    /// Contents that must be stored before this name is written.
    requires: RequiredBlobs,
    /// Whether the cold tier lacks this change.
    dirty: bool,
}

/// Contents that a record refers to, and without which it is useless.
pub(crate) type RequiredBlobs = Option<Arc<[BlobId]>>;

/// A change of a name. `None` removes it.
#[derive(Debug, Clone)]
pub(crate) struct NameChange {
    pub(crate) name: Arc<str>,
    pub(crate) blob: Option<BlobId>,
    pub(crate) requires: RequiredBlobs,
}

/// Maximum number of names in a batch.
const BATCH_NAMES_MAX: usize = 4096;

/// Contents to write.
#[derive(Debug, Clone)]
pub(crate) struct BatchBlob {
    pub(crate) id: BlobId,
    pub(crate) bytes: Bytes,
    pub(crate) base: DeltaBase,
    /// Number of puts of these contents when the batch was made.
    puts: u64,
}

/// Changes to write to the cold tier together: contents, and names that refer to these or to
/// contents already stored.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) blobs: Vec<BatchBlob>,
    pub(crate) names: Vec<NameChange>,
    /// Contents that were put without a name.
    pub(crate) unnamed: Vec<BlobId>,
    /// Whether all names are written after this batch. Otherwise, contents that were written
    /// earlier may still need their pins.
    pub(crate) last: bool,
}

/// Entries that could not be written, skipped until the next call.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    pub(crate) blobs: HashSet<BlobId>,
    pub(crate) names: HashSet<Arc<str>>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.names.is_empty() && self.unnamed.is_empty()
    }

    /// Returns whether the batch only removes names.
    pub(crate) fn only_removes(&self) -> bool {
        self.blobs.is_empty()
            && self.unnamed.is_empty()
            && self.names.iter().all(|change| change.blob.is_none())
    }

    /// Returns the ids that the batch refers to without containing the contents.
    pub(crate) fn external_references(&self) -> BTreeSet<BlobId> {
        let named = self.names.iter().filter_map(|change| change.blob);
        let needed = self
            .names
            .iter()
            .filter_map(|change| change.requires.as_ref())
            .flat_map(|requires| requires.iter());
        let mut ids: BTreeSet<BlobId> =
            named.chain(needed.copied()).chain(self.unnamed.iter().copied()).collect();
        let blobs: HashSet<&BlobId> = self.blobs.iter().map(|blob| &blob.id).collect();
        ids.retain(|id| !blobs.contains(id));
        ids
    }

    /// Splits the batch into parts that can be written on their own: removals first, then contents,
    /// then the names that refer to them.
    pub(crate) fn split(self) -> Vec<Self> {
        let (removed, named): (Vec<_>, Vec<_>) =
            self.names.into_iter().partition(|change| change.blob.is_none());
        let mut unnamed: BTreeSet<BlobId> = self.unnamed.into_iter().collect();
        let mut parts = vec![Self { names: removed, ..Self::default() }];
        for blob in self.blobs {
            let unnamed = unnamed.take(&blob.id).into_iter().collect();
            parts.push(Self { blobs: vec![blob], unnamed, ..Self::default() });
        }
        parts.push(Self { unnamed: unnamed.into_iter().collect(), ..Self::default() });
        parts.extend(named.into_iter().map(|name| Self { names: vec![name], ..Self::default() }));
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Returns the indices of the blobs, with each delta base before the blobs that use it.
    pub(crate) fn base_first_order(&self) -> Vec<usize> {
        let indices: HashMap<BlobId, usize> = self.blobs.iter().map(|blob| blob.id).zip(0..).collect();
        let mut done = vec![false; self.blobs.len()];
        let mut order = Vec::with_capacity(self.blobs.len());
        for start in 0..self.blobs.len() {
            let mut path = Vec::new();
            let mut next = Some(start);
            while let Some(at) = next.filter(|at| !std::mem::replace(&mut done[*at], true)) {
                path.push(at);
                next = match &self.blobs[at].base {
                    DeltaBase::Blob(id) => indices.get(id).copied(),
                    DeltaBase::None | DeltaBase::Name(_) => None,
                };
            }
            order.extend(path.into_iter().rev());
        }
        order
    }
}

/// Contents and names in memory, in order of use.
#[derive(Debug)]
pub(crate) struct MemoryTier {
    blobs: LruCache<BlobId, CachedBlob>,
    names: LruCache<Arc<str>, NameEntry>,
    /// Recent read counts of cold blobs.
    reads: LruCache<BlobId, u32>,
    /// Number of blobs that the cold tier lacks.
    dirty_blobs: u64,
    /// Number of names whose change the cold tier lacks.
    dirty_names: usize,
    /// Contents put without a name that the cold tier has not recorded yet.
    unnamed: BTreeSet<BlobId>,
    /// Generation of the cold tier in which the clean names were read.
    generation: u64,
    pub(crate) used_bytes: u64,
    /// Part of `used_bytes` that names use.
    names_bytes: u64,
    pub(crate) peak_bytes: u64,
    pub(crate) spilling: bool,
    pub(crate) spilled: u64,
    pub(crate) promoted: u64,
    /// Whether other stores use the cold tier.
    shared: bool,
    high_bytes: u64,
    low_bytes: u64,
    promote_after: u32,
}

impl MemoryTier {
    pub(crate) fn new(options: &StoreOptions, shared: bool) -> Self {
        Self {
            blobs: LruCache::unbounded(),
            names: LruCache::unbounded(),
            reads: LruCache::sparse(COUNTED_MAX),
            dirty_blobs: 0,
            dirty_names: 0,
            unnamed: BTreeSet::new(),
            generation: 0,
            used_bytes: 0,
            names_bytes: 0,
            peak_bytes: 0,
            spilling: false,
            spilled: 0,
            promoted: 0,
            shared,
            high_bytes: options.high_bytes(),
            low_bytes: options.low_bytes(),
            promote_after: options.promote_after,
        }
    }

    /// Stores contents that the cold tier may lack.
    pub(crate) fn put_blob(&mut self, id: BlobId, bytes: Bytes, base: DeltaBase) {
        self.insert_blob(id, bytes, Some(base));
    }

    /// Records contents that must be preserved without a name.
    pub(crate) fn put_unnamed(&mut self, id: BlobId) {
        self.unnamed.insert(id);
    }

    /// Forgets unnamed contents that are not in `retained`.
    pub(crate) fn retain_unnamed(&mut self, retained: &HashSet<BlobId>) {
        self.unnamed.retain(|id| retained.contains(id));
    }

    /// Returns whether the cold tier lacks these contents, as far as this store can tell.
    pub(crate) fn is_dirty(&self, id: &BlobId) -> bool {
        self.blobs.peek(id).is_some_and(|blob| blob.dirty)
    }

    /// Returns contents in memory without counting as a use.
    pub(crate) fn peek(&self, id: &BlobId) -> Option<Bytes> {
        self.blobs.peek(id).map(|blob| blob.bytes.clone())
    }

    /// Drops unreferenced contents that the cold tier lacks, and returns their ids.
    pub(crate) fn drop_dirty(&mut self, referenced: &HashSet<BlobId>) -> Vec<BlobId> {
        let dirty = self.blobs.iter().filter(|(_, blob)| blob.dirty);
        let unreferenced: Vec<BlobId> =
            dirty.map(|(id, _)| *id).filter(|id| !referenced.contains(id)).collect();
        unreferenced.iter().for_each(|id| self.remove_blob(id));
        unreferenced
    }

    /// Drops clean names if the generation of the cold tier has changed.
    pub(crate) fn set_generation(&mut self, generation: u64) {
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

    /// Stores a name as it was read from the cold tier in `generation`.
    pub(crate) fn read_name(&mut self, name: &str, blob: BlobId, generation: u64) {
        if self.generation == generation {
            self.put_name(name, Some(blob), false);
        }
    }

    /// Returns the unwritten change of a name.
    pub(crate) fn dirty_name(&mut self, name: &str) -> Option<Option<BlobId>> {
        self.names.get(name).filter(|named| named.dirty).map(|named| named.blob)
    }

    /// Returns the probable delta base of new contents of a name: its previous contents.
    pub(crate) fn base_of_name(&mut self, name: &str, new: &BlobId) -> DeltaBase {
        match self.name(name) {
            Some(Some(old)) if old != *new => DeltaBase::Blob(old),
            Some(_) => DeltaBase::None,
            None => DeltaBase::Name(name.into()),
        }
    }

    /// Returns contents in memory, and counts as a use.
    pub(crate) fn blob(&mut self, id: &BlobId) -> Option<Bytes> {
        self.blobs.get(id).map(|blob| blob.bytes.clone())
    }

    /// Counts a read of cold contents. Stores them in memory at the `promote_after`th read.
    pub(crate) fn read_cold(&mut self, id: BlobId, bytes: &Bytes) {
        let reads = self.reads.get_or_insert_mut(id, || 0);
        *reads += 1;
        if *reads >= self.promote_after && blob_cost(bytes) <= self.low_bytes {
            self.reads.pop(&id);
            self.insert_blob(id, bytes.clone(), None);
            self.promoted += 1;
        }
    }

    /// Drops contents, even if the cold tier lacks them.
    pub(crate) fn remove_blob(&mut self, id: &BlobId) {
        self.reads.pop(id);
        if let Some(blob) = self.blobs.pop(id) {
            self.dirty_blobs -= u64::from(blob.dirty);
            self.release(blob_cost(&blob.bytes));
        }
    }

    /// Points a name at contents, or removes it with `None`. `dirty` is false for names read from
    /// the cold tier.
    pub(crate) fn put_name(&mut self, name: &str, blob: Option<BlobId>, dirty: bool) {
        self.put_name_requiring(name, blob, None, dirty);
    }

    /// Like [`put_name`](Self::put_name), for contents that require others.
    pub(crate) fn put_name_requiring(
        &mut self,
        name: &str,
        blob: Option<BlobId>,
        requires: RequiredBlobs,
        dirty: bool,
    ) {
        self.dirty_names += usize::from(dirty);
        if let Some(named) = self.names.get_mut(name) {
            self.dirty_names -= usize::from(named.dirty);
            *named = NameEntry { blob, requires, dirty };
        } else {
            self.names.put(name.into(), NameEntry { blob, requires, dirty });
            self.names_bytes += name_cost(name);
            self.charge(name_cost(name));
        }
    }

    /// Returns the contents that a name refers to, or `None` if the name is not in memory.
    pub(crate) fn name(&mut self, name: &str) -> Option<Option<BlobId>> {
        self.names.get(name).map(|named| named.blob)
    }

    /// Returns the unwritten changes of names with this prefix, and whether each name exists.
    pub(crate) fn dirty_names(&self, prefix: &str) -> Vec<(Arc<str>, bool)> {
        let dirty = self.unwritten_names().filter(|(name, _)| name.starts_with(prefix));
        dirty.map(|(name, named)| (name.clone(), named.blob.is_some())).collect()
    }

    /// Returns the blobs that unwritten names refer to.
    pub(crate) fn dirty_references(&self) -> impl Iterator<Item = BlobId> {
        self.unwritten_names().filter_map(|(_, named)| named.blob)
    }

    /// Returns the unwritten changes of names, the newest first. Looks no further than the oldest
    /// of them, since a store that flushes often has many more names in memory.
    fn unwritten_names(&self) -> impl Iterator<Item = (&Arc<str>, &NameEntry)> {
        self.names.iter().filter(|(_, named)| named.dirty).take(self.dirty_names)
    }

    /// Returns the contents that the cold tier lacks, the oldest first. Looks no further than the
    /// oldest of them.
    fn unwritten_blobs(&self) -> impl Iterator<Item = (&BlobId, &CachedBlob)> {
        let count = usize::try_from(self.dirty_blobs).unwrap_or(usize::MAX);
        let newest_first: Vec<_> = self.blobs.iter().filter(|(_, blob)| blob.dirty).take(count).collect();
        newest_first.into_iter().rev()
    }

    /// Returns whether contents must be spilled.
    pub(crate) fn exceeds_threshold(&self) -> bool {
        self.exceeds_threshold_with(0)
    }

    /// Returns whether contents must be spilled once `incoming` bytes are added.
    pub(crate) fn exceeds_threshold_with(&self, incoming: u64) -> bool {
        self.used_bytes + incoming > self.high_bytes
    }

    /// Drops contents that the cold tier has, the oldest first, down to the low mark less
    /// `incoming` bytes. If that is not enough, returns a batch to write first.
    pub(crate) fn free_space_for(&mut self, incoming: u64, batch_bytes_max: u64, skipped: &Skipped) -> Batch {
        let low_bytes = self.low_bytes.saturating_sub(incoming);
        self.spilling = true;
        // Names are limited to a share, because a large number of them would leave no room for
        // contents.
        let share = self.low_bytes / NAMES_SHARE;
        self.drop_clean_names(|memory| memory.names_bytes > share);
        if self.names_bytes > share {
            let batch = self.dirty(batch_bytes_max, skipped);
            if !batch.is_empty() {
                return batch;
            }
        }
        let mut passed_over = 0;
        while self.used_bytes > low_bytes
            && let Some((id, blob)) = self.blobs.peek_lru()
        {
            let id = *id;
            if !blob.dirty {
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
            self.drop_clean_names(|memory| memory.used_bytes > low_bytes);
        }
        if self.used_bytes <= low_bytes { Batch::default() } else { self.dirty(batch_bytes_max, skipped) }
    }

    fn drop_clean_names(&mut self, needed: impl Fn(&Self) -> bool) {
        while needed(self) && self.names.peek_lru().is_some_and(|(_, named)| !named.dirty) {
            let (name, _) = self.names.pop_lru().expect("the peek found an entry");
            self.names_bytes -= name_cost(&name);
            self.release(name_cost(&name));
        }
    }

    /// Returns a batch of about `batch_bytes_max` bytes that the cold tier lacks, the oldest first.
    /// The last batch of contents also has the names that refer to them. Rejected contents come
    /// last, so that they never block others.
    pub(crate) fn dirty(&self, batch_bytes_max: u64, skipped: &Skipped) -> Batch {
        let mut batch = Batch::default();
        let (mut bytes, mut is_full) = (0, false);
        let mut rejected = Vec::new();
        let mut left = self.dirty_blobs;
        for (id, blob) in self.unwritten_blobs() {
            if is_full {
                break;
            }
            left -= 1;
            let entry =
                || BatchBlob { id: *id, bytes: blob.bytes.clone(), base: blob.base.clone(), puts: blob.puts };
            if skipped.blobs.contains(id) {
            } else if blob.rejected {
                rejected.push(entry());
            } else {
                batch.blobs.push(entry());
                bytes += blob_cost(&blob.bytes);
                is_full = bytes >= batch_bytes_max;
            }
        }
        let ids: HashSet<BlobId> = batch.blobs.iter().map(|blob| blob.id).collect();
        batch.unnamed = self.unnamed.iter().filter(|id| ids.contains(*id)).copied().collect();
        if left > 0 {
            return batch;
        }
        self.add_names(&mut batch, &ids, skipped);
        if batch.is_empty() {
            batch.blobs = rejected;
        }
        batch
    }

    /// Adds the names and unnamed ids whose contents are stored or part of the batch.
    fn add_names(&self, batch: &mut Batch, ids: &HashSet<BlobId>, skipped: &Skipped) {
        let stored = |id: &BlobId| ids.contains(id) || !self.is_dirty(id) && !skipped.blobs.contains(id);
        // Unnamed contents first, because records may require them.
        let mut unnamed = self.unnamed.iter().filter(|id| stored(id) && !ids.contains(id)).copied();
        batch.unnamed.extend(unnamed.by_ref().take(BATCH_NAMES_MAX));
        if unnamed.next().is_some() {
            return;
        }
        let newest_first: Vec<_> = self.unwritten_names().collect();
        let names = newest_first
            .into_iter()
            .rev()
            .filter(|(name, named)| {
                let requires_stored =
                    named.requires.as_ref().is_none_or(|requires| requires.iter().all(stored));
                named.blob.is_none_or(|id| stored(&id)) && requires_stored && !skipped.names.contains(*name)
            })
            .map(|(name, named)| NameChange {
                name: name.clone(),
                blob: named.blob,
                requires: named.requires.clone(),
            });
        batch.names = names.take(BATCH_NAMES_MAX).collect();
        batch.last = batch.names.len() == self.dirty_names;
    }

    /// Marks contents that the cold tier rejected on their own.
    pub(crate) fn rejected(&mut self, batch: &Batch) {
        for BatchBlob { id, .. } in &batch.blobs {
            if let Some(blob) = self.blobs.peek_mut(id) {
                blob.rejected = true;
            }
        }
    }

    /// Marks the changes in a batch as written.
    pub(crate) fn written(&mut self, batch: &Batch) {
        for BatchBlob { id, puts, .. } in &batch.blobs {
            // Contents that were put again meanwhile may have a new name, which is not written yet.
            if let Some(blob) = self.blobs.peek_mut(id).filter(|blob| blob.puts == *puts) {
                self.dirty_blobs -= u64::from(std::mem::take(&mut blob.dirty));
                blob.base = DeltaBase::None;
            }
        }
        for NameChange { name, blob, .. } in &batch.names {
            // The name may have changed again while it was written.
            if let Some(named) = self.names.peek_mut(name).filter(|named| named.blob == *blob) {
                self.dirty_names -= usize::from(named.dirty);
                (named.dirty, named.requires) = (false, None);
            }
        }
        for id in &batch.unnamed {
            self.unnamed.remove(id);
        }
    }

    /// Returns the numbers of blobs, names and unwritten blobs in memory.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        (self.blobs.len() as u64, self.names.len() as u64, self.dirty_blobs)
    }

    /// Inserts contents. With a `base`, the cold tier may lack them.
    ///
    /// If the cold tier is shared, this also holds for contents in memory that were written
    /// earlier: another store may sweep them before their new name is written.
    fn insert_blob(&mut self, id: BlobId, bytes: Bytes, base: Option<DeltaBase>) {
        let cost = blob_cost(&bytes);
        let is_put = base.is_some();
        if let Some(blob) = self.blobs.get_mut(&id) {
            blob.puts += u64::from(is_put);
            if is_put && !blob.dirty && self.shared {
                blob.dirty = true;
                self.dirty_blobs += 1;
            }
            return;
        }
        let base = base.unwrap_or(DeltaBase::None);
        self.blobs.put(id, CachedBlob { bytes, base, dirty: is_put, puts: 0, rejected: false });
        self.dirty_blobs += u64::from(is_put);
        self.charge(cost);
    }

    fn charge(&mut self, bytes: u64) {
        self.used_bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
    }

    fn release(&mut self, bytes: u64) {
        self.used_bytes = self.used_bytes.checked_sub(bytes).expect("released bytes were charged before");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_that_are_put_while_they_are_written_are_written_again() {
        let mut memory = MemoryTier::new(&StoreOptions::default(), true);
        let (id, bytes) = (BlobId::of(b"contents"), Bytes::from_static(b"contents"));
        memory.put_blob(id, bytes.clone(), DeltaBase::None);
        let first = memory.dirty(u64::MAX, &Skipped::default());
        memory.put_blob(id, bytes.clone(), DeltaBase::None);
        memory.written(&first);
        assert!(memory.is_dirty(&id));
        let second = memory.dirty(u64::MAX, &Skipped::default());
        memory.written(&second);
        assert!(!memory.is_dirty(&id));
        assert_eq!(memory.counts(), (1, 0, 0));
        memory.put_blob(id, bytes, DeltaBase::None);
        assert_eq!(memory.counts(), (1, 0, 1));
    }

    #[test]
    fn unwritten_changes_are_counted_and_written_in_their_order() {
        let mut memory = MemoryTier::new(&StoreOptions::default(), false);
        let id = |index: u8| BlobId::of(&[index]);
        let put = |memory: &mut MemoryTier, index: u8| {
            memory.put_blob(id(index), Bytes::copy_from_slice(&[index]), DeltaBase::None);
            memory.put_name(&index.to_string(), Some(id(index)), true);
        };
        (0..3).for_each(|index| put(&mut memory, index));
        let written = memory.dirty(u64::MAX, &Skipped::default());
        memory.written(&written);
        assert!(memory.dirty(u64::MAX, &Skipped::default()).is_empty());
        (3..6).for_each(|index| put(&mut memory, index));
        // Names that are changed again, removed, or read from the cold tier.
        memory.put_name("4", Some(id(5)), true);
        memory.put_name("0", None, true);
        memory.put_name("read", Some(id(0)), false);
        // Contents that are read are newer than unwritten ones.
        (0..3).for_each(|index| drop(memory.blob(&id(index))));
        let batch = memory.dirty(u64::MAX, &Skipped::default());
        let blobs: Vec<BlobId> = batch.blobs.iter().map(|blob| blob.id).collect();
        let names: Vec<&str> = batch.names.iter().map(|change| &*change.name).collect();
        assert_eq!((blobs, batch.last), (vec![id(3), id(4), id(5)], true));
        assert_eq!(names, ["3", "5", "4", "0"]);
        let first = memory.dirty(1, &Skipped::default());
        assert_eq!(first.blobs.iter().map(|blob| blob.id).collect::<Vec<_>>(), [id(3)]);
        memory.written(&batch);
        assert!(memory.dirty(u64::MAX, &Skipped::default()).is_empty());
        assert_eq!((memory.dirty_names, memory.dirty_blobs), (0, 0));
    }

    #[test]
    fn a_batch_is_not_the_last_while_a_name_waits_for_its_contents() {
        let mut memory = MemoryTier::new(&StoreOptions::default(), true);
        let blob = |memory: &mut MemoryTier, bytes: &'static [u8]| {
            let id = BlobId::of(bytes);
            memory.put_blob(id, Bytes::from_static(bytes), DeltaBase::None);
            id
        };
        let (required, record, other) =
            (blob(&mut memory, b"required"), blob(&mut memory, b"record"), blob(&mut memory, b"other"));
        memory.put_name_requiring("record", Some(record), Some([required].into()), true);
        memory.put_name("other", Some(other), true);
        let skipped = Skipped { blobs: [required].into(), ..Skipped::default() };
        let batch = memory.dirty(u64::MAX, &skipped);
        let names: Vec<&str> = batch.names.iter().map(|change| &*change.name).collect();
        assert_eq!((names, batch.last), (vec!["other"], false));
        let batch = memory.dirty(u64::MAX, &Skipped::default());
        assert_eq!((batch.names.len(), batch.last), (2, true));
    }
}
