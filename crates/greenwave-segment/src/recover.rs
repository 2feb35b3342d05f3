//! Opening a log: recovers what processes that died have left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Error;
use crate::append::Appender;
use crate::entry::{Location, SlotId};
use crate::error::unless_gone;
use crate::format;
use crate::format::SEGMENT_HEADER_BYTES;
use crate::index::SegmentSlot;
use crate::index_file::Pending;
use crate::inner::Inner;
use crate::read::Reader;
use crate::refresh::Refresher;
use crate::refresh::{NewlyIndexed, SegmentRole, blank};
use crate::scan::{self, ScannedRecord};
use crate::segment::{self, Segment};
use crate::writer::ActiveSegment;

/// What a record takes in an index file whose key is a hash with a byte before it. Only a guess of how many there are.
const TYPICAL_ITEM_BYTES: usize = 72;

/// A segment whose writer died, taken over: we hold its lock.
struct AbandonedSegment {
    slot: SlotId,
    segment: Arc<Segment>,
    end: u64,
    /// Where its index file ends.
    mark: u64,
    /// The records beyond.
    tail: Vec<ScannedRecord>,
    /// Whether its index file says the truth.
    fits: bool,
    /// Whether new records may follow.
    goes_on: bool,
}

/// Recovers segments whose writers died.
#[derive(Clone, Copy)]
pub(crate) struct Recovery<'a> {
    inner: &'a Inner,
}

