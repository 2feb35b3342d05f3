//! The memory tier: what is in memory, what it weighs, what is to move out. Decides only; writing is the store's.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;

use crate::{BlobId, Options};

/// What a blob occupies besides its contents: the list's node (128), its slot in a hash table that just doubled (39), the shared count of
/// [`Bytes`] (24), and three allocations' headers and rounding (49).
const BLOB_OVERHEAD_BYTES: u64 = 240;
/// Likewise for a name: node (72), slot (39), the name's reference counts (16), two allocations (33).
const NAME_OVERHEAD_BYTES: u64 = 160;
/// Names may take one part in this many.
const NAMES_SHARE: u64 = 4;
/// Cold contents whose reads are counted.
const COUNTED_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// What contents are probably similar to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Like {
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
    like: Like,
    /// Not in the cold tier yet.
    dirty: bool,
}

/// What a name leads to.
#[derive(Debug, Clone, Copy)]
struct Named {
    /// `None` when removed.
    blob: Option<BlobId>,
    /// The cold tier does not know yet.
    dirty: bool,
}

/// Writes that the cold tier has to see, in this order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) blobs: Vec<(BlobId, Bytes, Like)>,
    pub(crate) names: Vec<(Arc<str>, Option<BlobId>)>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.names.is_empty()
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
                    Like::Blob(id) => places.get(id).copied(),
                    Like::Nothing | Like::Name(_) => None,
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
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            blobs: LruCache::unbounded(),
            names: LruCache::unbounded(),
            reads: LruCache::sparse(COUNTED_MAX),
            dirty_blobs: 0,
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
    pub(crate) fn put_blob(&mut self, id: BlobId, bytes: Bytes, like: Like) {
        self.hold(id, bytes, Some(like));
    }

    /// What new contents of a name are probably similar to: its old ones.
    pub(crate) fn like_name(&mut self, name: &str, new: &BlobId) -> Like {
        match self.name(name) {
            Some(Some(old)) if old != *new => Like::Blob(old),
            Some(_) => Like::Nothing,
            None => Like::Name(name.into()),
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
        if let Some(named) = self.names.get_mut(name) {
            *named = Named { blob, dirty };
        } else {
            self.names.put(name.into(), Named { blob, dirty });
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

    /// The blobs that names here lead to.
    pub(crate) fn named_blobs(&self) -> impl Iterator<Item = BlobId> {
        self.names.iter().filter_map(|(_, named)| named.blob)
    }

    /// Whether contents have to move out.
    pub(crate) fn is_over(&self) -> bool {
        self.used_bytes > self.high_bytes
    }

    /// Drops what the cold tier has, oldest first, down to the low mark. Returns what must be written first if that is not enough.
    pub(crate) fn make_room(&mut self, batch_bytes_max: u64) -> Batch {
        self.spilling = true;
        // Names may take a share only: there can be so many that no contents would be left.
        let share = self.low_bytes / NAMES_SHARE;
        self.drop_clean_names(|memory| memory.names_bytes > share);
        if self.names_bytes > share {
            return self.dirty(batch_bytes_max);
        }
        while self.used_bytes > self.low_bytes
            && self.blobs.peek_lru().is_some_and(|(_, resident)| !resident.dirty)
        {
            let (_, resident) = self.blobs.pop_lru().expect("just seen");
            self.release(blob_cost(&resident.bytes));
            self.spilled += 1;
        }
        if self.blobs.is_empty() {
            self.drop_clean_names(|memory| memory.used_bytes > memory.low_bytes);
        }
        if self.used_bytes <= self.low_bytes { Batch::default() } else { self.dirty(batch_bytes_max) }
    }

    fn drop_clean_names(&mut self, needed: impl Fn(&Self) -> bool) {
        while needed(self) && self.names.peek_lru().is_some_and(|(_, named)| !named.dirty) {
            let (name, _) = self.names.pop_lru().expect("just seen");
            self.names_bytes -= name_cost(&name);
            self.release(name_cost(&name));
        }
    }

    /// What the cold tier does not have, the oldest first, about as much as asked for. Contents come before names.
    pub(crate) fn dirty(&self, batch_bytes_max: u64) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        let mut left = self.dirty_blobs;
        for (id, resident) in self.blobs.iter().rev().filter(|(_, resident)| resident.dirty) {
            bytes += blob_cost(&resident.bytes);
            batch.blobs.push((*id, resident.bytes.clone(), resident.like.clone()));
            left -= 1;
            if bytes >= batch_bytes_max || left == 0 {
                break;
            }
        }
        if batch.blobs.is_empty() {
            let names = self.names.iter().rev().filter(|(_, named)| named.dirty);
            batch.names = names.map(|(name, named)| (name.clone(), named.blob)).collect();
        }
        batch
    }

    /// The cold tier has these now.
    pub(crate) fn written(&mut self, batch: &Batch) {
        for (id, ..) in &batch.blobs {
            if let Some(resident) = self.blobs.peek_mut(id) {
                self.dirty_blobs -= u64::from(std::mem::take(&mut resident.dirty));
                resident.like = Like::Nothing;
            }
        }
        for (name, blob) in &batch.names {
            // A name may have moved on while it was written.
            if let Some(named) = self.names.peek_mut(name).filter(|named| named.blob == *blob) {
                named.dirty = false;
            }
        }
    }

    /// Contents here, names here, and contents that only we have.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        (self.blobs.len() as u64, self.names.len() as u64, self.dirty_blobs)
    }

    /// With `like`, contents that the cold tier may not have.
    fn hold(&mut self, id: BlobId, bytes: Bytes, like: Option<Like>) {
        let cost = blob_cost(&bytes);
        if self.blobs.get(&id).is_none() {
            let dirty = like.is_some();
            self.blobs.put(id, Resident { bytes, like: like.unwrap_or(Like::Nothing), dirty });
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
