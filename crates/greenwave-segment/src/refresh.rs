//! Refreshes the index: lists the directory, and reads what other processes have written and
//! removed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::change_watch::ChangeWatch;
use crate::entry::{Location, SlotId};
use crate::error::unless_gone;
use crate::format::{self, SEGMENT_HEADER_BYTES};
use crate::index::{BulkInsert, SegmentSlot};
use crate::index_file::{self, IndexFile};
use crate::inner::Inner;
use crate::key_table::KeyTable;
use crate::record::{self, HEADER_BYTES, Header, RecordKind};
use crate::scan::{self, PayloadCheck, ScanResult, ScannedRecord};
use crate::segment::{self, Segment};
use crate::{Error, LoadIndex};

/// Maximum number of passes over the directory. Other processes may compact during a pass; each
/// pass sees a later state.
const PASSES_MAX: usize = 8;

/// Maximum number of segments to check without blocking. Checking more takes longer than handing
/// the work to another thread.
const QUICK_SEGMENTS_MAX: usize = 16;

/// Steps of modification times: file systems that store whole seconds (FAT stores even ones), and
/// an upper bound for all others, which use the kernel's timer ticks.
const COARSE_STEP: Duration = Duration::from_secs(2);
const FINE_STEP_MAX: Duration = Duration::from_millis(50);

/// Differences between the directory and the index.
pub(crate) struct DirectoryChanges {
    pub(crate) new: Vec<u64>,
    /// Index files whose segments are missing and that are not in the index.
    pub(crate) orphans: Vec<u64>,
    pub(crate) grown: Vec<SlotId>,
    pub(crate) missing: Vec<SlotId>,
}

/// A segment that was added to the index.
pub(crate) struct NewlyIndexed {
    pub(crate) slot: SlotId,
    pub(crate) mark: u64,
    /// Records beyond its index file, if they were verified.
    pub(crate) tail: Vec<ScannedRecord>,
}

/// Role in which a segment is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentRole {
    /// Another process writes the segment, or none does.
    Reader,
    /// The writer died, and this log holds the lock.
    Writer,
}

/// Refreshes the index with the changes of other processes.
#[derive(Clone, Copy)]
pub(crate) struct Refresher<'a> {
    inner: &'a Inner,
}

