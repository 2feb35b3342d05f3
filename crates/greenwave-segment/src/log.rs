//! The log: what callers see, and the appending. Following other processes stands in `follow.rs`, giving space back in `compact.rs`.
//!
//! Locks are taken in the order maintenance, writer, index. Values are compressed and read outside all of them.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::codec::{Codec, Frame};
use crate::index::{Entry, Index, Place, Slot, SlotId};
use crate::options::WhenFull;
use crate::record::{self, HEADER_BYTES, Header, Kind};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::stats::Counters;
use crate::{Error, Options, Stats};

/// A value this large takes about a millisecond to read and decompress, which is no longer "at once".
const NOWAIT_BYTES_MAX: u32 = 1 << 20;

/// A log of keys to bytes in a directory. Threads share it by reference, processes by opening the same directory.
pub struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) codec: Codec,
    pub(crate) index: RwLock<Index>,
    pub(crate) writer: Mutex<Writer>,
    /// Held by whoever follows, compacts or drops segments.
    pub(crate) maintenance: Mutex<()>,
    synced: Mutex<Synced>,
    pub(crate) counters: Counters,
}

/// The appending end.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) active: Option<Active>,
    /// The last stamp given out.
    stamp: u64,
    /// Records appended so far: what a flush waits for.
    appended: u64,
    /// Whether a file was created or removed since the directory was last synced.
    pub(crate) dir_dirty: bool,
}

/// The segment being written.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) slot: SlotId,
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: u64,
}

/// How far the disk has followed.
#[derive(Debug, Default)]
struct Synced {
    appended: u64,
    /// Once a sync has failed the kernel may have thrown pages away, and a second one would succeed without them.
    failed: bool,
}

/// The answer of [`Log::get_nowait`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nowait {
    /// What [`Log::get`] would have returned.
    Ready(Option<Bytes>),
    /// The disk would have to be waited for: call [`Log::get`] where blocking is allowed.
    WouldBlock,
}

