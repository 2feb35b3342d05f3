//! Recovers a log when it is opened: reads all segments, takes over those whose writers died, and
//! checks copies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Error;
use crate::append::Appender;
use crate::entry::{Location, SlotId};
use crate::error::unless_gone;
use crate::format::{self, SEGMENT_HEADER_BYTES};
use crate::index::SegmentSlot;
use crate::index_file::PendingBlock;
use crate::inner::Inner;
use crate::read::Reader;
use crate::refresh::{NewlyIndexed, Refresher, SegmentRole, blank};
use crate::scan::{self, ScannedRecord};
use crate::segment::{self, Segment};
use crate::writer::ActiveSegment;

/// Size of a typical record in an index file, whose key is a hash and a prefix byte. Used to
/// estimate the number of records.
const TYPICAL_RECORD_BYTES: usize = 72;

/// Attempts at verifying the base of a delta while other processes remove segments.
const TRIES_MAX: usize = 8;

/// A segment whose writer died and whose lock this log holds.
struct AbandonedSegment {
    slot: SlotId,
    segment: Arc<Segment>,
    end: u64,
    /// Offset in the segment up to which its index file reaches.
    mark: u64,
    /// Records beyond the mark.
    tail: Vec<ScannedRecord>,
    /// Whether its index file matches it.
    fits: bool,
    /// Whether records may be appended to it.
    can_append: bool,
}

/// Recovers segments whose writers died.
#[derive(Clone, Copy)]
pub(crate) struct Recovery<'a> {
    inner: &'a Inner,
    refresher: Refresher<'a>,
    reader: Reader<'a>,
    appender: Appender<'a>,
}

