//! The log: what callers see, and the appending. Reading stands in `read.rs`, following other processes in `follow.rs`, giving space back
//! in `compact.rs`, differences in `rebase.rs`, batches in `batch.rs`.
//!
//! Locks are taken in the order compacting, compaction lock, fence, synced, following, writer, index. Values are compressed and read
//! outside of the last two.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};

use crate::codec::{Codec, Frame};
use crate::descriptors::Descriptors;
use crate::disk::{Disk, Status};
use crate::fence::{Fence, Inside};
use crate::index::{Index, Item, Place, Slot, SlotId};
use crate::index_file::Pending;
use crate::manifest::{self, Manifest};
use crate::options::WhenFull;
use crate::rebase::{Chosen, member};
use crate::record::{self, HEADER_BYTES, Header, Kind};
use crate::segment::{self, SEGMENT_HEADER_BYTES, Segment};
use crate::shared_clock::SharedClock;
use crate::stats::Counters;
use crate::turn::CompactionLock;
use crate::{Error, Options, Stats};

/// A block of the index file is written on a flush when at least this many records wait for it, or records of this many bytes.
const BLOCK_RECORDS_MIN: u32 = 512;
const BLOCK_BYTES_MIN: u64 = 256 << 10;
/// A put flushes by itself when this many records wait, since waiting takes memory, and opening after a crash reads them one by one.
const WAITING_RECORDS_MAX: u32 = 65_536;
/// Full segments whose seal may wait for the next flush.
const RETIRED_MAX: usize = 1;
/// How many writers can tell their stamps apart when they cannot take them from the clock.
const STAMP_RESIDUES: u64 = 1 << 12;
/// How often a put makes room before it takes the log for full, and how often a removal is overtaken by puts against what it removes.
const TRIES_MAX: usize = 16;

/// A log of keys to bytes in a directory. Threads share it by reference, processes by opening the same directory.
pub struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) descriptors: Arc<Descriptors>,
    pub(crate) options: Options,
    pub(crate) read_only: bool,
    /// What stamps that are not from the clock leave when divided by [`STAMP_RESIDUES`], at random.
    stamp_residue: u64,
    pub(crate) codec: Codec,
    pub(crate) index: RwLock<Index>,
    pub(crate) writer: Mutex<Writer>,
    /// Held by whoever compacts or drops segments.
    pub(crate) compacting: Mutex<()>,
    /// Held by whoever looks at what other processes did.
    pub(crate) following: Mutex<()>,
    /// What the file system said of the directory before it was last listed and nothing was new, if that cannot be out of date
    /// without its saying something else.
    pub(crate) listed: Mutex<Option<Status>>,
    /// Held by the one process that compacts or drops segments.
    pub(crate) compaction_lock: CompactionLock,
    /// Entered by whoever writes a difference or a conditional batch, or is about to remove a segment.
    pub(crate) fence: Fence,
    shared_clock: SharedClock,
    /// Which segments there are, for whoever opens a copy of the directory.
    pub(crate) manifest: Manifest,
    /// Whether the directory is a copy that was not entered under its own identity yet.
    pub(crate) is_copy: AtomicBool,
    synced: Mutex<Synced>,
    pub(crate) counters: Counters,
}

/// The appending end.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) active: Option<Active>,
    /// Full segments, not sealed yet.
    pub(crate) retired: Vec<Active>,
    /// The last stamp given out.
    stamp: u64,
    /// Records appended so far: what a flush waits for.
    pub(crate) appended: u64,
    /// Whether a file was created or removed since the directory was last synced.
    pub(crate) dir_dirty: bool,
    /// Whether the manifest says that this log writes.
    in_use: bool,
}

/// A segment being written.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) slot: SlotId,
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: u64,
    /// What its index file does not have yet.
    pub(crate) pending: Pending,
    /// Whether the manifest says that records in it were flushed.
    pub(crate) listed: bool,
}

