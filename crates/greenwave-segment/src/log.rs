//! The public interface of a log. Each call is carried out by the file named after its topic.
//!
//! Locks are taken in this order: `becoming_writer`, `compacting`, compaction lock, rewrite lock,
//! `synced`, `refreshing`, `writer`, `loading`, `index`. Values are compressed and read outside of
//! `writer` and `index`.

use std::fmt;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::append::Appender;
use crate::backup::{self, BackupStats};
use crate::batch::WriteBatch;
use crate::check::{CheckReport, Checker};
use crate::compact::{CompactionStats, Compactor};
use crate::descriptors::Descriptors;
use crate::dictionary::Trainer;
use crate::disk::Disk;
use crate::hold::{self, Hold};
use crate::inner::Inner;
use crate::manifest::Manifest;
use crate::range::{Keys, Range};
use crate::read::{Nowait, Reader};
use crate::recover::Recovery;
use crate::refresh::Refresher;
use crate::unread::Unread;
use crate::write::Changes;
use crate::{Error, Options, Stats, segment};

/// A key-value log in a directory. Threads share it by reference, processes by opening the
/// same directory.
pub struct Log {
    inner: Inner,
}

impl Log {
    /// Opens the log in `dir`, which is created with mode 0700 if it is missing.
    ///
    /// Recovers after a crash: cuts off a torn tail and skips damaged records. Creates no segment
    /// before the first put. A log on a full or read-only disk can be opened and read.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], [`Error::NewerFormat`], [`Error::IncompleteCopy`], or [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        Self::create(Disk::Os, dir.as_ref(), options)
    }

    /// Opens the log in `dir` for reading and changes nothing there: creates no directory, takes no
    /// lock, recovers nothing. Other processes may write meanwhile; [`refresh`](Self::refresh)
    /// shows what they wrote.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open); also if the directory is missing.
    pub fn open_read_only(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        Self::recovered(Inner::new(Disk::Os, dir.as_ref(), options, true)?)
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
        Self::create(Disk::Simulated(process.clone()), dir.as_ref(), options)
    }

    /// Returns whether `dir` holds a log, without opening or changing it: whether it has the
    /// manifest of one. Another log may be removed, or be created, at any time.
    pub fn exists(dir: impl AsRef<Path>) -> bool {
        let manifest = Manifest::new(&Disk::Os, &Descriptors::new(1), dir.as_ref());
        matches!(manifest.read(), Ok(Some(_)))
    }

    /// Returns a fingerprint of the segments in `dir` without opening any of them. It stays the
    /// same as long as no process puts or removes anything, and changes with every put and removal.
    ///
    /// The bytes are the name, size, modification time, inode and status change time of each
    /// segment. A result that was read from the log after one call is still valid if a later call
    /// returns the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; also if the directory is missing.
    pub fn fingerprint(dir: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
        segment::fingerprint(&Disk::Os, dir.as_ref())
    }

    /// Returns the log's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Sets `key` to `value`. Visible to this log at once, and to others after their next
    /// [`refresh`](Self::refresh). Durable after [`flush`](Self::flush); before that, it survives a
    /// crash of the process but maybe not a power cut.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTooLong`], [`Error::ValueTooLarge`], [`Error::Full`], [`Error::ReadOnly`], or
    /// [`Error::Io`], also if 256 other logs are writing to the directory. The old value then
    /// stays.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.put_delta(key, value, &[])
    }

    /// Like [`put`](Self::put), for a value that is probably similar to the value of `base`, such
    /// as its next version. Stores the value as a delta from that one if the delta takes a quarter
    /// less space. Costs a read of the base's value, about as long as compressing this one.
    ///
    /// The key `base` may be missing, and any process may remove it or set it again later. Stores
    /// the value without a delta if both values together exceed 64 MiB, if the log is opened
    /// without compression, or if it drops the oldest values.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put).
    pub fn put_delta(&self, key: &[u8], value: &[u8], base: &[u8]) -> Result<(), Error> {
        Changes::new(&self.inner).put_delta(key, value, base)
    }

    /// Removes `key`; returns whether it had a value. If it had none, another process may have
    /// removed it without a flush: [`flush_shared`](Self::flush_shared) makes that durable.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`] or [`Error::Io`]. The value then stays. A full log still accepts
    /// removals.
    pub fn remove(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.remove_many(&[key])? > 0)
    }

    /// Removes keys; returns how many had a value. Values stored as deltas from removed ones, and
    /// not removed with them, are rewritten first, which takes one pass over all keys.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`] or [`Error::Io`]. Some of the values then stay. A full log still accepts
    /// removals.
    pub fn remove_many(&self, keys: &[&[u8]]) -> Result<u64, Error> {
        Changes::new(&self.inner).remove_many(keys)
    }

    /// Makes all changes of a batch, or none if one of its conditions does not hold; returns
    /// whether they were made. After a crash or a power cut, all of them are present or none. Of
    /// two batches that change the same keys, one wins for all of these keys. Durable after
    /// [`flush`](Self::flush).
    ///
    /// Conditions are compared with the newest values of all processes. No other batch with
    /// conditions, of any process, can change a value between the comparison and the changes. A
    /// [`put`](Self::put) or [`remove`](Self::remove) can, so change keys that conditions name with
    /// batches only.
    ///
    /// Values are not stored as deltas. All records go into one segment, which may therefore exceed
    /// [`Options::segment_bytes_max`].
    ///
    /// # Errors
    ///
    /// [`Error::KeyTooLong`], [`Error::ValueTooLarge`], [`Error::BatchTooLarge`] above 1 GiB,
    /// [`Error::Full`], [`Error::ReadOnly`], or [`Error::Io`]. The log is unchanged then.
    pub fn write(&self, batch: &WriteBatch) -> Result<bool, Error> {
        Changes::new(&self.inner).write(batch)
    }

    /// Replaces the value of `key` with `new` if the current value is `expected`; returns whether
    /// it did. `None` stands for no value. Atomic among processes, under the conditions of
    /// [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write).
    pub fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool, Error> {
        let batch = WriteBatch::new().expect(key, expected);
        self.write(&match new {
            Some(value) => batch.put(key, value),
            None => batch.remove(key),
        })
    }

    /// Returns the value of `key`. Returns `None` also if its record does not verify: such a record
    /// is counted, reported with a warning and never returned.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Reader::new(&self.inner).get(key)
    }

    /// Like [`get`](Self::get), but gives up instead of waiting for the disk, and for values of 1
    /// MiB or more, which take long to decompress. Only Linux reports whether a read would wait;
    /// elsewhere every hit gives up.
    pub fn get_nowait(&self, key: &[u8]) -> Nowait {
        Reader::new(&self.inner).get_nowait(key)
    }

    /// Returns whether `key` has a value. Does not read the value, so a damaged one counts until a
    /// read detects the damage.
    pub fn contains(&self, key: &[u8]) -> bool {
        Reader::new(&self.inner).contains(key)
    }

    /// Returns the keys that begin with `prefix`, sorted. Takes time linear in the number of all
    /// keys. Reads the rest of the index first. If that fails, logs a warning and returns the keys
    /// that were read, so call [`load_index`](Self::load_index) before to find out.
    pub fn keys_with_prefix(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        if let Err(error) = self.load_index() {
            tracing::warn!(%error, "cannot read the whole index: the list of keys is incomplete");
        }
        self.inner.keys_with_prefix(prefix)
    }

    /// Returns the keys of a range with their values, in order, from either end:
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let log = greenwave_segment::Log::open(dir.path().join("log"), Default::default())?;
    /// for key in ["a", "b", "c"] {
    ///     log.put(key.as_bytes(), b"value")?;
    /// }
    /// for entry in log.range("b"..)? {
    ///     let (key, value) = entry?;
    ///     assert!(key >= b"b".to_vec() && value == "value");
    /// }
    /// let last = log.range::<str>(..)?.next_back().transpose()?;
    /// assert_eq!(last.unwrap().0, b"c");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Holds some thousand keys, or about a 64th of all if that is more, in memory beside the
    /// index, per end. Each time these are used up, and before the first one, passes over the whole
    /// index, during which no put ends: about 8 ms for a million keys. Reads the rest of the index
    /// first, as [`load_index`](Self::load_index).
    ///
    /// # Errors
    ///
    /// [`Error::Io`], if the index cannot be read. Those of [`get`](Self::get) are items of the
    /// iterator, which continues after them.
    pub fn range<K: AsRef<[u8]> + ?Sized>(&self, range: impl RangeBounds<K>) -> Result<Range<'_>, Error> {
        self.load_index()?;
        Ok(Range::new(Keys::new(&self.inner, &range)))
    }

    /// Returns the keys that begin with `prefix` with their values, as [`range`](Self::range).
    ///
    /// # Errors
    ///
    /// Those of [`range`](Self::range).
    pub fn prefix(&self, prefix: &[u8]) -> Result<Range<'_>, Error> {
        self.load_index()?;
        Ok(Range::new(Keys::with_prefix(&self.inner, prefix)))
    }

    /// Reads the part of the index that is not in memory, if the log was opened with
    /// [`LoadIndex::OnDemand`](crate::LoadIndex::OnDemand). From then on the log behaves as with
    /// [`LoadIndex::OnOpen`](crate::LoadIndex::OnOpen), until it is opened again.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn load_index(&self) -> Result<(), Error> {
        Unread::new(&self.inner).load_all()
    }

    /// Returns once everything put and removed before is on the disk. Concurrent callers share one
    /// sync.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. From then on every flush fails, since the state of the disk is unknown:
    /// reopen the log.
    pub fn flush(&self) -> Result<(), Error> {
        Appender::new(&self.inner).flush()
    }

    /// Like [`flush`](Self::flush), and also makes durable what other processes wrote and this log
    /// has read. Call it before removing values that only records of other processes make
    /// superfluous.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. What other processes wrote may then not be durable.
    pub fn flush_shared(&self) -> Result<(), Error> {
        Appender::new(&self.inner).flush_shared()
    }

    /// Reads what other processes wrote and removed since the last call. If nothing changed, costs
    /// a directory listing and one status call for each of their unfinished segments.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::NewerFormat`] if one of them runs a later version.
    pub fn refresh(&self) -> Result<(), Error> {
        Refresher::new(&self.inner).refresh()
    }

    /// Like [`refresh`](Self::refresh), and returns whether there was anything to read. If there
    /// was not, costs as little.
    ///
    /// # Errors
    ///
    /// Those of [`refresh`](Self::refresh).
    pub fn refresh_if_stale(&self) -> Result<bool, Error> {
        Refresher::new(&self.inner).refresh_if_stale()
    }

    /// Returns whether other processes have written and removed nothing since the last
    /// [`refresh`](Self::refresh). Takes one system call on Linux while nothing changes, otherwise
    /// a few microseconds, and does not block; where that is too little to find out (many segments,
    /// or a refresh in progress) it returns `false`.
    pub fn is_up_to_date(&self) -> bool {
        Refresher::new(&self.inner).is_up_to_date()
    }

    /// Returns a number that changes whenever this log reads changes of other processes, in
    /// whichever call. Results read under another number may be stale.
    pub fn revision(&self) -> u64 {
        self.inner.counters.refreshes.get()
    }

    /// Copies the log into the directory `target`, which is created if it is missing, while this
    /// and other processes read and write. The copy is a log by itself, with everything that was
    /// put, or flushed by other processes, before the call. Each write made during the call is in
    /// the copy or not, a batch as a whole. Waits while another process is compacting, and none can
    /// compact meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], also if `target` is not empty, or [`Error::ReadOnly`]. After a failure or an
    /// interruption, remove the directory: parts are missing.
    pub fn backup(&self, target: impl AsRef<Path>) -> Result<BackupStats, Error> {
        backup::backup(&self.inner, target.as_ref())
    }

    /// Rewrites the sealed segments, of any process, of which at least half is dead. Puts, gets and
    /// refreshes continue meanwhile. Does nothing while another process is compacting.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`]. Nothing is lost then: a segment is removed only after
    /// its copies are durable.
    pub fn compact(&self) -> Result<CompactionStats, Error> {
        Compactor::new(&self.inner).compact()
    }

    /// Like [`compact`](Self::compact), but does nothing if that would read the rest of the index
    /// although this log has sealed no segment. Call it at the end of processes that write a
    /// little: one in many of them then pays for all.
    ///
    /// # Errors
    ///
    /// Those of [`compact`](Self::compact).
    pub fn compact_if_due(&self) -> Result<CompactionStats, Error> {
        let has_unread = !self.inner.index.read().unread().is_empty();
        if has_unread && !self.inner.has_sealed.load(Ordering::Relaxed) {
            return Ok(CompactionStats::default());
        }
        self.compact()
    }

    /// Trains a dictionary of at most `bytes_max` bytes (1 KiB to 1 MiB; 64 KiB is a good size) on
    /// the values in the log, and compresses new values of up to 64 KiB with it. Returns `false` if
    /// there are too few values to learn from: fewer than 16, or too different ones.
    ///
    /// Worth it for many small, similar values: source files take 6 to 10 % less space, records of
    /// some hundred bytes half. Reads up to a hundred times `bytes_max`, and takes about a second
    /// for each 10 MB of that. The dictionary is stored in the log and used again when the log is
    /// opened, unless another process is writing the segment that contains it.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the log does not compress or the size is out of range; [`Error::Io`];
    /// [`Error::Full`].
    pub fn train_dictionary(&self, bytes_max: usize) -> Result<bool, Error> {
        Trainer::new(&self.inner).train_dictionary(bytes_max)
    }

    /// Reads every byte of every segment and every value, and reports all damage. Changes nothing.
    /// Other processes may write meanwhile; a write in progress is reported as a torn end.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn check(&self) -> Result<CheckReport, Error> {
        Checker::new(&self.inner).check()
    }

    /// Shows other processes that this one is alive, under a number of its choice that no other
    /// uses, until the returned value is dropped or the process ends. [`is_held`](Self::is_held)
    /// asks for it.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`], or [`Error::Io`]; also if the number is held already.
    pub fn hold(&self, number: u64) -> Result<Hold, Error> {
        Hold::acquire(&self.inner, number)
    }

    /// Returns whether a live process holds this number.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn is_held(&self, number: u64) -> Result<bool, Error> {
        hold::is_held(&self.inner, number)
    }

    /// Returns statistics of the log: its contents, and its activity since it was opened.
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Returns the timestamp of the first record that the last change of this log wrote. It is
    /// earlier than the last one if the record was written again, since a compactor may have missed
    /// it.
    #[cfg(feature = "simulation")]
    pub fn first_timestamp(&self) -> u64 {
        self.inner.writer.lock().first_timestamp
    }

    /// Returns the timestamp of the last record that this log wrote; 0 if it has written none.
    #[cfg(feature = "simulation")]
    pub fn last_timestamp(&self) -> u64 {
        self.inner.writer.lock().timestamp
    }

    fn create(disk: Disk, dir: &Path, options: Options) -> Result<Self, Error> {
        let inner = Inner::new(disk, dir, options, false)?;
        inner.disk.create_dir(&inner.dir).map_err(Error::io("create", &inner.dir))?;
        Self::recovered(inner)
    }

    fn recovered(inner: Inner) -> Result<Self, Error> {
        let recovery = Recovery::new(&inner);
        recovery.check_copy()?;
        recovery.recover()?;
        Reader::new(&inner).load_dictionaries()?;
        if inner.codec.uses_dictionary() && !inner.read_only {
            // The dictionary may be in a segment that its writer has not synced. A flushed value
            // must not depend on it then.
            Appender::new(&inner).flush_shared()?;
        }
        if let Err(error) = Compactor::new(&inner).add_some_key_tables() {
            tracing::warn!(%error, "cannot add key tables: the next open is slow, too");
        }
        Ok(Self { inner })
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}