impl<'a> Refresher<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner }
    }

    /// Reads the changes of other processes; see [`Log::refresh`](crate::Log::refresh).
    pub(crate) fn refresh(&self) -> Result<(), Error> {
        let _refreshing = self.inner.refreshing.lock();
        for _ in 0..PASSES_MAX {
            let changes = self.list_changes()?;
            let mut vanished = false;
            for id in changes.new {
                vanished |= !self.index_new_segment(id)?;
            }
            for id in changes.orphans {
                self.index_orphan(id)?;
            }
            for slot in changes.grown {
                vanished |=
                    !unless_gone(self.read_appended(slot, SegmentRole::Reader, |_| ()))?.unwrap_or(false);
            }
            // Removed segments come last: their compactor copied the live records first, and these
            // have been read by now. If a segment with copies was removed as well, another pass is
            // needed.
            if !vanished && self.remove_missing(&changes.missing)? {
                return Ok(());
            }
        }
        // Segments that are missing remain in the index until the next call.
        Ok(())
    }

    /// Adds a segment to the index; returns `false` if it was removed.
    fn index_new_segment(&self, id: u64) -> Result<bool, Error> {
        let Some((segment, len)) = self.open_segment(id)? else { return Ok(false) };
        if len < SEGMENT_HEADER_BYTES {
            // Its creator has not written the header yet. The next refresh reads it.
            return Ok(true);
        }
        Ok(unless_gone(self.index_segment(segment, len, SegmentRole::Reader))?.is_some())
    }

    /// Returns whether there is nothing to refresh; see
    /// [`Log::is_up_to_date`](crate::Log::is_up_to_date).
    pub(crate) fn is_up_to_date(&self) -> bool {
        if self
            .inner
            .change_watch
            .get()
            .is_some_and(|watch| watch.as_ref().is_some_and(ChangeWatch::is_quiet))
        {
            return true;
        }
        let Some(_refreshing) = self.inner.refreshing.try_lock() else { return false };
        let (segments, open) = {
            let index = self.inner.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.own && !slot.sealed && !slot.orphan);
            let open: Vec<_> = open.map(|(id, slot)| (id, slot.segment.clone())).collect();
            (index.slots().count(), open)
        };
        if open.len() > QUICK_SEGMENTS_MAX {
            return false;
        }
        let watch =
            self.inner.change_watch.get_or_init(|| ChangeWatch::new(&self.inner.disk, &self.inner.dir));
        let watching = watch.as_ref().filter(|watch| watch.begin(open.iter().map(|(_, segment)| &**segment)));
        let slots: Vec<SlotId> = open.iter().map(|(slot, _)| *slot).collect();
        let is_up_to_date = self.is_unchanged(segments, &slots);
        if let Some(watch) = watching.filter(|_| is_up_to_date) {
            watch.end();
        }
        is_up_to_date
    }

    /// Compares the directory and these unfinished segments with the index, which has this number
    /// of segments. Returns `false` if there are too many to do that quickly.
    fn is_unchanged(&self, segments: usize, open: &[SlotId]) -> bool {
        let status = self.inner.disk.status(&self.inner.dir).ok();
        if status.is_some() && *self.inner.listed.lock() == status {
            return !self.has_grown(open);
        }
        segments <= QUICK_SEGMENTS_MAX && self.has_changes().is_ok_and(|changed| !changed)
    }

    /// Returns whether the directory differs from the index. The caller holds `refreshing`.
    fn has_changes(&self) -> Result<bool, Error> {
        let status = self.inner.disk.status(&self.inner.dir).ok();
        let changes = self.list_changes()?;
        if !changes.new.is_empty() || !changes.orphans.is_empty() || !changes.missing.is_empty() {
            return Ok(true);
        }
        // A later change of the directory will change this status.
        *self.inner.listed.lock() = status.filter(|status| !is_racy(status.modified));
        Ok(self.has_grown(&changes.grown))
    }

    /// Refreshes if necessary; see [`Log::refresh_if_stale`](crate::Log::refresh_if_stale).
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

    /// Returns whether one of these segments has changed since it was last read.
    fn has_grown(&self, slots: &[SlotId]) -> bool {
        let index = self.inner.index.read();
        slots.iter().any(|slot| index.try_slot(*slot).is_none_or(|slot| has_changed(slot).unwrap_or(true)))
    }

    /// Compares the directory with the index. Locks the writer while listing, so that this log
    /// cannot create a segment meanwhile.
    pub(crate) fn list_changes(&self) -> Result<DirectoryChanges, Error> {
        let writer = self.inner.writer.lock();
        let listing = segment::list(&self.inner.disk, &self.inner.dir)?;
        let index = self.inner.index.read();
        drop(writer);
        let mut indexed: HashMap<u64, (SlotId, &SegmentSlot)> =
            index.slots().map(|(id, slot)| (slot.segment.id, (id, slot))).collect();
        let mut changes =
            DirectoryChanges { new: Vec::new(), orphans: Vec::new(), grown: Vec::new(), missing: Vec::new() };
        for id in listing.segments {
            match indexed.remove(&id) {
                None => changes.new.push(id),
                Some((_, slot)) if slot.own || slot.sealed => {}
                Some((slot, _)) => changes.grown.push(slot),
            }
        }
        for id in listing.orphans {
            match indexed.get(&id) {
                None => changes.orphans.push(id),
                Some((_, slot)) if slot.orphan => drop(indexed.remove(&id)),
                Some(_) => {}
            }
        }
        let missing = indexed.into_values().filter(|(_, slot)| !slot.own || slot.sealed);
        changes.missing = missing.map(|(slot, _)| slot).collect();
        changes.missing.sort_unstable();
        Ok(changes)
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

    /// Adds a segment to the index from its index file and from the records beyond that.
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
        let table = if sealed { self.key_table(&segment, len)? } else { None };
        let has_table = table.is_some();
        if let Some(table) = table {
            let mark = table.end();
            let mut index = self.inner.index.write();
            // Under the lock: `load_all` sets it before it looks for the last unread segment.
            if !self.inner.loads_all.load(Ordering::SeqCst) {
                let slot = index.add_unread(segment, len, table);
                self.inner.counters.refreshes.add(1);
                return Ok(NewlyIndexed { slot, mark, tail: Vec::new() });
            }
        }
        let mut slot = SegmentSlot::new(segment, len);
        (slot.sealed_at_first, slot.has_table) = (sealed, has_table);
        let slot = self.inner.index.write().add(slot);
        self.read_records(slot, role)
    }

    /// Opens the key table of a sealed segment, if this log may use one. In a copy, the index file
    /// may be newer than the segment.
    fn key_table(&self, segment: &Segment, len: u64) -> Result<Option<KeyTable>, Error> {
        let Inner { disk, descriptors, options, is_copy, .. } = self.inner;
        if options.load_index == LoadIndex::OnOpen || is_copy.load(Ordering::Relaxed) {
            return Ok(None);
        }
        KeyTable::open(disk, descriptors, segment, len)
    }

    /// Adds the records of a segment to the index, from its index file and from the records beyond
    /// that.
    pub(crate) fn read_records(&self, slot: SlotId, role: SegmentRole) -> Result<NewlyIndexed, Error> {
        let found = {
            let index = self.inner.index.read();
            index.try_slot(slot).map(|slot| (slot.segment.clone(), slot.len, slot.sealed_at_first))
        };
        let gone = |segment: &Segment| Error::io("read", &segment.path)(std::io::ErrorKind::NotFound.into());
        let Some((segment, len, sealed)) = found else {
            return Err(Error::io("read", &self.inner.dir)(std::io::ErrorKind::NotFound.into()));
        };
        let mut file = IndexFile::open(&self.inner.disk, &segment)?;
        if let Some(file) = &mut file {
            file.trusted = !self.inner.is_copy.load(Ordering::Relaxed);
            self.index_blocks(slot, &segment, len, file)?;
        }
        let fits = file.as_ref().is_none_or(|file| file.fits);
        if role == SegmentRole::Writer
            && fits
            && !sealed
            && let Err(error) = IndexFile::truncate_torn(&self.inner.disk, &segment, file.as_ref())
        {
            tracing::warn!(%error, "cannot truncate a torn index file: its segment will be read instead");
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
            Err(gone(&segment))
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
        if index.try_slot(slot).is_none() {
            return Ok(());
        }
        let mut bulk = BulkInsert::default();
        let read = loop {
            match file.next_block(segment, len) {
                Ok(Some(block)) if block.fits => index.apply_bulk(&mut bulk, slot, block.records),
                Ok(Some(block)) => {
                    for (offset, record) in block.records {
                        match scan::is_record(segment, len, offset, &record) {
                            Ok(true) => index.apply(Location { slot, offset }, &record),
                            Ok(false) => index.apply(Location { slot, offset }, &record.as_lost()),
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

    /// Reads the index file of a missing segment. Other segments may contain copies of its records.
    /// Keys without a copy have lost their newest value and must not show an older one.
    fn index_orphan(&self, id: u64) -> Result<(), Error> {
        if self.inner.is_copy.load(Ordering::Relaxed) {
            // The segment was removed while the directory was copied. According to the manifest,
            // the copy is complete without it.
            if !self.inner.read_only {
                index_file::remove(&self.inner.disk, &format::segment_path(&self.inner.dir, id));
            }
            return Ok(());
        }
        let segment = Segment::missing(&self.inner.disk, &self.inner.descriptors, &self.inner.dir, id);
        let Some(mut file) = IndexFile::open(&self.inner.disk, &segment)? else {
            if !self.inner.read_only {
                // The file does not even have a header.
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
            for (offset, record) in block.records {
                if record.kind != RecordKind::Dictionary {
                    index.apply(Location { slot, offset }, &record.as_lost());
                }
            }
        }
        Ok(())
    }

    /// Reads the records appended to a segment since it was last read; returns `false` if it was
    /// removed.
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
            // The segment was truncated. Entries beyond its end miss when they are read; the rest
            // is read again.
            from = SEGMENT_HEADER_BYTES;
        }
        let payloads = if sealed { PayloadCheck::Trust } else { PayloadCheck::Verify };
        let mut found: Vec<ScannedRecord> = Vec::new();
        let others_write = !sealed && role == SegmentRole::Reader;
        let mut scan = scan_settled(&segment, from, len, payloads, others_write, &mut found)?;
        let mut tail_hash = 0;
        while others_write && scan.end < len {
            // The writer may replace these bytes by records of the same total length. The hash is
            // taken before they are read again, so that a record in them is either read now or
            // changes the hash.
            tail_hash = scan::hash_range(&segment, scan.end, len)?;
            let tail = scan_settled(&segment, scan.end, len, payloads, others_write, &mut found)?;
            let is_conclusive = tail.end == scan.end;
            scan = ScanResult { damaged: scan.damaged + tail.damaged, ..tail };
            if is_conclusive {
                break;
            }
        }
        if scan.damaged > 0 {
            self.inner.counters.bad_records.add(scan.damaged);
            tracing::warn!(path = %segment.path.display(), ranges = scan.damaged, "skipped damaged records");
        }
        if role == SegmentRole::Writer && !scan.sealed {
            blank(&segment, scan.end, &scan.refused);
        }
        let mut index = self.inner.index.write();
        if index.try_slot(slot).is_none() {
            return Ok(false);
        }
        for found in found {
            index.apply(Location { slot, offset: found.offset }, &found.info());
            on_record(found);
        }
        if let Some(slot) = index.try_slot_mut(slot) {
            (slot.end, slot.len, slot.sealed) = (scan.end, len, scan.sealed);
            slot.tail_hash = tail_hash;
        }
        self.inner.counters.refreshes.add(u64::from(len != from));
        Ok(true)
    }

    /// Removes missing segments from the index. If an entry still points to one, finds the record
    /// that opening the log would find: a copy with a lower rank, or an older record. Returns
    /// `false` if another segment was removed meanwhile, so that the directory must be listed again
    /// first.
    pub(crate) fn remove_missing(&self, missing: &[SlotId]) -> Result<bool, Error> {
        if missing.is_empty() {
            return Ok(true);
        }
        let (mut keys, mut dictionaries) = (HashSet::new(), HashSet::new());
        {
            let index = self.inner.index.read();
            for slot in missing {
                let left = index.entries_in(*slot).into_iter().filter(|entry| entry.shadows);
                keys.extend(left.map(|entry| entry.key.as_slice().to_vec()));
                dictionaries.extend(index.dictionaries_in(*slot).into_iter().map(|(id, _)| id));
            }
        }
        let elsewhere = if keys.is_empty() && dictionaries.is_empty() {
            Vec::new()
        } else {
            let found = self.find_records(missing, |header, key| match header.kind {
                RecordKind::Dictionary => {
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
        for slot in missing {
            index.remove(*slot);
        }
        for (slot, found) in elsewhere {
            if index.try_slot(slot).is_some() {
                index.apply(Location { slot, offset: found.offset }, &found.info());
            }
        }
        Ok(true)
    }

    /// Returns matching records from all segments except some. Reads every segment.
    pub(crate) fn find_records(
        &self,
        except: &[SlotId],
        wanted: impl Fn(&Header, &[u8]) -> bool,
    ) -> Result<Vec<(SlotId, ScannedRecord)>, Error> {
        let slots: Vec<_> = {
            let index = self.inner.index.read();
            let others = index.slots().filter(|(id, slot)| !except.contains(id) && !slot.orphan);
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

/// Scans a segment and appends its records to `found`. While others write the segment, reads
/// damaged ranges a second time.
fn scan_settled(
    segment: &Segment,
    from: u64,
    len: u64,
    payloads: PayloadCheck,
    others_write: bool,
    found: &mut Vec<ScannedRecord>,
) -> Result<ScanResult, Error> {
    let before = found.len();
    let scan = scan::scan(segment, from, len, payloads, |record| found.push(record))?;
    if scan.damaged == 0 || !others_write {
        return Ok(scan);
    }
    // The writer may have failed, truncated the segment and written other records to the same
    // place while it was read. Bytes before a good record never change again, so reading them a
    // second time is conclusive.
    found.truncate(before);
    let again = scan::scan(segment, from, scan.end, payloads, |record| found.push(record))?;
    Ok(ScanResult { sealed: scan.sealed, ..again })
}

/// Returns whether a segment that another process may write differs from what was read of it.
fn has_changed(slot: &SegmentSlot) -> Result<bool, Error> {
    if slot.segment.len()? != slot.len {
        return Ok(true);
    }
    Ok(slot.end < slot.len && scan::hash_range(&slot.segment, slot.end, slot.len)? != slot.tail_hash)
}

/// Returns whether a modification time, in nanoseconds since the Unix epoch, is racy: so recent
/// that a later change of the directory may have the same time.
fn is_racy(modified: u128) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let step = if modified.is_multiple_of(1_000_000_000) { COARSE_STEP } else { FINE_STEP_MAX };
    now.as_nanos().checked_sub(modified).is_none_or(|age| age <= step.as_nanos())
}

/// Overwrites the magic of records that must not count although their headers verify, before
/// records are appended behind them. None of them was ever flushed.
pub(crate) fn blank(segment: &Segment, end: u64, refused: &[u64]) {
    for offset in refused.iter().filter(|offset| **offset < end) {
        let zeros = [0; HEADER_BYTES];
        if let Err(error) = segment.write_at(&zeros[..record::MAGIC.len()], *offset) {
            tracing::warn!(path = %segment.path.display(), %error, "cannot overwrite a torn record");
        }
    }
}
