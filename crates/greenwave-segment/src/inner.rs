//! The shared parts of an open log, from which its operations borrow.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use crate::access::FileStatus;
use crate::change_watch::ChangeWatch;
use crate::codec::Codec;
use crate::compaction_lock::CompactionLock;
use crate::descriptors::Descriptors;
use crate::disk::{Directory, Disk};
use crate::entry::Location;
use crate::index::Index;
use crate::manifest::{self, Manifest};
use crate::rewrite_lock::RewriteLock;
use crate::segment::Segment;
use crate::shared_clock::SharedClock;
use crate::stats::Counters;
use crate::writer::{SyncProgress, Writer};
use crate::writer_number::WriterNumber;
use crate::{Error, LoadIndex, Options, Stats};

/// The shared parts of an open log.
pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) descriptors: Arc<Descriptors>,
    pub(crate) options: Options,
    pub(crate) read_only: bool,
    /// Writer number of this log, taken before its first write.
    pub(crate) writer_number: OnceLock<WriterNumber>,
    /// Held while taking a writer number.
    pub(crate) becoming_writer: Mutex<()>,
    pub(crate) codec: Codec,
    pub(crate) index: RwLock<Index>,
    pub(crate) writer: Mutex<Writer>,
    /// Held while compacting or dropping segments.
    pub(crate) compacting: Mutex<()>,
    /// Held while comparing the directory with the index.
    pub(crate) refreshing: Mutex<()>,
    /// Status of the directory before the last listing that found no changes. `None` if its
    /// timestamp is racy: too recent to prove that nothing changes later.
    pub(crate) listed: Mutex<Option<FileStatus>>,
    /// Notifications about changes by other processes, from the first question for changes on.
    pub(crate) change_watch: OnceLock<Option<ChangeWatch>>,
    /// Lets one process at a time compact or drop segments.
    pub(crate) compaction_lock: CompactionLock,
    /// Held while writing a delta or a conditional batch, and while announcing the removal of
    /// segments.
    pub(crate) rewrite_lock: RewriteLock,
    pub(crate) shared_clock: SharedClock,
    /// List of segments, with which a copy of the directory is checked.
    pub(crate) manifest: Manifest,
    /// Whether the directory is a copy that does not have its own manifest yet.
    pub(crate) is_copy: AtomicBool,
    pub(crate) synced: Mutex<SyncProgress>,
    /// Whether a sync of the directory has failed; see [`SyncProgress::failed`].
    pub(crate) directory_sync_failed: AtomicBool,
    pub(crate) counters: Counters,
    /// Whether segments are added to the index with all their records, because a caller needs all
    /// keys or the options say so.
    pub(crate) loads_all: AtomicBool,
    /// Held while reading the records of an unread segment.
    pub(crate) loading: Mutex<()>,
    /// Whether this log has sealed a segment.
    pub(crate) has_sealed: AtomicBool,
}

impl Inner {
    pub(crate) fn new(disk: Disk, dir: &Path, options: Options, read_only: bool) -> Result<Self, Error> {
        let options = options.checked()?;
        let dir = std::path::absolute(dir).map_err(Error::io("resolve", dir))?;
        let descriptors = Descriptors::new(options.open_files_max);
        let loads_all = AtomicBool::new(options.load_index == LoadIndex::OnOpen);
        Ok(Self {
            codec: Codec::new(options.compression),
            compaction_lock: CompactionLock::new(&disk, &descriptors, &dir),
            rewrite_lock: RewriteLock::new(&disk, &descriptors, &dir),
            shared_clock: SharedClock::new(&disk, &descriptors, &dir),
            manifest: Manifest::new(&disk, &descriptors, &dir),
            is_copy: AtomicBool::new(false),
            descriptors,
            index: RwLock::new(Index::new(disk.random())),
            writer_number: OnceLock::new(),
            becoming_writer: Mutex::default(),
            dir,
            disk,
            options,
            read_only,
            writer: Mutex::default(),
            compacting: Mutex::default(),
            refreshing: Mutex::default(),
            listed: Mutex::default(),
            change_watch: OnceLock::new(),
            synced: Mutex::default(),
            directory_sync_failed: AtomicBool::new(false),
            counters: Counters::default(),
            loads_all,
            loading: Mutex::default(),
            has_sealed: AtomicBool::new(false),
        })
    }

    /// Returns the keys that begin with `prefix`, sorted. Takes time linear in the number of all
    /// keys.
    pub(crate) fn keys_with_prefix(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let index = self.index.read();
        let keys = index.live_keys().filter(|key| key.starts_with(prefix));
        let mut keys: Vec<_> = keys.map(<[u8]>::to_vec).collect();
        drop(index);
        keys.sort_unstable();
        keys
    }

    pub(crate) fn is_current(&self, key: &[u8], location: Location) -> bool {
        self.index.read().get(key).is_some_and(|entry| entry.location() == location)
    }

    /// Removes an entry from the index, unless the key has changed.
    pub(crate) fn forget_at(&self, key: &[u8], location: Location) {
        let mut index = self.index.write();
        if index.get(key).is_some_and(|entry| entry.location() == location) {
            index.forget(key);
        }
    }

    /// Counts and logs a record that does not verify.
    pub(crate) fn report_bad(&self, segment: &Segment, offset: u64, reason: &str) {
        self.counters.bad_records.add(1);
        tracing::warn!(path = %segment.path.display(), offset, reason, "a record does not verify and is treated as missing");
    }

    /// Makes creations and removals of files durable.
    pub(crate) fn sync_dir(&self) -> Result<(), Error> {
        self.sync_directory(&self.open_directory()?)
    }

    /// Like [`sync_dir`](Self::sync_dir), for the open directory. Fails once a sync has failed.
    pub(crate) fn sync_directory(&self, directory: &Directory) -> Result<(), Error> {
        let synced = if self.directory_sync_failed.load(Ordering::Relaxed) {
            Err(std::io::Error::other("an earlier sync failed"))
        } else {
            directory.sync().inspect_err(|_| self.directory_sync_failed.store(true, Ordering::Relaxed))
        };
        synced.map_err(Error::io("sync", &self.dir))
    }

    /// Opens the log's directory to sync it.
    pub(crate) fn open_directory(&self) -> Result<Directory, Error> {
        self.descriptors.open_directory(&self.disk, &self.dir).map_err(Error::io("open", &self.dir))
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

    /// Returns statistics of the log.
    pub(crate) fn stats(&self) -> Stats {
        let index = self.index.read();
        let counters = &self.counters;
        let unread = index.unread_totals();
        Stats {
            entries: index.totals.entries + unread.values,
            tombstones: index.totals.tombstones + unread.tombstones,
            unread_segments: index.unread().len() as u64,
            deltas: index.totals.deltas,
            segments: index.slots().count() as u64,
            disk_bytes: index.disk_bytes(),
            index_bytes: index.slots().map(|(_, slot)| slot.index_len).sum(),
            live_bytes: index.slots().map(|(_, slot)| slot.live_bytes).sum(),
            stored_bytes: index.totals.stored_bytes + unread.stored_bytes,
            raw_bytes: index.totals.raw_bytes + unread.raw_bytes,
            written_bytes: counters.written_bytes.get(),
            copied_records: counters.copied_records.get(),
            rebased_records: counters.rebased_records.get(),
            dropped_entries: counters.dropped_entries.get(),
            bad_records: counters.bad_records.get(),
            torn_bytes: counters.torn_bytes.get(),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.writer.get_mut().in_use {
            self.manifest.record(&[(manifest::USAGE, manifest::CLOSED)]);
        }
    }
}