/// How far the disk has followed.
#[derive(Debug, Default)]
struct Synced {
    appended: u64,
    /// Once a sync has failed the kernel may have thrown pages away, and a second one would succeed without them.
    failed: bool,
}

/// What became of an attempt to put.
enum Put {
    /// The record is there. A flush is `overdue` when too much waits for one.
    Done { overdue: bool },
    /// Other values are differences from the old one.
    IsBase,
    /// What the new one is a difference from has changed, or cannot be kept from changing.
    BaseMoved,
    /// It does not fit the budget.
    Full(Error),
}

/// What a flush has to bring to the disk.
struct Due {
    appended: u64,
    retired: Vec<Active>,
    active: Option<(SlotId, Arc<Segment>, Option<Pending>)>,
    /// Where the active segment ends.
    end: u64,
    /// The first flush of the active segment, and where it ends.
    first: Option<(u64, u64)>,
    dir_dirty: bool,
}

impl Log {
    /// Opens the log in `dir`, which is created with mode 0700 if it is missing.
    ///
    /// What a process that died left behind is recovered: a torn tail is cut off, a damaged record stepped over.
    /// No segment is made before the first put. A disk that is full or read-only does not keep a log from being opened and read.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], [`Error::NewerFormat`], or [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let log = Self::new(Disk::Os, dir.as_ref(), options, false)?;
        log.disk.create_dir(&log.dir).map_err(Error::io("create", &log.dir))?;
        log.recovered()
    }

    /// Opens the log in `dir` for reading, and changes nothing there: no directory is made, no lock taken, nothing recovered.
    /// Other processes may write meanwhile; [`refresh`](Self::refresh) shows what they wrote.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open); also when the directory is missing.
    pub fn open_read_only(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        Self::new(Disk::Os, dir.as_ref(), options, true)?.recovered()
    }

    /// Like [`open`](Self::open), for one process of a simulated machine.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    #[cfg(feature = "simulation")]
    pub fn open_simulated(
        process: &crate::simulation::Process,
        dir: impl AsRef<Path>,
        options: Options,
    ) -> Result<Self, Error> {
        let log = Self::new(Disk::Simulated(process.clone()), dir.as_ref(), options, false)?;
        log.disk.create_dir(&log.dir).map_err(Error::io("create", &log.dir))?;
        log.recovered()
    }

    fn new(disk: Disk, dir: &Path, options: Options, read_only: bool) -> Result<Self, Error> {
        let options = options.checked()?;
        let dir = std::path::absolute(dir).map_err(Error::io("resolve", dir))?;
        let descriptors = Descriptors::new(options.open_files_max);
        Ok(Self {
            codec: Codec::new(options.compression),
            compaction_lock: CompactionLock::new(&disk, &descriptors, &dir),
            fence: Fence::new(&disk, &descriptors, &dir),
            shared_clock: SharedClock::new(&disk, &descriptors, &dir),
            manifest: Manifest::new(&disk, &descriptors, &dir),
            is_copy: AtomicBool::new(false),
            descriptors,
            index: RwLock::new(Index::new(disk.random())),
            stamp_residue: disk.random() % STAMP_RESIDUES,
            dir,
            disk,
            options,
            read_only,
            writer: Mutex::default(),
            compacting: Mutex::default(),
            following: Mutex::default(),
            listed: Mutex::default(),
            synced: Mutex::default(),
            counters: Counters::default(),
        })
    }

    fn recovered(self) -> Result<Self, Error> {
        self.check_copy()?;
        self.recover()?;
        self.load_dictionaries()?;
        Ok(self)
    }

    /// What the directory's segments are now, without opening any: the same bytes as long as no process has put or removed anything. Segments only
    /// grow and come and go, so their names and lengths say that; the rest of what the file system says of each is there to notice who else touched
    /// them. What holds for a log that was opened after one such answer holds for as long as there is the same answer.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn fingerprint(dir: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
        segment::fingerprint(&Disk::Os, dir.as_ref())
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sets `key` to `value`. Visible to this log at once, to others from their next [`refresh`](Self::refresh), and durable
    /// after [`flush`](Self::flush); before that, a crash of the process loses nothing and a power cut may.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTooLong`], [`Error::ValueTooLarge`], [`Error::Full`], or [`Error::Io`]. The old value then stays.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.put_delta(key, value, &[])
    }

    /// Like [`put`](Self::put), for a value that is probably similar to that of `base`: an earlier version of it, say. It is then stored as
    /// the difference, if that takes a quarter less room. Costs reading that value, about as much as compressing this one.
    ///
    /// What `base` names may be missing, and may be removed or set anew later without harm, by any process. Values of up to 64 MiB, both
    /// together, are compared; others, and those of a log that is opened without compression, are stored without difference, as are all in
    /// a log that drops the oldest.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put).
    pub fn put_delta(&self, key: &[u8], value: &[u8], base: &[u8]) -> Result<(), Error> {
        self.check_writable()?;
        self.check_size(key, value)?;
        let chosen = self.choose_base(key, base, value)?;
        let mut frame = self.encode(key, value, chosen.as_ref());
        let is_key = |other: &[u8]| other == key;
        for _ in 0..TRIES_MAX {
            self.refresh_before_roll(frame.bytes.len() as u64)?;
            match self.try_put(key, &mut frame, chosen.as_ref())? {
                Put::Done { overdue } => {
                    self.flush_if(overdue);
                    return Ok(());
                }
                Put::IsBase => drop(self.rebase(&is_key)?),
                Put::BaseMoved => frame = self.codec.encode(key, value),
                Put::Full(full) => self.make_space(full)?,
            }
        }
        Err(self.fits(frame.bytes.len() as u64).err().unwrap_or_else(|| self.busy()))
    }

    /// Appends a value's record, unless something else has to be done first.
    fn try_put(&self, key: &[u8], frame: &mut Frame, chosen: Option<&Chosen>) -> Result<Put, Error> {
        let entered = self.enter_for(frame)?;
        if frame.header.depth() > 0 && entered.is_none() {
            // Somebody compacts, for which no put waits: this one is stored whole.
            return Ok(Put::BaseMoved);
        }
        let mut writer = self.writer.lock();
        if self.has_dependants(&|_| false, key) {
            return Ok(Put::IsBase);
        }
        if frame.header.depth() > 0 && chosen.is_some_and(|chosen| !self.still_holds(chosen)) {
            return Ok(Put::BaseMoved);
        }
        if let Err(full) = self.fits(frame.bytes.len() as u64) {
            return Ok(Put::Full(full));
        }
        frame.header.stamp = self.next_stamp(&mut writer);
        self.append_unbudgeted(&mut writer, frame)?;
        Ok(Put::Done { overdue: writer.overdue() })
    }

    /// For a difference, keeps all processes from removing what it is from until it is written; with a look at what they did remove. `None` for
    /// what is no difference, and if there is no getting in soon: then it must not be written.
    pub(crate) fn enter_for(&self, frame: &Frame) -> Result<Option<Inside<'_>>, Error> {
        if frame.header.depth() == 0 {
            return Ok(None);
        }
        let Some(mut inside) = self.fence.enter_soon().unwrap_or_else(|error| {
            tracing::debug!(%error, "storing a value whole");
            None
        }) else {
            return Ok(None);
        };
        if !inside.is_current() {
            self.refresh()?;
            inside.saw();
        }
        Ok(Some(inside))
    }

    /// Flushes when too much waits for it. A failure is no failure of the put that came across it: the next flush reports it.
    pub(crate) fn flush_if(&self, overdue: bool) {
        if overdue && let Err(error) = self.flush() {
            tracing::warn!(%error, "cannot flush what has been waiting");
        }
    }

    /// Removes `key`; says whether it had a value.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. The value then stays. A full log still takes removals.
    pub fn remove(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.remove_many(&[key])? > 0)
    }

    /// Removes keys; returns how many had a value. Values that are stored as differences from theirs, and are not removed with them, are
    /// stored anew first, which costs one look at all keys if there are any.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. Some of the values then stay. A full log still takes removals.
    pub fn remove_many(&self, keys: &[&[u8]]) -> Result<u64, Error> {
        self.check_writable()?;
        let among = member(keys);
        let mut present: Vec<(u8, &[u8])> =
            keys.iter().filter_map(|key| Some((self.find(key)?.0.depth, *key))).collect();
        // Differences before what they are differences from.
        present.sort_unstable_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        if present.iter().any(|(_, key)| self.index.read().may_be_base(key)) {
            self.rebase(&among)?;
        }
        let mut removed = 0;
        for (_, key) in present {
            removed += u64::from(self.remove_free(key)?);
        }
        Ok(removed)
    }

    /// Removes a key that probably is no base any more.
    fn remove_free(&self, key: &[u8]) -> Result<bool, Error> {
        for _ in 0..TRIES_MAX {
            let mut writer = self.writer.lock();
            if !self.contains(key) {
                return Ok(false);
            }
            if self.has_dependants(&|_| false, key) {
                drop(writer);
                self.rebase(&|other| other == key)?;
                continue;
            }
            let mut frame = Frame::tombstone(key);
            frame.header.stamp = self.next_stamp(&mut writer);
            self.append_unbudgeted(&mut writer, &mut frame)?;
            return Ok(true);
        }
        Err(self.busy())
    }

    /// Returns once everything put and removed before is on the disk. Callers that meet here share one sync.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. From then on every flush fails: what the disk has can no longer be known, and the log should be reopened.
    pub fn flush(&self) -> Result<(), Error> {
        let target = self.writer.lock().appended;
        let mut synced = self.synced.lock();
        if synced.failed {
            return Err(Error::io("sync", &self.dir)(std::io::Error::other("an earlier sync failed")));
        }
        if synced.appended >= target && self.writer.lock().retired.is_empty() {
            return Ok(());
        }
        let due = self.writer.lock().due();
        let appended = due.appended;
        let result = self.settle(due);
        match &result {
            Ok(()) => synced.appended = appended,
            Err(_) => synced.failed = true,
        }
        result
    }

    fn settle(&self, due: Due) -> Result<(), Error> {
        // First, since an index file whose segment has no name any more says that flushed records were lost.
        if due.dir_dirty {
            self.sync_dir()?;
        }
        for retired in due.retired {
            self.seal(&retired)?;
        }
        if let Some((_, segment, _)) = &due.active {
            segment.sync()?;
        }
        if let Some((slot, ..)) = &due.active
            && let Some(slot) = self.index.write().try_slot_mut(*slot)
        {
            slot.synced = slot.synced.max(due.end);
        }
        if let Some(first) = due.first {
            self.manifest.enter(&[first]);
        }
        if let Some((slot, segment, Some(pending))) = due.active {
            self.cover(slot, &segment, &pending);
        }
        Ok(())
    }

    /// Ends a full segment: everything in it is on the disk before the seal says so.
    pub(crate) fn seal(&self, retired: &Active) -> Result<(), Error> {
        let Active { slot, segment, end, pending, .. } = retired;
        segment.sync()?;
        self.manifest.enter(&[(segment.id, *end)]);
        self.cover(*slot, segment, pending);
        let mut seal = Header::empty(Kind::Seal, &[]);
        seal.payload_hash = 0;
        let bytes = seal.encode(record::place_seed(segment.id, *end), &[]);
        segment.write_at(&bytes, *end).map_err(Error::io("seal", &segment.path))?;
        segment.unlock();
        self.counters.written_bytes.add(bytes.len() as u64);
        if let Some(slot) = self.index.write().try_slot_mut(*slot) {
            slot.sealed = true;
            slot.len = end + bytes.len() as u64;
            slot.end = slot.len;
        }
        Ok(())
    }

    /// Adds to a segment's index file what is on the disk. Only a shortcut, so a failure costs time on opening and nothing else; but no block
    /// may follow one that is missing, which each block's beginning sees to.
    fn cover(&self, slot: SlotId, segment: &Segment, pending: &Pending) {
        if pending.count() == 0 {
            return;
        }
        match pending.append_to(&self.disk, segment) {
            Ok(written) => {
                self.counters.written_bytes.add(written);
                if let Some(slot) = self.index.write().try_slot_mut(slot) {
                    slot.index_len += written;
                }
            }
            Err(error) => tracing::warn!(%error, "opening will have to read a segment"),
        }
    }

    /// What the log holds and has done.
    pub fn stats(&self) -> Stats {
        let index = self.index.read();
        let counters = &self.counters;
        Stats {
            entries: index.totals.entries,
            tombstones: index.totals.tombstones,
            deltas: index.totals.deltas,
            segments: index.slots().count() as u64,
            disk_bytes: index.disk_bytes(),
            index_bytes: index.slots().map(|(_, slot)| slot.index_len).sum(),
            live_bytes: index.slots().map(|(_, slot)| slot.live_bytes).sum(),
            stored_bytes: index.totals.stored_bytes,
            raw_bytes: index.totals.raw_bytes,
            written_bytes: counters.written_bytes.get(),
            copied_records: counters.copied_records.get(),
            rebased_records: counters.rebased_records.get(),
            dropped_entries: counters.dropped_entries.get(),
            bad_records: counters.bad_records.get(),
            torn_bytes: counters.torn_bytes.get(),
        }
    }

    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        if self.read_only { Err(Error::ReadOnly { path: self.dir.clone() }) } else { Ok(()) }
    }

    pub(crate) fn check_size(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let Options { key_bytes_max, value_bytes_max, .. } = self.options;
        if key.len() > key_bytes_max as usize {
            return Err(Error::KeyTooLong { len: key.len(), max: key_bytes_max });
        }
        if value.len() > value_bytes_max as usize {
            return Err(Error::ValueTooLarge { len: value.len(), max: value_bytes_max });
        }
        Ok(())
    }

    /// With a disk budget, looks at what other processes have written before a new segment is begun, so that together they exceed it by
    /// their unfinished segments at most.
    pub(crate) fn refresh_before_roll(&self, len: u64) -> Result<(), Error> {
        let rolls = |active: &Active| !self.has_room(active, len);
        let refresh =
            self.options.disk_bytes_max.is_some() && self.writer.lock().active.as_ref().is_none_or(rolls);
        if refresh { self.refresh() } else { Ok(()) }
    }

    pub(crate) fn busy(&self) -> Error {
        let busy = std::io::Error::new(std::io::ErrorKind::WouldBlock, "others keep storing against it");
        Error::io("change a value in", &self.dir)(busy)
    }

    /// Whether a record fits the disk budget; if not, the error that says so.
    pub(crate) fn fits(&self, record_len: u64) -> Result<(), Error> {
        let Some(max) = self.options.disk_bytes_max else { return Ok(()) };
        // A new segment, the old one's seal and its share of an index file may come on top.
        let needed = record_len + SEGMENT_HEADER_BYTES * 2 + HEADER_BYTES as u64 + INDEX_SHARE_BYTES;
        if self.index.read().disk_bytes() + needed <= max {
            return Ok(());
        }
        Err(Error::Full { path: self.dir.clone(), needed, max })
    }

    /// Makes space, or returns the error that says there is none.
    pub(crate) fn make_space(&self, full: Error) -> Result<(), Error> {
        let Error::Full { needed, max, .. } = full else { return Err(full) };
        match self.options.when_full {
            WhenFull::DropOldest if needed <= max => self.drop_oldest(max - needed, full),
            WhenFull::DropOldest => Err(full),
            WhenFull::Refuse => {
                if self.compact_waiting()?.freed_bytes == 0 {
                    Err(full)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Appends a record that is no value, within the budget.
    pub(crate) fn append(&self, frame: &mut Frame) -> Result<(), Error> {
        self.fits(frame.bytes.len() as u64)?;
        let mut writer = self.writer.lock();
        frame.header.stamp = self.next_stamp(&mut writer);
        self.append_unbudgeted(&mut writer, frame)
    }

    /// Appends a record, its stamp given, and enters it into the index.
    pub(crate) fn append_unbudgeted(&self, writer: &mut Writer, frame: &mut Frame) -> Result<(), Error> {
        let place = self.append_unindexed(writer, frame)?;
        self.index.write().apply(place, &Item::new(&frame.header, frame.key(), frame.base()));
        Ok(())
    }

    /// Writes a record to the active segment or a new one. The index hears of the bytes, not yet of the key.
    pub(crate) fn append_unindexed(&self, writer: &mut Writer, frame: &mut Frame) -> Result<Place, Error> {
        let len = frame.bytes.len() as u64;
        self.make_room(writer, len)?;
        let active = writer.active.as_mut().expect("make_room leaves one");
        let place = Place { slot: active.slot, offset: active.end };
        frame.place(record::place_seed(active.segment.id, active.end));
        if let Err(e) = active.segment.write_at(&frame.bytes, active.end) {
            // Half a record would be stepped over anyway; cutting it off gives the space back.
            let _ = active.segment.truncate(active.end);
            return Err(Error::io("append to", &active.segment.path)(e));
        }
        active.pending.push(active.end, &frame.header, frame.key(), frame.base(), frame.checksum());
        active.end += len;
        writer.appended += 1;
        self.counters.written_bytes.add(len);
        if let Some(slot) = self.index.write().try_slot_mut(place.slot) {
            (slot.end, slot.len) = (active.end, active.end);
        }
        Ok(place)
    }

    /// Appends records that count together or not at all, their stamps given, and enters them into the index.
    pub(crate) fn append_batch(&self, writer: &mut Writer, frames: &mut [Frame]) -> Result<(), Error> {
        let len = frames.iter().map(|frame| frame.bytes.len() as u64).sum();
        self.make_room(writer, len)?;
        let active = writer.active.as_mut().expect("make_room leaves one");
        let start = active.end;
        let mut bytes = Vec::with_capacity(usize::try_from(len).expect("checked against BATCH_BYTES_MAX"));
        let last = frames.len().saturating_sub(1);
        for (number, frame) in frames.iter_mut().enumerate() {
            (frame.header.follows, frame.header.continues) = (number > 0, number < last);
            frame.place(record::place_seed(active.segment.id, start + bytes.len() as u64));
            bytes.extend_from_slice(&frame.bytes);
        }
        if let Err(e) = active.segment.write_at(&bytes, start) {
            let _ = active.segment.truncate(start);
            return Err(Error::io("append to", &active.segment.path)(e));
        }
        let mut index = self.index.write();
        for frame in &*frames {
            let place = Place { slot: active.slot, offset: active.end };
            active.pending.push(active.end, &frame.header, frame.key(), frame.base(), frame.checksum());
            active.end += frame.bytes.len() as u64;
            writer.appended += 1;
            index.apply(place, &Item::new(&frame.header, frame.key(), frame.base()));
        }
        if let Some(slot) = index.try_slot_mut(active.slot) {
            (slot.end, slot.len) = (active.end, active.end);
        }
        self.counters.written_bytes.add(len);
        Ok(())
    }

    /// Has the manifest say that the directory is being changed, so that a copy that is made meanwhile is looked at more closely.
    pub(crate) fn mark_in_use(&self, writer: &mut Writer) {
        if !std::mem::replace(&mut writer.in_use, true) {
            self.manifest.enter(&[(manifest::USE, manifest::OPENED)]);
        }
    }

    fn has_room(&self, active: &Active, len: u64) -> bool {
        let room = self.options.segment_bytes_max.saturating_sub(HEADER_BYTES as u64);
        active.end.saturating_add(len) <= room || active.end == SEGMENT_HEADER_BYTES
    }

    fn make_room(&self, writer: &mut Writer, len: u64) -> Result<(), Error> {
        self.mark_in_use(writer);
        if writer.active.as_ref().is_some_and(|active| self.has_room(active, len)) {
            return Ok(());
        }
        let created = Segment::create(&self.disk, &self.descriptors, &self.dir)?;
        self.manifest.enter(&[(created.id, 0)]);
        let mut slot = Slot::new(created, SEGMENT_HEADER_BYTES);
        slot.own = true;
        writer.retire();
        writer.dir_dirty = true;
        let segment = slot.segment.clone();
        let slot = self.index.write().add(slot);
        let pending = Pending::new(SEGMENT_HEADER_BYTES);
        writer.active = Some(Active { slot, segment, end: SEGMENT_HEADER_BYTES, pending, listed: false });
        Ok(())
    }

    /// Ends the active segment, if it has a record.
    pub(crate) fn seal_active(&self) -> Result<bool, Error> {
        let mut writer = self.writer.lock();
        let worth = writer.active.as_ref().is_some_and(|active| active.end > SEGMENT_HEADER_BYTES);
        if worth {
            writer.retire();
        }
        drop(writer);
        if worth {
            self.flush()?;
        }
        Ok(worth)
    }

    /// Later than every stamp seen so far, and every one that was acknowledged to another process, whatever the clock says. Where the
    /// clock is behind, two processes that have seen the same must not go on with the same stamp: beside others, each takes stamps of
    /// its own residue.
    pub(crate) fn next_stamp(&self, writer: &mut Writer) -> u64 {
        let index = self.index.read();
        let seen = writer.stamp.max(index.stamp_max);
        let now = (self.options.clock)();
        let own = if now > seen {
            now
        } else if index.slots().all(|(_, slot)| slot.own) {
            seen.saturating_add(1)
        } else {
            let next = seen - seen % STAMP_RESIDUES + self.stamp_residue;
            if next > seen { next } else { next.saturating_add(STAMP_RESIDUES) }
        };
        drop(index);
        writer.stamp = self.shared_clock.stamp(now, own);
        writer.stamp
    }

    /// The stamp of the last record that this log wrote; 0 if there is none.
    #[cfg(feature = "simulation")]
    pub fn last_stamp(&self) -> u64 {
        self.writer.lock().stamp
    }

    /// Makes creations and removals of files durable.
    pub(crate) fn sync_dir(&self) -> Result<(), Error> {
        self.disk.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))
    }
}

/// What a record takes in the index file, besides its key.
const INDEX_SHARE_BYTES: u64 = 128;

impl Writer {
    fn retire(&mut self) {
        self.retired.extend(self.active.take());
    }

    /// Whether what waits for a flush has become too much.
    pub(crate) fn overdue(&self) -> bool {
        let waiting = self.active.as_ref().map_or(0, |active| active.pending.count());
        self.retired.len() > RETIRED_MAX || waiting >= WAITING_RECORDS_MAX
    }

    fn due(&mut self) -> Due {
        let first = self.active.as_mut().filter(|active| !active.listed).map(|active| {
            active.listed = true;
            (active.segment.id, active.end)
        });
        let end = self.active.as_ref().map_or(0, |active| active.end);
        let active = self.active.as_mut().map(|active| {
            let pending = &active.pending;
            let worth = pending.count() >= BLOCK_RECORDS_MIN || pending.covers_bytes() >= BLOCK_BYTES_MIN;
            let pending = worth.then(|| std::mem::replace(&mut active.pending, Pending::new(active.end)));
            (active.slot, active.segment.clone(), pending)
        });
        Due {
            appended: self.appended,
            retired: std::mem::take(&mut self.retired),
            active,
            end,
            first,
            dir_dirty: std::mem::take(&mut self.dir_dirty),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.writer.get_mut().in_use {
            self.manifest.enter(&[(manifest::USE, manifest::CLOSED)]);
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).finish_non_exhaustive()
    }
}
