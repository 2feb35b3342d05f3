//! Refreshing: reads what other processes have written and removed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Error;
use crate::entry::{Location, SlotId};
use crate::error::unless_gone;
use crate::format;
use crate::format::SEGMENT_HEADER_BYTES;
use crate::index::{BulkInsert, SegmentSlot};
use crate::index_file::{self, IndexFile};
use crate::inner::Inner;
use crate::record::{self, HEADER_BYTES, Header, Kind};
use crate::scan::{self, PayloadCheck, ScannedRecord};
use crate::segment::{self, Segment};

/// Other processes compact while we look. Each pass sees a later state; this many suffice unless something is badly wrong.
const PASSES_MAX: usize = 8;

/// Segments that are looked at in less time than it takes to have another thread do it.
const QUICK_SEGMENTS_MAX: usize = 16;

/// The steps of times in file systems that count whole seconds (FAT counts two), and more than those of others, which take the time
/// from the kernel's ticks.
const COARSE_STEP: Duration = Duration::from_secs(2);
const FINE_STEP_MAX: Duration = Duration::from_millis(50);

/// What looking at the directory found.
pub(crate) struct DirectoryChanges {
    pub(crate) new: Vec<u64>,
    /// Index files whose segments are gone, and which the index does not have yet.
    pub(crate) orphans: Vec<u64>,
    pub(crate) grown: Vec<SlotId>,
    pub(crate) gone: Vec<SlotId>,
}

/// What entering a segment read beyond its index file.
pub(crate) struct NewlyIndexed {
    pub(crate) slot: SlotId,
    pub(crate) mark: u64,
    /// The records, if they were verified.
    pub(crate) tail: Vec<ScannedRecord>,
}

/// As what a segment is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentRole {
    /// Somebody else writes it, or nobody any more.
    Reader,
    /// Its writer died, and we hold its lock.
    Writer,
}

/// Brings the index up to date with what other processes did.
#[derive(Clone, Copy)]
pub(crate) struct Refresher<'a> {
    inner: &'a Inner,
}

