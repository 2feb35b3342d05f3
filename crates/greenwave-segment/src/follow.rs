//! Opening and refreshing: finds segments, reads what is new in them, adopts one that nobody writes any more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Error;
use crate::error::unless_gone;
use crate::index::{Bulk, Place, Slot, SlotId};
use crate::index_file::{self, IndexFile, Pending};
use crate::log::{Active, Log};
use crate::record::{self, HEADER_BYTES, Header, Kind};
use crate::recover::{self, Found, Payloads};
use crate::segment::{self, SEGMENT_HEADER_BYTES, Segment};

/// Other processes compact while we look. Each pass sees a later state; this many suffice unless something is badly wrong.
const PASSES_MAX: usize = 8;

/// Segments that are looked at in less time than it takes to have another thread do it.
const QUICK_SEGMENTS_MAX: usize = 16;

/// The steps of times in file systems that count whole seconds (FAT counts two), and more than those of others, which take the time
/// from the kernel's ticks.
const COARSE_STEP: Duration = Duration::from_secs(2);
const FINE_STEP_MAX: Duration = Duration::from_millis(50);

/// What a record takes in an index file whose key is a hash with a byte before it. Only a guess of how many there are.
const TYPICAL_ITEM_BYTES: usize = 72;

/// What looking at the directory found.
struct Seen {
    new: Vec<u64>,
    /// Index files whose segments are gone, and which the index does not have yet.
    orphans: Vec<u64>,
    grown: Vec<SlotId>,
    gone: Vec<SlotId>,
}

/// A segment whose writer died, taken over: we hold its lock.
struct Heritage {
    slot: SlotId,
    segment: Arc<Segment>,
    end: u64,
    /// Where its index file ends.
    mark: u64,
    /// The records beyond.
    tail: Vec<Found>,
    /// Whether its index file says the truth.
    fits: bool,
    /// Whether new records may follow.
    goes_on: bool,
}

/// What entering a segment read beyond its index file.
struct Entered {
    slot: SlotId,
    mark: u64,
    /// The records, if they were verified.
    tail: Vec<Found>,
}

/// Whether a directory that was modified then, in nanoseconds since the Unix epoch, cannot change any more without its time of
/// modification becoming another one.
fn is_settled(modified: u128) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let step = if modified.is_multiple_of(1_000_000_000) { COARSE_STEP } else { FINE_STEP_MAX };
    now.as_nanos().checked_sub(modified).is_some_and(|age| age > step.as_nanos())
}

/// As what a segment is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Somebody else writes it, or nobody any more.
    Reader,
    /// Its writer died, and we hold its lock.
    Heir,
}

impl Log {
    /// Takes in what other processes wrote and removed since the last call. Costs a directory listing and a look at each of their
    /// unfinished segments when nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::NewerFormat`] when one of them runs a later version.
    pub fn refresh(&self) -> Result<(), Error> {
        let _following = self.following.lock();
        for _ in 0..PASSES_MAX {
            let seen = self.look()?;
            let mut vanished = false;
            for id in seen.new {
                vanished |= !self.enter_new(id)?;
            }
            for id in seen.orphans {
                self.enter_orphan(id)?;
            }
            for slot in seen.grown {
                vanished |= !unless_gone(self.read_on(slot, Role::Reader, |_| ()))?.unwrap_or(false);
            }
            // Only now: whoever removed these wrote what was worth keeping elsewhere first, and we have read it. Unless that
            // elsewhere is gone as well, and one more look is needed.
            if !vanished && self.forget_gone(&seen.gone)? {
                return Ok(());
            }
        }
        // Nothing is forgotten in a hurry: what is gone stays in the index until the next call.
        Ok(())
    }

    /// Takes in a segment that the index does not have yet; `false` if it is gone.
    fn enter_new(&self, id: u64) -> Result<bool, Error> {
        let Some((segment, len)) = self.open_segment(id)? else { return Ok(false) };
        if len < SEGMENT_HEADER_BYTES {
            // Just created, its header not yet written: the next refresh sees it.
            return Ok(true);
        }
        Ok(unless_gone(self.enter(segment, len, Role::Reader))?.is_some())
    }