impl<'a> Recovery<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self {
            inner,
            refresher: Refresher::new(inner),
            reader: Reader::new(inner),
            appender: Appender::new(inner),
        }
    }

    /// Compares a copy of the directory with its manifest; fails if the copy is incomplete.
    pub(crate) fn check_copy(&self) -> Result<(), Error> {
        let io = |e| Error::io("read the manifest in", &self.inner.dir)(e);
        let Some(listed) = self.inner.manifest.read().map_err(io)?.filter(|listed| listed.is_copy) else {
            return Ok(());
        };
        if listed.users == 0 {
            // No log was open when the copy was made, so missing data was damaged, and index files
            // are right.
            return Ok(());
        }
        let mut sizes = BTreeMap::new();
        for id in segment::list(&self.inner.disk, &self.inner.dir)?.segments {
            let status = self.inner.disk.status(&format::segment_path(&self.inner.dir, id)).map_err(io)?;
            sizes.insert(id, status.len);
        }
        let incomplete = |missing| Err(Error::IncompleteCopy { path: self.inner.dir.clone(), missing });
        for (id, min_len) in listed.segments.iter().filter(|(_, min_len)| **min_len > 0) {
            match sizes.get(id) {
                None => return incomplete(format!("segment {id:016x} is missing")),
                Some(len) if len < min_len => {
                    return incomplete(format!(
                        "segment {id:016x} has {len} bytes: expected at least {min_len}"
                    ));
                }
                Some(_) => {}
            }
        }
        self.inner.is_copy.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Reads all segments, and takes over those whose writers died.
    pub(crate) fn recover(&self) -> Result<(), Error> {
        if self.inner.loads_all.load(Ordering::Relaxed) {
            let bytes = segment::index_files_bytes(&self.inner.disk, &self.inner.dir)?;
            self.inner.index.write().reserve(bytes / TYPICAL_RECORD_BYTES);
        }
        let mut abandoned = Vec::new();
        let mut unverified = Vec::new();
        for id in self.refresher.list_changes()?.new {
            let Some((segment, len)) = self.refresher.open_segment(id)? else { continue };
            let Some(sealed) = unless_gone(scan::is_sealed(&segment, len))? else { continue };
            if self.inner.read_only || !segment.writable || sealed || !segment.try_lock() {
                if len >= SEGMENT_HEADER_BYTES
                    && let Some(added) =
                        unless_gone(self.refresher.index_segment(segment, len, SegmentRole::Reader))?
                {
                    unverified.extend(added.tail.into_iter().map(|found| (added.slot, found)));
                }
                continue;
            }
            if segment.is_unlinked() {
                segment.unlock();
                continue;
            }
            abandoned.extend(self.take_over(segment, &mut unverified)?);
        }
        // The records of a segment that vanished meanwhile are in another one.
        self.refresher.refresh()?;
        for (slot, found) in unverified {
            self.verify_base(slot, &found)?;
        }
        for segment in &mut abandoned {
            self.verify_tail(segment)?;
        }
        self.resume_or_seal(abandoned);
        self.adopt_copy();
        Ok(())
    }

    /// Seals segments whose writers died, so that they can be compacted or dropped; returns how
    /// many.
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
            if !fit || !self.refresher.read_appended(id, SegmentRole::Writer, |_| ())? {
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
                    let mut full = ActiveSegment {
                        slot: id,
                        segment: segment.clone(),
                        end,
                        pending: PendingBlock::new(end),
                        listed: false,
                        table_tried: false,
                    };
                    if let Err(error) = self.appender.seal(&mut full) {
                        segment.unlock();
                        return Err(error);
                    }
                    sealed += 1;
                }
                _ => segment.unlock(),
            }
        }
        Ok(sealed)
    }

    /// Writes a manifest with the copy's own identity. From then on its index files are trusted.
    fn adopt_copy(&self) {
        if self.inner.read_only || !self.inner.is_copy.load(Ordering::Relaxed) {
            return;
        }
        let segments = self.inner.index.read().slots().map(|(_, slot)| (slot.segment.id, slot.end)).collect();
        match self.inner.manifest.adopt(&segments) {
            Ok(()) => self.inner.is_copy.store(false, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "cannot write the manifest of a copied log"),
        }
    }

    /// Recovers a segment whose lock this log holds. Returns `None`, and unlocks it, if it cannot
    /// be appended to.
    ///
    /// Reading needs none of this, so if the disk refuses a write, a later process takes over the
    /// segment.
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
        let header_ok = segment.check_header()?;
        let NewlyIndexed { slot, mark, tail } =
            self.refresher.index_segment(segment, len, SegmentRole::Writer)?;
        let (segment, end, sealed, fits) = {
            let index = self.inner.index.read();
            let SegmentSlot { segment, end, sealed, fits, .. } = index.slot(slot);
            (segment.clone(), *end, *sealed, *fits)
        };
        if sealed || !header_ok {
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
        // An index file that reaches beyond the end is the only trace of lost records. New records
        // there would hide it.
        let can_append = fits && end < self.inner.options.segment_bytes_max;
        Ok(Some(AbandonedSegment { slot, segment, end, mark, tail, fits, can_append }))
    }

    /// Discards records in the tail that a power cut has made unreadable.
    fn verify_tail(&self, abandoned: &mut AbandonedSegment) -> Result<(), Error> {
        let mut refused = Vec::new();
        for found in &abandoned.tail {
            if !self.verify_base(abandoned.slot, found)? {
                refused.push(found.offset);
            }
        }
        blank(&abandoned.segment, abandoned.end, &refused);
        abandoned.tail.retain(|found| !refused.contains(&found.offset));
        Ok(())
    }

    /// Returns whether a record that may never have been flushed can be read. A power cut may have
    /// preserved a delta but not its base. Such a record does not count, and the older record of
    /// the key is restored.
    fn verify_base(&self, slot: SlotId, found: &ScannedRecord) -> Result<bool, Error> {
        let (key, location) = (found.key.as_slice(), Location { slot, offset: found.offset });
        if found.header.depth() == 0 {
            return Ok(true);
        }
        for _ in 0..TRIES_MAX {
            if !self.inner.is_current(key, location) || self.reader.is_readable(key)? {
                return Ok(true);
            }
            let Some(others) = unless_gone(self.refresher.find_records(&[], |_, other| other == key))? else {
                // Another process has removed a segment, possibly with the base. A refresh finds
                // the copies that it has written before.
                self.refresher.refresh()?;
                continue;
            };
            let mut index = self.inner.index.write();
            index.forget(key);
            for (slot, found) in others {
                let other = Location { slot, offset: found.offset };
                if other != location && index.try_slot(slot).is_some() {
                    index.apply(other, &found.info());
                }
            }
            return Ok(false);
        }
        // Segments are removed faster than they can be read. A read of the key decides later.
        Ok(true)
    }

    /// Continues the fullest segment, which will be sealed soonest. Seals full ones, and releases
    /// the others to other processes.
    fn resume_or_seal(&self, abandoned: Vec<AbandonedSegment>) {
        let fullest = abandoned.iter().filter(|segment| segment.can_append).max_by_key(|segment| segment.end);
        let fullest = fullest.map(|segment| segment.slot);
        for AbandonedSegment { slot, segment, end, mark, tail, fits, can_append } in abandoned {
            // An index file that does not match is evidence of a loss, so nothing is appended to
            // it.
            let mut pending = PendingBlock::new(if fits { mark } else { end });
            for found in tail.iter().filter(|_| fits) {
                pending.push(found.offset, &found.header, found.key.as_slice(), found.base(), found.checksum);
            }
            let mut active = ActiveSegment { slot, segment, end, pending, listed: false, table_tried: false };
            if fullest == Some(slot) {
                let mut writer = self.inner.writer.lock();
                if let Some(slot) = self.inner.index.write().try_slot_mut(slot) {
                    slot.own = true;
                }
                writer.active = Some(active);
                // The writer may have died before the segment's directory entry and last records
                // reached the disk.
                writer.dir_dirty = true;
                writer.appended += 1;
            } else if can_append {
                active.segment.unlock();
            } else if let Err(error) = self.inner.sync_dir().and_then(|()| self.appender.seal(&mut active)) {
                tracing::warn!(%error, "cannot seal a segment of a dead process");
                active.segment.unlock();
            }
        }
    }
}