impl<'a> Recovery<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner }
    }

    /// Compares a copy of the directory with its manifest.
    pub(crate) fn check_copy(&self) -> Result<(), Error> {
        let io = |e| Error::io("read the manifest in", &self.inner.dir)(e);
        let Some(listed) = self.inner.manifest.read().map_err(io)?.filter(|listed| listed.is_copy) else {
            return Ok(());
        };
        if listed.users == 0 {
            // Nobody wrote when it was copied: what is missing was damaged, and index files tell the truth.
            return Ok(());
        }
        let mut there = BTreeMap::new();
        for id in segment::list(&self.inner.disk, &self.inner.dir)?.segments {
            let status = self.inner.disk.status(&format::segment_path(&self.inner.dir, id)).map_err(io)?;
            there.insert(id, status.len);
        }
        let incomplete = |missing| Err(Error::IncompleteCopy { path: self.inner.dir.clone(), missing });
        for (id, least) in listed.segments.iter().filter(|(_, least)| **least > 0) {
            match there.get(id) {
                None => return incomplete(format!("segment {id:016x} is missing")),
                Some(len) if len < least => {
                    return incomplete(format!("segment {id:016x} has {len} bytes of at least {least}"));
                }
                Some(_) => {}
            }
        }
        self.inner.is_copy.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The first look, which also takes over what a dead process left.
    pub(crate) fn recover(&self) -> Result<(), Error> {
        let expected = segment::index_files_bytes(&self.inner.disk, &self.inner.dir)? / TYPICAL_ITEM_BYTES;
        self.inner.index.write().reserve(expected);
        let mut abandoned = Vec::new();
        let mut unverified = Vec::new();
        for id in Refresher::new(self.inner).list_changes()?.new {
            let Some((segment, len)) = Refresher::new(self.inner).open_segment(id)? else { continue };
            let Some(sealed) = unless_gone(scan::is_sealed(&segment, len))? else { continue };
            if self.inner.read_only || !segment.writable || sealed || !segment.try_lock() {
                if len >= SEGMENT_HEADER_BYTES
                    && let Some(entered) = unless_gone(Refresher::new(self.inner).index_segment(
                        segment,
                        len,
                        SegmentRole::Reader,
                    ))?
                {
                    unverified.extend(entered.tail.into_iter().map(|found| (entered.slot, found)));
                }
                continue;
            }
            if segment.is_unlinked() {
                segment.unlock();
                continue;
            }
            abandoned.extend(self.take_over(segment, &mut unverified)?);
        }
        // A segment that vanished while we looked has its records in another one by now.
        Refresher::new(self.inner).refresh()?;
        for (slot, found) in unverified {
            self.verify_base(slot, &found)?;
        }
        for segment_left in &mut abandoned {
            self.verify_tail(segment_left)?;
        }
        self.resume_or_seal(abandoned);
        self.adopt_copy();
        Ok(())
    }

    /// Ends segments whose writers died, so that they can be compacted or dropped. Returns how many.
    pub(crate) fn seal_abandoned(&self, wanted: impl Fn(&SegmentSlot) -> bool) -> Result<u64, Error> {
        let candidates: Vec<_> = {
            let index = self.inner.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.own && !slot.sealed && wanted(slot));
            open.map(|(id, slot)| (id, slot.segment.clone())).collect()
        };
        let mut sealed = 0;
        for (id, segment) in candidates {
            if !segment.writable || !segment.try_lock() {
                continue;
            }
            let fit = !segment.is_unlinked() && segment.check_header()?;
            if !fit || !Refresher::new(self.inner).read_appended(id, SegmentRole::Writer, |_| ())? {
                segment.unlock();
                continue;
            }
            let end = self.inner.index.read().try_slot(id).map(|slot| (slot.end, slot.sealed));
            match end {
                Some((end, false)) => {
                    if let Err(error) = segment.truncate(end) {
                        segment.unlock();
                        return Err(error);
                    }
                    let active = ActiveSegment {
                        slot: id,
                        segment: segment.clone(),
                        end,
                        pending: Pending::new(end),
                        listed: false,
                    };
                    Appender::new(self.inner).seal(&active)?;
                    sealed += 1;
                }
                _ => segment.unlock(),
            }
        }
        Ok(sealed)
    }

    /// Enters a copy that has been opened under its own identity: from here on its index files are its own.
    fn adopt_copy(&self) {
        if self.inner.read_only || !self.inner.is_copy.load(Ordering::Relaxed) {
            return;
        }
        let segments = self.inner.index.read().slots().map(|(_, slot)| (slot.segment.id, slot.end)).collect();
        match self.inner.manifest.adopt(&segments) {
            Ok(()) => self.inner.is_copy.store(false, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "cannot enter a copy of a log under its own identity"),
        }
    }

    /// Recovers a segment whose lock we hold. `None` if it is not fit to be written on, and unlocked.
    ///
    /// Nothing here is needed for reading, so a disk that refuses a write leaves the segment to later heirs.
    fn take_over(
        &self,
        segment: Segment,
        unverified: &mut Vec<(SlotId, ScannedRecord)>,
    ) -> Result<Option<AbandonedSegment>, Error> {
        let mut len = segment.len()?;
        if len < SEGMENT_HEADER_BYTES {
            if !segment.is_unfinished()? || segment.write_header().is_err() {
                segment.unlock();
                return Ok(None);
            }
            len = SEGMENT_HEADER_BYTES;
        }
        let whole = segment.check_header()?;
        let NewlyIndexed { slot, mark, tail } =
            Refresher::new(self.inner).index_segment(segment, len, SegmentRole::Writer)?;
        let (segment, end, sealed, fits) = {
            let index = self.inner.index.read();
            let SegmentSlot { segment, end, sealed, fits, .. } = index.slot(slot);
            (segment.clone(), *end, *sealed, *fits)
        };
        if sealed || !whole {
            unverified.extend(tail.into_iter().map(|found| (slot, found)));
            segment.unlock();
            return Ok(None);
        }
        if end < len {
            tracing::warn!(path = %segment.path.display(), offset = end, bytes = len - end, "cutting off a torn tail");
            if segment.truncate(end).is_err() {
                unverified.extend(tail.into_iter().map(|found| (slot, found)));
                segment.unlock();
                return Ok(None);
            }
            self.inner.counters.torn_bytes.add(len - end);
            if let Some(slot) = self.inner.index.write().try_slot_mut(slot) {
                slot.len = end;
            }
        }
        // What the index file says beyond the segment's end is the only trace of records that were lost. New records there would
        // overwrite it.
        let goes_on = fits && end < self.inner.options.segment_bytes_max;
        Ok(Some(AbandonedSegment { slot, segment, end, mark, tail, fits, goes_on }))
    }

    /// Takes out of a heritage what a power cut has made worthless.
    fn verify_tail(&self, segment_left: &mut AbandonedSegment) -> Result<(), Error> {
        let mut refused = Vec::new();
        for found in &segment_left.tail {
            if !self.verify_base(segment_left.slot, found)? {
                refused.push(found.offset);
            }
        }
        blank(&segment_left.segment, segment_left.end, &refused);
        segment_left.tail.retain(|found| !refused.contains(&found.offset));
        Ok(())
    }

    /// Whether a record that may never have been flushed can be read. A power cut may have kept a difference and lost its base: such
    /// a record does not count, and an older one shows.
    fn verify_base(&self, slot: SlotId, found: &ScannedRecord) -> Result<bool, Error> {
        let (key, location) = (found.key.as_slice(), Location { slot, offset: found.offset });
        if found.header.depth() == 0
            || !self.inner.is_current(key, location)
            || Reader::new(self.inner).is_readable(key)?
        {
            return Ok(true);
        }
        let others = Refresher::new(self.inner).find_records(&[], |_, other| other == key)?;
        let mut index = self.inner.index.write();
        index.forget(key);
        for (slot, found) in others {
            let other = Location { slot, offset: found.offset };
            if other != location && index.try_slot(slot).is_some() {
                index.apply(other, &found.item());
            }
        }
        Ok(false)
    }

    /// Goes on in the fullest of what dead processes left, which will be sealed soonest; ends what is full, and leaves the rest to
    /// others.
    fn resume_or_seal(&self, abandoned: Vec<AbandonedSegment>) {
        let fullest = abandoned
            .iter()
            .filter(|segment_left| segment_left.goes_on)
            .max_by_key(|segment_left| segment_left.end);
        let fullest = fullest.map(|segment_left| segment_left.slot);
        for AbandonedSegment { slot, segment, end, mark, tail, fits, goes_on } in abandoned {
            // An index file that does not fit is evidence, and nothing is added to it.
            let mut pending = Pending::new(if fits { mark } else { end });
            for found in tail.iter().filter(|_| fits) {
                pending.push(found.offset, &found.header, found.key.as_slice(), found.base(), found.checksum);
            }
            let active = ActiveSegment { slot, segment, end, pending, listed: false };
            if fullest == Some(slot) {
                let mut writer = self.inner.writer.lock();
                if let Some(slot) = self.inner.index.write().try_slot_mut(slot) {
                    slot.own = true;
                }
                writer.active = Some(active);
                // Whoever made it may have died before its name and its last records reached the disk.
                writer.dir_dirty = true;
                writer.appended += 1;
            } else if goes_on {
                active.segment.unlock();
            } else if let Err(error) =
                self.inner.sync_dir().and_then(|()| Appender::new(self.inner).seal(&active))
            {
                tracing::warn!(%error, "cannot end a segment that a dead process left");
                active.segment.unlock();
            }
        }
    }
}