    /// Whether other processes have written or removed nothing since the last [`refresh`](Self::refresh), as far as that can be told in some microseconds:
    /// `false` also where there are many segments, or somebody is just refreshing.
    pub fn is_up_to_date(&self) -> bool {
        let Some(_following) = self.following.try_lock() else { return false };
        let (segments, open) = {
            let index = self.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.own && !slot.sealed).map(|(id, _)| id);
            (index.slots().count(), open.collect::<Vec<_>>())
        };
        if open.len() > QUICK_SEGMENTS_MAX {
            return false;
        }
        let status = self.disk.status(&self.dir).ok();
        if status.is_some() && *self.listed.lock() == status {
            return !self.has_grown(&open);
        }
        segments <= QUICK_SEGMENTS_MAX && self.has_news().is_ok_and(|news| !news)
    }

    /// Whether the directory shows anything that the index does not have. The caller holds `following`.
    fn has_news(&self) -> Result<bool, Error> {
        let status = self.disk.status(&self.dir).ok();
        let seen = self.look()?;
        if !seen.new.is_empty() || !seen.orphans.is_empty() || !seen.gone.is_empty() {
            return Ok(true);
        }
        // From then on a change of the directory shows in its times.
        *self.listed.lock() = status.filter(|status| is_settled(status.modified));
        Ok(self.has_grown(&seen.grown))
    }

    /// Like [`refresh`](Self::refresh), but says whether there was anything to take in. Costs no more than a look at the directory and at
    /// the segments that others write when there was not.
    ///
    /// # Errors
    ///
    /// Those of [`refresh`](Self::refresh).
    pub fn refresh_if_stale(&self) -> Result<bool, Error> {
        let stale = {
            let _following = self.following.lock();
            self.has_news()?
        };
        if stale {
            self.refresh()?;
        }
        Ok(stale)
    }

    /// A number that changes whenever this log has taken in what other processes wrote or removed, by whichever call: answers given
    /// before may be out of date.
    pub fn revision(&self) -> u64 {
        self.counters.taken_in.get()
    }

    /// Whether one of these segments is longer than it was when it was last read.
    fn has_grown(&self, slots: &[SlotId]) -> bool {
        let index = self.index.read();
        slots.iter().any(|slot| {
            index.try_slot(*slot).is_none_or(|slot| slot.segment.len().map_or(true, |len| len != slot.len))
        })
    }

    /// Like [`flush`](Self::flush), and also makes durable what other processes wrote and this log has taken in: for whoever is about to
    /// remove values that only records of others have made superfluous.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. What other processes wrote may then not be durable.
    pub fn flush_shared(&self) -> Result<(), Error> {
        let others: Vec<Arc<Segment>> = {
            let index = self.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.own && !slot.sealed && !slot.orphan);
            open.map(|(_, slot)| slot.segment.clone()).collect()
        };
        if !others.is_empty() {
            self.sync_dir()?;
        }
        for segment in others {
            // One that is gone was copied, and the copies synced, before it was removed.
            unless_gone(segment.sync())?;
        }
        self.flush()
    }

    /// The first look, which also takes over what a dead process left.
    pub(crate) fn recover(&self) -> Result<(), Error> {
        let expected = segment::index_files_bytes(&self.disk, &self.dir)? / TYPICAL_ITEM_BYTES;
        self.index.write().reserve(expected);
        let mut heritages = Vec::new();
        let mut unproven = Vec::new();
        for id in self.look()?.new {
            let Some((segment, len)) = self.open_segment(id)? else { continue };
            let Some(sealed) = unless_gone(recover::is_sealed(&segment, len))? else { continue };
            if self.read_only || !segment.writable || sealed || !segment.try_lock() {
                if len >= SEGMENT_HEADER_BYTES
                    && let Some(entered) = unless_gone(self.enter(segment, len, Role::Reader))?
                {
                    unproven.extend(entered.tail.into_iter().map(|found| (entered.slot, found)));
                }
                continue;
            }
            if segment.is_unlinked() {
                segment.unlock();
                continue;
            }
            heritages.extend(self.take_over(segment, &mut unproven)?);
        }
        // A segment that vanished while we looked has its records in another one by now.
        self.refresh()?;
        for (slot, found) in unproven {
            self.prove(slot, &found)?;
        }
        for heritage in &mut heritages {
            self.prove_tail(heritage)?;
        }
        self.choose_heritage(heritages);
        self.adopt_copy();
        Ok(())
    }

    /// Compares a copy of the directory with its manifest.
    pub(crate) fn check_copy(&self) -> Result<(), Error> {
        let io = |e| Error::io("read the manifest in", &self.dir)(e);
        let Some(listed) = self.manifest.read().map_err(io)?.filter(|listed| listed.is_copy) else {
            return Ok(());
        };
        if listed.users == 0 {
            // Nobody wrote when it was copied: what is missing was damaged, and index files tell the truth.
            return Ok(());
        }
        let mut there = BTreeMap::new();
        for id in segment::list(&self.disk, &self.dir)?.segments {
            let status = self.disk.status(&segment::segment_path(&self.dir, id)).map_err(io)?;
            there.insert(id, status.len);
        }
        let incomplete = |missing| Err(Error::IncompleteCopy { path: self.dir.clone(), missing });
        for (id, least) in listed.segments.iter().filter(|(_, least)| **least > 0) {
            match there.get(id) {
                None => return incomplete(format!("segment {id:016x} is missing")),
                Some(len) if len < least => {
                    return incomplete(format!("segment {id:016x} has {len} bytes of at least {least}"));
                }
                Some(_) => {}
            }
        }
        self.is_copy.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Enters a copy that has been opened under its own identity: from here on its index files are its own.
    fn adopt_copy(&self) {
        if self.read_only || !self.is_copy.load(Ordering::Relaxed) {
            return;
        }
        let segments = self.index.read().slots().map(|(_, slot)| (slot.segment.id, slot.end)).collect();
        match self.manifest.adopt(&segments) {
            Ok(()) => self.is_copy.store(false, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "cannot enter a copy of a log under its own identity"),
        }
    }

    /// Recovers a segment whose lock we hold. `None` if it is not fit to be written on, and unlocked.
    ///
    /// Nothing here is needed for reading, so a disk that refuses a write leaves the segment to later heirs.
    fn take_over(
        &self,
        segment: Segment,
        unproven: &mut Vec<(SlotId, Found)>,
    ) -> Result<Option<Heritage>, Error> {
        let mut len = segment.len()?;
        if len < SEGMENT_HEADER_BYTES {
            if !segment.is_unfinished()? || segment.write_header().is_err() {
                segment.unlock();
                return Ok(None);
            }
            len = SEGMENT_HEADER_BYTES;
        }
        let whole = segment.check_header()?;
        let Entered { slot, mark, tail } = self.enter(segment, len, Role::Heir)?;
        let (segment, end, sealed, fits) = {
            let index = self.index.read();
            let Slot { segment, end, sealed, fits, .. } = index.slot(slot);
            (segment.clone(), *end, *sealed, *fits)
        };
        if sealed || !whole {
            unproven.extend(tail.into_iter().map(|found| (slot, found)));
            segment.unlock();
            return Ok(None);
        }
        if end < len {
            tracing::warn!(path = %segment.path.display(), offset = end, bytes = len - end, "cutting off a torn tail");
            if segment.truncate(end).is_err() {
                unproven.extend(tail.into_iter().map(|found| (slot, found)));
                segment.unlock();
                return Ok(None);
            }
            self.counters.torn_bytes.add(len - end);
            if let Some(slot) = self.index.write().try_slot_mut(slot) {
                slot.len = end;
            }
        }
        // What the index file says beyond the segment's end is the only trace of records that were lost. New records there would
        // overwrite it.
        let goes_on = fits && end < self.options.segment_bytes_max;
        Ok(Some(Heritage { slot, segment, end, mark, tail, fits, goes_on }))
    }

    /// Takes out of a heritage what a power cut has made worthless.
    fn prove_tail(&self, heritage: &mut Heritage) -> Result<(), Error> {
        let mut refused = Vec::new();
        for found in &heritage.tail {
            if !self.prove(heritage.slot, found)? {
                refused.push(found.offset);
            }
        }
        blank(&heritage.segment, heritage.end, &refused);
        heritage.tail.retain(|found| !refused.contains(&found.offset));
        Ok(())
    }

    /// Whether a record that may never have been flushed can be read. A power cut may have kept a difference and lost its base: such
    /// a record does not count, and an older one shows.
    fn prove(&self, slot: SlotId, found: &Found) -> Result<bool, Error> {
        let (key, place) = (found.key.as_slice(), Place { slot, offset: found.offset });
        if found.header.depth() == 0 || !self.is_current(key, place) || self.is_readable(key)? {
            return Ok(true);
        }
        let others = self.records_elsewhere(&[], |_, other| other == key)?;
        let mut index = self.index.write();
        index.forget(key);
        for (slot, found) in others {
            let other = Place { slot, offset: found.offset };
            if other != place && index.try_slot(slot).is_some() {
                index.apply(other, &found.item());
            }
        }
        Ok(false)
    }

    /// Goes on in the fullest of what dead processes left, which will be sealed soonest; ends what is full, and leaves the rest to
    /// others.
    fn choose_heritage(&self, heritages: Vec<Heritage>) {
        let fullest =
            heritages.iter().filter(|heritage| heritage.goes_on).max_by_key(|heritage| heritage.end);
        let fullest = fullest.map(|heritage| heritage.slot);
        for Heritage { slot, segment, end, mark, tail, fits, goes_on } in heritages {
            // An index file that does not fit is evidence, and nothing is added to it.
            let mut pending = Pending::new(if fits { mark } else { end });
            for found in tail.iter().filter(|_| fits) {
                pending.push(found.offset, &found.header, found.key.as_slice(), found.base(), found.checksum);
            }
            let active = Active { slot, segment, end, pending, listed: false };
            if fullest == Some(slot) {
                let mut writer = self.writer.lock();
                if let Some(slot) = self.index.write().try_slot_mut(slot) {
                    slot.own = true;
                }
                writer.active = Some(active);
                // Whoever made it may have died before its name and its last records reached the disk.
                writer.dir_dirty = true;
                writer.appended += 1;
            } else if goes_on {
                active.segment.unlock();
            } else if let Err(error) = self.sync_dir().and_then(|()| self.seal(&active)) {
                tracing::warn!(%error, "cannot end a segment that a dead process left");
                active.segment.unlock();
            }
        }
    }

    /// Ends segments whose writers died, so that they can be compacted or dropped. Returns how many.
    pub(crate) fn seal_abandoned(&self, wanted: impl Fn(&Slot) -> bool) -> Result<u64, Error> {
        let candidates: Vec<_> = {
            let index = self.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.own && !slot.sealed && wanted(slot));
            open.map(|(id, slot)| (id, slot.segment.clone())).collect()
        };
        let mut sealed = 0;
        for (id, segment) in candidates {
            if !segment.writable || !segment.try_lock() {
                continue;
            }
            let fit = !segment.is_unlinked() && segment.check_header()?;
            if !fit || !self.read_on(id, Role::Heir, |_| ())? {
                segment.unlock();
                continue;
            }
            let end = self.index.read().try_slot(id).map(|slot| (slot.end, slot.sealed));
            match end {
                Some((end, false)) => {
                    if let Err(error) = segment.truncate(end) {
                        segment.unlock();
                        return Err(error);
                    }
                    let active = Active {
                        slot: id,
                        segment: segment.clone(),
                        end,
                        pending: Pending::new(end),
                        listed: false,
                    };
                    self.seal(&active)?;
                    sealed += 1;
                }
                _ => segment.unlock(),
            }
        }
        Ok(sealed)
    }

    /// Compares the directory with the index. Holds the writer so that a segment of our own cannot appear in between.
    fn look(&self) -> Result<Seen, Error> {
        let writer = self.writer.lock();
        let listing = segment::list(&self.disk, &self.dir)?;
        let index = self.index.read();
        drop(writer);
        let mut known: HashMap<u64, (SlotId, &Slot)> =
            index.slots().map(|(id, slot)| (slot.segment.id, (id, slot))).collect();
        let mut seen = Seen { new: Vec::new(), orphans: Vec::new(), grown: Vec::new(), gone: Vec::new() };
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

    fn open_segment(&self, id: u64) -> Result<Option<(Segment, u64)>, Error> {
        let opened = Segment::open(&self.disk, &self.descriptors, &self.dir, id, self.read_only)?;
        let Some(segment) = opened else { return Ok(None) };
        let len = unless_gone(segment.len())?;
        Ok(len.map(|len| (segment, len)))
    }

    /// Reads a segment that the index does not know yet: its index file as far as that reaches, then its records. Returns what the index
    /// file does not cover.
    fn enter(&self, segment: Segment, len: u64, role: Role) -> Result<Entered, Error> {
        if !segment.check_header()? {
            self.report_bad(&segment, 0, "the segment's header is damaged");
        }
        let sealed = recover::is_sealed(&segment, len)?;
        let mut file = IndexFile::open(&self.disk, &segment)?;
        let mut slot = Slot::new(segment, len);
        slot.sealed_at_first = sealed;
        let segment = slot.segment.clone();
        let slot = self.index.write().add(slot);
        if let Some(file) = &mut file {
            file.trusted = !self.is_copy.load(Ordering::Relaxed);
            self.enter_blocks(slot, &segment, len, file)?;
        }
        let fits = file.as_ref().is_none_or(|file| file.fits);
        if role == Role::Heir
            && fits
            && !sealed
            && let Err(error) = IndexFile::mend(&self.disk, &segment, file.as_ref())
        {
            tracing::warn!(%error, "an index file cannot be mended: its segment will be read instead");
        }
        let mark = file.as_ref().map_or(SEGMENT_HEADER_BYTES, |file| file.mark);
        if let Some(slot) = self.index.write().try_slot_mut(slot) {
            (slot.end, slot.fits) = (mark, fits);
            slot.index_len = file.map_or(0, |file| file.len);
        }
        let mut tail = Vec::new();
        if self.read_on(slot, role, |found| tail.push(found))? {
            Ok(Entered { slot, mark, tail: if sealed { Vec::new() } else { tail } })
        } else {
            Err(Error::io("read", &segment.path)(std::io::ErrorKind::NotFound.into()))
        }
    }

    fn enter_blocks(
        &self,
        slot: SlotId,
        segment: &Segment,
        len: u64,
        file: &mut IndexFile,
    ) -> Result<(), Error> {
        let mut index = self.index.write();
        let mut bulk = Bulk::default();
        let read = loop {
            match file.next_block(segment, len) {
                Ok(Some(block)) if block.fits => index.apply_bulk(&mut bulk, slot, block.items),
                Ok(Some(block)) => {
                    for (offset, item) in block.items {
                        match recover::is_record(segment, len, offset, &item) {
                            Ok(true) => index.apply(Place { slot, offset }, &item),
                            Ok(false) => index.apply(Place { slot, offset }, &item.as_lost()),
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
        self.counters.taken_in.add(1);
        read
    }

    /// Takes in the index file of a segment that is gone. Copies of its records may stand elsewhere; the keys of the others have
    /// lost their newest value, and must not show an older one.
    fn enter_orphan(&self, id: u64) -> Result<(), Error> {
        if self.is_copy.load(Ordering::Relaxed) {
            // The segment was removed while the directory was copied, and the manifest says that all is there without it.
            if !self.read_only {
                index_file::remove(&self.disk, &segment::segment_path(&self.dir, id));
            }
            return Ok(());
        }
        let segment = Segment::gone(&self.disk, &self.descriptors, &self.dir, id);
        let Some(mut file) = IndexFile::open(&self.disk, &segment)? else {
            if !self.read_only {
                // It says nothing: not even its header was written.
                index_file::remove(&self.disk, &segment.path);
            }
            return Ok(());
        };
        let mut slot = Slot::new(segment, 0);
        (slot.sealed, slot.orphan, slot.index_len) = (true, true, file.len);
        let segment = slot.segment.clone();
        let mut index = self.index.write();
        self.counters.taken_in.add(1);
        let slot = index.add(slot);
        while let Some(block) = file.next_block(&segment, 0)? {
            for (offset, item) in block.items {
                if item.kind != Kind::Dictionary {
                    index.apply(Place { slot, offset }, &item.as_lost());
                }
            }
        }
        Ok(())
    }

    /// Reads a segment from where we stopped; `false` if it is gone.
    fn read_on(&self, slot: SlotId, role: Role, mut on_record: impl FnMut(Found)) -> Result<bool, Error> {
        let found = {
            let index = self.index.read();
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
        let payloads = if sealed { Payloads::Trust } else { Payloads::Verify };
        let mut found: Vec<Found> = Vec::new();
        let scan = recover::scan(&segment, from, len, payloads, |record| found.push(record))?;
        if scan.damaged > 0 {
            self.counters.bad_records.add(scan.damaged);
            tracing::warn!(path = %segment.path.display(), places = scan.damaged, "stepped over damaged records");
        }
        if role == Role::Heir && !scan.sealed {
            blank(&segment, scan.end, &scan.refused);
        }
        let mut index = self.index.write();
        for found in found {
            index.apply(Place { slot, offset: found.offset }, &found.item());
            on_record(found);
        }
        if let Some(slot) = index.try_slot_mut(slot) {
            (slot.end, slot.len, slot.sealed) = (scan.end, len, scan.sealed);
        }
        self.counters.taken_in.add(u64::from(len != from));
        Ok(true)
    }

    /// Forgets segments that are gone. An entry that still points into one is looked for elsewhere, as opening the log anew would
    /// find it: a copy that lost against the original, or an older record. `false` if one more look at the directory is needed
    /// first, since more segments have gone meanwhile.
    pub(crate) fn forget_gone(&self, gone: &[SlotId]) -> Result<bool, Error> {
        if gone.is_empty() {
            return Ok(true);
        }
        let (mut keys, mut dictionaries) = (HashSet::new(), HashSet::new());
        {
            let index = self.index.read();
            for slot in gone {
                let left = index.entries_in(*slot).into_iter().filter(|entry| entry.shadows);
                keys.extend(left.map(|entry| entry.key.as_slice().to_vec()));
                dictionaries.extend(index.dictionaries_in(*slot).into_iter().map(|(id, _)| id));
            }
        }
        let elsewhere = if keys.is_empty() && dictionaries.is_empty() {
            Vec::new()
        } else {
            let found = self.records_elsewhere(gone, |header, key| match header.kind {
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
        let mut index = self.index.write();
        self.counters.taken_in.add(1);
        for slot in gone {
            index.remove(*slot);
        }
        for (slot, found) in elsewhere {
            if index.try_slot(slot).is_some() {
                index.apply(Place { slot, offset: found.offset }, &found.item());
            }
        }
        Ok(true)
    }

    /// The records that are wanted, in all segments but some. Reads every segment.
    fn records_elsewhere(
        &self,
        but: &[SlotId],
        wanted: impl Fn(&Header, &[u8]) -> bool,
    ) -> Result<Vec<(SlotId, Found)>, Error> {
        let slots: Vec<_> = {
            let index = self.index.read();
            let others = index.slots().filter(|(id, slot)| !but.contains(id) && !slot.orphan);
            others.map(|(id, slot)| (id, slot.segment.clone(), slot.end)).collect()
        };
        let mut records = Vec::new();
        for (slot, segment, end) in slots {
            recover::scan(&segment, SEGMENT_HEADER_BYTES, end, Payloads::Trust, |found| {
                if wanted(&found.header, found.key.as_slice()) {
                    records.push((slot, found));
                }
            })?;
        }
        Ok(records)
    }

    /// Brings to the disk what other processes have appended to segments that they have not finished, as far as the index has
    /// it, and the names of all segments: what compaction is about to drop may be superseded by nothing else.
    pub(crate) fn sync_others(&self) -> Result<(), Error> {
        let unsynced: Vec<_> = {
            let index = self.index.read();
            let open = index.slots().filter(|(_, slot)| !slot.own && !slot.sealed && slot.synced < slot.end);
            open.map(|(id, slot)| (id, slot.segment.clone(), slot.end)).collect()
        };
        for (id, segment, end) in unsynced {
            segment.sync()?;
            if let Some(slot) = self.index.write().try_slot_mut(id) {
                slot.synced = end;
            }
        }
        self.sync_dir()
    }
}

/// Makes records unreadable that must not count although their headers verify, before anybody appends behind them. They are
/// beyond what was ever flushed.
fn blank(segment: &Segment, end: u64, refused: &[u64]) {
    for offset in refused.iter().filter(|offset| **offset < end) {
        let zeros = [0; HEADER_BYTES];
        if let Err(error) = segment.write_at(&zeros[..record::MAGIC.len()], *offset) {
            tracing::warn!(path = %segment.path.display(), %error, "cannot blank a torn record");
        }
    }
}