impl Log {
    /// Opens the log in `dir`, which is created with mode 0700 if it is missing.
    ///
    /// What a process that died left behind is recovered: a torn tail is cut off, a damaged record stepped over.
    /// No segment is made before the first put, so opening for reading writes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], [`Error::NewerFormat`], or [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let options = options.checked()?;
        let dir = dir.as_ref();
        let dir = std::path::absolute(dir).map_err(Error::io("resolve", dir))?;
        create_private(&dir)?;
        let log = Self {
            codec: Codec::new(options.compression),
            dir,
            options,
            index: RwLock::default(),
            writer: Mutex::default(),
            maintenance: Mutex::default(),
            synced: Mutex::default(),
            counters: Counters::default(),
        };
        log.recover()?;
        Ok(log)
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
        self.check(key, value)?;
        let mut frame = self.codec.encode(key, value);
        match self.append(&mut frame) {
            Err(Error::Full { .. }) => {
                self.compact()?;
                self.append(&mut frame)
            }
            other => other,
        }
    }

    /// The value of `key`. `None` also when its record does not verify: such a record is counted, warned about and never returned.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let Some((entry, segment)) = self.find(key) else { return Ok(None) };
        let mut bytes = record_buffer(&entry, key);
        let read =
            segment.read_at(&mut bytes, entry.place.offset).map_err(Error::io("read", &segment.path))?;
        bytes.truncate(read);
        Ok(self.value(&segment, &entry, key, bytes))
    }

    /// Like [`get`](Self::get), unless that would wait for the disk, or take long for a value's sheer size: from 1 MiB on.
    /// Only Linux can tell the first; elsewhere every hit would.
    pub fn get_nowait(&self, key: &[u8]) -> Nowait {
        let Some((entry, segment)) = self.find(key) else { return Nowait::Ready(None) };
        if entry.raw_len.max(entry.stored_len) >= NOWAIT_BYTES_MAX {
            return Nowait::WouldBlock;
        }
        let mut bytes = record_buffer(&entry, key);
        match segment.read_at_nowait(&mut bytes, entry.place.offset) {
            Some(_) => Nowait::Ready(self.value(&segment, &entry, key, bytes)),
            None => Nowait::WouldBlock,
        }
    }

    /// Whether `key` has a value. Does not read it, so a damaged one counts until a read has found it out.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.index.read().entries.get(key).is_some_and(|entry| !entry.tombstone)
    }

    /// Removes `key`; says whether it had a value.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. The value then stays. A full log still takes removals.
    pub fn remove(&self, key: &[u8]) -> Result<bool, Error> {
        if !self.contains(key) {
            return Ok(false);
        }
        let mut frame = Frame::tombstone(key);
        let mut writer = self.writer.lock();
        frame.header.stamp = self.next_stamp(&mut writer);
        self.append_unbudgeted(&mut writer, &mut frame)?;
        Ok(true)
    }

    /// The keys that begin with `prefix`, sorted. Looks at every key.
    pub fn keys_with_prefix(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let index = self.index.read();
        let live = index.entries.iter().filter(|(key, entry)| !entry.tombstone && key.starts_with(prefix));
        let mut keys: Vec<_> = live.map(|(key, _)| key.to_vec()).collect();
        drop(index);
        keys.sort_unstable();
        keys
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
        if synced.appended >= target {
            return Ok(());
        }
        let (appended, active, dir_dirty) = {
            let mut writer = self.writer.lock();
            let active = writer.active.as_ref().map(|active| active.segment.clone());
            (writer.appended, active, std::mem::take(&mut writer.dir_dirty))
        };
        let result = active
            .map_or(Ok(()), |segment| segment.sync())
            .and_then(|()| if dir_dirty { self.sync_dir() } else { Ok(()) });
        match &result {
            Ok(()) => synced.appended = appended,
            Err(_) => synced.failed = true,
        }
        result
    }

    /// What the log holds and has done.
    pub fn stats(&self) -> Stats {
        let index = self.index.read();
        let counters = &self.counters;
        Stats {
            entries: index.totals.entries,
            tombstones: index.totals.tombstones,
            segments: index.slots().count() as u64,
            disk_bytes: index.disk_bytes(),
            live_bytes: index.slots().map(|(_, slot)| slot.live_bytes).sum(),
            stored_bytes: index.totals.stored_bytes,
            raw_bytes: index.totals.raw_bytes,
            written_bytes: counters.written_bytes.get(),
            copied_records: counters.copied_records.get(),
            dropped_entries: counters.dropped_entries.get(),
            bad_records: counters.bad_records.get(),
            torn_bytes: counters.torn_bytes.get(),
        }
    }

    fn check(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let Options { key_bytes_max, value_bytes_max, .. } = self.options;
        if key.len() > key_bytes_max as usize {
            return Err(Error::KeyTooLong { len: key.len(), max: key_bytes_max });
        }
        if value.len() > value_bytes_max as usize {
            return Err(Error::ValueTooLarge { len: value.len(), max: value_bytes_max });
        }
        Ok(())
    }

    fn find(&self, key: &[u8]) -> Option<(Entry, Arc<Segment>)> {
        let index = self.index.read();
        let entry = index.entries.get(key).filter(|entry| !entry.tombstone)?;
        Some((*entry, index.slot(entry.place.slot).segment.clone()))
    }

    /// The value in the bytes of a record, if everything about it verifies.
    fn value(&self, segment: &Segment, entry: &Entry, key: &[u8], bytes: Vec<u8>) -> Option<Bytes> {
        let header = parse(segment, entry, key, &bytes).inspect_err(|_| {
            // Out of the index, so that the caller can put it again and see that it is not there.
            self.forget_at(key, entry.place);
        });
        let value = header.and_then(|header| {
            let payload = Bytes::from(bytes).slice(HEADER_BYTES + key.len()..);
            self.codec.decode(&header, payload, self.options.value_bytes_max)
        });
        value.map_err(|reason| self.report_bad(segment, entry.place.offset, reason)).ok()
    }

    /// Counts a record that does not verify, and says so once per meeting.
    pub(crate) fn report_bad(&self, segment: &Segment, offset: u64, reason: &str) {
        self.counters.bad_records.add(1);
        tracing::warn!(path = %segment.path.display(), offset, reason, "a record does not verify: taken as missing");
    }

    fn append(&self, frame: &mut Frame) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        self.fit_budget(&mut writer, frame.bytes.len() as u64)?;
        frame.header.stamp = self.next_stamp(&mut writer);
        self.append_unbudgeted(&mut writer, frame)
    }

    /// Makes sure that a record fits the disk budget, or says why not.
    fn fit_budget(&self, writer: &mut Writer, record_len: u64) -> Result<(), Error> {
        let Some(max) = self.options.disk_bytes_max else { return Ok(()) };
        // A new segment and the old one's seal may come on top.
        let needed = record_len + SEGMENT_HEADER_BYTES + HEADER_BYTES as u64;
        if self.index.read().disk_bytes() + needed <= max {
            return Ok(());
        }
        let full = || Error::Full { path: self.dir.clone(), needed, max };
        match self.options.when_full {
            WhenFull::DropOldest if needed <= max => self.drop_oldest(writer, max - needed, full),
            WhenFull::DropOldest | WhenFull::Refuse => Err(full()),
        }
    }

    /// Appends a record, its stamp given, and enters it into the index.
    pub(crate) fn append_unbudgeted(&self, writer: &mut Writer, frame: &mut Frame) -> Result<(), Error> {
        let place = self.write(writer, frame)?;
        self.index.write().apply(place, &frame.header, frame.key());
        Ok(())
    }

    /// Writes a record to the active segment or a new one. The index hears of the bytes, not yet of the key.
    pub(crate) fn write(&self, writer: &mut Writer, frame: &mut Frame) -> Result<Place, Error> {
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
        active.end += len;
        writer.appended += 1;
        self.counters.written_bytes.add(len);
        let mut index = self.index.write();
        let slot = index.slot_mut(place.slot);
        (slot.end, slot.len) = (active.end, active.end);
        Ok(place)
    }

    fn make_room(&self, writer: &mut Writer, len: u64) -> Result<(), Error> {
        if let Some(active) = &writer.active {
            let room = self.options.segment_bytes_max.saturating_sub(HEADER_BYTES as u64);
            if active.end + len <= room || active.end == SEGMENT_HEADER_BYTES {
                return Ok(());
            }
            self.seal_active(writer)?;
        }
        let mut slot = Slot::new(Segment::create(&self.dir)?, SEGMENT_HEADER_BYTES);
        slot.own = true;
        writer.dir_dirty = true;
        let segment = slot.segment.clone();
        let slot = self.index.write().add(slot);
        writer.active = Some(Active { slot, segment, end: SEGMENT_HEADER_BYTES });
        Ok(())
    }

    /// Ends the active segment: everything in it is on the disk before the seal says so.
    pub(crate) fn seal_active(&self, writer: &mut Writer) -> Result<(), Error> {
        let Some(active) = &writer.active else { return Ok(()) };
        active.segment.sync()?;
        let mut seal = Header::empty(Kind::Seal, &[]);
        seal.payload_hash = 0;
        let bytes = seal.encode(record::place_seed(active.segment.id, active.end), &[]);
        active.segment.write_at(&bytes, active.end).map_err(Error::io("seal", &active.segment.path))?;
        active.segment.unlock();
        self.counters.written_bytes.add(bytes.len() as u64);
        let mut index = self.index.write();
        let slot = index.slot_mut(active.slot);
        slot.sealed = true;
        slot.len = active.end + bytes.len() as u64;
        slot.end = slot.len;
        drop(index);
        writer.active = None;
        Ok(())
    }

    /// Later than every stamp seen so far, whatever the clock says.
    fn next_stamp(&self, writer: &mut Writer) -> u64 {
        let seen = writer.stamp.max(self.index.read().stamp_max);
        writer.stamp = (self.options.clock)().max(seen.saturating_add(1));
        writer.stamp
    }

    /// Makes creations and removals of files durable.
    pub(crate) fn sync_dir(&self) -> Result<(), Error> {
        if cfg!(windows) {
            return Ok(());
        }
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", &self.dir))
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A buffer for the whole record.
pub(crate) fn record_buffer(entry: &Entry, key: &[u8]) -> Vec<u8> {
    vec![0; usize::try_from(entry.record_len(key)).expect("value_bytes_max fits memory")]
}

/// The header of the record in `bytes`, once everything about it but the codec verifies.
pub(crate) fn parse(
    segment: &Segment,
    entry: &Entry,
    key: &[u8],
    bytes: &[u8],
) -> Result<Header, &'static str> {
    let seed = record::place_seed(segment.id, entry.place.offset);
    let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or("it is cut short")?;
    let header = Header::decode(head).ok_or("its header is damaged")?;
    if !record::verified(head, seed, key) || header.record_len() != bytes.len() as u64 {
        return Err("its header is damaged");
    }
    let (stored_key, payload) = rest.split_at_checked(key.len()).ok_or("it is cut short")?;
    if stored_key != key {
        return Err("its key is damaged");
    }
    if record::hash_payload(payload) != header.payload_hash {
        return Err("its payload is damaged");
    }
    Ok(header)
}

fn create_private(dir: &Path) -> Result<(), Error> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(Error::io("create", dir))
}