impl<'a> Refresher<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner }
    }

    /// Takes in what other processes wrote and removed since the last call. Costs a directory listing and a look at each of their
    /// unfinished segments when nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::NewerFormat`] when one of them runs a later version.
    pub(crate) fn refresh(&self) -> Result<(), Error> {
        let _refreshing = self.inner.refreshing.lock();
        for _ in 0..PASSES_MAX {
            let seen = self.list_changes()?;
            let mut vanished = false;
            for id in seen.new {
                vanished |= !self.index_new_segment(id)?;
            }
            for id in seen.orphans {
                self.index_orphan(id)?;
            }
            for slot in seen.grown {
                vanished |=
                    !unless_gone(self.read_appended(slot, SegmentRole::Reader, |_| ()))?.unwrap_or(false);
            }
            // Only now: whoever removed these wrote what was worth keeping elsewhere first, and we have read it. Unless that
            // elsewhere is gone as well, and one more look is needed.
            if !vanished && self.remove_missing(&seen.gone)? {
                return Ok(());
            }
        }
        // Nothing is forgotten in a hurry: what is gone stays in the index until the next call.
        Ok(())
    }

    /// Takes in a segment that the index does not have yet; `false` if it is gone.
    fn index_new_segment(&self, id: u64) -> Result<bool, Error> {
        let Some((segment, len)) = self.open_segment(id)? else { return Ok(false) };
        if len < SEGMENT_HEADER_BYTES {
            // Just created, its header not yet written: the next refresh sees it.
            return Ok(true);
        }
        Ok(unless_gone(self.index_segment(segment, len, SegmentRole::Reader))?.is_some())
    }

    /// Whether other processes have written or removed nothing since the last [`refresh`](Self::refresh), as far as that can be told in some microseconds:
    /// `false` also where there are many segments, or somebody is just refreshing.
    pub(crate) fn is_up_to_date(&self) -> bool {
        let Some(_refreshing) = self.inner.refreshing.try_lock() else { return false };
        let (segments, open) = {
            let index = self.inner.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.own && !slot.sealed).map(|(id, _)| id);
            (index.slots().count(), open.collect::<Vec<_>>())
        };
        if open.len() > QUICK_SEGMENTS_MAX {
            return false;
        }
        let status = self.inner.disk.status(&self.inner.dir).ok();
        if status.is_some() && *self.inner.listed.lock() == status {
            return !self.has_grown(&open);
        }
        segments <= QUICK_SEGMENTS_MAX && self.has_changes().is_ok_and(|news| !news)
    }

    /// Whether the directory shows anything that the index does not have. The caller holds `following`.
    fn has_changes(&self) -> Result<bool, Error> {
        let status = self.inner.disk.status(&self.inner.dir).ok();
        let seen = self.list_changes()?;
        if !seen.new.is_empty() || !seen.orphans.is_empty() || !seen.gone.is_empty() {
            return Ok(true);
        }
        // From then on a change of the directory shows in its times.
        *self.inner.listed.lock() = status.filter(|status| is_settled(status.modified));
        Ok(self.has_grown(&seen.grown))
    }

    /// Like [`refresh`](Self::refresh), but says whether there was anything to take in. Costs no more than a look at the directory and at
    /// the segments that others write when there was not.
    ///
    /// # Errors
    ///
    /// Those of [`refresh`](Self::refresh).
    pub(crate) fn refresh_if_stale(&self) -> Result<bool, Error> {
        let stale = {
            let _refreshing = self.inner.refreshing.lock();
            self.has_changes()?
        };
        if stale {
            self.refresh()?;
        }
        Ok(stale)
    }

    /// Whether one of these segments is longer than it was when it was last read.
    fn has_grown(&self, slots: &[SlotId]) -> bool {
        let index = self.inner.index.read();
        slots.iter().any(|slot| {
            index.try_slot(*slot).is_none_or(|slot| slot.segment.len().map_or(true, |len| len != slot.len))
        })
    }

    /// Compares the directory with the index. Holds the writer so that a segment of our own cannot appear in between.
    pub(crate) fn list_changes(&self) -> Result<DirectoryChanges, Error> {
        let writer = self.inner.writer.lock();
        let listing = segment::list(&self.inner.disk, &self.inner.dir)?;
        let index = self.inner.index.read();
        drop(writer);
        let mut known: HashMap<u64, (SlotId, &SegmentSlot)> =
            index.slots().map(|(id, slot)| (slot.segment.id, (id, slot))).collect();
        let mut seen =
            DirectoryChanges { new: Vec::new(), orphans: Vec::new(), grown: Vec::new(), gone: Vec::new() };
        for id in listing.segments {
            match known.remove(&id) {
                None => seen.new.push(id),
                Some((_, slot)) if slot.own || slot.sealed => {}
                Some((slot, _)) => seen.grown.push(slot),
            }
        }
        for id in listing.orphans {
            match known.get(&id) {
                None => seen.orphans.push(id),
                Some((_, slot)) if slot.orphan => drop(known.remove(&id)),
                Some(_) => {}
            }
        }
        let gone = known.into_values().filter(|(_, slot)| !slot.own || slot.sealed);
        seen.gone = gone.map(|(slot, _)| slot).collect();
        seen.gone.sort_unstable();
        Ok(seen)
    }

    pub(crate) fn open_segment(&self, id: u64) -> Result<Option<(Segment, u64)>, Error> {
        let opened = Segment::open(
            &self.inner.disk,
            &self.inner.descriptors,
            &self.inner.dir,
            id,
            self.inner.read_only,
        )?;
        let Some(segment) = opened else { return Ok(None) };
        let len = unless_gone(segment.len())?;
        Ok(len.map(|len| (segment, len)))
    }

    /// Reads a segment that the index does not know yet: its index file as far as that reaches, then its records. Returns what the index
    /// file does not cover.
    pub(crate) fn index_segment(
        &self,
        segment: Segment,
        len: u64,
        role: SegmentRole,
    ) -> Result<NewlyIndexed, Error> {
        if !segment.check_header()? {
            self.inner.report_bad(&segment, 0, "the segment's header is damaged");
        }
        let sealed = scan::is_sealed(&segment, len)?;
        let mut file = IndexFile::open(&self.inner.disk, &segment)?;
        let mut slot = SegmentSlot::new(segment, len);
        slot.sealed_at_first = sealed;
        let segment = slot.segment.clone();
        let slot = self.inner.index.write().add(slot);
        if let Some(file) = &mut file {
            file.trusted = !self.inner.is_copy.load(Ordering::Relaxed);
            self.index_blocks(slot, &segment, len, file)?;
        }
        let fits = file.as_ref().is_none_or(|file| file.fits);
        if role == SegmentRole::Writer
            && fits
            && !sealed
            && let Err(error) = IndexFile::mend(&self.inner.disk, &segment, file.as_ref())
        {
            tracing::warn!(%error, "an index file cannot be mended: its segment will be read instead");
        }
        let mark = file.as_ref().map_or(SEGMENT_HEADER_BYTES, |file| file.mark);
        if let Some(slot) = self.inner.index.write().try_slot_mut(slot) {
            (slot.end, slot.fits) = (mark, fits);
            slot.index_len = file.map_or(0, |file| file.len);
        }
        let mut tail = Vec::new();
        if self.read_appended(slot, role, |found| tail.push(found))? {
            Ok(NewlyIndexed { slot, mark, tail: if sealed { Vec::new() } else { tail } })
        } else {
            Err(Error::io("read", &segment.path)(std::io::ErrorKind::NotFound.into()))
        }
    }

    fn index_blocks(
        &self,
        slot: SlotId,
        segment: &Segment,
        len: u64,
        file: &mut IndexFile,
    ) -> Result<(), Error> {
        let mut index = self.inner.index.write();
        let mut bulk = BulkInsert::default();
        let read = loop {
            match file.next_block(segment, len) {
                Ok(Some(block)) if block.fits => index.apply_bulk(&mut bulk, slot, block.items),
                Ok(Some(block)) => {
                    for (offset, item) in block.items {
                        match scan::is_record(segment, len, offset, &item) {
                            Ok(true) => index.apply(Location { slot, offset }, &item),
                            Ok(false) => index.apply(Location { slot, offset }, &item.as_lost()),
                            Err(error) => {
                                index.finish(&mut bulk);
                                return Err(error);
                            }
                        }
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        index.finish(&mut bulk);
        self.inner.counters.refreshes.add(1);
        read
    }

    /// Takes in the index file of a segment that is gone. Copies of its records may stand elsewhere; the keys of the others have
    /// lost their newest value, and must not show an older one.
    fn index_orphan(&self, id: u64) -> Result<(), Error> {
        if self.inner.is_copy.load(Ordering::Relaxed) {
            // The segment was removed while the directory was copied, and the manifest says that all is there without it.
            if !self.inner.read_only {
                index_file::remove(&self.inner.disk, &format::segment_path(&self.inner.dir, id));
            }
            return Ok(());
        }
        let segment = Segment::gone(&self.inner.disk, &self.inner.descriptors, &self.inner.dir, id);
        let Some(mut file) = IndexFile::open(&self.inner.disk, &segment)? else {
            if !self.inner.read_only {
                // It says nothing: not even its header was written.
                index_file::remove(&self.inner.disk, &segment.path);
            }
            return Ok(());
        };
        let mut slot = SegmentSlot::new(segment, 0);
        (slot.sealed, slot.orphan, slot.index_len) = (true, true, file.len);
        let segment = slot.segment.clone();
        let mut index = self.inner.index.write();
        self.inner.counters.refreshes.add(1);
        let slot = index.add(slot);
        while let Some(block) = file.next_block(&segment, 0)? {
            for (offset, item) in block.items {
                if item.kind != Kind::Dictionary {
                    index.apply(Location { slot, offset }, &item.as_lost());
                }
            }
        }
        Ok(())
    }

    /// Reads a segment from where we stopped; `false` if it is gone.
    pub(crate) fn read_appended(
        &self,
        slot: SlotId,
        role: SegmentRole,
        mut on_record: impl FnMut(ScannedRecord),
    ) -> Result<bool, Error> {
        let found = {
            let index = self.inner.index.read();
            index.try_slot(slot).map(|slot| (slot.segment.clone(), slot.end, slot.sealed_at_first))
        };
        let Some((segment, mut from, sealed)) = found else { return Ok(false) };
        let len = match segment.len() {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(false);
            }
            other => other?,
        };
        if len < from {
            // Cut off behind what we believed good. Entries beyond miss when read; start again for the rest.
            from = SEGMENT_HEADER_BYTES;
        }
        let payloads = if sealed { PayloadCheck::Trust } else { PayloadCheck::Verify };
        let mut found: Vec<ScannedRecord> = Vec::new();
        let scan = scan::scan(&segment, from, len, payloads, |record| found.push(record))?;
        if scan.damaged > 0 {
            self.inner.counters.bad_records.add(scan.damaged);
            tracing::warn!(path = %segment.path.display(), places = scan.damaged, "stepped over damaged records");
        }
        if role == SegmentRole::Writer && !scan.sealed {
            blank(&segment, scan.end, &scan.refused);
        }
        let mut index = self.inner.index.write();
        for found in found {
            index.apply(Location { slot, offset: found.offset }, &found.item());
            on_record(found);
        }
        if let Some(slot) = index.try_slot_mut(slot) {
            (slot.end, slot.len, slot.sealed) = (scan.end, len, scan.sealed);
        }
        self.inner.counters.refreshes.add(u64::from(len != from));
        Ok(true)
    }

    /// Forgets segments that are gone. An entry that still points into one is looked for elsewhere, as opening the log anew would
    /// find it: a copy that lost against the original, or an older record. `false` if one more look at the directory is needed
    /// first, since more segments have gone meanwhile.
    pub(crate) fn remove_missing(&self, gone: &[SlotId]) -> Result<bool, Error> {
        if gone.is_empty() {
            return Ok(true);
        }
        let (mut keys, mut dictionaries) = (HashSet::new(), HashSet::new());
        {
            let index = self.inner.index.read();
            for slot in gone {
                let left = index.entries_in(*slot).into_iter().filter(|entry| entry.shadows);
                keys.extend(left.map(|entry| entry.key.as_slice().to_vec()));
                dictionaries.extend(index.dictionaries_in(*slot).into_iter().map(|(id, _)| id));
            }
        }
        let elsewhere = if keys.is_empty() && dictionaries.is_empty() {
            Vec::new()
        } else {
            let found = self.find_records(gone, |header, key| match header.kind {
                Kind::Dictionary => {
                    key.try_into().is_ok_and(|id| dictionaries.contains(&u32::from_le_bytes(id)))
                }
                _ => keys.contains(key),
            });
            match found {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(false);
                }
                other => other?,
            }
        };
        let mut index = self.inner.index.write();
        self.inner.counters.refreshes.add(1);
        for slot in gone {
            index.remove(*slot);
        }
        for (slot, found) in elsewhere {
            if index.try_slot(slot).is_some() {
                index.apply(Location { slot, offset: found.offset }, &found.item());
            }
        }
        Ok(true)
    }

    /// The records that are wanted, in all segments but some. Reads every segment.
    pub(crate) fn find_records(
        &self,
        but: &[SlotId],
        wanted: impl Fn(&Header, &[u8]) -> bool,
    ) -> Result<Vec<(SlotId, ScannedRecord)>, Error> {
        let slots: Vec<_> = {
            let index = self.inner.index.read();
            let others = index.slots().filter(|(id, slot)| !but.contains(id) && !slot.orphan);
            others.map(|(id, slot)| (id, slot.segment.clone(), slot.end)).collect()
        };
        let mut records = Vec::new();
        for (slot, segment, end) in slots {
            scan::scan(&segment, SEGMENT_HEADER_BYTES, end, PayloadCheck::Trust, |found| {
                if wanted(&found.header, found.key.as_slice()) {
                    records.push((slot, found));
                }
            })?;
        }
        Ok(records)
    }
}

/// Whether a directory that was modified then, in nanoseconds since the Unix epoch, cannot change any more without its time of
/// modification becoming another one.
fn is_settled(modified: u128) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let step = if modified.is_multiple_of(1_000_000_000) { COARSE_STEP } else { FINE_STEP_MAX };
    now.as_nanos().checked_sub(modified).is_some_and(|age| age > step.as_nanos())
}

/// Makes records unreadable that must not count although their headers verify, before anybody appends behind them. They are
/// beyond what was ever flushed.
pub(crate) fn blank(segment: &Segment, end: u64, refused: &[u64]) {
    for offset in refused.iter().filter(|offset| **offset < end) {
        let zeros = [0; HEADER_BYTES];
        if let Err(error) = segment.write_at(&zeros[..record::MAGIC.len()], *offset) {
            tracing::warn!(path = %segment.path.display(), %error, "cannot blank a torn record");
        }
    }
}
